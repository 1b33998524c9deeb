"""What must hold of every certificate whatever its method: symmetries, and the order of levels."""

import copy
import itertools
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, seed, settings

from fkd.attacks.objectives import confidence
from fkd.bounds import CertificateResult
from fkd.core.ball import Ball, Region
from fkd.data import load_split
from fkd.models import load_model
from tests.support.networks import make_images, make_linear
from tests.support.tiny_pairs import (
    CERTIFICATES_UNDER_TEST,
    LEVELS,
    QUICK,
    SETTINGS,
    TinyPair,
    build_case,
    certify,
    gap_truth,
    map_case,
    registered,
    samples,
    tiny_pairs,
)
from tests.support.zonogon import gap_on_polygon, zonogon

pytestmark = pytest.mark.slow

every_certificate = pytest.mark.parametrize("name", CERTIFICATES_UNDER_TEST)

#: How far two runs that are the same in exact arithmetic may be apart: a search by gradients takes
#: other steps once sums are rounded differently.
_SAME = {"crown": 1e-7, "crown_ibp": 1e-7, "fast": 1e-7}
#: What two different searches for the same bracket may be apart where neither was finished.
_SEARCHES_APART = 0.1


def _few(count):
    def decorate(test):
        test = given(tiny_pairs(inputs=(2, 3)))(test)
        return seed(3)(settings(QUICK, max_examples=count)(test))

    return decorate


def _same(result, other, name, slack=0.0):
    """Two results about the same sets; ``other`` is mirrored back by the caller."""
    if name in _SAME:
        for end in ("gap_upper", "gap_lower"):
            one, two = getattr(result, end), getattr(other, end)
            torch.testing.assert_close(one, two, atol=_SAME[name] + slack, rtol=0)
        assert torch.equal(result.agrees, other.agrees)
        return
    # Branch and bound: rounding decides which of two equal domains goes first.  What is proved by one
    # search must not contradict what the other has seen or proved, and neither may be far behind.
    for one, two in ((result, other), (other, result)):
        assert (one.gap_upper >= two.gap_lower - slack - 1e-9).all()
        assert not (one.agrees & _is_disagreement_seen(two)).any()
    assert ((result.gap - other.gap).abs() <= _SEARCHES_APART).all()


def _is_disagreement_seen(result):
    """Whether branch and bound came back with a second point: where the predictions differ."""
    return (result.points[:, 0] != result.points[:, 1]).flatten(1).any(1)


def _row(result, row):
    parts = {field.name: getattr(result, field.name) for field in fields(result)}
    return CertificateResult(
        **{name: None if part is None else part[row : row + 1] for name, part in parts.items()}
    )


def _mirrored(result):
    """Of the networks in the other order."""
    return replace(
        result,
        gap_upper=-result.gap_lower,
        gap_lower=-result.gap_upper,
        teacher_robust=result.student_robust,
        student_robust=result.teacher_robust,
    )


def _last_layer(network):
    return [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]


@every_certificate
@_few(4)
def test_a_ball_of_radius_zero_gives_the_clean_gap(name, pair):
    case = build_case(pair)
    images = case.region.images
    region = Ball(epsilon=0.0).region(images, torch.arange(len(images)))
    result = certify(name, case.teacher, case.student, region, case.labels)
    flat = images.flatten(1).double()
    logits = case.dense_teacher.logits(flat), case.dense_student.logits(flat)
    clean = confidence(logits[0], case.labels) - confidence(logits[1], case.labels)
    torch.testing.assert_close(result.gap_upper, clean, atol=1e-6, rtol=0)
    torch.testing.assert_close(result.gap_lower, clean, atol=1e-6, rtol=0)
    assert torch.equal(result.agrees, logits[0].argmax(1) == logits[1].argmax(1))
    assert result.teacher_robust.all()


@every_certificate
@_few(4)
def test_a_constant_added_to_all_logits_changes_nothing(name, pair):
    case = build_case(pair)
    before = certify(name, case.teacher, case.student, case.region, case.labels)
    teacher, student = copy.deepcopy(case.teacher), copy.deepcopy(case.student)
    with torch.no_grad():
        _last_layer(teacher).bias.add_(4.0)
        _last_layer(student).bias.sub_(1.5)
    after = certify(name, teacher, student, case.region, case.labels)
    # float32 biases: adding 4 rounds them to 2e-7.
    _same(before, after, name, slack=1e-5)


@every_certificate
@_few(4)
def test_permuted_classes_change_nothing(name, pair):
    case = build_case(pair)
    before = certify(name, case.teacher, case.student, case.region, case.labels)
    order = torch.arange(pair.classes).roll(1)
    networks = [copy.deepcopy(network) for network in (case.teacher, case.student)]
    with torch.no_grad():
        for network in networks:
            last = _last_layer(network)
            last.weight.copy_(last.weight[order].clone())
            last.bias.copy_(last.bias[order].clone())
    after = certify(name, *networks, case.region, order.argsort()[case.labels])
    _same(before, after, name)
    for flag in ("teacher_robust", "student_robust"):
        assert torch.equal(getattr(before, flag), getattr(after, flag)), flag


@every_certificate
@_few(4)
def test_swapped_networks_mirror_the_interval(name, pair):
    case = build_case(pair)
    forth = certify(name, case.teacher, case.student, case.region, case.labels)
    back = certify(name, case.student, case.teacher, case.region, case.labels)
    _same(forth, _mirrored(back), name)


