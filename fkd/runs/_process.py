"""Which process is a run's, and is it still there: a pid alone may be someone else's by now."""

from __future__ import annotations

import os
import signal
import socket
import sys

import psutil

#: Slack when start times are compared: they are derived from the wall clock, which is adjusted.
_START_SLACK_SECONDS = 2.0


def host_name() -> str:
    """This machine's name; pids of another machine mean nothing here."""
    return socket.gethostname()


def start_time(pid: int) -> float | None:
    """When the process started (seconds since 1970), or None where there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def is_running(pid: int, started: float | None) -> bool:
    """Whether that very process runs; a zombie (ended, not yet collected) does not."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return started is None or abs(process.create_time() - started) <= _START_SLACK_SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        # It is there and not ours to look at: a run of another user on the same folder.
        return True


def ask_to_stop(pid: int, started: float | None) -> bool:
    """Send SIGTERM to that very process; False where it is gone.

    Windows has no SIGTERM that can be caught: there the run sees its state in the database instead.
    """
    if not is_running(pid, started):
        return False
    if sys.platform != "win32":
        try:
            os.kill(pid, signal.SIGTERM)
        except (ProcessLookupError, PermissionError):
            return False
    return True


def kill_group(pid: int, started: float | None) -> None:
    """Kill that very process and everything it started (it leads its own process group)."""
    if not is_running(pid, started):
        return
    try:
        if sys.platform != "win32" and os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            psutil.Process(pid).kill()
    except (ProcessLookupError, PermissionError, psutil.Error):
        # Ended in between, or another user's: the next look decides.
        return
