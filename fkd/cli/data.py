"""``python -m fkd data``: list data sets, download one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fkd.cli.options import QUIET, Option, parse
from fkd.cli.output import format_table, say
from fkd.cli.progress import ProgressBar

if TYPE_CHECKING:
    from fkd.data import DataSetInfo

_DESCRIPTION = (
    "List the data sets: the built-in ones and whatever lies in FKD_DATA_DIR. "
    "'data download NAME' fetches one."
)


def run(arguments: Sequence[str]) -> int:
    """List the data sets or download one."""
    if arguments and arguments[0] == "download":
        return _download(arguments[1:])
    from fkd.core.paths import data_dir
    from fkd.data import list_data_sets

    options = [Option("json", bool, "Print a JSON list.", False)]
    values = parse("data", arguments, options, description=_DESCRIPTION)
    infos = list_data_sets()
    if values["json"]:
        say(json.dumps([dataclasses.asdict(info) for info in infos], indent=2))
        return 0
    say(format_table([_row(info) for info in infos]))
    say(f"\nData folder: {data_dir()} (FKD_DATA_DIR)")
    return 0


def _download(arguments: Sequence[str]) -> int:
    from fkd.data import get_data_set

    name = Option("name", str, "The data set's name.", metavar="NAME", is_positional=True)
    values = parse("data download", arguments, [name, QUIET], description="Download a data set.")
    data_set = get_data_set(values["name"])
    if data_set.is_available():
        say(f"{data_set.name} is on this machine already.")
        return 0
    with ProgressBar(quiet=values["quiet"], what=data_set.name) as progress:
        data_set.download(progress)
    say(f"{data_set.name} is ready: {data_set.title}.")
    return 0


def _row(info: DataSetInfo) -> dict[str, str]:
    state = "available" if info.is_available else "not here"
    if not info.is_available and info.can_download:
        state = f"python -m fkd data download {info.name}"
    if info.problem:
        state = info.problem
    shape = info.image_shape
    return {
        "name": info.name,
        "title": info.title,
        "classes": str(len(info.classes)) if info.classes else "-",
        "image": "x".join(map(str, shape)) if shape else "-",
        "state": state,
    }
