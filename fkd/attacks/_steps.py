"""Steps of steepest ascent and random points, in both norms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fkd.core.ball import Region
from fkd.core.seeding import uniform_noise

#: Smallest normal float32: what is divided by it is zero and stays so.
_TINY = 1.2e-38
#: Nearer to an end than this share of its range, a pixel is there.
_AT_END = 1e-6


def steepest_linf(gradient: Tensor, scale: Tensor | None) -> Tensor:
    """Direction in which a linear function grows most within a distance of 1 in L-infinity."""
    return gradient.sign() if scale is None else gradient.sign() * scale


def steepest_l2(gradient: Tensor, scale: Tensor | None) -> Tensor:
    """The same in L2."""
    if scale is not None:
        gradient = gradient * scale
    # A saturated confidence's gradient is too small to be squared.
    gradient = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=_TINY)
    direction = gradient / gradient.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=_TINY)
    return direction if scale is None else direction * scale


def steepest(gradient: Tensor, points: Tensor, region: Region) -> Tensor:
    """The direction of length 1, in the balls' norm and scale, that leads up most from ``points``."""
    scale = None if region.scale is None else region.pixel_scale().to(points.dtype)
    if region.norm == "linf":
        return steepest_linf(gradient, scale)
    return steepest_l2(gradient.masked_fill(stuck(gradient, points, region), 0.0), scale)


def stuck(gradient: Tensor, points: Tensor, region: Region) -> Tensor:
    """Pixels at the end of their range, which would take up a part of the step's length in L2; bool.

    Projection leaves a pixel at its end or one rounding away from it, as it happens: both count.
    """
    room = _AT_END * (region.upper - region.lower)
    return torch.where(gradient > 0, points >= region.upper - room, points <= region.lower + room)


def random_points(region: Region, seed: int, stream: int) -> Tensor:
    """A point drawn uniformly from each set (L2: from the ball, then clipped)."""
    draw = in_the_ball if region.norm == "l2" else in_the_box
    return draw(region, seed, stream)


def in_the_box(region: Region, seed: int, stream: int) -> Tensor:
    """A point drawn uniformly from each box."""
    noise = uniform_noise(
        region.example_ids, tuple(region.images.shape[1:]), seed=seed, stream=stream
    )
    return region.lower + noise.to(region.images.dtype) * (region.upper - region.lower)


def in_the_ball(region: Region, seed: int, stream: int) -> Tensor:
    """A point drawn uniformly from each ball, then clipped.

    A normal direction and a length ``radius * u^(1 / pixels)`` are uniform in the whole ball.
    """
    shape = tuple(region.images.shape[1:])
    noise = uniform_noise(region.example_ids, shape, seed=seed, stream=stream)
    # Between 0 and 1 excluding both, where the normal quantile is infinite.
    normal = torch.special.ndtri(noise.double() + 2.0**-25)
    share = uniform_noise(region.example_ids, (1, 1, 1), seed=seed, stream=-stream).double()
    length = region.radius[:, None, None, None] * share ** (1.0 / math.prod(shape))
    move = length * normal / normal.square().sum((1, 2, 3), keepdim=True).sqrt()
    return region.clamp((region.images + region.pixel_scale() * move).to(region.images.dtype))


def shaken(points: Tensor, region: Region, share: float, seed: int, stream: int) -> Tensor:
    """Points moved far enough to reach another hill, not so far that all is lost.

    L-infinity: this share of the pixels goes to a random end of its range.  L2: a random move of this
    share of the radius.
    """
    if region.norm == "l2":
        noise = uniform_noise(region.example_ids, tuple(points.shape[1:]), seed=seed, stream=stream)
        normal = torch.special.ndtri(noise.double() + 2.0**-25)
        length = normal.square().sum((1, 2, 3), keepdim=True).sqrt()
        move = share * region.radius[:, None, None, None] * normal / length * region.pixel_scale()
        return region.clamp(points + move.to(points.dtype))
    draw = uniform_noise(region.example_ids, tuple(points.shape[1:]), seed=seed, stream=stream)
    end = torch.where(draw < share / 2, region.lower, region.upper)
    return torch.where(draw < share, end, points)


def ends(region: Region, seed: int, stream: int) -> Tensor:
    """Points with every pixel at a random end of its range, in the balls."""
    return shaken(region.images, region, 1.0, seed, stream)


def flipped(points: Tensor, gradient: Tensor, region: Region, count: int) -> Tensor:
    """Each point with one pixel at the end of its range that is further off, (N, F, C, H, W).

    The F = min(count, pixels) pixels are those by whose move a function of this gradient loses least.
    """
    flat, low, high = (part.flatten(1) for part in (points, region.lower, region.upper))
    far = torch.where(flat - low > high - flat, low, high)
    tried = min(count, flat.shape[1])
    pixels = (gradient.flatten(1) * (far - flat)).topk(tried, 1).indices
    moved = (
        flat[:, None]
        .expand(-1, tried, -1)
        .scatter(2, pixels[:, :, None], far.gather(1, pixels)[:, :, None])
    )
    return moved.unflatten(2, points.shape[1:])
