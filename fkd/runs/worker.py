"""A run's own process: ``python -m fkd.runs.worker RUN_ID``, started by `fkd.runs.launch`."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import time

from fkd.core.errors import Cancelled, FkdError
from fkd.core.memory import keep_freed_memory
from fkd.runs import _process
from fkd.runs._sentences import error_sentence
from fkd.runs.kind import KINDS
from fkd.runs.launch import start_queued
from fkd.runs.records import RunRecord, RunState
from fkd.runs.reporter import Reporter
from fkd.runs.store import RunStore

logger = logging.getLogger(__name__)

_FINISH_TRIES = 5


def main(run_id: str) -> int:
    """Do one run from claim to ending; the exit code is 0 when it is done or was cancelled."""
    faulthandler.enable()
    keep_freed_memory()
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        force=True,
    )
    store = RunStore()
    pid = os.getpid()
    if not store.attach(run_id, pid, _process.start_time(pid)):
        logger.error("The run %s belongs to another process or is over; nothing done.", run_id)
        return 3
    record = store.get(run_id)
    reporter = Reporter(store, run_id, record.attempt)
    # Set from the main thread only; the reporter's thread sees a cancellation in the database too.
    signal.signal(signal.SIGTERM, lambda *_: reporter.ask_stop())
    logger.info("Started %s, attempt %d: %s", run_id, record.attempt, record.title)
    reporter.start()
    state, message, result = _run(record, reporter)
    reporter.close()
    logger.info("Ended as %s. %s", state, message or "")
    _finish(store, run_id, state, message, result)
    try:
        start_queued(store)
    except FkdError as error:
        logger.warning("The next run could not be started: %s", error)
    return 1 if state == "failed" else 0


def _run(record: RunRecord, reporter: Reporter) -> tuple[RunState, str | None, str | None]:
    """The work itself: state, message and result."""
    log = record.log
    try:
        if reporter.is_stop_asked:
            return "cancelled", "Cancelled before it began.", None
        return "done", None, KINDS.get(record.kind)().run(record.spec, reporter)
    except (Cancelled, KeyboardInterrupt) as stop:
        return "cancelled", str(stop) or "Stopped, as asked.", None
    except FkdError as error:
        logger.error("%s", error, exc_info=error.__cause__ is not None)
        return "failed", str(error), None
    except (Exception, SystemExit) as error:
        logger.exception("The run failed.")
        return "failed", error_sentence(error, log), None


def _finish(
    store: RunStore, run_id: str, state: RunState, message: str | None, result: str | None
) -> None:
    """Note the ending, patiently: a run whose ending is not noted counts as lost."""
    for attempt in range(_FINISH_TRIES):
        try:
            if not store.finish(run_id, state, message=message, result=result, pid=os.getpid()):
                logger.warning("The run was ended by someone else in the meantime.")
            return
        except FkdError as error:
            logger.warning("The ending could not be noted: %s", error)
            time.sleep(attempt)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m fkd.runs.worker RUN_ID")
    sys.exit(main(sys.argv[1]))
