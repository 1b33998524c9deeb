"""The best points that an attack has seen: of each example the largest gap and a disagreement."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fkd.attacks.objectives import best_other_margin, confidence
from fkd.core.ball import Region


class Best:
    """The best points seen so far, one of each kind an example.

    Attributes:
        gap: largest ``|p_T(c) - p_S(c)|``, (N,); -1 before anything was seen.
        gap_point: where, (N, C, H, W).
        margin: by how much both networks prefer their own class where they differ, -inf where none was
            seen to differ, (N,).
        margin_point: where.

    Args:
        region: N balls.
        classes: int64 (N,), c.
    """

    def __init__(self, region: Region, classes: Tensor) -> None:
        self._classes = classes
        count, device = len(region), region.images.device
        self.gap = torch.full((count,), -1.0, device=device)
        self.gap_point = region.images.clone()
        self.margin = torch.full((count,), -torch.inf, device=device)
        self.margin_point = region.images.clone()

    def look(
        self, points: Tensor, teacher_logits: Tensor, student_logits: Tensor, examples: Tensor
    ) -> None:
        """Take note of points.

        Args:
            points: (M, C, H, W).
            teacher_logits: (M, K), there.
            student_logits: (M, K).
            examples: int64 (M,), whose ball each point lies in.
        """
        self.look_at_gap(points, teacher_logits, student_logits, examples)
        self.look_at_margin(points, teacher_logits, student_logits, examples)

    def look_at_gap(
        self, points: Tensor, teacher_logits: Tensor, student_logits: Tensor, examples: Tensor
    ) -> None:
        """`look` for the gap alone."""
        classes = self._classes[examples]
        gap = (confidence(teacher_logits, classes) - confidence(student_logits, classes)).abs()
        self._keep(gap, points, examples, self.gap, self.gap_point)

    def look_at_margin(
        self, points: Tensor, teacher_logits: Tensor, student_logits: Tensor, examples: Tensor
    ) -> None:
        """`look` for disagreements alone."""
        teacher_pred, student_pred = teacher_logits.argmax(1), student_logits.argmax(1)
        rows = (teacher_pred != student_pred).nonzero()[:, 0]
        if not len(rows):
            return
        # How firmly the two predictions differ: both networks prefer their own class by this much.
        firmness = torch.minimum(
            -best_other_margin(teacher_logits[rows], teacher_pred[rows]),
            -best_other_margin(student_logits[rows], student_pred[rows]),
        )
        self._keep(firmness, points[rows], examples[rows], self.margin, self.margin_point)

    def forget_margins(self, predict: Callable[[Tensor], Sequence[Tensor]]) -> None:
        """Drop the disagreements at which ``predict`` says the same twice: they were rounding."""
        rows = (self.margin > -torch.inf).nonzero()[:, 0]
        if len(rows):
            first, second = predict(self.margin_point[rows])
            self.margin[rows[first == second]] = -torch.inf

    def take_margin(self, points: Tensor, examples: Tensor) -> None:
        """Note disagreements (M, C, H, W) known from elsewhere, of examples (M,) that had shown none."""
        self.margin[examples] = 0.0
        self.margin_point[examples] = points

    def _keep(
        self, values: Tensor, points: Tensor, examples: Tensor, best: Tensor, best_points: Tensor
    ) -> None:
        values = torch.where(values.isnan(), -torch.inf, values).to(best.dtype)
        keep_largest(values, points, examples, best, best_points)


def keep_largest(
    values: Tensor, points: Tensor, examples: Tensor, best: Tensor, best_points: Tensor
) -> None:
    """Replace, in place, the best of each example where a point has more; the first of equal ones.

    Args:
        values: (M,), none of them NaN.
        points: (M, C, H, W).
        examples: int64 (M,), rows of ``best`` and ``best_points``.
        best: (N,), like ``values``.
        best_points: (N, C, H, W).
    """
    top = best.scatter_reduce(0, examples, values, "amax")
    rows = ((values == top[examples]) & (values > best[examples])).nonzero()[:, 0]
    # Of equal ones the least row, which is the same on any device.
    nobody = torch.full_like(examples[:1], len(values)).expand(len(best))
    first = nobody.scatter_reduce(0, examples[rows], rows, "amin")
    won = (first < len(values)).nonzero()[:, 0]
    best_points[won] = points[first[won]]
    best.copy_(top)
