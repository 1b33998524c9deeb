"""TRADES: clean accuracy against the divergence from clean to attacked predictions."""

from __future__ import annotations

from pydantic import Field
from torch import nn
from torch.nn import functional

from fkd.distillation._inner import (
    ascend,
    divergence_objective,
    frozen_statistics,
    gaussian_start,
)
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


class TRADESConfig(AttackConfig):
    """The inner attack and the trade-off."""

    beta: float = Field(
        default=3.0,
        ge=0.0,
        le=100.0,
        description="Weight of the divergence; 1 to 6 are usual on MNIST, 6 on CIFAR-10.",
    )


@METHODS.register("trades")
class TRADES(Method):
    """TRADES, L = CE(p(x), y) + beta KL(p(x) || p(x~)) at x~ maximising that KL (eq. 5).

    The start is x + 0.001 N(0, 1), the attack runs in eval mode, and the gradient passes through both
    arguments of the divergence, as in the authors' code [mem].
    """

    title = "TRADES"
    role = "teacher"
    source = "Zhang et al., Theoretically principled trade-off, ICML 2019, 1901.08573"
    Config = TRADESConfig

    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """Clean CE plus beta times the divergence, batch means."""
        del teacher, clock
        config: TRADESConfig = self.config
        # The attack sees the eval-mode prediction at x, as the authors' does.
        with frozen_statistics(student):
            target = teacher_logits(student, batch.images)
        adversarial = ascend(
            student,
            batch.images,
            gaussian_start(batch, config.epsilon),
            divergence_objective(target),
            epsilon=config.epsilon,
            steps=config.steps,
            step_size=config.step_length,
        )
        clean = student(batch.images)
        return LossParts.weighted(
            {
                "clean": (1.0, functional.cross_entropy(clean, batch.labels)),
                "divergence": (config.beta, kl_divergence(clean, student(adversarial))),
            }
        )
