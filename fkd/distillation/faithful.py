"""Faithful distillation: a certified bound of the confidence gap, made small while training."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fkd.core.ball import Ball
from fkd.distillation._certified import GapBound, MarginBounds, Relaxation, gap_bound, margin_bounds
from fkd.distillation._initialisation import ibp_initialise
from fkd.distillation._inner import attacked_on_divergence, uniform_start
from fkd.distillation.base import (
    METHODS,
    Batch,
    Clock,
    LossParts,
    Method,
    RampConfig,
    Setting,
    kl_divergence,
    teacher_logits,
)

#: Settings that the variants with a fixed relaxation share.
Temperature = Annotated[
    float,
    Field(gt=0.0, le=100.0, description="Softens both networks' outputs in the KD term."),
]
Kappa = Annotated[
    float,
    Field(ge=0.0, le=1000.0, description="Weight of the certified gap after the ramp."),
]
Penalty = Annotated[
    Literal["gap", "log"],
    Field(description="Penalise the gap itself, or -log(1 - gap), which does not saturate near 1."),
]
GapClass = Annotated[
    Literal["teacher", "label"],
    Field(description="Class c: the teacher's prediction, or the true one."),
]
Initialisation = Annotated[
    bool,
    Field(description="Start from weights that keep interval widths constant over the layers."),
]


def compared_classes(gap_class: GapClass, target_logits: Tensor, labels: Tensor) -> Tensor:
    """The class c of each image, int64 (N,), from the teacher's logits (N, K) and the labels (N,)."""
    return target_logits.argmax(1) if gap_class == "teacher" else labels


class FaithfulConfig(RampConfig):
    """The ball, the bound and its weight."""

    temperature: Temperature = 2.0
    kappa: Kappa = 3.0
    relaxation: Relaxation = Field(
        default="crown_ibp",
        description="Student's bounds by intervals (ibp), by linear relaxation over intervals "
        "(crown_ibp), or the latter for both networks with their rows added (joint).",
    )
    penalty: Penalty = "gap"
    gap_class: GapClass = "teacher"
    attack_weight: float = Field(
        default=3.0,
        ge=0.0,
        le=1000.0,
        description="Weight, after the ramp, of the divergence at an attacked point of the ball (the "
        "gap from below); 0 leaves the attack out.",
    )
    attack_steps: int = Field(
        default=5, ge=1, le=200, description="Steps of that attack, each of 2.5 epsilon / steps."
    )
    ibp_initialisation: Initialisation = True


class FixedRelaxationConfig(RampConfig):
    """The ball and the weight of the certified gap in it, the relaxation being the method's own."""

    temperature: Temperature = 2.0
    kappa: Kappa = 3.0
    penalty: Penalty = "gap"
    gap_class: GapClass = "teacher"
    ibp_initialisation: Initialisation = True


