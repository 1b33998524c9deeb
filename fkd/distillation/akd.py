"""Adversarial knowledge distillation."""

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


class AKDConfig(AttackConfig):
    """The inner attack and the share of the teacher's targets."""

    alpha: float = Field(
        default=0.9, ge=0.0, le=1.0, description="Weight of the teacher; the rest is the labels'."
    )


@METHODS.register("akd")
class AKD(Method):
    """AKD, L = (1 - alpha) CE(p^S(x~), y) + alpha KL(p^T(x~) || p^S(x~)), x~ = PGD on CE(p^S(x~), y).

    Adversarial training whose targets are mixed with those of an adversarially trained teacher, which
    is queried at the attacked image, not at the clean one [mem].  The paper's text was not at hand:
    temperature 1, a uniform start, the attack in eval mode and alpha = 0.9 are this project's [ours].
    The gradient is that of CE against the mixed target (1 - alpha) onehot(y) + alpha p^T(x~).  At
    alpha = 0 this is adversarial training (`pgd_at`).
    """

    title = "AKD"
    role = "student"
    source = (
        "Maroto et al., On the benefits of knowledge distillation for adversarial robustness, "
        "2203.07159"
    )
    Config = AKDConfig

    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """CE of the labels and divergence from the teacher, both at attacked images, batch means."""
        del clock
        config: AKDConfig = self.config
        adversarial = attacked_on_labels(
            batch, student, epsilon=config.epsilon, steps=config.steps, step_size=config.step_length
        )
        target = teacher_logits(teacher, adversarial)
        logits = student(adversarial)
        terms = {"distillation": (config.alpha, kl_divergence(target, logits))}
        if config.alpha < 1.0:
            labels = functional.cross_entropy(logits, batch.labels)
            terms["labels"] = (1.0 - config.alpha, labels)
        return LossParts.weighted(terms)
