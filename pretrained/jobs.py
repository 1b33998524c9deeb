"""Commands side by side, some of which need others done first; one that fails stops no other."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOG = logging.getLogger("build")

#: Waiting threads sleep, so that processes side by side do not slow each other down.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes:
        name: unique among the jobs of a run.
        command: program and arguments.
        needs: names of jobs that must succeed first; those that are no job of the run are done already.
    """

    name: str
    command: tuple[str, ...]
    needs: frozenset[str] = frozenset()


def at_least_one(word: str) -> int:
    """A number of processes or images as the command line gives it."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is needed, got {word!r}")
    return int(word)


def end_with_children() -> None:
    """Let SIGTERM end this process as Ctrl-C does: with what it started, not leaving it behind."""

    def end(*_: object) -> None:
        # Once: told again while it ends, it would die with a traceback.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)


def run_to_end(main: Callable[[], int], said: str | None) -> int:
    """The exit code of a script, which ends in a sentence when it is interrupted.

    Args:
        main: the script.
        said: what becomes of the work that was done; None where another process says it.
    """
    end_with_children()
    try:
        return main()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if said is not None:
            LOG.error("Interrupted; %s", said)
        return 128 + signal.SIGINT


def run_jobs(jobs: Sequence[Job], at_once: int) -> dict[str, str]:
    """Run every job whose needs succeed, in the given order as far as needs allow.

    Args:
        jobs: what to run; output goes where this process's does.
        at_once: processes at a time, each with one thread.

    Returns:
        Why each job that did not succeed did not, by name; empty where all did.
    """
    failures: dict[str, str] = {}
    waiting = {job.name: job for job in jobs}
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            _collect(running, failures)
            _drop_hopeless(waiting, failures)
            ready = [job for job in waiting.values() if not _open(job, waiting, running)]
            for job in ready[: max(0, at_once - len(running))]:
                del waiting[job.name]
                running[job.name] = subprocess.Popen(job.command, env={**os.environ, **ONE_THREAD})
            if not ready and not running and waiting:
                # Only a circle of needs is left.
                failures.update(dict.fromkeys(waiting, "its needs can never be met"))
                break
            if running:
                time.sleep(_POLL_SECONDS)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    return failures


def _open(job: Job, waiting: dict[str, Job], running: dict[str, subprocess.Popen[bytes]]) -> bool:
    """Whether something that the job needs is not done yet."""
    return any(need in waiting or need in running for need in job.needs)


def _collect(running: dict[str, subprocess.Popen[bytes]], failures: dict[str, str]) -> None:
    for name, process in list(running.items()):
        code = process.poll()
        if code is None:
            continue
        del running[name]
        if code:
            failures[name] = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
            LOG.error("%s failed: %s", name, failures[name])


def _drop_hopeless(waiting: dict[str, Job], failures: dict[str, str]) -> None:
    for job in list(waiting.values()):
        failed = sorted(job.needs & failures.keys())
        if failed:
            del waiting[job.name]
            failures[job.name] = f"needs {failed[0]}"
