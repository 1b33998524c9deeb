"""How a run's process tells the database how far it is, without ever holding up the work."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time

from fkd.core.errors import FkdError
from fkd.core.progress import Progress
from fkd.runs.settings import cancel_grace_seconds
from fkd.runs.store import RunStore

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 0.5
_HEARTBEAT_SECONDS = 5.0
_LOG_SECONDS = 10.0


class Reporter:
    """Collects reports, and writes them and a heartbeat from a thread of its own.

    Only the database is touched by the thread; the work itself just appends to a list and reads a
    flag.  A report that cannot be written (database busy, disk full) never ends the work.

    Args:
        store: where to write.
        run_id: the run.
        attempt: which attempt this process is.
    """

    def __init__(self, store: RunStore, run_id: str, attempt: int) -> None:
        self._store = store
        self._run_id = run_id
        self._attempt = attempt
        self._waiting: list[tuple[float, Progress]] = []
        self._lock = threading.Lock()
        self._stop_asked = threading.Event()
        self._stop_asked_at: float | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="reporter", daemon=True)
        self._written_at = 0.0
        self._logged_at = 0.0
        self._logged_stage = ""

    def start(self) -> None:
        """Write the first heartbeat and begin."""
        self._flush()
        self._thread.start()

    def close(self) -> None:
        """Write what is left and end the thread."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._flush()

    @property
    def is_stop_asked(self) -> bool:
        """Whether someone wants the run to end."""
        return self._stop_asked.is_set()

    def ask_stop(self) -> None:
        """The next report answers True."""
        if self._stop_asked_at is None:
            self._stop_asked_at = time.monotonic()
        self._stop_asked.set()

    def __call__(self, progress: Progress) -> bool:
        """Take one report; True asks the work to stop at its next safe point."""
        now = time.time()
        with self._lock:
            self._waiting.append((now, progress))
        if progress.stage != self._logged_stage or now - self._logged_at > _LOG_SECONDS:
            self._logged_stage, self._logged_at = progress.stage, now
            logger.info(
                "%s: %d of %d%s", progress.stage, progress.done, progress.total, _in_words(progress)
            )
        return self.is_stop_asked

    def _loop(self) -> None:
        while not self._closing.wait(_FLUSH_SECONDS):
            self._flush()
            self._enforce_grace()

    def _flush(self) -> None:
        with self._lock:
            reports, self._waiting = self._waiting, []
        now = time.monotonic()
        if not reports and not self._is_due(now):
            return
        try:
            if self._store.record(self._run_id, self._attempt, reports):
                self.ask_stop()
            self._written_at = now
        except FkdError as error:
            logger.warning("The progress could not be noted: %s", error)
            with self._lock:
                self._waiting = reports + self._waiting

    def _is_due(self, now: float) -> bool:
        return now - self._written_at >= _HEARTBEAT_SECONDS or not self._written_at

    def _enforce_grace(self) -> None:
        """End this process and what it started when the work ignores a cancellation."""
        if self._stop_asked_at is None or sys.platform == "win32":
            return
        seconds = time.monotonic() - self._stop_asked_at
        if seconds > cancel_grace_seconds() and os.getpgrp() == os.getpid():
            logger.warning("Did not stop within %.0f s of being asked; killed.", seconds)
            # Whoever looks next finds the process gone and the run cancelled.
            os.killpg(os.getpgrp(), signal.SIGKILL)


def _in_words(progress: Progress) -> str:
    shown = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in progress.values.items()
    ]
    return f" ({', '.join(shown)})" if shown else ""
