"""Confidence conditioned distillation with a target of each example's own."""

from __future__ import annotations

from torch import nn
from torch.nn import functional

from fkd.distillation._confidence import CCKDConfig, ConfidenceConditioned, label_confidence
from fkd.distillation.base import METHODS, Batch, Clock, LossParts, teacher_logits


class CCKDTConfig(CCKDConfig):
    """The same settings, which error messages call by this method's name."""


@METHODS.register("cckd_t")
class CCKDT(ConfidenceConditioned):
    """CCKD-T, L = tau^2 KL(q(x) || p^S_tau(x)), q = w p^T_tau + (1 - w) onehot(y), w(x) = p^T_y(x).

    The less the teacher is sure of the correct class, the more its softened prediction is moved to the
    label.  A target of each example's own, made by that confidence, is the paper's (abstract); its text
    was not at hand, so that these hold [ours]: the mixture above, tau^2, and w at temperature 1 whatever
    tau is.  w = 1 everywhere gives KD; w = 0 gives tau^2 CE(p^S_tau, y), with tau = 1 training on labels.

    Self-regulation is as in `CCKDL`.
    """

    title = "CCKD-T"
    role = "student"
    Config = CCKDTConfig
    source = (
        "Mishra and Sundaram, Confidence conditioned knowledge distillation, 2107.06993 "
        "(target form)"
    )

    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """Divergence from the mixed targets, batch mean."""
        del clock
        temperature = self.config.temperature
        target = teacher_logits(teacher, batch.images)
        weight = label_confidence(target, batch.labels)[:, None]
        softened = functional.softmax(target / temperature, dim=1)
        one_hot = functional.one_hot(batch.labels, target.shape[1])
        divergence = functional.kl_div(
            functional.log_softmax(student(batch.images) / temperature, dim=1),
            weight * softened + (1.0 - weight) * one_hot,
            reduction="batchmean",
        )
        return LossParts.weighted({"distillation": (temperature**2, divergence)}, self.observed())
