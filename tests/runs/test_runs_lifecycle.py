"""A run from its start to each of its endings."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import psutil
import pytest

from fkd.core.errors import ConfigError, RunError
from fkd.runs import (
    KINDS,
    cancel_run,
    get_run,
    list_runs,
    resume_run,
    run_history,
    run_log,
    start_run,
    wait_run,
)
from fkd.runs.store import RunStore

PATIENCE = 60.0


def ended(record):
    return record.has_ended


def test_run_counts_to_its_end(start, until):
    run_id = start("a", steps=4)
    record = until(run_id, ended)
    assert (record.state, record.result, record.message) == ("done", "a-4", None)
    assert (record.stage, record.done, record.total) == ("count", 4, 4)
    assert record.values == {"loss": 0.25, "start": 0}
    assert record.created <= record.started <= record.finished
    assert record.fraction == 1.0
    assert record.pid != os.getpid()
    assert record.spec == {"name": "a", "mode": "count", "steps": 4, "seconds": 0.0}
    assert list_runs()[0].id == run_id

    history = run_history(run_id)
    assert history["done"].tolist() == [1, 2, 3, 4]
    assert history["loss"].tolist() == [1.0, 0.5, pytest.approx(1 / 3), 0.25]
    assert history["time"].is_monotonic_increasing

    log = run_log(run_id)
    assert "count: 1 of 4" in log
    assert "Ended as done" in log.splitlines()[-1]
    assert run_log(run_id, lines=1) == log.splitlines()[-1]


def test_a_bad_specification_starts_nothing(start, home):
    with pytest.raises(ConfigError, match=r"'steps' is not usable.*got 0"):
        start(steps=0)
    with pytest.raises(ConfigError, match="no kind of run called 'trian'; did you mean 'train'"):
        start_run("trian", {})
    assert list_runs() == []
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("refuse", "The data set 'x' is damaged; download it again."),
        ("crash", "Sorry, something unexpected went wrong; the details are in {id}.log."),
        ("full", "The disk is full (model.safetensors); free some space and try again."),
        ("exit", "Sorry, something unexpected went wrong; the details are in {id}.log."),
    ],
)
def test_failure_becomes_a_sentence(start, until, mode, message):
    run_id = start(mode=mode)
    record = until(run_id, ended)
    assert record.state == "failed"
    assert record.message == message.format(id=run_id)
    assert record.log == f"{run_id}.log"
    assert ("an inner detail" in run_log(run_id)) == (mode == "crash")


def test_cancel_and_resume_go_on_from_the_checkpoint(start, until):
    run_id = start(steps=1000, seconds=0.02)
    until(run_id, lambda record: record.done >= 3)
    cancel_run(run_id)
    record = until(run_id, ended)
    assert record.state == "cancelled"
    assert "as asked" in record.message
    stopped_at = record.done
    assert 3 <= stopped_at < 1000

    with sqlite3.connect(RunStore().path) as connection:
        connection.execute("UPDATE runs SET spec = replace(spec, '1000', '?')".replace("?", "60"))
    connection.close()
    if stopped_at >= 60:
        pytest.skip("the machine was too slow to cancel in time")
    resume_run(run_id)
    record = until(run_id, ended)
    assert (record.state, record.attempt, record.done) == ("done", 2, 60)
    # It went on, it did not begin again: and what it repeated is there once.
    assert 0 < record.values["start"] <= stopped_at
    assert run_history(run_id)["done"].tolist() == list(range(1, 61))


def test_a_killed_process_is_lost_and_can_be_resumed(start, until):
    run_id = start(mode="vanish", steps=5)
    record = until(run_id, ended)
    assert record.state == "lost"
    assert "ended without a word" in record.message
    assert record.done == 2
    resume_run(run_id)
    record = until(run_id, ended)
    assert (record.state, record.result, record.message) == ("done", "a-5", None)
    assert record.values["start"] == 2


def test_a_run_that_ignores_cancellation_is_killed_with_its_children(
    start, until, home, monkeypatch
):
    monkeypatch.setenv("FKD_CANCEL_GRACE", "1")
    run_id = start(mode="hang")
    child_pid = home / "child.pid"
    until(run_id, lambda record: child_pid.exists() and child_pid.read_text() != "")
    cancel_run(run_id)
    assert get_run(run_id).state == "cancelling"
    record = until(run_id, ended)
    assert record.state == "cancelled"
    assert record.seconds < PATIENCE
    child = int(child_pid.read_text())
    deadline = time.monotonic() + PATIENCE
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the run's own child outlived it"
        time.sleep(0.05)


def test_sigterm_from_outside_ends_a_run_cleanly(start, until):
    run_id = start(steps=1000, seconds=0.02)
    record = until(run_id, lambda record: record.done >= 1)
    os.kill(record.pid, signal.SIGTERM)
    assert until(run_id, ended).state == "cancelled"


def test_a_run_outlives_the_process_that_started_it(home, until):
    code = (
        "import fake_run_worker; fake_run_worker.install(); from fkd.runs import start_run; "
        "print(start_run('fake', {'name': 'b', 'steps': 20, 'seconds': 0.05}))"
    )
    run_id = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE
    ).stdout.strip()
    assert until(run_id, ended).result == "b-20"


def test_wait_returns_at_its_timeout_or_at_the_end(start):
    run_id = start(steps=1000, seconds=0.02)
    assert not wait_run(run_id, timeout=0.1).has_ended
    cancel_run(run_id)
    assert wait_run(run_id, timeout=PATIENCE).has_ended


def test_what_cannot_be_done_to_a_run_is_a_sentence(start, until):
    for action in (get_run, cancel_run, resume_run, run_history, run_log):
        with pytest.raises(RunError, match="There is no run 'nosuch'; list the runs"):
            action("nosuch")
    run_id = start()
    until(run_id, ended)
    with pytest.raises(RunError, match="has ended already \\(done\\)"):
        cancel_run(run_id)
    with pytest.raises(RunError, match="is done; only one that was cancelled, failed or lost"):
        resume_run(run_id)


def test_a_new_kind_is_one_class(home):
    assert set(KINDS) == {
        *("analyse", "attack", "copy", "fake", "radius", "robust", "score", "train", "transfer")
    }
    assert all(KINDS.available().values())
