"""The largest gap over the classes."""

from __future__ import annotations

import torch
from torch import Tensor

from fkd.attacks.goals import ConfidenceGap, RowGoal
from fkd.attacks.measures._base import MEASURES, Measure, gaps


@MEASURES.register("any_class")
class AnyClassGap(Measure):
    """``max_c |p_T(c) - p_S(c)|``."""

    title = "Largest gap of any class"
    meaning = (
        "How far the two confidences in one and the same class are apart, whichever class it is."
    )
    unit = "probability"

    def goal(self, classes: Tensor, count: int) -> RowGoal:
        """See `Measure`."""
        every = torch.arange(count, device=classes.device).repeat(len(classes))
        return ConfidenceGap.both_ways(every)

    def value(self, teacher_logits: Tensor, student_logits: Tensor, classes: Tensor) -> Tensor:
        """See `Measure`."""
        del classes
        return gaps(teacher_logits, student_logits).amax(1)

    def compared(self, teacher_logits: Tensor, student_logits: Tensor, classes: Tensor) -> Tensor:
        """See `Measure`."""
        del classes
        return gaps(teacher_logits, student_logits).argmax(1)
