"""Configurations as form fields, read from the one pydantic class that also makes CLI and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fkd.core.config import Config

#: Words of names that people write otherwise.
_SPELLINGS = {"epsilon": "ε", "epsilons": "ε values", "ibp": "IBP", "pgd": "PGD"}


@dataclass(frozen=True)
class Field:
    """One setting.

    Attributes:
        name: as in the configuration.
        help: its description.
        kind: "bool", "int", "float", "choice", "text", "numbers" (several whole numbers),
            "decimals" (several numbers).
        default: its default; None where it has none or is empty.
        minimum: smallest value allowed.
        maximum: largest value allowed.
        choices: for "choice".
        is_optional: whether it may be left empty.
    """

    name: str
    help: str
    kind: str
    default: Any
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] = ()
    is_optional: bool = False

    @property
    def label(self) -> str:
        """The name as people read it."""
        words = [_SPELLINGS.get(word, word) for word in self.name.split("_")]
        text = " ".join(words)
        return text if words[0] in _SPELLINGS.values() else text[:1].upper() + text[1:]


def fields_of(config: type[Config], *, leave_out: frozenset[str] = frozenset()) -> list[Field]:
    """A configuration's settings in their order; nested configurations are left out."""
    schema = config.model_json_schema()
    fields = []
    for name, part in schema.get("properties", {}).items():
        field = None if name in leave_out else _field(name, part, schema.get("$defs", {}))
        if field is not None:
            fields.append(field)
    return fields


def _field(name: str, part: dict[str, Any], definitions: dict[str, Any]) -> Field | None:
    help_text = str(part.get("description", ""))
    default = part.get("default")
    is_optional = False
    if "anyOf" in part:
        kinds = [option for option in part["anyOf"] if option.get("type") != "null"]
        is_optional = len(kinds) < len(part["anyOf"])
        # Of several types the first decides the widget (a number or a word, say).
        part = kinds[0] if kinds else {}
    if "$ref" in part:
        part = definitions.get(part["$ref"].rsplit("/", 1)[-1], {})
    if "enum" in part or "const" in part:
        choices = tuple(part.get("enum", [part.get("const")]))
        return Field(name, help_text, "choice", default, choices=choices, is_optional=is_optional)
    kind = {"boolean": "bool", "integer": "int", "number": "float", "string": "text"}.get(
        str(part.get("type"))
    )
    if part.get("type") == "array":
        kind = {"integer": "numbers", "number": "decimals"}.get(part.get("items", {}).get("type"))
    if kind is None:
        return None
    minimum = part.get("minimum", part.get("exclusiveMinimum"))
    maximum = part.get("maximum", part.get("exclusiveMaximum"))
    return Field(name, help_text, kind, default, minimum, maximum, (), is_optional)
