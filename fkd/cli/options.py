"""Command-line options drawn from pydantic configurations.

Every field of a configuration becomes one option with its description, range and default; a field that
is a configuration of its own takes ``KEY=VALUE`` pairs or one JSON object.  tyro parses the words, the
configuration the values, so a wrong value is the same sentence here as in the dashboard.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any

import tyro
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fkd.cli.output import say
from fkd.core.config import Config
from fkd.core.errors import ConfigError

_RANGE_WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_PAIRS = "KEY=VALUE ..."


@dataclasses.dataclass(frozen=True)
class Option:
    """One option: how it is written and explained; ``...`` as default means it must be given."""

    name: str
    kind: Any = str
    help: str = ""
    default: Any = ...
    metavar: str | None = None
    is_positional: bool = False
    #: The default only explains: where nothing else is given, the configuration uses its own.
    is_default_left_out: bool = False


#: What every command that works for long has.
DEVICE = Option("device", str, "Where to compute: auto, cpu or cuda.", "auto", "TEXT")
QUIET = Option("quiet", bool, "Show no progress.", False)


def options_of(
    config: type[Config], *, skip: Collection[str] = (), defaults: dict[str, Any] | None = None
) -> list[Option]:
    """One option for each field of ``config`` that is not in ``skip``.

    Args:
        config: the configuration.
        skip: fields that this command fixes or asks for in another way.
        defaults: defaults of this command that differ from the configuration's own; ``...`` makes a
            field required.
    """
    own = defaults or {}
    options = []
    for name, field in config.model_fields.items():
        if name not in skip:
            option = _option(name, field, own.get(name, _default(field)))
            options.append(dataclasses.replace(option, is_default_left_out=name not in own))
    return options


def parse(
    command: str,
    arguments: Sequence[str],
    options: Sequence[Option],
    *,
    description: str,
    epilog: Callable[[], str] | None = None,
) -> dict[str, Any]:
    """The options' values: text, a bool, or a list of texts; those not given and without default
    are left out.

    Exits with the help on ``--help``, and with code 2 on words that fit no option.
    """
    fields = []
    for option in options:
        is_told = option.default not in (..., None, False, [], True)
        hint = f"(default: {_shown(option.default)})" if is_told else None
        extras = [
            tyro.conf.arg(
                help=option.help,
                metavar=option.metavar,
                help_behavior_hint=hint or ("(required)" if option.default is ... else ""),
            )
        ]
        if option.is_positional:
            extras.append(tyro.conf.Positional)
        if option.kind is bool:
            extras.append(tyro.conf.FlagCreatePairsOff if option.default is False else None)
        kind = Annotated[(option.kind, *(extra for extra in extras if extra is not None))]
        if option.default is ...:
            fields.append((option.name, kind))
        else:
            default = option.default
            fields.append(
                (
                    option.name,
                    kind,
                    dataclasses.field(default_factory=lambda value=default: value),
                )
            )
    fields.sort(key=len)  # a dataclass wants the required ones first
    made = dataclasses.make_dataclass("Options", fields)
    try:
        parsed = tyro.cli(
            made,
            prog=f"python -m fkd {command}",
            description=description,
            args=list(arguments),
        )
    except SystemExit:
        if epilog is not None and {"-h", "--help"} & set(arguments):
            say("\n" + epilog())
        raise
    values = {}
    for option in options:
        value = getattr(parsed, option.name)
        is_default = option.is_default_left_out and value == option.default
        if value is not None and value != [] and not is_default:
            values[option.name] = value
    return values


def config_values(config: type[Config], values: dict[str, Any]) -> dict[str, Any]:
    """The part of parsed options that are fields of ``config``, as values it can parse."""
    return {
        name: _value(name, field, values[name])
        for name, field in config.model_fields.items()
        if name in values
    }


def pairs(option: str, words: Sequence[str], config: type[Config] | None = None) -> dict[str, Any]:
    """``["alpha=0.9", "hidden=200,100"]`` or one JSON object as a dictionary.

    Args:
        option: the option's name, for the sentence.
        words: what was given after it.
        config: the configuration that will take it, where it is known.

    Raises:
        ConfigError: a word is no pair.
    """
    values: dict[str, Any] = {}
    for word in words:
        if word.lstrip().startswith("{"):
            values.update(_json_object(option, word))
            continue
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"--{option.replace('_', '-')} takes KEY=VALUE pairs (alpha=0.9 steps=10) or a JSON "
                f"object, got '{word}'."
            )
        name = key.strip().replace("-", "_")
        if name in values:
            raise ConfigError(
                f"--{option.replace('_', '-')} has '{name}' twice; leave one of the two out."
            )
        values[name] = _scalar(text)
    return lists_where_needed(values, config) if config else values


def lists_where_needed(values: dict[str, Any], config: type[Config]) -> dict[str, Any]:
    """``hidden=200`` means a list of one where the configuration wants a list."""
    fields = config.model_fields
    return {
        name: [value]
        if name in fields and _is_list(fields[name].annotation) and not isinstance(value, list)
        else value
        for name, value in values.items()
    }


def settings_text(config: type[Config], *, indent: str = "  ", skip: Collection[str] = ()) -> str:
    """A configuration's fields but for ``skip``, with defaults and descriptions, one line each."""
    return "\n".join(
        f"{indent}{name}={_shown(_default(field))}: {_explain(field)}"
        for name, field in config.model_fields.items()
        if name not in skip
    )