@METHODS.register("faithful")
class Faithful(Method):
    """Faithful distillation, L = tau^2 KL(p^T_tau(x) || p^S_tau(x)) + kappa(t) delta(x).

    delta(x) comes from certified upper bounds, over the ball B(x), of both sides of the confidence gap
    p^T_c - p^S_c, so that the student is *verifiably* close to its teacher.  That idea is the paper's;
    its text was not at hand, and the following form is this project's [ours]:

    * margins m_j = z_j - z_c of both networks are bounded on B(x) by intervals or by linear relaxation
      over interval hidden bounds; log-odds a = -LSE_j(m_j) then lie in [-LSE(upper m), -LSE(lower m)],
      and the confidence is exactly sigmoid(a);
    * p^P - p^Q <= sigmoid(highest a_P) - sigmoid(lowest a_Q) for (P, Q) = (T, S) and (S, T); delta is
      the mean of the two bounds, each of which limits its side of the gap (the larger alone, which is
      what bounds |p^T_c - p^S_c| and is shown as the curve ``delta``, would leave the other side
      without a gradient);
    * ``joint`` also uses a_P - a_Q <= max_j sup(m^Q_j - m^P_j), with the two networks' linear
      coefficients added before their absolute value is taken, so that what they share cancels;
    * the teacher's bounds carry no gradient and, but for ``joint``, are intervals: linear relaxation
      of the larger network would double the cost of a step, and with the penalty ``gap`` each side's
      gradient depends on the student's bound alone;
    * epsilon and kappa grow together from 0 after a warm-up of plain KD;
    * with ``attack_weight`` the gap is pressed from below too, by KL(p^T(x~) || p^S(x~)) at the x~ of
      B(x) that maximises it (the adversarial term of AdaAD, CVPR 2023).

    At kappa = attack_weight = 0 this is KD; at attack_weight = 0 the certified gap alone is pressed, as
    the abstract describes it.  The defaults are those of most shipped students: with the digits teacher
    ``ibp`` at epsilon 0.1 they gave a mean certified gap of 0.51 (100 images), kappa = 1 at temperature
    4 without the attack 0.87, both at 98 % clean accuracy.
    """

    title = "Faithful distillation"
    role = "student"
    source = "Faithful knowledge distillation, 2306.04431"
    Config = FaithfulConfig
    uses_bounds = True

    @property
    def relaxation(self) -> Relaxation:
        """How the student's bounds are computed."""
        return self.config.relaxation

    @property
    def attack_weight(self) -> float:
        """Weight of the attacked divergence after the ramp."""
        return self.config.attack_weight

    def prepare(self, setting: Setting) -> None:
        """Check both networks and, if asked, start the student from IBP initialisation."""
        super().prepare(setting)
        if self.config.ibp_initialisation:
            ibp_initialise(setting.student, setting.seed)

    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """Clean divergence and certified gap at the current radius, batch means."""
        config: FaithfulConfig | FixedRelaxationConfig = self.config
        target = teacher_logits(teacher, batch.images)
        divergence = kl_divergence(target, student(batch.images), config.temperature)
        terms = {"distillation": (config.temperature**2, divergence)}
        risen = config.risen(clock)
        observed: dict[str, float | Tensor] = {"epsilon": config.epsilon * risen}
        if risen * config.kappa > 0 and teacher is not None:
            classes = compared_classes(config.gap_class, target, batch.labels)
            sides = self.gap_bounds(
                batch.images, classes, target.shape[1], teacher, student, config.epsilon * risen
            )
            values = [side.gap if config.penalty == "gap" else side.log_penalty for side in sides]
            terms["certified_gap"] = (config.kappa * risen, torch.stack(values).mean())
            observed["delta"] = torch.maximum(sides[0].gap, sides[1].gap).detach().mean()
        if risen * self.attack_weight > 0 and teacher is not None:
            attacked = self._attacked(batch, teacher, student, config.epsilon * risen)
            terms["attacked"] = (
                self.attack_weight * risen,
                kl_divergence(teacher_logits(teacher, attacked), student(attacked)),
            )
        return LossParts.weighted(terms, observed)

    def _attacked(
        self, batch: Batch, teacher: nn.Module, student: nn.Module, epsilon: float
    ) -> Tensor:
        """Points of the balls where the student diverges from its teacher at the same point."""
        steps = self.config.attack_steps
        return attacked_on_divergence(
            batch,
            teacher,
            student,
            uniform_start(batch, epsilon),
            epsilon=epsilon,
            steps=steps,
            step_size=2.5 * epsilon / steps,
        )

    def gap_bounds(
        self,
        images: Tensor,
        classes: Tensor,
        num_classes: int,
        teacher: nn.Module,
        student: nn.Module,
        epsilon: float,
    ) -> tuple[GapBound, GapBound]:
        """Certified bounds of p^T_c - p^S_c and of p^S_c - p^T_c on each image's ball.

        Args:
            images: (N, C, H, W).
            classes: int64 (N,), the class c.
            num_classes: K.
            teacher: gets no gradient.
            student: gets the gradient.
            epsilon: radius.
        """
        lower, upper = Ball(epsilon=epsilon).limits(images)
        relaxation = self.relaxation

        def bounds(network: nn.Module, by: Relaxation) -> MarginBounds:
            return margin_bounds(
                self.bounded(network),
                lower,
                upper,
                classes,
                num_classes,
                relaxation=by,
                centre=images,
            )

        with torch.no_grad():
            of_teacher = bounds(teacher, "joint" if relaxation == "joint" else "ibp")
        of_student = bounds(student, relaxation)

        def side(first: MarginBounds, second: MarginBounds) -> GapBound:
            difference = None
            if relaxation == "joint" and second.highest_row and first.lowest_row:
                # sup(m^Q_j - m^P_j), Q = second.
                joint = (second.highest_row + first.lowest_row).highest(lower, upper)
                difference = joint.amax(1)
            return gap_bound(first.log_odds[1], second.log_odds[0], difference)

        return side(of_teacher, of_student), side(of_student, of_teacher)
