"""Try each student's witnesses on the others, as `fkd.evaluation.transfer_witnesses` does."""

from __future__ import annotations

from typing import Any

from fkd.core.progress import ProgressCallback
from fkd.runs.kind import KINDS, RunKind


@KINDS.register("transfer")
class TransferRun(RunKind):
    """Try what was found against one student of a teacher on its other students."""

    is_defined_by_target = True

    def check(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The specification of an `fkd.evaluation.TransferConfig`, names and counts checked."""
        from fkd.evaluation import ResolvedTransfer, TransferConfig

        config = TransferConfig.parse(spec)
        ResolvedTransfer(config).load_split()
        return config.model_dump(mode="json")

    def title(self, spec: dict[str, Any]) -> str:
        """``witnesses of 3 students of teacher on dataset, epsilon 0.1, 200 examples: a, b, c``."""
        from fkd.evaluation import TransferConfig

        config = TransferConfig.parse(spec)
        return (
            f"witnesses of {len(config.students)} students of {config.teacher} on {config.dataset}, "
            f"{config.ball.describe()}, {config.count} examples: {', '.join(config.students)}"
        )

    def target(self, spec: dict[str, Any]) -> str:
        """The key under which the result will be stored."""
        from fkd.evaluation import ResolvedTransfer, TransferConfig, transfer_key

        return f"transfer:{transfer_key(ResolvedTransfer(TransferConfig.parse(spec)))}"

    def run(self, spec: dict[str, Any], progress: ProgressCallback) -> str:
        """Try and store the witnesses; the table's key."""
        from fkd.evaluation import TransferConfig, transfer_witnesses

        return transfer_witnesses(TransferConfig.parse(spec), progress=progress).key
