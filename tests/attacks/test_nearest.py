"""The search for the nearest disagreement: exact where that is known, an actual witness everywhere."""

import pytest
import torch
from torch import nn

from fkd.attacks import nearest as module
from fkd.attacks.nearest import nearest_disagreements, pulled
from fkd.core.ball import Ball
from fkd.core.errors import Cancelled
from fkd.core.precision import double_copy, logits_of
from fkd.data import load_split
from fkd.models import load_model


def _line(weights, biases):
    """A linear network of two pixels: logits (x, y) -> W (x, y) + b."""
    layer = nn.Linear(2, len(weights))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
        layer.bias.copy_(torch.tensor(biases))
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


def _around(images, epsilon, norm, scale=None):
    ids = torch.arange(len(images))
    return Ball(epsilon=epsilon, norm=norm, channel_scale=scale).region(images, ids)


CENTRES = torch.tensor([[0.3, 0.3], [0.2, 0.4], [0.05, 0.5]]).view(3, 1, 1, 2)


@pytest.mark.parametrize(("norm", "length"), [("linf", 2.0), ("l2", 2**0.5)])
@pytest.mark.parametrize("is_swapped", [False, True])
def test_it_meets_the_closed_form_of_linear_networks(norm, length, is_swapped):
    # One network leaves class 0 where x + y > 1, the other where x + y > 1.5: the first counts.
    first, second = (
        _line([[0.0, 0.0], [1.0, 1.0], [-9.0, -9.0]], [0.0, -edge, 0.0]) for edge in (1.0, 1.5)
    )
    pair = (second, first) if is_swapped else (first, second)
    region = _around(CENTRES, 0.6, norm)
    found = nearest_disagreements(*pair, region, seed=0, starts=3)
    truth = (1.0 - CENTRES.sum((1, 2, 3))).double() / length
    assert (found.distance >= truth - 1e-6).all()
    assert torch.allclose(found.distance, truth, rtol=2e-3)
    assert (
        logits_of(pair[0], found.points).argmax(1) != logits_of(pair[1], found.points).argmax(1)
    ).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_sliver_between_two_boundaries_is_found(norm):
    # Boundaries 1e-4 apart: a step lands beyond both, and only the way back crosses the sliver.
    pair = [_line([[0.0, 0.0], [1.0, 1.0]], [0.0, -edge]) for edge in (1.0, 1.0001)]
    found = nearest_disagreements(*pair, _around(CENTRES, 0.9, norm), seed=0, starts=1)
    sums = found.points.double().sum((1, 2, 3))
    assert ((sums > 1.0 - 1e-6) & (sums <= 1.0001 + 1e-6)).all()
    # Equal networks have none.
    equal = nearest_disagreements(pair[0], pair[0], _around(CENTRES, 0.9, norm), seed=0)
    assert equal.distance.isinf().all() and torch.equal(equal.points, CENTRES)


def test_each_class_is_aimed_at():
    # Class 1's boundary is nearer at the image, but [0, 1] cuts it off: only class 2 can be reached.
    pair = [
        _line([[0.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], [0.0, -0.05, -edge]) for edge in (0.7, 0.8)
    ]
    image = torch.tensor([[0.02, 0.5]]).view(1, 1, 1, 2)
    found = nearest_disagreements(*pair, _around(image, 0.9, "linf"), seed=0, starts=4)
    assert float(found.distance) == pytest.approx(0.2, rel=5e-3)


def test_a_channel_counts_in_its_own_unit():
    pair = [_line([[0.0, 0.0], [1.0, 0.0]], [0.0, -edge]) for edge in (0.5, 0.9)]
    image = torch.tensor([0.3, 0.3]).view(1, 2, 1, 1)
    found = nearest_disagreements(*pair, _around(image, 0.9, "linf", (0.5, 1.0)), seed=0, starts=2)
    assert float(found.distance) == pytest.approx(0.4, rel=2e-3)


def _digits(norm, count=12):
    split = load_split("digits", "test")
    ids = torch.arange(count)
    networks = [load_model(f"digits-{name}-pgd").network for name in ("teacher", "kd-of")]
    return networks, Ball(epsilon={"linf": 0.3, "l2": 2.0}[norm], norm=norm).region(
        split.take(ids)[0], ids
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_result_depends_on_its_seed_and_not_on_its_batch(norm, monkeypatch):
    networks, region = _digits(norm)
    every = nearest_disagreements(*networks, region, seed=0, starts=2)
    assert torch.equal(
        every.points, nearest_disagreements(*networks, region, seed=0, starts=2).points
    )
    monkeypatch.setattr(module, "_ROWS", 11)
    parts = nearest_disagreements(*networks, region, seed=0, starts=2)
    assert torch.allclose(every.distance, parts.distance, rtol=1e-3)
    other = nearest_disagreements(*networks, region, seed=1, starts=3)
    assert not torch.equal(other.points, every.points)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_walks_find_no_less_and_every_point_is_a_witness(norm):
    networks, region = _digits(norm)
    few = nearest_disagreements(*networks, region, seed=0, starts=1)
    many = nearest_disagreements(*networks, region, seed=0, starts=5)
    assert many.gradient_evaluations > few.gradient_evaluations
    # A walk never goes beyond what the ones before it reached.
    assert (many.distance <= few.distance * (1 + 1e-4)).all()
    assert many.distance.mean() < few.distance.mean()
    teacher, student = (logits_of(double_copy(n), many.points).argmax(1) for n in networks)
    assert torch.equal(teacher != student, many.distance.isfinite())
    assert torch.equal(region.distance(many.points), many.distance)
    assert (many.distance <= region.radius).all()


def test_points_that_are_drawn_back_never_get_further():
    networks, region = _digits("l2")
    doubles = [double_copy(network) for network in networks]
    classes = logits_of(doubles[0], region.images).argmax(1)
    found = nearest_disagreements(*networks, region, seed=0, starts=1)
    _, distance = pulled(doubles, region, classes, found.points)
    agree = found.distance > 0
    assert (distance[agree] <= found.distance[agree]).all()
    nothing, none = pulled(doubles, region, classes, region.images)
    assert none[agree].isinf().all() and torch.equal(nothing, region.images)


def test_it_stops_when_asked():
    networks, region = _digits("linf", count=2)
    with pytest.raises(Cancelled, match="nearest"):
        nearest_disagreements(*networks, region, seed=0, progress=lambda p: p.done > 0)
