"""Adversarially robust distillation."""

from __future__ import annotations

from pydantic import Field
from torch import nn
from torch.nn import functional

from fkd.distillation._inner import attacked_on_labels
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


class ARDConfig(AttackConfig):
    """The inner attack, and temperature and share of the teacher's targets."""

    temperature: float = Field(
        default=30.0, gt=0.0, le=100.0, description="Softens both networks' outputs."
    )
    alpha: float = Field(
        default=1.0, ge=0.0, le=1.0, description="Weight of the teacher; the rest is the labels'."
    )


@METHODS.register("ard")
class ARD(Method):
    """ARD, L = alpha tau^2 KL(p^T_tau(x) || p^S_tau(x~)) + (1 - alpha) CE(p^S(x), y).

    x~ = PGD on CE(p^S(x~), y) from a uniform point of the ball: 10 steps of epsilon / 4, temperature 30
    and alpha 1 are the authors' code's [code].  There the divergence is averaged over batch *and*
    classes, so that beside the labels it weighs 1/K of what it does here (at alpha = 1 only the
    learning rate's meaning differs), and the student attacks itself in train mode; here in eval mode
    [ours].  Labels choose x~ even at alpha = 1.
    """

    title = "ARD"
    role = "student"
    source = "Goldblum et al., Adversarially robust distillation, AAAI 2020, 1905.09747"
    Config = ARDConfig

    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """Divergence at attacked images and CE of the labels at clean ones, batch means."""
        del clock
        config: ARDConfig = self.config
        target = teacher_logits(teacher, batch.images)
        adversarial = attacked_on_labels(
            batch, student, epsilon=config.epsilon, steps=config.steps, step_size=config.step_length
        )
        divergence = kl_divergence(target, student(adversarial), config.temperature)
        terms = {"adversarial": (config.alpha * config.temperature**2, divergence)}
        if config.alpha < 1.0:
            labels = functional.cross_entropy(student(batch.images), batch.labels)
            terms["labels"] = (1.0 - config.alpha, labels)
        return LossParts.weighted(terms)
