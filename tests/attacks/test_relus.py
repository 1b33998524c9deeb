"""Softened and relaxed derivatives of ReLU: values stay the network's own."""

import pytest
import torch
from torch import nn

from fkd.attacks._relus import Ranges, observe, relaxed, softened


class _Forms(nn.Module):
    """Every way of calling ReLU, in place ones among them."""

    def forward(self, points):
        values = points.flatten(1)
        out = torch.relu(values - 0.1) + nn.functional.relu(values - 0.2)
        out = out + nn.ReLU(inplace=True)(values * 1.0 - 0.3) + (values - 0.4).relu()
        kept = values * 2.0 - 0.5
        rectified = kept.relu_()
        # What was rectified in place is what the name says from now on.
        return out + rectified + kept + nn.functional.relu(input=values - 0.6, inplace=False)


def _network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def _seen(network, count=5, each=7):
    torch.manual_seed(1)
    points, ranges = torch.rand(count, each, 1, 2, 2), Ranges([], [])
    return points, ranges, observe(network, points, ranges)


@pytest.mark.parametrize("network", [_network(), _Forms()])
def test_values_are_the_networks_own(network):
    points, ranges, logits = _seen(network)
    torch.testing.assert_close(logits.flatten(0, 1), network(points.flatten(0, 1)))
    every = torch.arange(5).repeat_interleave(7)
    flat = points.flatten(0, 1)
    for ours in (
        softened(network, flat, ranges[every], 0.3),
        relaxed(network, flat, ranges[every], 2.0),
    ):
        torch.testing.assert_close(ours, logits.flatten(0, 1))


def test_ranges_are_the_least_and_the_largest_input_in_each_ball():
    network = _network()
    points, ranges, _ = _seen(network)
    hidden = network[:2](points.flatten(0, 1)).unflatten(0, (5, 7))
    assert len(ranges.low) == 1
    torch.testing.assert_close(ranges.low[0], hidden.amin(1))
    torch.testing.assert_close(ranges.high[0], hidden.amax(1))
    observe(network, points[:, :1] + 10, ranges)
    assert (ranges.high[0] >= hidden.amax(1)).all()
    assert (ranges.high[0] > hidden.amax(1)).any()


def test_derivatives_are_softened_over_a_share_of_the_width():
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU()).eval()
    nn.init.constant_(network[1].weight, 2.0)
    nn.init.constant_(network[1].bias, -1.0)
    ranges = Ranges([], [])
    observe(network, torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1), ranges)
    for at, softness in ((0.5, 0.1), (0.6, 0.1), (0.2, 0.5)):
        point = torch.full((1, 1, 1, 1), at, requires_grad=True)
        (slope,) = torch.autograd.grad(softened(network, point, ranges, softness).sum(), point)
        # The unit's input is 2 at - 1, the width seen 2.
        expected = 2 * torch.sigmoid(torch.tensor((2 * at - 1) / (softness * 2)))
        assert slope.item() == pytest.approx(expected.item(), abs=1e-6)
    # CROWN's slopes for inputs between -1 and 1: 1/2 where more is wanted, 0 or 1 where less is.
    for sign, slope_at in ((1, 0.5), (-1, 0.0)):
        point = torch.full((1, 1, 1, 1), 0.4, requires_grad=True)
        wanted = sign * relaxed(network, point, ranges, 1.0).sum()
        (slope,) = torch.autograd.grad(wanted, point)
        assert slope.item() == pytest.approx(sign * 2 * slope_at, abs=1e-6)


def test_what_was_never_seen_keeps_its_gradient():
    network, points = _network(), torch.rand(3, 1, 2, 2)
    other = Ranges([torch.zeros(3, 99)], [torch.ones(3, 99)])
    for ranges in (Ranges([], []), other):
        slopes = []
        for run in (network, lambda at: softened(network, at, ranges, 0.3)):  # noqa: B023
            at = points.clone().requires_grad_(True)
            slopes.append(torch.autograd.grad(run(at)[:, 0].sum(), at)[0])
        torch.testing.assert_close(*slopes)


def test_softness_goes_through_calls_in_place():
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)
    ).eval()
    twin = nn.Sequential(network[0], network[1], nn.ReLU(), network[3]).eval()
    points, ranges, _ = _seen(twin)
    slopes = []
    for each in (network, twin):
        at = points[:, 0].clone().requires_grad_(True)
        slopes.append(torch.autograd.grad(softened(each, at, ranges, 0.3)[:, 0].sum(), at)[0])
    torch.testing.assert_close(*slopes)
