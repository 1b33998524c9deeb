"""Level *tight*: slopes, simplex weights and support lines optimised for the gap (stage 4), few splits.

What the fast level does not settle goes on: each network is written down for its open units only
(`fkd.bounds.engine.reduced`), hidden bounds are optimised layer by layer, and then every row of
both directions and of agreement, until an example's bound is low enough or stalls.  What optimising
leaves is the triangle relaxation's own looseness, which only splits take away: where the bracket is
still open, each example gets the same small number of domains of branch and bound, so the result
does not depend on a clock.  Every value of what is optimised is sound; the search runs in float32,
and what counts is one evaluation in float64, widened by the proved rounding error.

Sources: alpha-CROWN, Xu et al. 2011.13824; beta-CROWN, Wang et al. 2103.06624; branching score of Bunel
et al. 1909.06588; the rows are this project's own.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import Tensor

from fkd.bounds._branching import Branching, Budget
from fkd.bounds._optimised import Optimised
from fkd.bounds.base import CertificateConfig, CertificateResult
from fkd.bounds.fast import EngineCertificate, Foundation, Task
from fkd.bounds.registry import CERTIFICATES
from fkd.core.errors import Cancelled


class TightConfig(CertificateConfig):
    """How long is optimised."""

    name: str = Field(default="tight", description="Registry name of the certificate.")
    steps: int = Field(
        default=30, ge=2, le=1000, description="Search steps for the bound of the gap."
    )
    hidden_steps: int = Field(
        default=8, ge=0, le=1000, description="Search steps for the bounds of each hidden layer."
    )
    domains: int = Field(
        default=256,
        ge=0,
        le=10**7,
        description="Domains of branch and bound for each open example, whatever they cost.",
    )
    tolerance: float = Field(
        default=0.001, gt=0.0, le=1.0, description="Stop when the bracket is this narrow."
    )
    memory_mb: int = Field(
        default=3072,
        ge=64,
        description="Memory for the open domains of all examples in work, in MiB.",
    )


@CERTIFICATES.register("tight")
class Tight(EngineCertificate):
    """Optimised joint relaxation; values of its reports are the bracket in work."""

    Config = TightConfig
    config: TightConfig
    # Examples take very different times: small chunks keep all threads busy to the end.
    at_once = 2
    is_resumable = True

    def bound_chunk(self, task: Task) -> CertificateResult:
        """See `EngineCertificate.bound_chunk`."""
        foundation = Foundation(
            task.pair, task.region, task.classes, paired_steps=self.config.steps
        )
        images = task.region.images
        points = images[:, None].expand(-1, 2, *images.shape[1:])
        answer = replace(foundation.result(), points=points)
        numbers = (~foundation.is_settled(self.config.tolerance)).nonzero()[:, 0]
        if not len(numbers):
            return answer
        unsettled = foundation.part(numbers)
        for rows in unsettled.pieces():
            optimised = Optimised(
                unsettled.part(rows),
                tolerance=self.config.tolerance,
                steps=self.config.steps,
                hidden_steps=self.config.hidden_steps,
            )
            answer = self._finish(task, numbers[rows], optimised, answer)
        return answer

    def budget(self) -> Budget:
        """How long each example is branched on."""
        return Budget(self.config.domains, 0.0, self.config.tolerance, self.config.memory_mb)

    def _finish(
        self, task: Task, numbers: Tensor, optimised: Optimised, answer: CertificateResult
    ) -> CertificateResult:
        """``answer`` with what branching on each of the optimised sets proves.

        Args:
            task: all sets.
            numbers: int64, which of them were optimised.
            optimised: they.
            answer: for all sets.

        Raises:
            Cancelled: with what was proved so far as its ``partial``.
        """
        known, budget = optimised.result(), self.budget()
        parts: list[CertificateResult] = []
        stopped = None
        for number, place in enumerate(numbers.tolist()):
            example = Branching(budget, task, place, optimised, number, known, self.config.steps)
            if stopped is None:
                try:
                    example.run()
                except Cancelled as stop:
                    stopped = stop
            parts.append(example.result())
        answer = answer.put(numbers, CertificateResult.cat(parts))
        if stopped is not None:
            stopped.partial = answer
            raise stopped
        return answer
