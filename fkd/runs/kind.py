"""What can be run: one class per kind, one file each in `fkd.runs.kinds`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from fkd.core.hashing import hash_json, short
from fkd.core.progress import ProgressCallback
from fkd.core.registry import Registry


class RunKind(ABC):
    """One sort of run.  Subclasses register in `KINDS`; nothing else has to know of them."""

    name: ClassVar[str]
    #: Whether two specifications with one target ask for the same thing, whatever else they say:
    #: asked for again, the live run is returned.  Otherwise only an equal specification is the same.
    is_defined_by_target: ClassVar[bool] = False

    @abstractmethod
    def check(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The specification completed with defaults, as JSON values.

        Called before anything is started, so that a bad one is a sentence at once.

        Raises:
            FkdError: a setting is unknown or out of range, or something it names does not exist.
        """

    @abstractmethod
    def title(self, spec: dict[str, Any]) -> str:
        """The checked specification in a few words, for lists."""

    def target(self, spec: dict[str, Any]) -> str:
        """What the run makes: no two live runs have the same target, of whatever kind."""
        return f"{self.name}:{short(hash_json(spec))}"

    @abstractmethod
    def run(self, spec: dict[str, Any], progress: ProgressCallback) -> str:
        """Do the work, reporting early and often, and name the result (a model, a key).

        Called once more with the same specification when the run is resumed: whatever was saved is
        to be taken up.

        Raises:
            Cancelled: `progress` answered True and the work stopped.
        """


class ModelRun(RunKind):
    """A run that makes one model in the user's folder."""

    def accept(self, values: dict[str, Any]) -> dict[str, Any]:
        """``values``, a checked specification, if its model can be made or was made by exactly it.

        Raises:
            FkdError: another model has the name.
        """
        from fkd.core.paths import models_dir
        from fkd.models import check_new_model, read_card

        folder = models_dir() / values["name"]
        if (folder / "card.json").is_file() and read_card(folder).training_config == values:
            # The run will find it finished.
            return values
        check_new_model(folder)
        return values

    def target(self, spec: dict[str, Any]) -> str:
        """The model's name, of whatever kind of run: two must not write one folder."""
        return f"train:{spec['name']}"


KINDS: Registry = Registry("kind of run", "fkd.runs.kinds")
