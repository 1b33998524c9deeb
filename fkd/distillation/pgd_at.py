"""Adversarial training by projected gradient descent."""

from __future__ import annotations

from pydantic import Field
from torch import nn
from torch.nn import functional

from fkd.distillation._inner import attacked_on_labels
from fkd.distillation.base import METHODS, AttackConfig, Batch, Clock, LossParts, Method


class PGDATConfig(AttackConfig):
    """The inner attack, and how much clean data is mixed in."""

    clean_weight: float = Field(
        default=0.0, ge=0.0, le=1.0, description="Weight of the clean cross-entropy; 0 is usual."
    )


@METHODS.register("pgd_at")
class PGDAT(Method):
    """Adversarial training, L = CE(p(x~), y) at x~ = PGD on CE (Madry et al. 2018, eq. 2.1).

    The start is uniform in the ball.  The network attacks itself in eval mode, a choice of this
    project where it has batch normalisation [ours].  ``clean_weight`` w > 0 gives
    (1 - w) CE(x~) + w CE(x) [ours].
    """

    title = "Adversarial training (PGD)"
    role = "teacher"
    source = (
        "Madry et al., Towards deep learning models resistant to adversarial attacks, 1706.06083"
    )
    Config = PGDATConfig

    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """CE at the attacked images, batch mean."""
        del teacher, clock
        config: PGDATConfig = self.config
        adversarial = attacked_on_labels(
            batch, student, epsilon=config.epsilon, steps=config.steps, step_size=config.step_length
        )
        terms = {
            "adversarial": (
                1.0 - config.clean_weight,
                functional.cross_entropy(student(adversarial), batch.labels),
            )
        }
        if config.clean_weight > 0:
            clean = functional.cross_entropy(student(batch.images), batch.labels)
            terms["clean"] = (config.clean_weight, clean)
        return LossParts.weighted(terms)
