"""Level *tight*: lower slopes, simplex weights and support lines optimised for the gap (stage 4).

After the fast level each network is written down for its open units only (`fkd.bounds.engine.reduced`),
hidden bounds are optimised layer by layer, and then every row of both directions and of agreement.
Every value of what is optimised is sound; the search runs in float32, and what counts is one evaluation
in float64, widened by the proved rounding error.

Sources: alpha-CROWN, Xu et al. 2011.13824; the rows are this project's own.
"""

from __future__ import annotations

from pydantic import Field

from fkd.bounds._optimised import Optimised
from fkd.bounds.base import CertificateConfig, CertificateResult
from fkd.bounds.fast import EngineCertificate, Foundation, Task
from fkd.bounds.registry import CERTIFICATES


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

    def bound_chunk(self, task: Task) -> CertificateResult:
        """See `EngineCertificate.bound_chunk`."""
        foundation = Foundation(
            task.pair, task.region, task.classes, paired_steps=self.config.steps
        )
        parts: list[CertificateResult] = []
        for rows in foundation.pieces():
            optimised = Optimised(
                foundation.part(rows),
                steps=self.config.steps,
                hidden_steps=self.config.hidden_steps,
            )
            parts.append(self.finish(task, rows.start, optimised))
        return CertificateResult.cat(parts)

    def finish(self, task: Task, start: int, optimised: Optimised) -> CertificateResult:
        """The answer for some of a task's sets, from number ``start`` on."""
        task.tell(start)
        return optimised.result()
