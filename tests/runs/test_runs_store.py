"""The database by itself: claims, lost processes, damaged and unwritable folders."""

import os
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from fkd.core.errors import RunError
from fkd.core.progress import Progress
from fkd.runs import _process as process
from fkd.runs import cancel_run, get_run, launch, list_runs, refresh, start_run
from fkd.runs._sentences import error_sentence
from fkd.runs.store import RunStore


@pytest.fixture
def store(home):
    return RunStore(home / "runs")


def add(store, run_id, target=None):
    store.add(run_id, "fake", {}, title=run_id, target=target or run_id, folder=".")


def change(store, **columns):
    with store._open() as connection:
        for column, value in columns.items():
            connection.execute(f"UPDATE runs SET {column} = ?", (value,))


def test_one_claim_of_many_wins(store):
    for name in "abc":
        add(store, name)
    claimed = []
    threads = [
        threading.Thread(target=lambda: claimed.append(store.claim_next(2))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run.id for run in claimed if run) == ["a", "b"]


def test_one_process_has_a_run(store):
    add(store, "a")
    assert not store.attach("a", 1, 0.0), "a queued run has no process"
    store.claim_next(1)
    assert store.attach("a", 1, 0.0)
    assert store.attach("a", 1, 0.0), "launcher and worker both say so"
    assert not store.attach("a", 2, 0.0)
    assert not store.finish("a", "done", pid=2)
    assert store.finish("a", "done", pid=1)
    assert not store.finish("a", "lost", pid=1), "an ending is final"


def test_numbers_of_any_sort_are_kept(store):
    add(store, "a")
    store.claim_next(1)
    values = {"loss": np.float32(0.5), "nan": float("nan"), "words": "x", "shape": (1, 2)}
    assert not store.record("a", 1, [(1.0, Progress("s", 1, 2, values))])
    steps = store.steps("a")
    assert steps[0]["loss"] == 0.5
    assert np.isnan(steps[0]["nan"])
    assert store.get("a").values["words"] == "x"


def test_a_stop_is_asked_of_cancelled_replaced_and_unknown_attempts(store):
    add(store, "a")
    store.claim_next(1)
    assert not store.record("a", 1, [])
    assert store.record("a", 2, [])
    store.ask_cancel("a")
    assert store.record("a", 1, [])


def test_a_pid_of_someone_else_is_no_sign_of_life(store):
    add(store, "a")
    store.claim_next(1)
    pid = os.getpid()
    store.attach("a", pid, process.start_time(pid))
    assert get_run("a").state == "running"
    change(store, pid_started=process.start_time(pid) - 1000)
    assert get_run("a").state == "lost"


def test_a_zombie_has_ended(store):
    add(store, "a")
    store.claim_next(1)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        started = process.start_time(child.pid)
        store.attach("a", child.pid, started)
        deadline = time.monotonic() + 30
        while process.is_running(child.pid, started) and time.monotonic() < deadline:
            time.sleep(0.02)
        # Not collected yet: the pid is still taken.
        assert process.start_time(child.pid) is not None
        assert get_run("a").state == "lost"


def test_a_claim_whose_launcher_died_is_given_up(store):
    add(store, "a")
    store.claim_next(1)
    assert get_run("a").state == "running"
    change(store, started=time.time() - 1000)
    assert get_run("a").state == "lost"


def test_a_run_of_another_machine_is_judged_by_its_heartbeat(store):
    add(store, "a")
    store.claim_next(1)
    store.attach("a", 2**22 + 1, 0.0)
    change(store, host="elsewhere")
    assert get_run("a").state == "running"
    change(store, heartbeat=time.time() - 1000, started=time.time() - 2000)
    assert get_run("a").state == "lost"


def test_cancelling_a_run_whose_process_is_gone_ends_it(store):
    add(store, "a")
    store.claim_next(1)
    pid = os.getpid()
    store.attach("a", pid, process.start_time(pid))
    store.ask_cancel("a")
    change(store, pid_started=1.0)
    assert get_run("a").state == "cancelled"


def test_a_process_that_cannot_be_started_is_a_failed_run(home, monkeypatch):
    def refuse(*_args, **_more):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(launch.subprocess, "Popen", refuse)
    record = get_run(start_run("fake", {"name": "a"}))
    assert record.state == "failed"
    assert "could not be started" in record.message


def test_looking_makes_no_folder(home):
    assert list_runs() == []
    refresh()
    assert not (home / "runs").exists()


def test_a_damaged_database_is_a_sentence(home, store):
    store.folder.mkdir()
    store.path.write_bytes(b"no database at all, but long enough to be read as one" * 100)
    with pytest.raises(RunError, match=r"damaged.*move it away"):
        list_runs()


def test_a_newer_database_is_a_sentence(store):
    add(store, "a")
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RunError, match="newer fkd \\(layout 99"):
        list_runs()


def test_an_unusable_folder_is_a_sentence(home):
    (home / "runs").write_text("a file where the folder should be")
    with pytest.raises(RunError, match=r"cannot be written .*set FKD_HOME"):
        start_run("fake", {"name": "a"})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_a_sentence(home):
    home.chmod(0o500)
    try:
        with pytest.raises(RunError, match=r"cannot be written .*set FKD_HOME"):
            start_run("fake", {"name": "a"})
    finally:
        home.chmod(0o700)


def test_a_full_disk_is_a_sentence(store):
    add(store, "a")
    connection = sqlite3.connect(store.path)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.close()
    original = RunStore._open

    # SQLite's own limit gives the very error of a full disk.
    from contextlib import contextmanager

    @contextmanager
    def full(self):
        with original(self) as opened:
            opened.execute(f"PRAGMA max_page_count = {pages}")
            yield opened

    RunStore._open = full
    try:
        with pytest.raises(RunError, match="full, so the run cannot be noted; free some space"):
            store.add("b", "fake", {"x": "y" * 100_000}, title="b", target="b", folder=".")
    finally:
        RunStore._open = original
    assert [record.id for record in store.list(10, None)] == ["a"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "memory did not suffice"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "memory did not suffice"),
        (KeyError("x"), "details are in x.log"),
    ],
)
def test_every_error_is_a_sentence(error, expected):
    assert expected in error_sentence(error, "x.log")


def test_cancel_of_an_ended_run_changes_nothing(store):
    add(store, "a")
    store.claim_next(1)
    store.attach("a", 1, 0.0)
    store.finish("a", "done", result="r", pid=1)
    with pytest.raises(RunError):
        cancel_run("a")
    assert store.get("a").result == "r"


def test_the_latest_steps_come_in_order(store):
    add(store, "a")
    store.claim_next(1)
    reports = [(float(n), Progress("certificate", 0, 9, {"upper": 1 / n})) for n in range(1, 8)]
    store.record("a", 1, reports)
    assert [row["upper"] for row in store.steps("a", 3)] == [1 / 5, 1 / 6, 1 / 7]
    assert len(store.steps("a")) == len(store.steps("a", 100)) == 7
    assert store.steps("a", 3) == store.steps("a")[-3:]
