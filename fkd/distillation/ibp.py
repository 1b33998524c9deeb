"""Certified training by interval bound propagation."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fkd.bounds.engine.intervals import margin_rows
from fkd.core.ball import Ball
from fkd.distillation._certified import crown_ibp_upper_margins, worst_case_cross_entropy
from fkd.distillation._initialisation import ibp_initialise
from fkd.distillation.base import METHODS, Batch, Clock, LossParts, Method, RampConfig, Setting


class IBPConfig(RampConfig):
    """The ball's growth and the weight left on clean accuracy."""

    clean_weight: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="Weight kappa of the clean cross-entropy after the ramp; it falls from 1.",
    )
    ibp_initialisation: bool = Field(
        default=True,
        description="Start from weights that keep interval widths constant over the layers.",
    )


@METHODS.register("ibp")
class IBP(Method):
    """Interval bound propagation, L = kappa CE(z(x), y) + (1 - kappa) CE(z_worst, y) (eq. 12).

    z_worst holds the true class's lower and the other classes' upper bound, by intervals with the last
    layer merged into the margins z_j - z_y.  epsilon grows from 0 and kappa falls from 1 to
    ``clean_weight`` together over the ramp; weights start as in Shi et al. (2103.17268, section 3.1),
    and batch normalisation uses the clean batch's statistics for the bounds.
    """

    title = "Certified training (IBP)"
    role = "teacher"
    source = "Gowal et al., On the effectiveness of interval bound propagation, 1810.12715"
    Config = IBPConfig
    uses_bounds = True

    def prepare(self, setting: Setting) -> None:
        """Check the network and, if asked, start it from IBP initialisation."""
        super().prepare(setting)
        if self.config.ibp_initialisation:
            ibp_initialise(setting.student, setting.seed)

    def _mix(self, risen: float) -> float:
        """Weight of linear relaxation beside intervals: none."""
        del risen
        return 0.0

    def _box(self, batch: Batch, student: nn.Module, epsilon: float) -> tuple[Tensor, Tensor]:
        """Lowest and highest pixels of the sets that are bounded: the balls."""
        del student
        return Ball(epsilon=epsilon).limits(batch.images)

    def _worst(
        self,
        batch: Batch,
        student: nn.Module,
        num_classes: int,
        epsilon: float,
        risen: float,
        centre: Tensor,
    ) -> Tensor:
        """CE of the worst logits on the boxes, batch mean; ``centre`` as in `BoundedNetwork.hidden`."""
        network = self.bounded(student)
        lower, upper = self._box(batch, student, epsilon)
        hidden = network.hidden(lower, upper, centre)
        rows = margin_rows(batch.labels, num_classes, lower)
        margins = crown_ibp_upper_margins(network, hidden, lower, upper, rows, self._mix(risen))
        return worst_case_cross_entropy(margins)

    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """Clean and worst-case CE at the current radius, batch means."""
        del teacher
        config: IBPConfig = self.config
        risen = config.risen(clock)
        epsilon = config.epsilon * risen
        kappa = 1.0 - risen * (1.0 - config.clean_weight)
        logits = student(batch.images)
        terms = {"clean": (kappa, functional.cross_entropy(logits, batch.labels))}
        if kappa < 1.0:
            worst = self._worst(batch, student, logits.shape[1], epsilon, risen, batch.images)
            terms["worst"] = (1.0 - kappa, worst)
        return LossParts.weighted(terms, {"epsilon": epsilon})
