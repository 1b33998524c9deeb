"""Where in the ball one network alone loses most confidence in its own prediction."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fkd.attacks._steps import stuck
from fkd.attacks.objectives import log_odds
from fkd.core.ball import Region
from fkd.core.precision import double_copy, logits_of
from fkd.core.seeding import uniform_noise

_STEPS = 20
_STARTS = 3
#: How often a search tells of itself.
VISITS = _STEPS + 1
#: The first step as a share of the radius; the last is near 0.
_FIRST_STEP = {"linf": 1.0, "l2": 2.0}
#: Smallest normal float32: a gradient of zeros stays one.
_TINY = 1.2e-38


def random_points(region: Region, count: int, seed: int) -> Tensor:
    """Points of the ball, (count, C, H, W): drawn from its box and, in L2, brought to the nearest.

    Args:
        region: the ball, one row.
        count: how many.
        seed: chooses them, together with the example's id.
    """
    shape = tuple(region.images.shape[1:])
    noise = torch.cat(
        [uniform_noise(region.example_ids, shape, seed=seed, stream=s + 1) for s in range(count)]
    )
    return region.repeat(count).clamp(region.lower + noise * (region.upper - region.lower))


def worst_point(
    network: nn.Module, region: Region, *, seed: int, tell: Callable[[], None]
) -> Tensor:
    """Projected steepest descent on the log-odds of the prediction, from the image and random points.

    Log-odds fall with the confidence, and their gradient does not vanish where it nears 1.  Steps are
    ``scale * sign(g)`` in L-infinity (Madry et al., 1706.06083, section 2.1) and
    ``scale^2 g / ||scale g||`` in L2, over the pixels that are free to move; they shrink along a cosine.

    Args:
        network: images (N, C, H, W) to logits (N, K), float32, in eval mode.
        region: the ball, one row.
        seed: chooses the random starts, together with the example's id.
        tell: called at each step, `VISITS` times.

    Returns:
        float32 (1, C, H, W) in the ball; the image itself where nothing lower was found.
    """
    exact = double_copy(network)
    predicted = logits_of(exact, region.images).argmax(1)
    balls = region.repeat(_STARTS)
    classes = predicted.expand(_STARTS)
    points = torch.cat([region.images, random_points(region, _STARTS - 1, seed)])
    lowest, best = torch.full((_STARTS,), torch.inf), points
    for step in range(_STEPS + 1):
        odds, gradient = _downhill(network, points, classes)
        is_lower = odds < lowest
        lowest = torch.where(is_lower, odds, lowest)
        best = torch.where(is_lower[:, None, None, None], points, best)
        share = 0.5 * (1 + math.cos(math.pi * step / _STEPS))
        length = _FIRST_STEP[region.norm] * share * balls.radius[:, None, None, None]
        points = balls.clamp((points + length * _steepest(gradient, points, balls)).float())
        tell()
    # The image first: where float32 was misled about a gain, it stays.
    found = torch.cat([region.images, best])
    exact_odds = log_odds(logits_of(exact, found), predicted.expand(len(found)))
    return found[int(exact_odds.argmin())][None]


def _downhill(network: nn.Module, points: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Log-odds (N,) and minus their gradients, like ``points``."""
    with torch.enable_grad():
        points = points.detach().requires_grad_(True)
        odds = log_odds(network(points), classes)
        (gradient,) = torch.autograd.grad(odds.sum(), points)
    return odds.detach(), -gradient


def _steepest(gradient: Tensor, points: Tensor, balls: Region) -> Tensor:
    """The direction of length 1 in the ball's norm and scale that leads up most, float64."""
    scale = balls.pixel_scale()
    if balls.norm == "linf":
        return gradient.sign() * scale
    scaled = gradient.double().masked_fill(stuck(gradient, points, balls), 0.0) * scale
    return scaled / scaled.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=_TINY) * scale
