"""What a run reported and what it wrote to its log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fkd.runs.store import RunStore

if TYPE_CHECKING:
    import pandas as pd

#: No more of a log's end is read than this, however long its lines.
_TAIL_BYTES = 256 * 1024


def run_history(run_id: str, last: int | None = None) -> pd.DataFrame:
    """Every report of the run, oldest first.

    Args:
        run_id: the run.
        last: only so many of the latest reports (a page that is redrawn every second needs no more);
            all if absent.

    Returns:
        Columns ``time`` (UTC), ``attempt``, ``stage``, ``done``, ``total``, and one for each number
        that was reported (loss parts, accuracies ...), null where a report did not have it.

    Raises:
        RunError: there is no such run.
    """
    import pandas as pd

    store = RunStore()
    store.get(run_id)
    fixed = ["time", "attempt", "stage", "done", "total"]
    rows = store.steps(run_id, last)
    names = list(dict.fromkeys([*fixed, *(name for row in rows for name in row)]))
    return pd.DataFrame(rows, columns=names)


def run_log(run_id: str, lines: int = 50) -> str:
    """The last ``lines`` lines of the run's log; empty before it has written any.

    Raises:
        RunError: there is no such run.
    """
    store = RunStore()
    store.get(run_id)
    try:
        with store.log_path(run_id).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    # A progress bar overwrites its line: only what it showed last counts.
    whole = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")]
    while whole and not whole[-1]:
        whole.pop()
    return "\n".join(whole[-max(0, lines) :]) if lines > 0 else ""
