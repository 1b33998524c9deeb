"""``python -m fkd copy``: make a student by rounding or pruning a model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fkd.cli.options import (
    QUIET,
    Option,
    config_values,
    lists_where_needed,
    options_of,
    parse,
    settings_text,
)
from fkd.cli.output import say
from fkd.cli.progress import ProgressBar
from fkd.cli.train import describe
from fkd.core.errors import ConfigError

_DESCRIPTION = (
    "Make a student of a model's own shape by altering its weights, without training, and measure it. "
    "The ways of copying with their settings are listed below."
)


def run(arguments: Sequence[str]) -> int:
    """Copy a model."""
    from fkd.distillation import COPIES, CopySpec, copy_model

    options = [
        *options_of(CopySpec),
        Option("out", Path | None, "Folder of the new model; default: the user's.", None, "FOLDER"),
        Option("background", bool, "Start as a run and return at once; see 'runs'.", False),
        QUIET,
    ]
    values = parse("copy", arguments, options, description=_DESCRIPTION, epilog=_epilog)
    given = config_values(CopySpec, values)
    if "method_config" in given:
        method = given.get("method", CopySpec.model_fields["method"].default)
        given["method_config"] = lists_where_needed(
            given["method_config"], COPIES.get(method).Config
        )
    spec = CopySpec.parse(given)
    if values["background"]:
        if "out" in values:
            raise ConfigError("--background copies into the user's models folder; leave --out out.")
        from fkd.runs import start_run

        say(start_run("copy", spec.model_dump(mode="json")))
        return 0
    with ProgressBar(quiet=values["quiet"]) as progress:
        model = copy_model(spec, out=values.get("out"), progress=progress)
    say(describe(model))
    return 0


def _epilog() -> str:
    from fkd.distillation import COPIES

    lines = ["ways of copying, each with the settings that --method-config takes:"]
    for name, summary in COPIES.available().items():
        lines += [f"  {name}: {summary}", settings_text(COPIES.get(name).Config, indent="      ")]
    return "\n".join(lines)
