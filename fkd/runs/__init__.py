"""Long work outside the page or the terminal that asked for it: one operating-system process per run.

A run is started with `start_run`, goes through the states of `RUN_STATES`, and can be watched from any
process: everything is in one SQLite database under `fkd.core.paths.runs_dir`.
"""

from fkd.runs._sentences import error_sentence
from fkd.runs.history import run_history, run_log
from fkd.runs.kind import KINDS, RunKind
from fkd.runs.launch import cancel_run, get_run, list_runs, refresh, resume_run, start_run, wait_run
from fkd.runs.records import LIVE_STATES, RUN_STATES, RunRecord, RunState
from fkd.runs.settings import cancel_grace_seconds, max_active_runs

__all__ = [
    "KINDS",
    "LIVE_STATES",
    "RUN_STATES",
    "RunKind",
    "RunRecord",
    "RunState",
    "cancel_grace_seconds",
    "cancel_run",
    "error_sentence",
    "get_run",
    "list_runs",
    "max_active_runs",
    "refresh",
    "resume_run",
    "run_history",
    "run_log",
    "start_run",
    "wait_run",
]
