"""Adaptive adversarial distillation."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from fkd.distillation._inner import attacked_on_divergence, gaussian_start
from fkd.distillation.base import (
    METHODS,
    AttackConfig,
    Batch,
    Clock,
    LossParts,
    Method,
    kl_divergence,
    need_teacher,
    teacher_logits,
)


class AdaADConfig(AttackConfig):
    """The inner attack and the weight of clean images."""

    clean_weight: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="Weight 1 - alpha of the clean divergence; the attacked one has the rest.",
    )


@METHODS.register("adaad")
class AdaAD(Method):
    """AdaAD, L = (1 - alpha) KL(p^T(x) || p^S(x)) + alpha KL(p^T(x~) || p^S(x~)).

    x~ maximises the second divergence over the ball.  The teacher is queried at x~ too, inside the
    attack and in the loss, so that of the methods without bounds this one presses the confidence gap
    most directly.  No labels, temperature 1, alpha = 1, and 10 steps of epsilon / 4 from
    x + 0.001 N(0, 1) with the student in eval mode, as in the authors' code [code].  There each
    divergence is averaged over batch *and* classes, so that their loss is 1/K of this one and, with
    SGD, their learning rate corresponds to 1/K of it here.
    """

    title = "AdaAD"
    role = "student"
    source = (
        "Huang et al., Boosting accuracy and robustness of student models via adaptive adversarial "
        "distillation, CVPR 2023"
    )
    Config = AdaADConfig

    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """Divergences at attacked and at clean images, batch means."""
        del clock
        return LossParts.weighted(self.terms(batch, teacher, student)[1])

    def terms(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module
    ) -> tuple[Tensor, dict[str, tuple[float, Tensor]]]:
        """The attacked images, and weight and value of each part of the loss there."""
        config: AdaADConfig = self.config
        adversarial = attacked_on_divergence(
            batch,
            need_teacher(teacher),
            student,
            gaussian_start(batch, config.epsilon),
            epsilon=config.epsilon,
            steps=config.steps,
            step_size=config.step_length,
        )
        attacked = kl_divergence(teacher_logits(teacher, adversarial), student(adversarial))
        terms = {"adversarial": (1.0 - config.clean_weight, attacked)}
        if config.clean_weight > 0:
            clean = kl_divergence(teacher_logits(teacher, batch.images), student(batch.images))
            terms["clean"] = (config.clean_weight, clean)
        return adversarial, terms
