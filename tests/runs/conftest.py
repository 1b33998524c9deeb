import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_run_worker
import pytest

from fkd.core.errors import RunError
from fkd.runs import KINDS, RunRecord, get_run, launch, list_runs, start_run
from fkd.runs import _process as process
from fkd.runs.store import RunStore

#: Generous: the test machine may be busy with other things.
PATIENCE = 60.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home with the fake kind; whatever a test leaves running is ended."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("FKD_HOME", str(folder))
    monkeypatch.setenv("FKD_DATA_DIR", str(tmp_path / "data"))
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("FKD_MAX_RUNS", raising=False)
    monkeypatch.delenv("FKD_CANCEL_GRACE", raising=False)
    monkeypatch.setattr(launch, "WORKER_MODULE", launch.WORKER_MODULE)
    fake_run_worker.install()
    yield folder
    monkeypatch.setenv("FKD_MAX_RUNS", "1000000")
    store = RunStore(folder / "runs")
    # Some tests leave a database or a folder that cannot be read on purpose.
    with contextlib.suppress(RunError):
        if store.exists():
            with store._open() as connection:
                connection.execute("UPDATE runs SET state = 'cancelled' WHERE state = 'queued'")
            for run in store.active():
                if run.pid not in (None, os.getpid()):
                    process.kill_group(run.pid, run.pid_started)
    for child in list(launch._children):
        child.wait(PATIENCE)
    KINDS.unregister("fake")


@pytest.fixture
def start(home: Path) -> Callable[..., str]:
    """Start a fake run: ``start("name", mode="count", steps=3)``."""

    def start_fake(name: str = "a", **spec: Any) -> str:
        return start_run("fake", {"name": name, **spec})

    return start_fake


@pytest.fixture
def until() -> Callable[..., RunRecord]:
    """Wait until a run's record satisfies a condition."""

    def wait(run_id: str, condition: Callable[[RunRecord], bool]) -> RunRecord:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            record = get_run(run_id)
            if condition(record):
                return record
            time.sleep(0.05)
        log = RunStore().log_path(run_id)
        text = log.read_text() if log.exists() else "(no log)"
        raise AssertionError(f"Still {get_run(run_id)}; others {list_runs()}; log:\n{text}")

    return wait
