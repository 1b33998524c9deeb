"""Level *exact*: branch and bound, anytime, within a time budget an example (stage 5).

After the tight level the set is split at signs of hidden units of either network, best domain first,
until the bracket is as narrow as asked or the time is up.  Both ends move: each round tries the points
where its bounds are attained as witnesses.  Every interruption leaves a valid bracket.

Sources: beta-CROWN, Wang et al. 2103.06624; branching score of Bunel et al. 1909.06588.
"""

from __future__ import annotations

from pydantic import Field

from fkd.bounds._branching import Budget
from fkd.bounds.registry import CERTIFICATES
from fkd.bounds.tight import Tight, TightConfig


class ExactConfig(TightConfig):
    """How long is branched."""

    name: str = Field(default="exact", description="Registry name of the certificate.")
    seconds: float = Field(
        default=10.0,
        ge=0.0,
        le=86400.0,
        description="Time budget of branching on an example; 0: only its number of domains.",
    )


@CERTIFICATES.register("exact")
class Exact(Tight):
    """Branch and bound on the joint relaxation; values of its reports are the bracket in work."""

    Config = ExactConfig
    config: ExactConfig

    def budget(self) -> Budget:
        """How long each example is branched on."""
        limits = super().budget()
        return Budget(limits.domains, self.config.seconds, limits.tolerance, limits.memory_mb)
