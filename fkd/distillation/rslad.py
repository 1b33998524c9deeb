"""Robust soft label adversarial distillation."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from fkd.distillation._inner import ascend, divergence_objective, gaussian_start
from fkd.distillation.base import (
    METHODS,
    AttackConfig,
    Batch,
    Clock,
    LossParts,
    Method,
    kl_divergence,
    teacher_logits,
)


class RSLADConfig(AttackConfig):
    """The inner attack and the weight of clean images."""

    clean_weight: float = Field(
        default=1.0 / 6.0,
        ge=0.0,
        le=1.0,
        description="Weight of the clean divergence; the attacked one has the rest.",
    )


@METHODS.register("rslad")
class RSLAD(Method):
    """RSLAD, L = 5/6 KL(p^T(x) || p^S(x~)) + 1/6 KL(p^T(x) || p^S(x)), x~ maximising the first (eq. 6).

    No labels, temperature 1; 10 steps of epsilon / 4 from x + 0.001 N(0, 1) with the student in eval
    mode, as in the authors' code.  There the divergence is averaged over batch *and* classes, so their
    loss is 1/K of this one, and with SGD their learning rate corresponds to 1/K of it here.
    """

    title = "RSLAD"
    role = "student"
    source = "Zi et al., Revisiting adversarial robustness distillation, ICCV 2021, 2108.07969"
    Config = RSLADConfig

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
        config: RSLADConfig = self.config
        target = teacher_logits(teacher, batch.images)
        adversarial = ascend(
            student,
            batch.images,
            gaussian_start(batch, config.epsilon),
            divergence_objective(target),
            epsilon=config.epsilon,
            steps=config.steps,
            step_size=config.step_length,
        )
        attacked = kl_divergence(target, student(adversarial))
        clean = kl_divergence(target, student(batch.images))
        return adversarial, {
            "adversarial": (1.0 - config.clean_weight, attacked),
            "clean": (config.clean_weight, clean),
        }