@every_certificate
@_few(4)
def test_an_example_does_not_depend_on_its_batch(name, pair):
    case = build_case(pair)
    # auto_LiRPA tightens a unit in all examples where it is open in one, and keeps intervals elsewhere.
    slack = 1e-2 if name.startswith("crown") else 0.0
    whole = certify(name, case.teacher, case.student, case.region, case.labels)
    for row in range(len(case.region)):
        alone = certify(
            name,
            case.teacher,
            case.student,
            case.region[row : row + 1],
            case.labels[row : row + 1],
        )
        _same(alone, _row(whole, row), name, slack=slack)


@every_certificate
@_few(4)
def test_a_network_and_itself_never_disagree_and_zero_is_within(name, pair):
    case = build_case(pair)
    result = certify(name, case.teacher, case.teacher, case.region, case.labels)
    assert (result.gap_upper >= 0).all() and (result.gap_lower <= 0).all()
    # What is robust agrees with itself.
    assert not (result.teacher_robust & ~result.agrees).any()


@every_certificate
def test_linear_networks_with_two_classes_meet_their_zonogon(name):
    labels = torch.zeros(3, dtype=torch.long)
    images = make_images(3, (1, 1, 3), seed=5)
    region = Ball(epsilon=0.2).region(images, torch.arange(3))
    lower, upper = (limit.flatten(1) for limit in region.double_limits())
    for number in range(4):
        networks = [make_linear((1, 1, 3), 2, seed=2 * number + k) for k in (0, 1)]
        result = certify(name, *networks, region, labels)
        layers = [network[1] for network in networks]
        slopes = torch.stack([layer.weight.double().diff(dim=0)[0] for layer in layers]).neg()
        constant = torch.stack([layer.bias.double().diff()[0] for layer in layers]).neg()
        for row in range(3):
            polygon = zonogon(slopes, lower[row], upper[row], constant)
            for bound, corners in (
                (result.gap_upper[row], polygon),
                (-result.gap_lower[row], polygon.flip(1)),
            ):
                low, high = gap_on_polygon(corners)
                # Two support lines and the ranges leave a little of the polygon's outside.
                assert low - 1e-9 <= bound <= high + 0.02


def _check_order(results):
    """No level is looser than those below it.

    Exact stops as soon as the bracket of |gap| is narrow: by its tolerance it may then be looser than
    tight, never than what it starts from.
    """
    fast, *others = results
    for above in others:
        assert (above.gap_upper <= fast.gap_upper + 1e-6).all()
        assert (above.gap_lower >= fast.gap_lower - 1e-6).all()
    for below, above in itertools.pairwise(results):
        slack = SETTINGS["exact"]["tolerance"] if above is results[-1] else 1e-6
        assert (above.gap <= below.gap + slack).all()
        for flag in ("agrees", "teacher_robust", "student_robust"):
            assert not (getattr(below, flag) & ~getattr(above, flag)).any(), flag


_levels = registered(LEVELS)


@pytest.mark.skipif(len(_levels) < 2, reason="one level only")
@_few(8)
def test_no_level_is_looser_than_the_one_below(pair):
    case = build_case(pair)
    results = [
        certify(name, case.teacher, case.student, case.region, case.labels) for name in _levels
    ]
    _check_order(results)


@pytest.mark.skipif(len(_levels) < 2, reason="one level only")
def test_no_level_is_looser_than_the_one_below_on_maps():
    for number in range(4):
        case = map_case(number)
        results = [
            certify(name, case.teacher, case.student, case.region, case.labels) for name in _levels
        ]
        _check_order(results)


@pytest.mark.skipif(len(_levels) < 2, reason="one level only")
@pytest.mark.parametrize("student", ["digits-rslad-of-pgd", "digits-kd-of-ibp"])
def test_no_level_is_looser_than_the_one_below_on_a_shipped_pair(student):
    teacher = f"digits-teacher-{student.rsplit('-', 1)[1]}"
    networks = [load_model(name).network for name in (teacher, student)]
    split = load_split("digits", "test")
    radius = torch.tensor([0.02, 0.05, 0.1], dtype=torch.float64)
    region = Region.around(split.images[:3], radius, torch.arange(3))
    results = [certify(name, *networks, region, split.labels[:3]) for name in _levels]
    _check_order(results)


@pytest.mark.skipif("fast" not in CERTIFICATES_UNDER_TEST, reason="no level 'fast' yet")
@_few(12)
def test_fast_says_something_on_small_balls(pair):
    """A bound of 1 would pass every other test: on the small ball the distance to the truth is small."""
    case = build_case(pair)
    region = Ball(epsilon=0.01).region(case.region.images[:1], torch.arange(1))
    result = certify("fast", case.teacher, case.student, region, case.labels[:1])
    if pair.epsilons[0] == 0.01:
        above, below = gap_truth(pair, 0)
        assert result.gap_upper[0] - above.high < 0.05
        assert -result.gap_lower[0] - below.high < 0.05


@pytest.mark.parametrize("scale", [1e2, 1e12])
@every_certificate
def test_numbers_too_large_to_search_with_prove_nothing_wrong(name, scale):
    for number in (0, 2):
        pair = TinyPair(2, (4, 4), (4, 4), 3, scale, "independent", False, (0.2, 0.2, 0.2), number)
        case = build_case(pair)
        result = certify(name, case.teacher, case.student, case.region, case.labels)
        for row in range(3):
            points = samples(*case.box(row), 1000, seed=row)
            logits = case.dense_teacher.logits(points), case.dense_student.logits(points)
            each = case.labels[row].expand(len(points))
            gap = confidence(logits[0], each) - confidence(logits[1], each)
            assert gap.max() <= result.gap_upper[row] + 1e-9
            assert gap.min() >= result.gap_lower[row] - 1e-9
            assert not (result.agrees[row] and (logits[0].argmax(1) != logits[1].argmax(1)).any())
