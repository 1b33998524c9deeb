"""Copy a model with altered weights, as `fkd.distillation.copy_model` does."""

from __future__ import annotations

from typing import Any

from fkd.core.progress import ProgressCallback
from fkd.runs.kind import KINDS, RunKind


@KINDS.register("copy")
class CopyRun(RunKind):
    """Make a student by altering a model's weights, into the user's models folder."""

    def check(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The specification of an `fkd.distillation.CopySpec`, names checked."""
        from fkd.core.paths import models_dir
        from fkd.distillation import CopySpec, check_copy
        from fkd.models import check_new_model, read_card

        checked = CopySpec.parse(spec)
        check_copy(checked)
        values = checked.model_dump(mode="json")
        folder = models_dir() / checked.name
        if (folder / "card.json").is_file() and read_card(folder).training_config == values:
            # Made by exactly this specification: the run will find it finished.
            return values
        check_new_model(folder)
        return values

    def title(self, spec: dict[str, Any]) -> str:
        """``name: quantised copy of teacher``."""
        return f"{spec['name']}: {spec['method']} copy of {spec['teacher']}"

    def target(self, spec: dict[str, Any]) -> str:
        """The model's name, written as a training's: the two must not write one folder."""
        return f"train:{spec['name']}"

    def run(self, spec: dict[str, Any], progress: ProgressCallback) -> str:
        """Copy and measure; the model's name."""
        from fkd.distillation import CopySpec, copy_model

        return copy_model(CopySpec.parse(spec), progress=progress).name
