"""``python -m fkd runs``: list runs, watch, cancel or resume one, read its log."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fkd.cli.options import QUIET, Option, parse
from fkd.cli.output import format_table, say
from fkd.cli.progress import ProgressBar, describe_values
from fkd.core.errors import ConfigError, RunError
from fkd.core.progress import Progress
from fkd.runs import KINDS, RunRecord, cancel_run, get_run, list_runs, resume_run, run_log, wait_run

_DESCRIPTION = (
    "List the runs started in the dashboard or with --background, newest first. 'runs watch ID' shows "
    "one until it ends, 'runs cancel ID' and 'runs resume ID' stop it and go on, 'runs log ID' prints "
    "its log. Of an id its last letters suffice, and 'last' is the newest."
)

_ID = Option(
    "id", str, "The run's id, its last letters, or 'last'.", metavar="ID", is_positional=True
)


def run(arguments: Sequence[str]) -> int:
    """List runs or act on one."""
    actions = {"watch": _watch, "cancel": _cancel, "resume": _resume, "log": _log}
    if arguments and arguments[0] in actions:
        return actions[arguments[0]](arguments[1:])
    options = [
        Option("json", bool, "Print a JSON list.", False),
        Option("limit", int, "How many.", 20, "INT"),
        Option("kind", str | None, f"Only runs of this kind: {_kinds()}.", None, "TEXT"),
    ]
    values = parse("runs", arguments, options, description=_DESCRIPTION)
    kind = values.get("kind")
    if kind is not None:
        _check_kind(kind)
    records = list_runs(limit=max(1, values["limit"]), kind=kind)
    if values["json"]:
        say(json.dumps([_plain(record) for record in records], indent=2))
    elif records:
        say(format_table([_row(record) for record in records]))
        for record in records:
            if record.message and record.state in ("failed", "lost"):
                say(f"\n{record.id}: {record.message}")
    elif kind is not None and list_runs(limit=1):
        say(f"No runs of the kind '{kind}' yet; 'runs' without --kind lists those of other kinds.")
    else:
        say("No runs yet; start one in the dashboard or with --background.")
    return 0


def _check_kind(kind: str) -> None:
    """Refuse a kind that is none.

    Raises:
        ConfigError: with the list of kinds.
    """
    try:
        KINDS.get(kind)
    except ConfigError as error:
        # The command's name, and so the likeliest wrong word.
        hint = (
            " Among those of the kind 'train' are distillations too." if kind == "distill" else ""
        )
        raise ConfigError(f"{error}{hint}") from None


def _kinds() -> str:
    """Every kind with what it does: ``train (train a teacher or distil a student ...)``."""
    return ", ".join(
        f"{name} ({text[:1].lower()}{text[1:].rstrip('.')})"
        for name, text in KINDS.available().items()
    )


def _find(text: str) -> str:
    """The one run whose id is, or ends with, ``text``."""
    records = list_runs(limit=1000)
    if text == "last" and records:
        return records[0].id
    found = [record.id for record in records if record.id.endswith(text)]
    if text in found or len(found) == 1:
        return text if text in found else found[0]
    if found:
        raise RunError(f"'{text}' could be {', '.join(found)}; give more of the id.")
    raise RunError(f"There is no run '{text}'; list the runs to see their ids.")


def _action(name: str, arguments: Sequence[str], description: str, *more: Option) -> dict[str, Any]:
    values = parse(f"runs {name}", arguments, [_ID, *more], description=description)
    return {**values, "id": _find(values["id"])}


def _cancel(arguments: Sequence[str]) -> int:
    run_id = _action("cancel", arguments, "Ask a run to stop; it keeps its checkpoint.")["id"]
    cancel_run(run_id)
    say(f"{run_id} is {get_run(run_id).state}.")
    return 0


def _resume(arguments: Sequence[str]) -> int:
    run_id = _action("resume", arguments, "Go on with a run that was cancelled, failed or lost.")[
        "id"
    ]
    resume_run(run_id)
    say(f"{run_id} is {get_run(run_id).state}.")
    return 0


def _log(arguments: Sequence[str]) -> int:
    lines = Option("lines", int, "How many of its last lines.", 50, "INT")
    values = _action("log", arguments, "Print the end of a run's log.", lines)
    say(run_log(values["id"], lines=values["lines"]))
    return 0


def _watch(arguments: Sequence[str]) -> int:
    values = _action("watch", arguments, "Show a run until it ends; Ctrl-C leaves it going.", QUIET)
    seen: tuple[str, int, dict[str, Any]] | None = None
    with ProgressBar(quiet=values["quiet"]) as bar:
        while True:
            record = wait_run(values["id"], timeout=0.5)
            if record.stage and seen != (record.stage, record.done, record.values):
                seen = (record.stage, record.done, record.values)
                bar(Progress(record.stage, record.done, record.total, record.values))
            if record.has_ended:
                break
            if bar.is_stopping:
                raise KeyboardInterrupt
    say(f"{record.id} is {record.state}. {record.message or record.result or ''}".rstrip())
    return 0 if record.state == "done" else 2


def _row(record: RunRecord) -> dict[str, str]:
    step = f"{record.stage} {record.done}/{record.total}" if record.stage else "-"
    return {
        "id": record.id,
        "state": record.state,
        "step": step,
        "seconds": f"{record.seconds:.0f}",
        "what": record.title,
        "last": describe_values(record.values)[:60] or "-",
    }


def _plain(record: RunRecord) -> dict[str, Any]:
    values = dataclasses.asdict(record)
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
    }
