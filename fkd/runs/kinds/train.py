"""Train a teacher or distil a student, as `fkd.distillation.train_model` does."""

from __future__ import annotations

from typing import Any

from fkd.core.progress import ProgressCallback
from fkd.runs.kind import KINDS, ModelRun


@KINDS.register("train")
class TrainRun(ModelRun):
    """Train a teacher or distil a student into the user's models folder."""

    def check(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The specification of an `fkd.distillation.TrainSpec`, names checked."""
        from fkd.distillation import TrainSpec, check_spec

        checked = TrainSpec.parse(spec)
        check_spec(checked)
        return self.accept(checked.model_dump(mode="json"))

    def title(self, spec: dict[str, Any]) -> str:
        """``name: method on dataset, from teacher``."""
        source = f", from {spec['teacher']}" if spec.get("teacher") else ""
        return f"{spec['name']}: {spec['method']} on {spec['dataset']}{source}"

    def run(self, spec: dict[str, Any], progress: ProgressCallback) -> str:
        """Train from the start or from the checkpoint; the model's name."""
        from fkd.distillation import TrainSpec, train_model

        return train_model(TrainSpec.parse(spec), progress=progress).name
