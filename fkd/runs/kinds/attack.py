"""Measure how a pair differs in several ways, as `fkd.evaluation.measure_pair` does."""

from __future__ import annotations

from typing import Any

from fkd.core.progress import ProgressCallback
from fkd.runs.kind import KINDS, RunKind


@KINDS.register("attack")
class AttackRun(RunKind):
    """Search for the largest differences of a teacher and a student, by several measures."""

    is_defined_by_target = True

    def check(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The specification of an `fkd.evaluation.MeasuresConfig`, names and counts checked."""
        from fkd.evaluation import MeasuresConfig
        from fkd.evaluation.config import check_examples

        config = MeasuresConfig.parse(spec)
        check_examples(config.analysis())
        return config.model_dump(mode="json")

    def title(self, spec: dict[str, Any]) -> str:
        """``student against teacher on dataset, epsilon 0.1, 200 examples: label, kl``."""
        from fkd.evaluation import MeasuresConfig, measure_names

        config = MeasuresConfig.parse(spec)
        is_all = list(config.measures) == measure_names()
        return (
            f"{config.student} against {config.teacher} on {config.dataset}, "
            f"{config.ball.describe()}, {config.count} examples: "
            f"{'all measures' if is_all else ', '.join(config.measures)}"
        )

    def target(self, spec: dict[str, Any]) -> str:
        """The key under which the result will be stored."""
        from fkd.evaluation import MeasuresConfig, measures_key

        return f"attack:{measures_key(MeasuresConfig.parse(spec))}"

    def run(self, spec: dict[str, Any], progress: ProgressCallback) -> str:
        """Search and store the measures; the table's key."""
        from fkd.evaluation import MeasuresConfig, measure_pair

        return measure_pair(MeasuresConfig.parse(spec), progress=progress).key
