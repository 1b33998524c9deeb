"""``python -m fkd models``: list models and architectures, show a card, import a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fkd.cli.options import Option, pairs, parse, settings_text
from fkd.cli.output import complain, format_table, number, percent, say

if TYPE_CHECKING:
    from fkd.models import ModelCard

_DESCRIPTION = (
    "List the models, shipped and the user's. 'models show NAME' prints a card, 'models import FILE' "
    "adds a model of one's own; each has its own --help."
)


def run(arguments: Sequence[str]) -> int:
    """List models or architectures, show a card, or import a model."""
    if arguments and arguments[0] in ("import", "show"):
        return (_import if arguments[0] == "import" else _show)(arguments[1:])
    options = [
        Option("json", bool, "Print a JSON list.", False),
        Option("architectures", bool, "List the architectures and their settings.", False),
        Option("dataset", str | None, "Only models of this data set.", None, "TEXT"),
        Option("role", str | None, "Only teachers or only students.", None, "{teacher,student}"),
    ]
    values = parse("models", arguments, options, description=_DESCRIPTION)
    if values["architectures"]:
        return _list_architectures()
    return _list(values)


def _list(values: dict[str, Any]) -> int:
    from fkd.core.errors import ConfigError
    from fkd.models import damaged_models, list_models

    role = values.get("role")
    if role not in (None, "teacher", "student"):
        raise ConfigError(f"--role is teacher or student, got '{role}'; choose one.")
    cards = list_models(dataset=values.get("dataset"), role=role)
    if values["json"]:
        say(json.dumps([_plain(card) for card in cards], indent=2))
    elif cards:
        say(format_table([_row(card) for card in cards]))
    else:
        say("No models found; train one with 'python -m fkd train'.")
    for name, problem in damaged_models().items():
        complain(f"Left out '{name}': {problem}")
    return 0


def _plain(card: ModelCard) -> dict[str, Any]:
    """What a script wants of a card: no long histories."""
    return {
        "name": card.name,
        "dataset": card.dataset,
        "role": card.role,
        "method": card.method,
        "method_config": card.method_config,
        "architecture": card.architecture,
        "architecture_config": card.architecture_config,
        "parameters": card.parameters,
        "teacher": card.teacher.name if card.teacher else None,
        "epsilon": card.epsilon,
        "image_shape": list(card.image_shape),
        "num_classes": card.num_classes,
        "seed": card.seed,
        "metrics": card.metrics,
        "model_hash": card.model_hash,
        "created": card.created,
    }


def _row(card: ModelCard) -> dict[str, str]:
    return {
        "name": card.name,
        "dataset": card.dataset,
        "role": card.role,
        "method": card.method,
        "architecture": card.architecture,
        "parameters": str(card.parameters),
        "epsilon": "-" if card.epsilon is None else f"{card.epsilon:g}",
        "accuracy": percent(card.metrics.get("clean_accuracy")),
        "teacher": card.teacher.name if card.teacher else "-",
    }


def _list_architectures() -> int:
    from fkd.models import ARCHITECTURES

    for name, summary in ARCHITECTURES.available().items():
        say(f"{name}: {summary}")
        settings = settings_text(ARCHITECTURES.get(name).Config, indent="    ")
        if settings:
            say(settings)
    return 0


def _show(arguments: Sequence[str]) -> int:
    from fkd.models import read_card

    options = [
        Option("name", str, "The model's name or folder.", metavar="NAME", is_positional=True)
    ]
    values = parse("models show", arguments, options, description="Print a model's card as JSON.")
    say(read_card(values["name"]).model_dump_json(indent=2))
    return 0


def _import(arguments: Sequence[str]) -> int:
    from fkd.core.errors import ConfigError
    from fkd.data import get_data_set
    from fkd.models import ARCHITECTURES, import_model

    options = [
        Option("file", Path, "A .safetensors or .onnx file.", metavar="FILE", is_positional=True),
        Option("name", str, "Name of the new model.", metavar="TEXT"),
        Option("dataset", str, "Data set it was trained on.", metavar="TEXT"),
        Option("role", str, "teacher or student.", metavar="{teacher,student}"),
        Option(
            "architecture",
            str | None,
            "Its architecture (see 'models --architectures'); not for ONNX.",
            None,
            "TEXT",
        ),
        Option("architecture_config", list[str], "Its settings.", [], "KEY=VALUE ..."),
        Option(
            "mean",
            list[str],
            "Per-channel mean that the model wants taken off images in [0, 1]; default: none.",
            [],
            "NUMBER ...",
        ),
        Option("std", list[str], "Per-channel divisor; as --mean.", [], "NUMBER ..."),
        Option("overwrite", bool, "Replace a model of that name.", False),
    ]
    values = parse("models import", arguments, options, description="Import a model of one's own.")
    if values["role"] not in ("teacher", "student"):
        raise ConfigError(f"--role is teacher or student, got '{values['role']}'; choose one.")
    data_set = get_data_set(values["dataset"])
    architecture = values.get("architecture")
    config = ARCHITECTURES.get(architecture).Config if architecture else None
    model = import_model(
        values["file"],
        name=values["name"],
        dataset=values["dataset"],
        role=values["role"],
        architecture=architecture,
        architecture_config=pairs(
            "architecture_config", values.get("architecture_config", []), config
        )
        or None,
        mean=_numbers("mean", values),
        std=_numbers("std", values),
        image_shape=data_set.image_shape,
        num_classes=data_set.num_classes,
        overwrite=values["overwrite"],
    )
    say(f"{model.card.name}: {number(model.card.parameters)} parameters, {model.path}")
    return 0


def _numbers(option: str, values: dict[str, Any]) -> list[float] | None:
    from fkd.core.errors import ConfigError

    words = [part for word in values.get(option, []) for part in word.split(",") if part]
    try:
        return [float(word) for word in words] or None
    except ValueError:
        raise ConfigError(
            f"--{option} takes one number per channel, got '{' '.join(words)}'; correct it."
        ) from None
