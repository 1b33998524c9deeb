"""Attack and certify a pair, as `fkd.evaluation.analyse` does."""

from __future__ import annotations

from typing import Any

from fkd.core.progress import ProgressCallback
from fkd.runs.kind import KINDS, RunKind


@KINDS.register("analyse")
class AnalyseRun(RunKind):
    """Attack and certify a teacher and a student on a data set's first examples."""

    is_defined_by_target = True

    def check(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The specification of an `fkd.evaluation.AnalysisConfig`, names and counts checked."""
        from fkd.evaluation import AnalysisConfig
        from fkd.evaluation.config import check_examples

        config = AnalysisConfig.parse(spec)
        check_examples(config)
        return config.model_dump(mode="json")

    def title(self, spec: dict[str, Any]) -> str:
        """``student against teacher on dataset, epsilon 0.1, 200 examples, fast``."""
        from fkd.bounds import certificate_config
        from fkd.evaluation import certificate_text

        level = certificate_text(certificate_config(spec["certificate"]))
        norm = " in L2" if spec.get("norm") == "l2" else ""
        return (
            f"{spec['student']} against {spec['teacher']} on {spec['dataset']}, "
            f"epsilon {spec['epsilon']:g}{norm}, {spec['count']} examples, {level}"
        )

    def target(self, spec: dict[str, Any]) -> str:
        """The key under which the result will be stored."""
        from fkd.evaluation import AnalysisConfig, ResolvedPair

        return f"analyse:{ResolvedPair(AnalysisConfig.parse(spec)).key()}"

    def run(self, spec: dict[str, Any], progress: ProgressCallback) -> str:
        """Compute and store the analysis; its key."""
        from fkd.evaluation import AnalysisConfig, analyse

        return analyse(AnalysisConfig.parse(spec), progress=progress).key
