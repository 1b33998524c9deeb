"""Starting, watching, cancelling and resuming runs, from any process and without a daemon.

Whoever asks about runs first brings the database up to date (`refresh`): runs whose process is gone
are marked, overdue cancellations are enforced, and free slots are given to queued runs.  A worker does
the same when it ends.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fkd.core.errors import RunError
from fkd.core.paths import home_dir
from fkd.runs import _process
from fkd.runs.kind import KINDS, RunKind
from fkd.runs.records import RunRecord
from fkd.runs.settings import cancel_grace_seconds, max_active_runs
from fkd.runs.store import ActiveRun, RunStore, TargetTakenError

#: The module a run's process executes (tests add kinds of their own in another one).
WORKER_MODULE = "fkd.runs.worker"
#: A run claimed by a launcher that died before the process existed is given up after this time.
_SPAWN_SECONDS = 60.0
#: A run of another machine (shared folder) without a sign of life for this long is given up.
_SILENT_SECONDS = 300.0
_POLL_SECONDS = 0.2

LOST_MESSAGE = (
    "Its process ended without a word (killed, out of memory, or the machine was restarted); "
    "resume it to go on from what was saved."
)

#: Processes this one started: asking them now and then is what lets the system forget them.
_children: list[subprocess.Popen[bytes]] = []
_children_lock = threading.Lock()


def start_run(kind: str, spec: dict[str, Any]) -> str:
    """Check a specification, file it as a run, and start it if a slot is free.

    Args:
        kind: registry name, one of `fkd.runs.KINDS`.
        spec: the kind's configuration as JSON values.

    Returns:
        The run's id; of the live run that already does exactly this, where there is one.

    Raises:
        FkdError: the specification cannot be used, a different live run makes the same thing, or the
            runs folder cannot be written.
    """
    entry: RunKind = KINDS.get(kind)()
    # A wrong environment variable is reported now, not by the worker.
    max_active_runs()
    cancel_grace_seconds()
    checked = entry.check(spec)
    store = RunStore()
    refresh(store)
    run_id = f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    try:
        store.add(
            run_id,
            kind,
            checked,
            title=entry.title(checked),
            target=entry.target(checked),
            folder=str(Path.cwd()),
        )
    except TargetTakenError as taken:
        is_same = entry.is_defined_by_target or taken.spec == checked
        if is_same and taken.state != "cancelling":
            return taken.run_id
        raise
    start_queued(store)
    return run_id


def get_run(run_id: str) -> RunRecord:
    """The run as it stands.

    Raises:
        RunError: there is none of that id.
    """
    store = RunStore()
    refresh(store)
    return store.get(run_id)


def list_runs(limit: int = 50, kind: str | None = None) -> list[RunRecord]:
    """The latest runs, newest first."""
    store = RunStore()
    refresh(store)
    return store.list(limit, kind)


def wait_run(run_id: str, timeout: float | None = None) -> RunRecord:
    """Wait until the run has ended, or ``timeout`` seconds; look at ``has_ended`` to tell which."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        record = get_run(run_id)
        if record.has_ended or (deadline is not None and time.monotonic() >= deadline):
            return record
        time.sleep(_POLL_SECONDS)


def cancel_run(run_id: str) -> None:
    """Ask a run to stop; it saves what it can and ends as "cancelled".

    A queued one is cancelled at once; one that does not stop is killed after
    `fkd.runs.settings.cancel_grace_seconds`.

    Raises:
        RunError: there is no such run, or it has ended.
    """
    store = RunStore()
    refresh(store)
    record = store.get(run_id)
    if record.has_ended:
        raise RunError(f"The run '{run_id}' has ended already ({record.state}).")
    active = store.ask_cancel(run_id)
    if active is not None and active.pid is not None and active.host == _process.host_name():
        _process.ask_to_stop(active.pid, active.pid_started)
    start_queued(store)


def resume_run(run_id: str) -> None:
    """Queue a cancelled, failed or lost run again; it goes on from its last checkpoint.

    Raises:
        RunError: it is live or done, or does not exist.
    """
    store = RunStore()
    refresh(store)
    store.requeue(run_id)
    start_queued(store)


def refresh(store: RunStore | None = None) -> None:
    """Bring the database up to date with the processes there are, then fill free slots."""
    store = store or RunStore()
    _collect_children()
    for run in store.active():
        _check_active(store, run)
    start_queued(store)


def start_queued(store: RunStore) -> None:
    """Start queued runs, oldest first, while slots are free."""
    while (run := store.claim_next(max_active_runs())) is not None:
        try:
            process = _spawn(store, run)
        except OSError as error:
            store.finish(
                run.id, "failed", message=f"Its process could not be started: {error}.", pid=None
            )
            continue
        with _children_lock:
            _children.append(process)
        store.attach(run.id, process.pid, _process.start_time(process.pid))


def _collect_children() -> None:
    """Let ended children go (they stay zombies until their parent asks)."""
    with _children_lock:
        _children[:] = [child for child in _children if child.poll() is None]


def _check_active(store: RunStore, run: ActiveRun) -> None:
    now = time.time()
    last_seen = max(run.heartbeat or 0.0, run.started)
    if run.pid is None:
        is_gone = now - run.started > _SPAWN_SECONDS
    elif run.host != _process.host_name():
        is_gone = now - last_seen > _SILENT_SECONDS
    else:
        is_gone = not _process.is_running(run.pid, run.pid_started)
    if is_gone:
        if run.state == "cancelling":
            message = "Cancelled; its process had to be ended before it could say so."
            store.finish(run.id, "cancelled", message=message, pid=run.pid)
        else:
            store.finish(run.id, "lost", message=LOST_MESSAGE, pid=run.pid)
        return
    is_overdue = run.cancel_asked is not None and now - run.cancel_asked > cancel_grace_seconds()
    if is_overdue and run.pid is not None and run.host == _process.host_name():
        _process.kill_group(run.pid, run.pid_started)


def _spawn(store: RunStore, run: ActiveRun) -> subprocess.Popen[bytes]:
    """Start the run's process in a session of its own, so that it outlives this one."""
    environment = dict(os.environ)
    # Relative folders and an fkd that is not installed must mean the same in the new process.
    environment["PYTHONUNBUFFERED"] = "1"
    environment["FKD_HOME"] = str(home_dir().resolve())
    for variable in ("FKD_DATA_DIR", "FKD_PRETRAINED_DIR"):
        if environment.get(variable, "").strip():
            environment[variable] = str(Path(environment[variable]).expanduser().resolve())
    package_parent = str(Path(__file__).resolve().parents[2])
    paths = [package_parent, *environment.get("PYTHONPATH", "").split(os.pathsep)]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    with store.log_path(run.id).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", WORKER_MODULE, run.id],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=run.folder if Path(run.folder).is_dir() else None,
            env=environment,
            start_new_session=True,
        )
