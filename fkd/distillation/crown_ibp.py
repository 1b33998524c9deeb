"""Certified training by linear relaxation over interval bounds."""

from __future__ import annotations

from pydantic import Field

from fkd.distillation.base import METHODS
from fkd.distillation.ibp import IBP, IBPConfig


class CROWNIBPConfig(IBPConfig):
    """IBP's settings, and what is left of the linear relaxation at the end."""

    final_mix: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="Weight beta of the linear bound after the ramp; it falls from 1.",
    )


@METHODS.register("crown_ibp")
class CROWNIBP(IBP):
    """CROWN-IBP, L = kappa CE(z(x), y) + (1 - kappa) CE(z_worst, y) with mixed bounds (section 3.2).

    The upper margins are beta times one backward pass of linear relaxation over interval bounds of the
    hidden layers, plus 1 - beta times intervals; beta falls from 1 to ``final_mix`` while epsilon grows.
    """

    title = "Certified training (CROWN-IBP)"
    source = "Zhang et al., Stable and efficient training of verifiably robust networks, 1906.06316"
    Config = CROWNIBPConfig

    def _mix(self, risen: float) -> float:
        """Weight of linear relaxation beside intervals."""
        return 1.0 - risen * (1.0 - self.config.final_mix)
