"""Search for a pair's certified agreement radii, as `fkd.evaluation.search_radii` does."""

from __future__ import annotations

from typing import Any

from fkd.core.progress import ProgressCallback
from fkd.runs.kind import KINDS, RunKind


@KINDS.register("radius")
class RadiusRun(RunKind):
    """Find up to which radius a teacher and a student provably predict the same."""

    is_defined_by_target = True

    def check(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The specification of an `fkd.evaluation.RadiusConfig`, names and counts checked."""
        from fkd.evaluation import RadiusConfig
        from fkd.evaluation.config import check_examples

        config = RadiusConfig.parse(spec)
        check_examples(config)
        return config.model_dump(mode="json")

    def title(self, spec: dict[str, Any]) -> str:
        """``student against teacher on dataset, agreement radius up to 0.3, 20 examples, tight``."""
        from fkd.bounds import certificate_config
        from fkd.evaluation import certificate_text

        level = (
            certificate_text(certificate_config(spec["certificate"]))
            if spec.get("proofs", True)
            else "without proofs"
        )
        norm = " in L2" if spec.get("norm") == "l2" else ""
        return (
            f"{spec['student']} against {spec['teacher']} on {spec['dataset']}, agreement radius up to "
            f"{spec['epsilon']:g}{norm}, {spec['count']} examples, {level}"
        )

    def target(self, spec: dict[str, Any]) -> str:
        """The key under which the result will be stored."""
        from fkd.evaluation import RadiusConfig, ResolvedPair, radius_key

        return f"radius:{radius_key(ResolvedPair(RadiusConfig.parse(spec)))}"

    def run(self, spec: dict[str, Any], progress: ProgressCallback) -> str:
        """Search and store the radii; their key."""
        from fkd.evaluation import RadiusConfig, search_radii

        return search_radii(RadiusConfig.parse(spec), progress=progress).key
