"""Kullback-Leibler divergence between the two outputs."""

from __future__ import annotations

from torch import Tensor

from fkd.attacks.goals import Divergence, RowGoal
from fkd.attacks.measures._base import MEASURES, Measure


@MEASURES.register("kl")
class KullbackLeibler(Measure):
    """``KL(p_T || p_S)``, what distillation makes small at the images (Hinton et al., 1503.02531)."""

    title = "KL divergence"
    meaning = (
        "KL(teacher || student): how surprising the teacher's answers are to the student, in nats."
    )
    unit = "nats"

    def goal(self, classes: Tensor, count: int) -> RowGoal:
        """See `Measure`."""
        del count
        return Divergence(classes)

    def value(self, teacher_logits: Tensor, student_logits: Tensor, classes: Tensor) -> Tensor:
        """See `Measure`."""
        teacher, student = teacher_logits.log_softmax(1), student_logits.log_softmax(1)
        # Rounding may take the divergence of equal outputs below 0.
        return Divergence(classes)(teacher, student)[0].clamp_min(0.0)
