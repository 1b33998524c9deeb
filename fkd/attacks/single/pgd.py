"""Projected gradient ascent of the cross-entropy (Madry et al., 1706.06083, section 2.1).

``x' = P(x + a v)`` with v the steepest direction in the ball's norm, ``sign(g)`` in L-infinity and
``g / ||g||_2`` in L2 (where channels have scales, in the scaled norm), and a = 2.5 epsilon / steps, so
that any point of the ball can be reached from any other.  An example leaves the batch at the step at
which it is fooled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fkd.attacks._steps import random_points, steepest_l2, steepest_linf
from fkd.attacks.single.standing import Standing, Tell

#: All steps together lead this many radii far.
_REACH = 2.5


def run_pgd(standing: Standing, *, steps: int, restarts: int, seed: int, tell: Tell) -> None:
    """Attack the examples that stand.

    Args:
        standing: the examples; those that are fooled fall.
        steps: gradient steps from each start.
        restarts: starts: the first is the image itself, the others are drawn uniformly from the ball.
        seed: chooses the starts together with the example ids, whatever else is in the batch.
        tell: told after each step.
    """
    for restart in range(restarts):
        rows = standing.left()
        if not len(rows):
            return
        region = standing.region[rows]
        _climb(
            standing,
            rows,
            random_points(region, seed, restart) if restart else region.images,
            steps,
            lambda share, before=restart: tell((before + share) / restarts),
        )


def _climb(standing: Standing, rows: Tensor, points: Tensor, steps: int, tell: Tell) -> None:
    region = standing.region[rows]
    steepest = steepest_l2 if region.norm == "l2" else steepest_linf
    scale = None if region.scale is None else region.pixel_scale().to(points.dtype)
    for step in range(steps + 1):
        gradient, predicted = _gradient(standing.network, points, standing.labels[rows])
        wrong = predicted != standing.labels[rows]
        if bool(wrong.any()):
            standing.take(rows[wrong], points[wrong], "pgd")
            # What only float32 takes for fooled goes on climbing.
            kept = ~standing.fooled[rows]
            rows, points, gradient, region = rows[kept], points[kept], gradient[kept], region[kept]
        tell(step / steps)
        if step == steps or not len(rows):
            return
        length = (_REACH / steps * region.radius).to(points.dtype)[:, None, None, None]
        points = region.clamp(points + length * steepest(gradient, scale))


def _gradient(network: nn.Module, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the cross-entropies like ``points``, and predictions (N,)."""
    with torch.enable_grad():
        points = points.detach().requires_grad_(True)
        logits = network(points)
        (gradient,) = torch.autograd.grad(cross_entropy(logits, labels, reduction="sum"), points)
    return gradient, logits.detach().argmax(1)
