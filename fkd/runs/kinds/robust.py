"""Measure one model's standard robustness, as `fkd.evaluation.measure_robustness` does."""

from __future__ import annotations

from typing import Any

from fkd.core.progress import ProgressCallback
from fkd.runs.kind import KINDS, RunKind


@KINDS.register("robust")
class RobustRun(RunKind):
    """Find how often one model alone stays right inside the ball, under PGD and AutoAttack."""

    is_defined_by_target = True

    def check(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The specification of an `fkd.evaluation.RobustnessConfig`, names and counts checked."""
        from fkd.evaluation import RobustnessConfig, check_measurement

        config = RobustnessConfig.parse(spec)
        check_measurement(config)
        return config.model_dump(mode="json")

    def title(self, spec: dict[str, Any]) -> str:
        """``model alone on dataset, epsilon 0.1, 100 examples``."""
        from fkd.evaluation import RobustnessConfig

        config = RobustnessConfig.parse(spec)
        return (
            f"{config.model} alone on {config.dataset}, {config.ball.describe()}, "
            f"{config.count} examples"
        )

    def target(self, spec: dict[str, Any]) -> str:
        """The key under which the result will be stored."""
        from fkd.evaluation import ResolvedModel, RobustnessConfig, robustness_key

        return f"robust:{robustness_key(ResolvedModel(RobustnessConfig.parse(spec)))}"

    def run(self, spec: dict[str, Any], progress: ProgressCallback) -> str:
        """Measure and store the robustness; its key."""
        from fkd.evaluation import RobustnessConfig, measure_robustness

        return measure_robustness(RobustnessConfig.parse(spec), progress=progress).key
