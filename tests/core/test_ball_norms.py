"""L2 balls and channel scales: points stay inside the real set, projections are the nearest points."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from fkd.core.ball import NORMS, Ball, Region, check_epsilon
from fkd.core.errors import ConfigError

STD = (0.25, 0.5, 0.1)


def _inputs(count, shape, seed, *, far=1.0):
    """Images with some pixels at 0 and 1, and points anywhere around them."""
    generator = torch.Generator().manual_seed(seed)
    images = (1.4 * torch.rand(count, *shape, generator=generator) - 0.2).clamp(0, 1)
    return images, images + far * torch.randn(count, *shape, generator=generator)


def _is_inside_exactly(region: Region, row: int, point: torch.Tensor) -> bool:
    """Membership in rational arithmetic: neither float32 nor float64 has a say."""
    radius = Fraction(region.radius[row].item())
    channels = region.images.shape[1]
    scale = [1.0] * channels if region.scale is None else region.scale.tolist()
    total = Fraction(0)
    for c in range(channels):
        old, new = region.images[row, c].flatten().tolist(), point[c].flatten().tolist()
        for before, after in zip(old, new, strict=True):
            if not 0 <= after <= 1:
                return False
            move = abs(Fraction(after) - Fraction(before)) / Fraction(scale[c])
            if region.norm == "linf" and move > radius:
                # The limit itself is radius * scale rounded to float64.
                return move - radius <= Fraction(2) ** -50 * radius
            total += move**2
    return region.norm == "linf" or total <= radius**2


@given(
    st.sampled_from(NORMS),
    st.sampled_from([None, STD]),
    st.floats(0, 1) | st.floats(0, 1e-6) | st.just(0.0),
    st.floats(1e-3, 1e3),
    st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=150)
def test_no_point_leaves_the_real_set(norm, scale, epsilon, far, seed):
    images, points = _inputs(3, (3, 2, 2), seed, far=far)
    region = Ball(epsilon=epsilon, norm=norm, channel_scale=scale).region(images, torch.arange(3))
    kept = region.clamp(points)
    assert kept.dtype == torch.float32
    assert (kept >= region.lower).all() and (kept <= region.upper).all()
    assert all(_is_inside_exactly(region, row, kept[row]) for row in range(3))
    # A point of the set is its own nearest point.
    torch.testing.assert_close(region.clamp(kept), kept, atol=0, rtol=0)


@given(st.sampled_from([None, STD]), st.floats(0.02, 2.0), st.integers(0, 10_000))
@settings(deadline=None, max_examples=40)
def test_the_l2_projection_is_the_nearest_point(scale, epsilon, seed):
    """Against a general solver of the same convex problem, in the ball's own metric."""
    images, points = _inputs(1, (3, 1, 2), seed)
    region = Ball(epsilon=epsilon, norm="l2", channel_scale=scale).region(images, torch.arange(1))
    unit = np.repeat(np.array(scale or (1.0, 1.0, 1.0)), 2)
    centre, wanted = images.double().numpy().ravel(), points.double().numpy().ravel()
    found = minimize(
        lambda y: (((y - wanted) / unit) ** 2).sum(),
        centre,
        jac=lambda y: 2 * (y - wanted) / unit**2,
        bounds=[(0, 1)] * 6,
        constraints={
            "type": "ineq",
            "fun": lambda y: epsilon**2 - (((y - centre) / unit) ** 2).sum(),
            "jac": lambda y: -2 * (y - centre) / unit**2,
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    kept = region.clamp(points).double().numpy().ravel()
    ours, best = ((((y - wanted) / unit) ** 2).sum() for y in (kept, found.x))
    assert ours <= best * (1 + 1e-5) + 1e-6


def test_a_projection_onto_the_plain_ball_is_a_shorter_move():
    images = torch.full((1, 1, 2, 2), 0.5)
    points = images + torch.tensor([[[[0.3, 0.0], [0.0, -0.4]]]])
    kept = Ball(epsilon=0.25, norm="l2").region(images, torch.arange(1)).clamp(points)
    torch.testing.assert_close(kept, images + (points - images) / 2)


def test_what_clipping_saves_the_other_pixels_get():
    """The first pixel can move by 0.1 only, so the second may use what is left of the radius."""
    images = torch.tensor([[[[0.9, 0.5]]]])
    region = Ball(epsilon=0.3, norm="l2").region(images, torch.arange(1))
    kept = region.clamp(images + 10.0) - images
    expected = torch.tensor([[[[0.1, math.sqrt(0.3**2 - 0.1**2)]]]])
    torch.testing.assert_close(kept, expected)


def test_rows_with_their_own_radii_do_not_mix():
    images, points = _inputs(6, (3, 2, 2), 1)
    radius = torch.tensor([0.0, 1e-7, 0.1, 0.5, 3.0, 30.0], dtype=torch.float64)
    ball = Ball(epsilon=0, norm="l2", channel_scale=STD)
    region = ball.region_of(images, radius, torch.arange(6))
    kept = region.clamp(points)
    assert torch.equal(kept[0], images[0])
    assert (region.distance(kept) <= radius).all()
    # Far beyond the image range the ball is the box alone.
    torch.testing.assert_close(kept[5], points[5].clamp(0, 1))
    for row in range(6):
        assert torch.equal(region[row : row + 1].clamp(points[row : row + 1])[0], kept[row])


def test_cutting_and_repeating_keep_norm_and_scale():
    images, _ = _inputs(5, (3, 2, 2), 2)
    region = Ball(epsilon=0.1, norm="l2", channel_scale=STD).region(images, torch.arange(5))
    parts = [region[1:3], region.repeat(2), next(region.chunks(2))[1], replace(region)]
    for part in parts:
        assert part.norm == "l2" and part.scale.tolist() == list(STD)


@pytest.mark.parametrize("norm", NORMS)
def test_the_hull_is_the_box_of_each_channel(norm):
    images, _ = _inputs(4, (3, 2, 2), 3)
    ball = Ball.per_channel(0.2, STD, norm)
    region = ball.region(images, torch.arange(4))
    wide = 0.2 * torch.tensor(STD, dtype=torch.float64)[:, None, None]
    low, high = region.double_limits()
    torch.testing.assert_close(low, (images.double() - wide).clamp(0, 1), atol=1e-15, rtol=0)
    torch.testing.assert_close(high, (images.double() + wide).clamp(0, 1), atol=1e-15, rtol=0)
    for limit, training in zip((low, high), ball.limits(images), strict=True):
        torch.testing.assert_close(limit.float(), training)


def test_a_radius_after_the_normalisation_layer_is_a_ball_with_its_std_as_scale():
    """Largest change of normalised images over the ball's corners: epsilon itself."""
    images = torch.full((1, 3, 2, 2), 0.5)
    region = Ball.per_channel(0.3, STD).region(images, torch.arange(1))
    std = torch.tensor(STD)[:, None, None]
    change = (region.upper - 0.5) / std - (images - 0.5) / std
    torch.testing.assert_close(change, torch.full_like(change, 0.3))


def test_scales_of_one_are_the_plain_ball():
    assert Ball(epsilon=0.1, channel_scale=(1, 1, 1)) == Ball(epsilon=0.1)
    images, points = _inputs(4, (3, 2, 2), 4)
    region = Ball(epsilon=0.4, norm="l2").region(images, torch.arange(4))
    ones = replace(region, scale=torch.ones(3, dtype=torch.float64))
    assert torch.equal(region.clamp(points), ones.clamp(points))
    assert torch.equal(region.distance(points), ones.distance(points))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epsilon": 8, "norm": "linf"}, r"lie in \[0, 1\].* did you mean 8/255"),
        ({"epsilon": 5, "channel_scale": STD, "norm": "l2"}, None),
        ({"epsilon": 10, "channel_scale": STD}, None),
        ({"epsilon": 11, "channel_scale": STD}, r"lie in \[0, 10\]"),
        ({"epsilon": -1, "norm": "l2"}, "be at least 0 .* got -1; choose one"),
        ({"epsilon": math.inf, "norm": "l2"}, "be at least 0"),
        ({"epsilon": 0.1, "channel_scale": (0.2, 0.0, 0.1)}, "one positive number a channel"),
        ({"epsilon": 0.1, "channel_scale": ()}, "one positive number a channel"),
        ({"epsilon": 0.1, "channel_scale": "std"}, "one positive number a channel"),
        ({"epsilon": 0.1, "channel_scale": (math.nan,) * 3}, "one positive number a channel"),
        ({"epsilon": 0.1, "norm": "l1"}, "'linf' or 'l2'"),
    ],
)
def test_what_a_ball_cannot_be_is_one_sentence(settings, sentence):
    if sentence is None:
        assert Ball.parse(settings).epsilon == settings["epsilon"]
        return
    with pytest.raises(ConfigError, match=sentence) as caught:
        Ball.parse(settings)
    assert "\n" not in str(caught.value)


def test_a_ball_that_does_not_fit_the_images_is_refused():
    images, ids = torch.rand(2, 3, 2, 2), torch.arange(2)
    with pytest.raises(ConfigError, match="2 values and the images have 3 channels"):
        Ball(epsilon=0.1, channel_scale=(0.2, 0.3)).region(images, ids)
    assert Ball(epsilon=1, norm="l2").diameter((3, 2, 2)) == pytest.approx(math.sqrt(12))
    with pytest.raises(ConfigError, match=r"lie in \[0, 3.4641\] here .*, got 128;"):
        Ball(epsilon=128, norm="l2").region(images, ids)
    Ball(epsilon=math.sqrt(12), norm="l2").region(images, ids)


def test_minus_zero_is_zero_in_both_norms():
    assert [math.copysign(1, check_epsilon(-0.0, norm)) for norm in NORMS] == [1, 1]
