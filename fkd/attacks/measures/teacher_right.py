"""The teacher is right and the student is wrong."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fkd.attacks.goals import Parting, RowGoal
from fkd.attacks.measures._base import MEASURES, Measure


@MEASURES.register("teacher_right")
class TeacherRight(Measure):
    """``min(z^T_y - max_{j != y} z^T_j, max_{j != y} z^S_j - z^S_y)``."""

    title = "Teacher right, student wrong"
    meaning = "Whether the teacher predicts the label at a point where the student does not."
    unit = "logits"
    is_event = True
    #: 1 where the teacher is to be right, -1 where the student is.
    sign: ClassVar[float] = 1.0

    def classes(self, labels: Tensor, predicted: Tensor) -> Tensor:
        """See `Measure`."""
        del predicted
        return labels

    def goal(self, classes: Tensor, count: int) -> RowGoal:
        """See `Measure`."""
        del count
        return Parting(torch.full_like(classes, self.sign, dtype=torch.float32), classes)

    def value(self, teacher_logits: Tensor, student_logits: Tensor, classes: Tensor) -> Tensor:
        """See `Measure`."""
        return self.goal(classes, 0)(teacher_logits, student_logits)[0]
