"""Copy a model with altered weights, as `fkd.distillation.copy_model` does."""

from __future__ import annotations

from typing import Any

from fkd.core.progress import ProgressCallback
from fkd.runs.kind import KINDS, ModelRun


@KINDS.register("copy")
class CopyRun(ModelRun):
    """Make a student by altering a model's weights, into the user's models folder."""

    def check(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The specification of an `fkd.distillation.CopySpec`, names checked."""
        from fkd.distillation import CopySpec, check_copy

        checked = CopySpec.parse(spec)
        check_copy(checked)
        return self.accept(checked.model_dump(mode="json"))

    def title(self, spec: dict[str, Any]) -> str:
        """``name: quantised copy of teacher``."""
        return f"{spec['name']}: {spec['method']} copy of {spec['teacher']}"

    def run(self, spec: dict[str, Any], progress: ProgressCallback) -> str:
        """Copy and measure; the model's name."""
        from fkd.distillation import CopySpec, copy_model

        return copy_model(CopySpec.parse(spec), progress=progress).name
