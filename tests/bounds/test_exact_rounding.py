"""Proofs against rounding: margins that touch zero, or go above it by less than float64 can see.

Linear networks with huge weights that nearly cancel: the largest margin on the box is known exactly in
rational numbers, and float64 sums miss it by more than it is away from zero.
"""

from fractions import Fraction

import pytest
import torch
from torch import nn

from fkd.bounds._pair import Pair
from fkd.bounds.engine.propagate import Propagator
from fkd.core.ball import Ball
from tests.support.tiny_pairs import certify, registered

_COUNT = 16


def _largest_margin(weight, bias, lower, upper):
    """Exact ``max z_1 - z_0`` on the box."""
    total = Fraction(float(bias[1])) - Fraction(float(bias[0]))
    for k in range(weight.shape[1]):
        slope = Fraction(float(weight[1, k])) - Fraction(float(weight[0, k]))
        total += slope * Fraction(float(upper[k] if slope > 0 else lower[k]))
    return total


def _touching(seed, offset=0.0):
    """A dense layer of two classes and a box on which the other class just wins at a corner, or draws."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 1, 1, 24, generator=generator)
    region = Ball(epsilon=0.125).region(image, torch.arange(1))
    lower, upper = (limit.flatten() for limit in region.double_limits())
    layer = nn.Linear(24, 2, dtype=torch.float64).requires_grad_(False)
    # The classes' rows are large and alike: their difference loses what they share.
    base = 1e7 * torch.randn(24, generator=generator, dtype=torch.float64)
    layer.weight.copy_(base + torch.randn(2, 24, generator=generator, dtype=torch.float64))
    layer.bias.fill_(offset)
    layer.bias[0] += float(_largest_margin(layer.weight, layer.bias, lower, upper))
    # The nearest float64 may be above: the class would be robust in truth.
    while _largest_margin(layer.weight, layer.bias, lower, upper) < 0:
        layer.bias[0] = torch.nextafter(layer.bias[0], torch.tensor(-torch.inf).double())
    return layer, region


def _networks(seed):
    """The layer alone, and with ReLUs that are always on behind it; each with its box."""
    layer, region = _touching(seed)
    yield nn.Sequential(nn.Flatten(), layer).eval(), region
    offset = 2.0**30
    layer, region = _touching(seed, offset)
    last = nn.Linear(2, 2, dtype=torch.float64).requires_grad_(False)
    last.weight.copy_(torch.eye(2))
    last.bias.fill_(-offset)
    yield nn.Sequential(nn.Flatten(), layer, nn.ReLU(), last).eval(), region


def _claims(name):
    """How often a network is called robust although the other class is as high at a corner."""
    claims = 0
    labels = torch.zeros(1, dtype=torch.long)
    for seed in range(_COUNT):
        for network, region in _networks(seed):
            # Splits are not what is asked about.
            settings = {"domains": 0} if name == "tight" else {}
            result = certify(name, network, network, region, labels, **settings)
            claims += int(result.teacher_robust.sum()) + int(result.student_robust.sum())
    return claims


@pytest.mark.parametrize("name", registered(("fast", "tight")))
def test_a_class_that_only_rounding_keeps_is_not_called_robust(name):
    assert _claims(name) == 0


def test_without_the_slack_rounding_decides(monkeypatch):
    """The test above is able to fail."""
    monkeypatch.setattr(Propagator, "slack", 0.0)
    assert _claims("fast") > 0


def test_margins_hold_the_exact_value():
    labels = torch.zeros(1, dtype=torch.long)
    for seed in range(_COUNT):
        for network, region in _networks(seed):
            layer = network[1]
            lower, upper = (limit.flatten() for limit in region.double_limits())
            top = _largest_margin(layer.weight, layer.bias, lower, upper)
            bottom = -_largest_margin(-layer.weight, -layer.bias, lower, upper)
            pair = Pair(network, network, region.images)
            passes = pair.passes(pair.hidden(region), pair.logits(region.images), labels)
            for sides in passes:
                low, high = (float(end) for end in sides[0].margins)
                assert Fraction(high) >= top and Fraction(low) <= bottom
