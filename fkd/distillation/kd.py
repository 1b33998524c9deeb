"""Knowledge distillation at clean images."""

from __future__ import annotations

from pydantic import Field
from torch import nn
from torch.nn import functional

from fkd.core.config import Config
from fkd.distillation.base import (
    METHODS,
    Batch,
    Clock,
    LossParts,
    Method,
    kl_divergence,
    teacher_logits,
)


class KDConfig(Config):
    """Temperature and the share of the teacher's targets."""

    temperature: float = Field(
        default=4.0, gt=0.0, le=100.0, description="Softens both networks' outputs."
    )
    alpha: float = Field(
        default=1.0, ge=0.0, le=1.0, description="Weight of the teacher; the rest is the labels'."
    )


@METHODS.register("kd")
class KD(Method):
    """Knowledge distillation, L = (1 - alpha) CE(p^S, y) + alpha tau^2 KL(p^T_tau || p^S_tau) at x.

    Hinton et al. (section 2); the factor tau^2 keeps the gradients' scale as the temperature changes.
    """

    title = "Knowledge distillation"
    role = "student"
    source = "Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 1503.02531"
    Config = KDConfig

    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """Divergence from the teacher and CE of the labels, batch means."""
        del clock
        config: KDConfig = self.config
        logits = student(batch.images)
        target = teacher_logits(teacher, batch.images)
        divergence = kl_divergence(target, logits, config.temperature)
        terms = {"distillation": (config.alpha * config.temperature**2, divergence)}
        if config.alpha < 1.0:
            labels = functional.cross_entropy(logits, batch.labels)
            terms["labels"] = (1.0 - config.alpha, labels)
        return LossParts.weighted(terms)
