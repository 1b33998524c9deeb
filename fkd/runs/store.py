"""What is written to and read from the runs' database, shared by every process that asks.

Each change of state is one conditional UPDATE, so of two processes that try the same change
exactly one succeeds.  A killed process leaves the last committed state behind, never half of one.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fkd.core.errors import RunError
from fkd.core.paths import runs_dir
from fkd.core.progress import Progress
from fkd.runs._database import connect, transaction
from fkd.runs._process import host_name
from fkd.runs.records import RunRecord, RunState

DATABASE_NAME = "runs.sqlite"


@dataclass(frozen=True)
class ActiveRun:
    """What is needed to find a run's process and to start it."""

    id: str
    state: RunState
    started: float
    heartbeat: float | None
    cancel_asked: float | None
    host: str | None
    pid: int | None
    pid_started: float | None
    folder: str


class TargetTakenError(RunError):
    """A live run already makes the same thing; its id, state and specification come along."""

    def __init__(self, message: str, run_id: str, state: RunState, spec: dict[str, Any]) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.state = state
        self.spec = spec


def _plain(value: Any) -> Any:
    """A number hidden in a NumPy scalar or a tensor, else its text."""
    try:
        return value.item()
    except (AttributeError, ValueError, RuntimeError):
        return str(value)


def encode(value: Any) -> str:
    """JSON text of a report's numbers or a specification."""
    return json.dumps(value, default=_plain)


