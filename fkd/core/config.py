"""Frozen, validated configurations: one class makes the form, the CLI options, the JSON and the hash."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fkd.core.errors import ConfigError

if TYPE_CHECKING:
    from fkd.core.registry import Registry

#: Whether a configuration is being checked, of which another is a part.
_INSIDE: ContextVar[bool] = ContextVar("inside_config", default=False)

ConfigT = TypeVar("ConfigT", bound="Config")


class Config(BaseModel):
    """Base of every configuration: immutable, no unknown fields, no silent NaN.

    Every field carries a range and a description (``pydantic.Field``); the dashboard's forms and the
    command line are drawn from them.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    #: What people call these settings; by default the class's name in words, without "Config".
    called: ClassVar[str] = ""
    #: Set by the registry that has an entry with these settings: they are then called by its name.
    registry: ClassVar[Registry | None] = None

    def __init__(self, **values: Any) -> None:
        """Check the values, turning pydantic's report into one sentence.

        Raises:
            ConfigError: a field is unknown, missing or outside its range.
        """
        outer = _INSIDE.set(True)
        try:
            super().__init__(**values)
        except ValidationError as error:
            if outer.old_value is True:
                # A field of another: that one says where in it the problem is.
                raise
            raise ConfigError(
                validation_sentence(self._in_words(values), error, self._who_else_has)
            ) from None
        finally:
            _INSIDE.reset(outer)

    @classmethod
    def parse(cls: type[ConfigT], values: dict[str, Any] | None = None, **more: Any) -> ConfigT:
        """Build from a mapping.

        Raises:
            ConfigError: a field is unknown, missing or outside its range.
        """
        # Settings with a name of their own are refused by it, also where they are a part of others.
        alone = _INSIDE.set(False)
        try:
            return cls(**{**(values or {}), **more})
        finally:
            _INSIDE.reset(alone)

    @classmethod
    def _in_words(cls, values: dict[str, Any]) -> str:
        """``certificate exact``, ``analysis``: what a person knows these settings by."""
        if cls.registry is not None:
            owners = cls.registry.owners(cls)
            # One class may serve several entries; settings that name theirs tell which is meant.
            field = cls.model_fields.get("name")
            name = values.get("name", field.default if field is not None else None)
            if owners:
                return f"{cls.registry.kind} {name if name in owners else owners[0]}"
        if cls.called:
            return cls.called
        words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", cls.__name__)
        kept = [word.lower() for word in words if word not in ("Config", "Spec")]
        return " ".join(kept) or cls.__name__

    @classmethod
    def _who_else_has(cls, field: str) -> list[str]:
        """Entries of the same registry that have a setting of this name."""
        return [] if cls.registry is None else cls.registry.with_setting(field)


def validation_sentence(
    what: str,
    error: ValidationError,
    who_has: Callable[[str], list[str]] = lambda _: [],
) -> str:
    """The first problem of a pydantic report as one sentence.

    Args:
        what: was being validated.
        error: pydantic's report.
        who_has: names what has a setting that is unknown here.
    """
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"]) or "configuration"
    shown = repr(problem.get("input"))
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    if problem["type"] == "extra_forbidden":
        others = who_has(field)
        known = f"{', '.join(others)} {'has' if len(others) == 1 else 'have'}"
        advice = known if others else "remove it or check its spelling"
        return f"{what} has no setting called '{field}'; {advice}."
    if problem["type"] == "missing":
        return f"{what} needs a value for '{field}'; give one."
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    message = message[0].lower() + message[1:]
    return f"{what}: '{field}' is not usable, {message}, got {shown}."
