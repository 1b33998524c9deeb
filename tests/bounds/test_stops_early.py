"""Tight and exact stop an example once nothing is open, and a cancelled chunk keeps what each has."""

from dataclasses import replace

import pytest
import torch

from fkd.bounds import _branching, _optimised, certificate_config, make_certificate
from fkd.core.ball import Region
from fkd.core.errors import Cancelled
from tests.support.tiny_pairs import TinyPair, build_case, certify

PAIR = TinyPair(3, (6, 5), (5,), 3, 3.0, "independent", False, (1e-6, 0.3, 0.2), 114)


def _case(epsilons=PAIR.epsilons):
    """A tiny pair around one image; at the first of the usual radii a set is a point in effect."""
    case = build_case(PAIR)
    region = case.region
    images = region.images[1:2].expand(3, -1, -1, -1)
    return case, Region.around(images, torch.tensor(epsilons).double(), torch.arange(3))


def test_what_fast_settles_is_not_searched(monkeypatch):
    case, region = _case()
    classes = case.teacher(region.images).argmax(1)
    fast = certify("fast", case.teacher, case.student, region, classes)
    sizes = []
    made = _optimised.Optimised.__init__

    def watched(self, foundation, **settings):
        sizes.append(len(foundation.classes))
        made(self, foundation, **settings)

    monkeypatch.setattr(_optimised.Optimised, "__init__", watched)
    tight = certify("tight", case.teacher, case.student, region, classes)
    # Two chunks of two and one sets; the first of the three is never optimised.
    assert sum(sizes) == 2
    assert tight.gap_upper[0] == fast.gap_upper[0]
    assert tight.gap_lower[0] == fast.gap_lower[0]
    assert (tight.gap[1:] < fast.gap[1:]).all()
    # A set that needs no search has its image as a witness.
    assert torch.equal(tight.points[0, 0], region.images[0])


def test_a_set_that_does_not_move_is_searched_half_as_long(monkeypatch):
    # Agreement is known there already; where it is not, margins are searched to the end.
    case, region = _case((0.04, 0.03, 0.02))
    classes = case.teacher(region.images).argmax(1)
    assert bool(certify("fast", case.teacher, case.student, region, classes).agrees.all())
    searched = []
    improve = _optimised.GapSearch.improve

    def watched(self, domains, known, free, **settings):
        searched.append(len(known.margins))
        return improve(self, domains, known, free, **settings)

    monkeypatch.setattr(_optimised.GapSearch, "improve", watched)
    monkeypatch.setattr(_optimised, "_STALLED", 2.0)
    certify("tight", case.teacher, case.student, region, classes, domains=0)
    stalled = sum(searched)
    searched.clear()
    monkeypatch.setattr(_optimised, "_STALLED", -2.0)
    certify("tight", case.teacher, case.student, region, classes, domains=0)
    assert 0 < stalled < sum(searched)


def test_a_cancelled_chunk_keeps_every_answer_at_its_place(monkeypatch):
    case, region = _case()
    # The settled set lies between two that are searched.
    order = torch.tensor([1, 0, 2])
    region = replace(region[order], example_ids=torch.arange(3))
    classes = case.teacher(region.images).argmax(1)
    fast = certify("fast", case.teacher, case.student, region, classes)
    run = _branching.Branching.run
    places = []

    def waiting_at_the_second(self):
        places.append(self.place)
        if len(places) < 2:
            return run(self)
        while True:
            # Until the report before has been answered with a stop.
            self.task.tell(self.place)

    def progress(*_):
        return len(places) == 2

    monkeypatch.setattr(_branching.Branching, "run", waiting_at_the_second)
    config = certificate_config({"name": "tight", "domains": 24})
    certificate = make_certificate(config)
    monkeypatch.setattr(type(certificate), "at_once", 3)
    with pytest.raises(Cancelled) as stop:
        certificate.bound(case.teacher, case.student, region, classes, progress=progress)
    partial = stop.value.partial
    assert places == [0, 2]
    assert len(partial.gap_upper) == 3
    assert (partial.gap <= fast.gap + 1e-12).all()
    assert partial.gap[0] < fast.gap[0]
    assert partial.gap_upper[1] == fast.gap_upper[1]
    assert partial.gap_lower[1] == fast.gap_lower[1]


def test_time_only_adds_to_what_a_number_of_domains_proves():
    case, region = _case()
    classes = case.teacher(region.images).argmax(1)
    tight = certify("tight", case.teacher, case.student, region, classes)
    for seconds in (1e-9, 0.05, 0.3):
        # Whenever the clock stops it.
        exact = certify(
            "exact",
            case.teacher,
            case.student,
            region,
            classes,
            seconds=seconds,
            domains=24,
            tolerance=0.001,
        )
        assert (exact.gap_upper <= tight.gap_upper).all()
        assert (exact.gap_lower >= tight.gap_lower).all()
        assert (exact.agrees | ~tight.agrees).all()
        assert (_seen(case, exact, classes) >= _seen(case, tight, classes)).all()


def _seen(case, result, classes):
    """The largest gap at each set's points, (N,)."""
    confidences = [
        torch.softmax(network(result.points.flatten(0, 1)), 1)
        .unflatten(0, result.points.shape[:2])
        .gather(2, classes[:, None, None].expand(-1, 2, 1))[..., 0]
        for network in (case.teacher, case.student)
    ]
    return (confidences[0] - confidences[1]).abs().amax(1)
