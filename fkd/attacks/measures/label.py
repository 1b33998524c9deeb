"""The gap of the label's confidence."""

from __future__ import annotations

from torch import Tensor

from fkd.attacks.goals import ConfidenceGap, RowGoal
from fkd.attacks.measures._base import MEASURES, Measure, gaps


@MEASURES.register("label")
class LabelGap(Measure):
    """``|p_T(y) - p_S(y)|`` (relative calibration: 2306.04431)."""

    title = "Gap of the label"
    meaning = "How far the two confidences in the label are apart."
    unit = "probability"

    def classes(self, labels: Tensor, predicted: Tensor) -> Tensor:
        """See `Measure`."""
        del predicted
        return labels

    def goal(self, classes: Tensor, count: int) -> RowGoal:
        """See `Measure`."""
        del count
        return ConfidenceGap.both_ways(classes)

    def value(self, teacher_logits: Tensor, student_logits: Tensor, classes: Tensor) -> Tensor:
        """See `Measure`."""
        return gaps(teacher_logits, student_logits).gather(1, classes[:, None])[:, 0]
