"""Projected gradient ascent with momentum and a step that shrinks along a cosine.

The update is Auto-PGD's (Croce and Hein, 2003.01690, Algorithm 1):
``z = P(x + step * v)``, ``x' = P(x + 0.75 (z - x) + 0.25 (x - x_previous))``,
with a fixed cosine schedule of the step in place of its halving rule.  v is the steepest direction in
the ball's norm: with s the channels' scale, ``s sign(g)`` in L-infinity and ``s^2 g / ||s g||_2`` in L2,
there over the pixels that are free to move.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fkd.attacks._steps import random_points, steepest
from fkd.attacks.branches import BranchAttack, PairEvaluator, Visitor
from fkd.attacks.objectives import Objective
from fkd.attacks.registry import ATTACKS
from fkd.core.ball import Norm, Region

#: The first step as a share of epsilon; the last is near 0.  (In L2, on MNIST, 2 finds up to 3 % more
#: than 1, and leaving out the pixels that cannot move another 1 to 2 %.)
_FIRST_STEP: dict[Norm, float] = {"linf": 1.0, "l2": 2.0}
_MOMENTUM = 0.75


@ATTACKS.register("pgd")
class PGD(BranchAttack):
    """Steepest ascent with momentum; the first start is the image, the others are uniform."""

    def starts(self, region: Region, restarts: int, seed: int) -> Tensor:
        """The image itself, then points drawn uniformly from the box (L2: the ball, then clipped)."""
        points = [region.images]
        points += [random_points(region, seed, restart) for restart in range(1, restarts)]
        return torch.stack(points, dim=1).flatten(0, 1)

    def propose(
        self,
        evaluator: PairEvaluator,
        start: Tensor,
        region: Region,
        objective: Objective,
        visit: Visitor,
    ) -> None:
        """Climb for ``config.steps`` steps; each visited point is handed to ``visit``."""
        radius = region.radius.to(region.images.dtype)[:, None, None, None]
        first = _FIRST_STEP[region.norm]
        point = region.clamp(start)
        previous = point
        for step in range(self.config.steps):
            _, gradient, teacher_logits, student_logits = evaluator.gradient(point, objective)
            visit(point, teacher_logits, student_logits)
            size = radius * first * 0.5 * (1 + math.cos(math.pi * step / self.config.steps))
            ahead = region.clamp(point + size * steepest(gradient, point, region))
            share = _MOMENTUM if step else 1.0
            mixed = region.clamp(point + share * (ahead - point) + (1 - share) * (point - previous))
            previous, point = point, mixed
        with torch.no_grad():
            visit(point, evaluator.teacher(point), evaluator.student(point))
