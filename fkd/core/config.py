"""Frozen, validated configurations: one class makes the form, the CLI options, the JSON and the hash."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fkd.core.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound="Config")


class Config(BaseModel):
    """Base of every configuration: immutable, no unknown fields, no silent NaN.

    Every field carries a range and a description (``pydantic.Field``); the dashboard's forms and the
    command line are drawn from them.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    @classmethod
    def parse(cls: type[ConfigT], values: dict[str, Any] | None = None, **more: Any) -> ConfigT:
        """Build from a mapping, turning pydantic's report into one sentence.

        Raises:
            ConfigError: a field is unknown, missing or outside its range.
        """
        try:
            return cls(**{**(values or {}), **more})
        except ValidationError as error:
            raise ConfigError(validation_sentence(cls.__name__, error)) from None


def validation_sentence(what: str, error: ValidationError) -> str:
    """The first problem of a pydantic report as one sentence."""
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"]) or "configuration"
    shown = repr(problem.get("input"))
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    if problem["type"] == "extra_forbidden":
        return f"{what} has no setting called '{field}'; remove it or check its spelling."
    if problem["type"] == "missing":
        return f"{what} needs a value for '{field}'; give one."
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    message = message[0].lower() + message[1:]
    return f"{what}: '{field}' is not usable, {message}, got {shown}."
