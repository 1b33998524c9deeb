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


KINDS: Registry = Registry("kind of run", "fkd.runs.kinds")
