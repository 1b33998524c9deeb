"""The general certificates over L2 balls and balls with a scale a channel."""

import pytest
import torch

from fkd.attacks import attack_config, make_attack
from fkd.attacks.objectives import confidence
from fkd.bounds import certificate_config, make_certificate
from fkd.bounds.joint import JointBounder
from fkd.core.ball import NORMS, Ball
from fkd.core.precision import double_copy
from tests.support.networks import PAIRS, make_images, make_linear, make_pair

STD = {1: (0.4,), 3: (0.2, 0.5, 0.35)}


def _sampled(region, count, seed):
    """Points of the set, many of them on its surface, and the examples they belong to."""
    generator = torch.Generator().manual_seed(seed)
    many = region.repeat(count)
    far = torch.randn(many.images.shape, generator=generator)
    length = 3 * torch.rand(len(many), 1, 1, 1, generator=generator) ** 2
    moves = length * many.radius[:, None, None, None].float() * far
    return many.clamp(many.images + moves)


@pytest.mark.parametrize("certificate", ["crown", "crown_ibp"])
@pytest.mark.parametrize("pair", sorted(PAIRS))
@pytest.mark.parametrize(
    ("norm", "epsilon", "scaled"),
    [("l2", 0.1, False), ("l2", 0.6, False), ("l2", 0.4, True), ("linf", 0.1, True)],
)
def test_nothing_in_the_set_exceeds_the_certificate(pair, norm, epsilon, scaled, certificate):
    teacher, student, shape, classes = make_pair(pair, 1)
    images = make_images(8, shape, 1)
    labels = torch.arange(8) % classes
    scale = STD[shape[0]] if scaled else None
    region = Ball(epsilon=epsilon, norm=norm, channel_scale=scale).region(images, labels)
    result = make_certificate(certificate_config({"name": certificate})).bound(
        teacher, student, region, labels
    )
    points = _sampled(region, 200, seed=2)
    z_teacher, z_student = (double_copy(n)(points.double()) for n in (teacher, student))
    each = labels.repeat_interleave(200)
    gap = (confidence(z_teacher, each) - confidence(z_student, each)).view(8, 200)
    assert (gap.amax(1) <= result.gap_upper + 1e-12).all()
    assert (gap.amin(1) >= result.gap_lower - 1e-12).all()
    differ = (z_teacher.argmax(1) != z_student.argmax(1)).view(8, 200).any(1)
    assert not (differ & result.agrees).any()
    attacked = make_attack(attack_config({"name": "pgd", "steps": 20})).run(
        teacher, student, region, labels, seed=0
    )
    assert (attacked.gap <= result.gap + 1e-12).all()
    assert not (attacked.disagrees & result.agrees).any()
    # A bound of 1 would be sound as well: this one has to say something.
    if epsilon == 0.1 and certificate == "crown":
        assert result.gap.mean() < 0.9


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_linear_rows_are_bounded_exactly_where_nothing_is_clipped(norm, scaled):
    """sup of w.(x + d) is w.x + r ||s w||_2 in L2 and w.x + r sum s |w| in L-infinity."""
    shape = (3, 2, 2)
    teacher, student = make_linear(shape, 3, seed=0), make_linear(shape, 3, seed=1)
    images = 0.4 + 0.2 * make_images(4, shape)
    scale = STD[3] if scaled else None
    radius = torch.tensor([0.0, 0.05, 0.1, 0.3], dtype=torch.float64)
    ball = Ball(epsilon=0, norm=norm, channel_scale=scale)
    region = ball.region_of(images, radius, torch.arange(4))
    rows = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    lower, upper = JointBounder(teacher, student, images[:1]).bound(region, rows)
    weight = torch.cat([teacher[1].weight, student[1].weight]).double()
    bias = torch.cat([teacher[1].bias, student[1].bias]).double()
    function = rows @ weight
    middle = (function @ images.double().flatten(1)[:, :, None]).squeeze(2) + rows @ bias
    function = function * region.pixel_scale().expand(shape).flatten()
    dual = function.norm(dim=2) if norm == "l2" else function.abs().sum(2)
    torch.testing.assert_close(upper, middle + radius[:, None] * dual, atol=1e-6, rtol=0)
    torch.testing.assert_close(lower, middle - radius[:, None] * dual, atol=1e-6, rtol=0)


@pytest.mark.parametrize("pair", ["convolutional", "residual", "mlp"])
def test_the_l2_ball_is_never_bounded_looser_than_its_hull_in_rows(pair):
    teacher, student, shape, classes = make_pair(pair)
    images = make_images(4, shape)
    bounder = JointBounder(teacher, student, images[:1])
    rows = torch.eye(2 * classes, dtype=torch.float64).expand(4, -1, -1)
    hull = bounder.bound(Ball(epsilon=0.2).region(images, torch.arange(4)), rows)
    ball = bounder.bound(Ball(epsilon=0.2, norm="l2").region(images, torch.arange(4)), rows)
    assert (ball[1] - ball[0]).mean() < 0.8 * (hull[1] - hull[0]).mean()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("epsilon", [0.1, 0.3])
def test_hidden_bounds_hold_the_worst_points_of_every_neuron(epsilon, scaled):
    """Convolutions in auto_LiRPA's patches, padding included; nothing is clipped, so sup is exact."""
    teacher, student, shape, _ = make_pair("colour")
    images = 0.35 + 0.3 * make_images(3, shape)
    scale = STD[3] if scaled else None
    region = Ball(epsilon=epsilon, norm="l2", channel_scale=scale).region(images, torch.arange(3))
    bounder = JointBounder(teacher, student, images[:1])
    bounder.bound(region, torch.eye(6, dtype=torch.float64).expand(3, -1, -1))
    hidden = [n for n in bounder._module.modules() if type(n).__name__ == "BoundConv"]
    bounded = [n for n in hidden if getattr(n, "lower", None) is not None]
    node = next(n for n in bounded if n.lower.shape[1:] == (2, 4, 4))
    first = torch.nn.Sequential(double_copy(teacher).normalisation, double_copy(teacher).body[0])
    (jacobian,) = torch.autograd.functional.jacobian(
        lambda x: first(x).flatten(1), (images[:1].double(),)
    )
    functions = (jacobian[0, :, 0] * region.pixel_scale()).flatten(1)
    middle = first(images.double()).flatten(1)
    reach = epsilon * functions.norm(dim=1)
    lower, upper = node.lower.flatten(1), node.upper.flatten(1)
    assert (lower <= middle - reach + 1e-9).all() and (upper >= middle + reach - 1e-9).all()
    # Neurons that change sign are bounded exactly, the others by the hull.
    unstable = (middle - reach < 0) & (middle + reach > 0)
    assert unstable.any()
    torch.testing.assert_close(upper[unstable], (middle + reach)[unstable], atol=1e-9, rtol=0)
    torch.testing.assert_close(lower[unstable], (middle - reach)[unstable], atol=1e-9, rtol=0)
