"""Train a teacher or distil a student, as `fkd.distillation.train_model` does."""

from __future__ import annotations

from typing import Any

from fkd.core.progress import ProgressCallback
from fkd.runs.kind import KINDS, RunKind


@KINDS.register("train")
class TrainRun(RunKind):
    """Train a teacher or distil a student into the user's models folder."""

    def check(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The specification of an `fkd.distillation.TrainSpec`, names checked."""
        from fkd.core.paths import models_dir
        from fkd.distillation import TrainSpec, check_spec
        from fkd.models import check_new_model, read_card

        checked = TrainSpec.parse(spec)
        check_spec(checked)
        values = checked.model_dump(mode="json")
        folder = models_dir() / checked.name
        if (folder / "card.json").is_file() and read_card(folder).training_config == values:
            # Made by exactly this specification: the run will find it finished.
            return values
        check_new_model(folder)
        return values

    def title(self, spec: dict[str, Any]) -> str:
        """``name: method on dataset, from teacher``."""
        source = f", from {spec['teacher']}" if spec.get("teacher") else ""
        return f"{spec['name']}: {spec['method']} on {spec['dataset']}{source}"

    def target(self, spec: dict[str, Any]) -> str:
        """The model's name: two runs must not write one folder."""
        return f"train:{spec['name']}"

    def run(self, spec: dict[str, Any], progress: ProgressCallback) -> str:
        """Train from the start or from the checkpoint; the model's name."""
        from fkd.distillation import TrainSpec, train_model

        return train_model(TrainSpec.parse(spec), progress=progress).name
