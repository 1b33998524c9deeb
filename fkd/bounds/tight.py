"""Level *tight*: lower slopes, simplex weights and support lines optimised for the gap (stage 4).

After the fast level each network is written down for its open units only (`fkd.bounds.engine.reduced`),
hidden bounds are optimised layer by layer, and then every row of both directions and of agreement.
Every value of what is optimised is sound; the search runs in float32, and what counts is one evaluation
in float64, widened by the proved rounding error.

Sources: alpha-CROWN, Xu et al. 2011.13824; the rows are this project's own.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fkd.bounds._optimised import Optimised
from fkd.bounds._pair import Pair
from fkd.bounds.base import CertificateConfig, CertificateResult
from fkd.bounds.fast import EngineCertificate, Foundation
from fkd.bounds.registry import CERTIFICATES
from fkd.core.ball import Region


class TightConfig(CertificateConfig):
    """How long is optimised."""

    name: str = Field(default="tight", description="Registry name of the certificate.")
    steps: int = Field(
        default=30, ge=2, le=1000, description="Search steps for the bound of the gap."
    )
    hidden_steps: int = Field(
        default=8, ge=0, le=1000, description="Search steps for the bounds of each hidden layer."
    )


@CERTIFICATES.register("tight")
class Tight(EngineCertificate):
    """Optimised joint relaxation."""

    Config = TightConfig
    config: TightConfig

    def bound_chunk(self, pair: Pair, region: Region, classes: Tensor) -> CertificateResult:
        """See `EngineCertificate.bound_chunk`."""
        foundation = Foundation(pair, region, classes, paired_steps=self.config.steps)
        parts = [self._optimise(foundation.part(rows)) for rows in foundation.pieces()]
        return CertificateResult.cat(parts)

    def _optimise(self, foundation: Foundation) -> CertificateResult:
        optimised = Optimised(
            foundation, steps=self.config.steps, hidden_steps=self.config.hidden_steps
        )
        upper, lower = optimised.bracket()
        known = foundation.result()
        return CertificateResult(
            gap_upper=torch.fmin(upper, known.gap_upper),
            gap_lower=torch.fmax(lower, known.gap_lower),
            agrees=optimised.accord.agrees,
            teacher_robust=optimised.accord.teacher_robust,
            student_robust=optimised.accord.student_robust,
        )
