"""Confidence conditioned distillation with a loss of each example's own."""

from __future__ import annotations

from torch import nn
from torch.nn import functional

from fkd.distillation._confidence import ConfidenceConditioned, label_confidence
from fkd.distillation.base import METHODS, Batch, Clock, LossParts, kl_divergences, teacher_logits


@METHODS.register("cckd_l")
class CCKDL(ConfidenceConditioned):
    """CCKD-L, L = w(x) tau^2 KL(p^T_tau || p^S_tau) + (1 - w(x)) CE(p^S, y), w(x) = p^T_y(x).

    The surer the teacher is of the correct class, the more an example is distilled; the less, the more
    its label counts.  Weighing each example's loss by that confidence is the paper's (abstract); its
    text was not at hand, so that these hold [ours]: the two terms above, tau^2, and w at temperature 1
    whatever tau is.  w = 1 everywhere gives KD, w = 0 training on labels.

    Self-regulation, which lets examples leave that the student learns faster, is the paper's too; the
    rule is this project's [ours]: an example takes part in an epoch if the student, in eval mode and on
    the image as it is, is wrong or p^S_y < p^T_y + margin; looked at anew every ``check_every`` epochs.
    A batch is always left, those the student is least sure of.  ``distilled_share`` is the share that
    takes part.
    """

    title = "CCKD-L"
    role = "student"
    source = (
        "Mishra and Sundaram, Confidence conditioned knowledge distillation, 2107.06993 (loss form)"
    )

    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """Weighted divergences from the teacher and weighted CE of the labels, batch means."""
        del clock
        temperature = self.config.temperature
        target = teacher_logits(teacher, batch.images)
        logits = student(batch.images)
        weight = label_confidence(target, batch.labels)
        divergence = kl_divergences(target, logits, temperature)
        labels = functional.cross_entropy(logits, batch.labels, reduction="none")
        return LossParts.weighted(
            {
                "distillation": (temperature**2, (weight * divergence).mean()),
                "labels": (1.0, ((1.0 - weight) * labels).mean()),
            },
            self.observed(),
        )