def _when(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _record(row: sqlite3.Row) -> RunRecord:
    return RunRecord(
        id=row["id"],
        kind=row["kind"],
        spec=json.loads(row["spec"]),
        title=row["title"],
        state=row["state"],
        stage=row["stage"],
        done=row["done"],
        total=row["total"],
        values=json.loads(row["numbers"]),
        message=row["message"],
        result=row["result"],
        created=_when(row["created"]),
        started=_when(row["started"]),
        finished=_when(row["finished"]),
        heartbeat=_when(row["heartbeat"]),
        host=row["host"],
        pid=row["pid"],
        attempt=row["attempt"],
        log=log_name(row["id"]),
    )


def log_name(run_id: str) -> str:
    """Name of the run's log file inside the runs folder."""
    return f"{run_id}.log"


class RunStore:
    """Every read and write of the database; one short connection each, so it can be used anywhere.

    Args:
        folder: where the database and the logs are; default `fkd.core.paths.runs_dir`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or runs_dir()
        self.path = self.folder / DATABASE_NAME

    def exists(self) -> bool:
        """Whether any run was ever started here (asking must not create folders)."""
        return self.path.is_file()

    def log_path(self, run_id: str) -> Path:
        """The run's log file."""
        return self.folder / log_name(run_id)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with connect(self.path) as connection:
            yield connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._open() as connection, transaction(connection):
            yield connection

    def add(
        self, run_id: str, kind: str, spec: dict[str, Any], *, title: str, target: str, folder: str
    ) -> None:
        """File a queued run.

        Raises:
            TargetTakenError: a live run makes the same thing.
        """
        now = time.time()
        with self._transaction() as connection:
            self._check_target(connection, target)
            connection.execute(
                "INSERT INTO runs (id, kind, spec, title, target, folder, state, created, queued)"
                " VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
                (run_id, kind, encode(spec), title, target, folder, now, now),
            )

    def _check_target(self, connection: sqlite3.Connection, target: str) -> None:
        row = connection.execute(
            "SELECT id, spec, title, state FROM runs WHERE target = ?"
            " AND state IN ('queued', 'running', 'cancelling')",
            (target,),
        ).fetchone()
        if row is not None:
            raise TargetTakenError(
                f"The run {row['id']} ({row['title']}) is {row['state']} and makes the same thing; "
                "wait for it or cancel it first.",
                row["id"],
                row["state"],
                json.loads(row["spec"]),
            )

    def get(self, run_id: str) -> RunRecord:
        """The run as it stands.

        Raises:
            RunError: there is none of that id.
        """
        if self.exists():
            with self._open() as connection:
                row = connection.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone()
            if row is not None:
                return _record(row)
        raise RunError(f"There is no run '{run_id}'; list the runs to see their ids.")

    def list(self, limit: int, kind: str | None) -> list[RunRecord]:
        """The latest runs, newest first."""
        if not self.exists():
            return []
        with self._open() as connection:
            rows = connection.execute(
                "SELECT * FROM runs WHERE ?1 IS NULL OR kind = ?1"
                " ORDER BY created DESC, rowid DESC LIMIT ?2",
                (kind, limit),
            ).fetchall()
        return [_record(row) for row in rows]

    def active(self) -> list[ActiveRun]:
        """Runs that hold a slot: claimed, with or without a process yet."""
        if not self.exists():
            return []
        with self._open() as connection:
            rows = connection.execute(
                "SELECT id, state, started, heartbeat, cancel_asked, host, pid, pid_started, folder"
                " FROM runs WHERE state IN ('running', 'cancelling')"
            ).fetchall()
        return [ActiveRun(**dict(row)) for row in rows]

    def claim_next(self, limit: int) -> ActiveRun | None:
        """Take the oldest queued run if fewer than ``limit`` are active; of many callers one wins."""
        if not self.exists():
            return None
        now = time.time()
        # One transaction: callers that all saw the same oldest run would leave the next one waiting.
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT id FROM runs WHERE state = 'queued' ORDER BY queued, rowid LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            changed = connection.execute(
                "UPDATE runs SET state = 'running', started = ?, heartbeat = ?, host = ?,"
                " pid = NULL, pid_started = NULL, finished = NULL, message = NULL"
                " WHERE id = ? AND state = 'queued' AND"
                " (SELECT count(*) FROM runs WHERE state IN ('running', 'cancelling')) < ?",
                (now, now, host_name(), row["id"], limit),
            ).rowcount
        if not changed:
            return None
        # The claimed run is active now, so it is among these.
        return next((run for run in self.active() if run.id == row["id"]), None)

    def attach(self, run_id: str, pid: int, pid_started: float | None) -> bool:
        """Tie a claimed run to its process; False where another process has it or it is over."""
        with self._open() as connection:
            return bool(
                connection.execute(
                    "UPDATE runs SET pid = ?1, pid_started = ?2, heartbeat = ?3, host = ?4"
                    " WHERE id = ?5 AND state IN ('running', 'cancelling')"
                    " AND (pid IS NULL OR pid = ?1)",
                    (pid, pid_started, time.time(), host_name(), run_id),
                ).rowcount
            )

    def record(self, run_id: str, attempt: int, reports: Iterable[tuple[float, Progress]]) -> bool:
        """Write a heartbeat and the reports since the last; returns whether a stop is asked for."""
        with self._transaction() as connection:
            latest: Progress | None = None
            for when, progress in reports:
                latest = progress
                if attempt > 1:
                    # A resumed run goes back to its checkpoint: what it repeats replaces old steps.
                    connection.execute(
                        "DELETE FROM steps WHERE run_id = ? AND attempt < ? AND stage = ?"
                        " AND done >= ?",
                        (run_id, attempt, progress.stage, progress.done),
                    )
                connection.execute(
                    "INSERT INTO steps (run_id, attempt, time, stage, done, total, numbers)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        run_id,
                        attempt,
                        when,
                        progress.stage,
                        progress.done,
                        progress.total,
                        encode(progress.values),
                    ),
                )
            connection.execute(
                "UPDATE runs SET heartbeat = ? WHERE id = ? AND attempt = ?",
                (time.time(), run_id, attempt),
            )
            if latest is not None:
                connection.execute(
                    "UPDATE runs SET stage = ?, done = ?, total = ?, numbers = ?"
                    " WHERE id = ? AND attempt = ?",
                    (
                        latest.stage,
                        latest.done,
                        latest.total,
                        encode(latest.values),
                        run_id,
                        attempt,
                    ),
                )
            row = connection.execute(
                "SELECT state FROM runs WHERE id = ? AND attempt = ?", (run_id, attempt)
            ).fetchone()
        # A run that was declared lost, or resumed elsewhere, must stop as well.
        return row is None or row["state"] != "running"

    def ask_cancel(self, run_id: str) -> ActiveRun | None:
        """Queued becomes cancelled, running becomes cancelling; the active run if it has a process."""
        now = time.time()
        with self._transaction() as connection:
            connection.execute(
                "UPDATE runs SET state = 'cancelled', finished = ?,"
                " message = 'Cancelled before it started.' WHERE id = ? AND state = 'queued'",
                (now, run_id),
            )
            connection.execute(
                "UPDATE runs SET state = 'cancelling', cancel_asked = ?"
                " WHERE id = ? AND state = 'running'",
                (now, run_id),
            )
        return next((run for run in self.active() if run.id == run_id), None)

    def finish(
        self,
        run_id: str,
        state: RunState,
        *,
        message: str | None = None,
        result: str | None = None,
        pid: int | None,
    ) -> bool:
        """End an active run, if it is still tied to ``pid``; False where someone else ended it."""
        with self._open() as connection:
            return bool(
                connection.execute(
                    "UPDATE runs SET state = ?, message = ?, result = ?, finished = ?"
                    " WHERE id = ? AND state IN ('running', 'cancelling') AND pid IS ?",
                    (state, message, result, time.time(), run_id, pid),
                ).rowcount
            )

    def requeue(self, run_id: str) -> None:
        """Put an ended run back into the queue for one more attempt.

        Raises:
            RunError: it is live or done, or does not exist.
            TargetTakenError: a live run makes the same thing.
        """
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT state, target FROM runs WHERE id = ?", (run_id,)
            ).fetchone()
            if row is None:
                raise RunError(f"There is no run '{run_id}'; list the runs to see their ids.")
            if row["state"] not in ("cancelled", "failed", "lost"):
                raise RunError(
                    f"The run '{run_id}' is {row['state']}; only one that was cancelled, failed or "
                    "lost can be resumed."
                )
            self._check_target(connection, row["target"])
            connection.execute(
                "UPDATE runs SET state = 'queued', attempt = attempt + 1, queued = ?, message = NULL,"
                " result = NULL, started = NULL, finished = NULL, cancel_asked = NULL,"
                " heartbeat = NULL, pid = NULL, pid_started = NULL WHERE id = ?",
                (time.time(), run_id),
            )

    def steps(self, run_id: str, last: int | None = None) -> list[dict[str, Any]]:
        """Every report of the run, oldest first, its numbers beside stage, done, total and time.

        Args:
            run_id: the run.
            last: only so many of the latest; all if absent.
        """
        with self._open() as connection:
            rows = connection.execute(
                "SELECT time, attempt, stage, done, total, numbers FROM steps WHERE run_id = ?"
                " ORDER BY position DESC LIMIT ?",
                (run_id, -1 if last is None else last),
            ).fetchall()
        return [
            {
                "time": _when(row["time"]),
                "attempt": row["attempt"],
                "stage": row["stage"],
                "done": row["done"],
                "total": row["total"],
                **json.loads(row["numbers"]),
            }
            for row in reversed(rows)
        ]
