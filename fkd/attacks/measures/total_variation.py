"""Total variation between the two outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from fkd.attacks.goals import RowGoal, TotalVariation
from fkd.attacks.measures._base import MEASURES, Measure, gaps


@MEASURES.register("total_variation")
class TotalVariationDistance(Measure):
    """``1/2 sum_c |p_T(c) - p_S(c)|``."""

    title = "Total variation"
    meaning = "How far the two probabilities of one and the same set of classes are apart at most."
    unit = "probability"

    def goal(self, classes: Tensor, count: int) -> RowGoal:
        """See `Measure`."""
        del count
        return TotalVariation(classes)

    def value(self, teacher_logits: Tensor, student_logits: Tensor, classes: Tensor) -> Tensor:
        """See `Measure`."""
        del classes
        every = gaps(teacher_logits, student_logits)
        # By rounding the sum may fall below its largest part.
        return torch.maximum(0.5 * every.sum(1), every.amax(1)).clamp_max(1.0)
