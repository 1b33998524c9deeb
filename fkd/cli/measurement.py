"""What commands that compute a stored table share: their last options, and all from words to the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fkd.cli.options import DEVICE, QUIET, Option, config_values, options_of, parse
from fkd.cli.output import check_out, say
from fkd.cli.progress import ProgressBar
from fkd.core.config import Config


class Stored(Protocol):
    """A table that is stored under a key, and can be written elsewhere too."""

    key: str

    def write(self, path: Path) -> None:
        """Write it to a ``.parquet`` file."""


StoredT = TypeVar("StoredT", bound=Stored)


def run_measurement(
    command: str,
    arguments: Sequence[str],
    config: type[Config],
    measure: Callable[..., StoredT],
    tell: Callable[[StoredT, Path | None], str],
    *,
    description: str,
    anew: str,
    options: Sequence[Option] | None = None,
    settings: Callable[[dict[str, Any]], Config] | None = None,
    epilog: Callable[[], str] | None = None,
) -> int:
    """Parse a command's options, then start a run, or measure, write the table where asked and tell.

    Args:
        command: the command's name, which is also the kind of its runs.
        arguments: what follows it.
        config: what it takes.
        measure: called with the configuration, ``device``, ``progress`` and ``fresh``.
        tell: the text to print, from what was found and the file it was written to, if any.
        description: shown above the options.
        anew: what --fresh does again, as the first word of its help.
        options: those before the shared ones; one for each field of ``config`` if not given.
        settings: makes the configuration from the options' values, where that takes more than parsing.
        epilog: shown below the options.

    Returns:
        The exit code.
    """
    own = options_of(config) if options is None else options
    shared = [
        Option("out", Path | None, "Write the table to this .parquet file.", None, "FILE"),
        DEVICE,
        Option("fresh", bool, f"{anew} anew even where an answer is stored.", False),
        Option("background", bool, "Start as a run and return at once; see 'runs'.", False),
        QUIET,
    ]
    values = parse(command, arguments, [*own, *shared], description=description, epilog=epilog)
    asked = settings(values) if settings else config.parse(config_values(config, values))
    if values["background"]:
        return start_in_background(command, asked.model_dump(mode="json"), values)
    out = check_out(values["out"], [".parquet"]) if "out" in values else None
    with ProgressBar(quiet=values["quiet"]) as progress:
        found = measure(asked, device=values["device"], progress=progress, fresh=values["fresh"])
    if out is not None:
        found.write(out)
    say(tell(found, out))
    return 0


def place_text(found: Stored, out: Path | None) -> str:
    """Where the table can be found."""
    return f"Stored under the key {found.key}." if out is None else f"Table: {out}"


def start_in_background(kind: str, spec: dict, values: dict) -> int:
    """Start a run and print its id; ``values`` are the command's options, of which some do not go along.

    Raises:
        ConfigError: one of those was given.
    """
    from fkd.core.errors import ConfigError
    from fkd.runs import start_run

    if "out" in values or values["fresh"] or values["device"] != "auto":
        raise ConfigError(
            "--background stores the result by itself and chooses the device; leave --out, --fresh and "
            "--device out, and run the same command without --background once it is done."
        )
    say(start_run(kind, spec))
    return 0
