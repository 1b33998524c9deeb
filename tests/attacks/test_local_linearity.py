"""The local linearity measure against networks whose true value is known, and dense sampling."""

import pytest
import torch
from torch import nn

from fkd.attacks.single import local_linearity
from fkd.core.ball import Ball
from fkd.core.errors import ConfigError
from fkd.models import build


class TwoClasses(nn.Module):
    """Logits 0 and z = sum of w x + a (x - 1/2)^2 over pixels: the loss of class 0 is softplus(z)."""

    def __init__(self, weight, curvature=0.0, offset=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.curvature, self.offset = curvature, offset

    def forward(self, images):
        x = images.flatten(1)
        z = x @ self.weight.to(x) + self.curvature * (x - 0.5).square().sum(1) + self.offset
        return torch.stack([torch.zeros_like(z), z], 1)


def softplus(z):
    return nn.functional.softplus(torch.as_tensor(z, dtype=torch.float64))


def test_a_convex_loss_is_furthest_from_linear_at_a_corner():
    # l = softplus(z) with z = w x: the deviation depends on z alone, is convex, 0 at x.
    w = [2.0, -3.0]
    x = torch.tensor([[0.5, 0.4], [0.05, 0.98]])
    found = local_linearity(
        TwoClasses(w), x.reshape(2, 1, 1, 2), torch.tensor([0, 0]), Ball(epsilon=0.1)
    )
    expected = []
    for row in x.double():
        low, high = (row - 0.1).clamp(0, 1), (row + 0.1).clamp(0, 1)
        z = 2 * row[0] - 3 * row[1]
        ends = (2 * low[0] - 3 * high[1], 2 * high[0] - 3 * low[1])
        slope = torch.sigmoid(z)
        expected.append(max(softplus(e) - softplus(z) - slope * (e - z) for e in ends).item())
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    assert found.dtype == torch.float64


def test_where_the_loss_is_linear_or_quadratic_the_value_is_known():
    x = torch.full((1, 1, 2, 2), 0.5)
    label = torch.tensor([0])
    # At z = 30 softplus is z itself up to 1e-13.
    linear = TwoClasses([1.0, -2.0, 0.5, 0.0], offset=30.0)
    assert local_linearity(linear, x, label, Ball(epsilon=0.2)).item() < 1e-10
    quadratic = TwoClasses([1.0, -2.0, 0.5, 0.0], curvature=3.0, offset=30.0)
    found = local_linearity(quadratic, x, label, Ball(epsilon=0.2))
    assert found.item() == pytest.approx(3.0 * 4 * 0.2**2, rel=1e-6)
    in_l2 = local_linearity(quadratic, x, label, Ball(epsilon=0.2, norm="l2"))
    assert in_l2.item() == pytest.approx(3.0 * 0.2**2, rel=1e-6)
    # A concave loss deviates downwards.
    concave = TwoClasses([1.0, -2.0, 0.5, 0.0], curvature=-3.0, offset=30.0)
    assert local_linearity(concave, x, label, Ball(epsilon=0.2)).item() == pytest.approx(0.48)


@pytest.fixture(scope="module")
def case():
    network = build(
        "cnn_small",
        {"width": 4, "units": 20},
        image_shape=(1, 8, 8),
        num_classes=10,
        mean=[0.4],
        std=[0.3],
        seed=1,
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    generator = torch.Generator().manual_seed(0)
    return network, torch.rand(5, 1, 8, 8, generator=generator), torch.arange(5)


def test_no_sampled_point_deviates_more_and_larger_balls_deviate_more(case):
    network, images, labels = case
    found = local_linearity(network, images, labels, Ball(epsilon=0.1))
    generator = torch.Generator().manual_seed(1)
    share = torch.rand(500, *images.shape, generator=generator)
    share[::2] = (share[::2] > 0.5).float()
    points = ((images + 0.1 * (2 * share - 1)).clamp(0, 1)).flatten(0, 1)
    x = images.clone().requires_grad_()
    at_x = nn.functional.cross_entropy(network(x), labels, reduction="none")
    (slope,) = torch.autograd.grad(at_x.sum(), x)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(network(points), labels.repeat(500), reduction="none")
        tangent = ((points.unflatten(0, (500, 5)) - images) * slope).flatten(2).sum(2)
        sampled = (loss.unflatten(0, (500, 5)) - at_x - tangent).abs().amax(0)
    assert (found > sampled).all()
    larger = local_linearity(network, images, labels, Ball(epsilon=0.2))
    assert (larger > found).all()
    assert (local_linearity(network, images, labels, Ball(epsilon=0.0)) == 0).all()


def test_an_examples_value_does_not_depend_on_its_batch(case):
    network, images, labels = case
    whole = local_linearity(network, images, labels, Ball(epsilon=0.1), seed=4)
    alone = local_linearity(
        network,
        images[3:4],
        labels[3:4],
        Ball(epsilon=0.1),
        seed=4,
        example_ids=torch.tensor([3]),
    )
    assert alone.item() == pytest.approx(whole[3].item(), rel=1e-9)
    assert next(network.parameters()).grad is None


def test_a_search_without_steps_is_refused(case):
    network, images, labels = case
    with pytest.raises(ConfigError, match="at least one step and one start, got 0 and 8"):
        local_linearity(network, images, labels, Ball(epsilon=0.1), steps=0)


def test_more_starts_find_no_less_and_the_default_finds_more_than_two(case):
    network, images, labels = case
    ball = Ball(epsilon=0.3)
    two = local_linearity(network, images, labels, ball, restarts=2)
    found = local_linearity(network, images, labels, ball)
    assert (found >= two).all()
    assert found.mean() > two.mean()
