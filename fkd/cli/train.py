"""``python -m fkd train``: train a teacher (and what it shares with ``distill``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fkd.cli.options import QUIET, Option, config_values, options_of, parse, settings_text
from fkd.cli.output import number, percent, say
from fkd.cli.progress import ProgressBar
from fkd.core.errors import Cancelled, ConfigError

if TYPE_CHECKING:
    from fkd.models import Model

_DESCRIPTION = (
    "Train a teacher. The methods and architectures with their settings are listed below."
)


def run(arguments: Sequence[str]) -> int:
    """Train a teacher."""
    return train(
        "train",
        arguments,
        role="teacher",
        description=_DESCRIPTION,
        defaults={"method": "standard"},
        skip=["teacher"],
    )


def train(
    command: str,
    arguments: Sequence[str],
    *,
    role: str,
    description: str,
    defaults: dict[str, Any],
    skip: Sequence[str] = (),
) -> int:
    """Parse a training's options, then train here or start a run.

    Args:
        command: the command's name.
        arguments: what follows it.
        role: "teacher" or "student": which methods belong to the command.
        description: shown above the options.
        defaults: defaults of this command.
        skip: fields of the specification that it does not have.
    """
    from fkd.distillation import TrainSpec, train_model
    from fkd.models import read_card

    options = [
        *(
            dataclasses.replace(option, help="Data set to train on; default: the teacher's.")
            if option.name == "dataset" and option.default is None
            else option
            for option in options_of(TrainSpec, defaults=defaults, skip=skip)
        ),
        Option("out", Path | None, "Folder of the new model; default: the user's.", None, "FOLDER"),
        Option("restart", bool, "Discard an unfinished training of that name.", False),
        Option("background", bool, "Start as a run and return at once; see 'runs'.", False),
        QUIET,
    ]
    values = parse(
        command, arguments, options, description=description, epilog=lambda: _epilog(role)
    )
    if role == "student" and "dataset" not in values:
        # Only the teacher's own data set will do.
        values["dataset"] = read_card(values["teacher"]).dataset
    spec = TrainSpec.parse(_typed(config_values(TrainSpec, values), role))
    if values["background"]:
        if "out" in values or values["restart"]:
            raise ConfigError(
                "--background trains into the user's models folder and goes on from what is there; "
                "leave --out and --restart out."
            )
        from fkd.runs import start_run

        say(start_run("train", spec.model_dump(mode="json")))
        return 0
    try:
        with ProgressBar(quiet=values["quiet"]) as progress:
            model = train_model(
                spec, out=values.get("out"), progress=progress, resume=not values["restart"]
            )
    except Cancelled as stop:
        raise Cancelled(f"{stop} The same command goes on from there.") from None
    say(describe(model))
    return 0


def _typed(values: dict[str, Any], role: str) -> dict[str, Any]:
    """Check that the method belongs to the command, and let lists of one be lists."""
    from fkd.cli.options import lists_where_needed
    from fkd.distillation import METHODS
    from fkd.models import ARCHITECTURES

    method = METHODS.get(values["method"])
    if method.role != role:
        command = "distill" if method.role == "student" else "train"
        known = ", ".join(name for name in METHODS if METHODS.get(name).role == role)
        raise ConfigError(
            f"The method '{values['method']}' makes a {method.role}: use 'python -m fkd {command}', "
            f"or choose one of {known}."
        )
    classes = {"method_config": method.Config}
    if "architecture" in values:
        classes["architecture_config"] = ARCHITECTURES.get(values["architecture"]).Config
    for name, config in classes.items():
        if name in values:
            values[name] = lists_where_needed(values[name], config)
    return values


def describe(model: Model) -> str:
    """A new model in three lines: what it is, what was measured, where it lies."""
    card = model.card
    metrics = ", ".join(
        f"{name.replace('_', ' ')} {percent(value)}" for name, value in card.metrics.items()
    )
    return "\n".join(
        [
            f"{card.name}: {card.method} on {card.dataset}, {card.architecture} with "
            f"{card.parameters} parameters, {number(card.seconds, 1)} s",
            metrics,
            f"Model: {model.path}",
        ]
    )


def _epilog(role: str) -> str:
    from fkd.distillation import METHODS
    from fkd.models import ARCHITECTURES

    lines = ["methods, each with the settings that --method-config takes:"]
    for name, summary in METHODS.available().items():
        method = METHODS.get(name)
        if method.role == role:
            lines += [f"  {name}: {summary}", settings_text(method.Config, indent="      ")]
    lines.append("architectures, each with the settings that --architecture-config takes:")
    for name, summary in ARCHITECTURES.available().items():
        config = ARCHITECTURES.get(name).Config
        lines += [f"  {name}: {summary}", settings_text(config, indent="      ")]
    return "\n".join(line for line in lines if line)
