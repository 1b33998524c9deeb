"""Introspective adversarial distillation."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from fkd.distillation._inner import attacked_on_labels
from fkd.distillation.base import (
    METHODS,
    AttackConfig,
    Batch,
    Clock,
    LossParts,
    Method,
    kl_divergence,
    kl_divergences,
    teacher_logits,
)


class IADConfig(AttackConfig):
    """The inner attack, and how far and from when on the teacher is distrusted."""

    temperature: float = Field(
        default=1.0,
        gt=0.0,
        le=100.0,
        description="Softens both networks' outputs in the teacher's term.",
    )
    beta: float = Field(
        default=0.1,
        ge=0.0,
        le=10.0,
        description="Power of the teacher's probability of the label; 0 trusts it entirely.",
    )
    begin: float = Field(
        default=0.3,
        ge=0.0,
        le=1.0,
        description="Share of training after which the student's own predictions count.",
    )


@METHODS.register("iad")
class IAD(Method):
    """IAD-I, L = tau^2 KL(p^T_tau(x) || p^S_tau(x~)) + mean of (1 - a) KL(p^S(x) || p^S(x~)).

    a = p^T_y(x~)^beta is how far the teacher is to be trusted at x~ = PGD on CE(p^S(x~), y); where it
    is not, the student holds to its own prediction at the clean image.  The second term counts from
    epoch 60 of 200 on, before it the first stands alone.  All this is the authors' code's [code]: the
    first term is not weighted with a, the second has temperature 1 and a gradient through both of its
    arguments, sums over classes and means over the batch, uniform start, 10 steps of epsilon / 4.  Left
    out is a weight of the labels that is 0 there by default; the student attacks itself in eval mode
    [ours].  At beta = 0 this is ARD without labels' weight.
    """

    title = "IAD-I"
    role = "student"
    source = "Zhu et al., Reliable adversarial distillation with unreliable teachers, ICLR 2022"
    Config = IADConfig

    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """Divergences from teacher and from the student's own clean prediction, batch means."""
        config: IADConfig = self.config
        target = teacher_logits(teacher, batch.images)
        adversarial = attacked_on_labels(
            batch, student, epsilon=config.epsilon, steps=config.steps, step_size=config.step_length
        )
        attacked = student(adversarial)
        divergence = kl_divergence(target, attacked, config.temperature)
        terms = {"distillation": (config.temperature**2, divergence)}
        observed: dict[str, float | Tensor] = {}
        if clock.fraction >= config.begin:
            guide = teacher_logits(teacher, adversarial).softmax(1)
            trust = guide.gather(1, batch.labels[:, None])[:, 0] ** config.beta
            own = kl_divergences(student(batch.images), attacked)
            terms["introspection"] = (1.0, ((1.0 - trust) * own).mean())
            observed["trust"] = trust.mean()
        return LossParts.weighted(terms, observed)