def _json_object(option: str, word: str) -> dict[str, Any]:
    try:
        found = json.loads(word)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"--{option.replace('_', '-')} got '{word}', which is no JSON ({error.msg} at character "
            f"{error.pos + 1}); write KEY=VALUE pairs or correct it."
        ) from None
    return found


def _scalar(text: str) -> Any:
    """JSON where it is JSON, 8/255 as a number, 200,100 as a list, else the text itself."""
    text = text.strip()
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    if "," in text:
        return [_scalar(part) for part in text.split(",") if part.strip()]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() in ("none", "null"):
        return None
    return fraction(text)


def fraction(text: str) -> float | str:
    """``8/255`` as a float; anything else unchanged, for the configuration to judge."""
    above, slash, below = text.partition("/")
    if slash:
        try:
            return float(above) / float(below)
        except (ValueError, ZeroDivisionError):
            return text
    return text


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True)
    return ... if default is PydanticUndefined else default


def _core(annotation: Any) -> Any:
    """The annotation without ``| None``, ``Annotated`` and the like."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            parts = [part for part in typing.get_args(annotation) if part is not type(None)]
            if len(parts) != 1:
                return annotation
            annotation = parts[0]
        else:
            return annotation


def _is_config(annotation: Any) -> bool:
    core = _core(annotation)
    return isinstance(core, type) and issubclass(core, Config)


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(_core(annotation)) in (tuple, list)


def _is_pairs(annotation: Any) -> bool:
    core = _core(annotation)
    return _is_config(core) or core is dict or typing.get_origin(core) is dict


def _option(name: str, field: FieldInfo, default: Any) -> Option:
    core = _core(field.annotation)
    text = _explain(field)
    if core is bool:
        return Option(name, bool, text, default)
    if _is_pairs(core):
        return Option(name, list[str], text or "Settings.", [], _PAIRS)
    if _is_list(core):
        return Option(name, list[str], text, [str(item) for item in default or ()], "VALUE ...")
    metavar = {int: "INT", float: "NUMBER"}.get(core, "TEXT")
    if typing.get_origin(core) is typing.Literal:
        metavar = "{" + ",".join(map(str, typing.get_args(core))) + "}"
    if default is None:
        return Option(name, str | None, text, None, metavar)
    return Option(name, str, text, default if default is ... else _shown(default), metavar)


def _explain(field: FieldInfo) -> str:
    """Description and range in words."""
    text = (field.description or "").strip()
    limits = {
        bound: value
        for item in field.metadata
        for bound in ("ge", "gt", "le", "lt")
        if (value := getattr(item, bound, None)) is not None
    }
    if "ge" in limits and "le" in limits:
        words = f"{_shown(limits['ge'])} to {_shown(limits['le'])}"
    else:
        words = ", ".join(f"{_RANGE_WORDS[bound]} {_shown(v)}" for bound, v in limits.items())
    return f"{text} {words[0].upper()}{words[1:]}." if words else text


def _shown(value: Any) -> str:
    if value is ...:
        return "(required)"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def _value(name: str, field: FieldInfo, given: Any) -> Any:
    core = _core(field.annotation)
    if _is_pairs(core):
        return pairs(name, given, core if _is_config(core) else None)
    if _is_list(core):
        return [fraction(part) for word in given for part in word.split(",") if part]
    return fraction(given) if core is float and isinstance(given, str) else given
