"""Projected gradient ascent with momentum and a step that shrinks along a cosine.

The update is Auto-PGD's (Croce and Hein, 2003.01690, Algorithm 1):
``z = P(x + step * sign(g))``, ``x' = P(x + 0.75 (z - x) + 0.25 (x - x_previous))``,
with a fixed cosine schedule of the step in place of its halving rule.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fkd.attacks.base import PairAttack, PairEvaluator, Visitor
from fkd.attacks.objectives import Objective
from fkd.attacks.registry import ATTACKS
from fkd.core.ball import Region
from fkd.core.seeding import uniform_noise

#: The first step as a share of epsilon; the last is near 0.
_FIRST_STEP = 1.0
_MOMENTUM = 0.75


@ATTACKS.register("pgd")
class PGD(PairAttack):
    """Sign-gradient ascent with momentum; the first start is the image, the others are uniform."""

    def starts(self, region: Region, restarts: int, seed: int) -> Tensor:
        """The image itself, then points drawn uniformly from the box."""
        shape = tuple(region.images.shape[1:])
        points = [region.images]
        for restart in range(1, restarts):
            noise = uniform_noise(region.example_ids, shape, seed=seed, stream=restart)
            points.append(
                region.lower + noise.to(region.images.dtype) * (region.upper - region.lower)
            )
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
        point = region.clamp(start)
        previous = point
        for step in range(self.config.steps):
            _, gradient, teacher_logits, student_logits = evaluator.gradient(point, objective)
            visit(point, teacher_logits, student_logits)
            size = radius * _FIRST_STEP * 0.5 * (1 + math.cos(math.pi * step / self.config.steps))
            ahead = region.clamp(point + size * gradient.sign())
            share = _MOMENTUM if step else 1.0
            mixed = region.clamp(point + share * (ahead - point) + (1 - share) * (point - previous))
            previous, point = point, mixed
        with torch.no_grad():
            visit(point, evaluator.teacher(point), evaluator.student(point))
