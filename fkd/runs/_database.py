"""SQLite under `fkd.core.paths.runs_dir`: its tables, and how it is opened.

Write-ahead logging lets pages read while a worker writes; a busy timeout lets writers wait for each
other.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fkd.core.errors import RunError
from fkd.runs._sentences import database_sentence

#: Raised when the tables change; kept in the database's user_version.
SCHEMA_VERSION = 1
#: How long one writer waits for another.
BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, spec TEXT NOT NULL, title TEXT NOT NULL,
    target TEXT NOT NULL, folder TEXT NOT NULL, state TEXT NOT NULL,
    stage TEXT NOT NULL DEFAULT '', done INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0, numbers TEXT NOT NULL DEFAULT '{}',
    message TEXT, result TEXT,
    created REAL NOT NULL, queued REAL NOT NULL, started REAL, finished REAL,
    heartbeat REAL, cancel_asked REAL,
    host TEXT, pid INTEGER, pid_started REAL, attempt INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX IF NOT EXISTS one_live_run_per_target ON runs (target)
    WHERE state IN ('queued', 'running', 'cancelling');
CREATE INDEX IF NOT EXISTS runs_by_age ON runs (created);
CREATE TABLE IF NOT EXISTS steps (
    position INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    time REAL NOT NULL, stage TEXT NOT NULL, done INTEGER NOT NULL, total INTEGER NOT NULL,
    numbers TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS steps_by_run ON steps (run_id, position);
"""


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables; several processes may do so at once."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            # The change to write-ahead logging does not wait for others by itself.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextmanager
def connect(path: Path) -> Iterator[sqlite3.Connection]:
    """A short connection to the database, which is made where it is missing.

    Raises:
        RunError: the folder or the file cannot be used; the sentence says why and what to do.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(
            sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        ) as connection:
            connection.row_factory = sqlite3.Row
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise RunError(
                    f"The runs database {path} was written by a newer fkd (layout {version}, this one "
                    f"knows {SCHEMA_VERSION}); update fkd or set FKD_HOME to another folder."
                )
            if version < SCHEMA_VERSION:
                _create(connection)
            # Safe with write-ahead logging: a crash of the machine may lose the last commits only.
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection
    except (sqlite3.Error, OSError) as error:
        raise RunError(database_sentence(path, error)) from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and no other writer in between."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise
    connection.commit()
