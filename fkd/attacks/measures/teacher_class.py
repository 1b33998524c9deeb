"""The gap of the confidence in what the teacher predicts at the image."""

from __future__ import annotations

from torch import Tensor

from fkd.attacks.measures._base import MEASURES
from fkd.attacks.measures.label import LabelGap


@MEASURES.register("teacher_class")
class TeacherClassGap(LabelGap):
    """``|p_T(c) - p_S(c)|`` with c the teacher's prediction at the image."""

    title = "Gap of the teacher's class"
    meaning = (
        "How far the confidences in the class that the teacher predicts at the image are apart."
    )

    def classes(self, labels: Tensor, predicted: Tensor) -> Tensor:
        """See `Measure`."""
        del labels
        return predicted
