"""Several runs at once: slots, order, and the same thing asked for twice."""

import threading
from datetime import timedelta

import pytest

from fkd.core.errors import ConfigError, RunError
from fkd.runs import cancel_run, get_run, list_runs, resume_run, start_run


def ended(record):
    return record.has_ended


def test_runs_queue_for_the_free_slot_and_start_in_order(start, until):
    ids = [start(name, steps=3, seconds=0.05) for name in "abc"]
    assert [get_run(run_id).state for run_id in ids[1:]] == ["queued", "queued"]
    records = [until(run_id, ended) for run_id in ids]
    assert [record.result for record in records] == ["a-3", "b-3", "c-3"]
    # Each process has a clock reading of its own, taken a moment before it is written.
    assert records[0].finished <= records[1].started + timedelta(seconds=0.1)
    assert records[1].finished <= records[2].started + timedelta(seconds=0.1)
    assert [record.id for record in list_runs()] == ids[::-1]
    assert [record.id for record in list_runs(limit=1)] == ids[-1:]
    assert list_runs(kind="train") == []


def test_more_slots_run_together(start, until, monkeypatch):
    monkeypatch.setenv("FKD_MAX_RUNS", "2")
    ids = [start(name, steps=1000, seconds=0.02) for name in "abc"]
    for run_id in ids[:2]:
        until(run_id, lambda record: record.done >= 1)
    assert [get_run(run_id).state for run_id in ids] == ["running", "running", "queued"]
    cancel_run(ids[0])
    until(ids[2], lambda record: record.done >= 1)
    assert get_run(ids[0]).state == "cancelled"


def test_a_queued_run_is_cancelled_at_once_and_can_be_resumed(start, until):
    first = start("a", steps=1000, seconds=0.02)
    second = start("b", steps=2)
    cancel_run(second)
    assert get_run(second).state == "cancelled"
    assert get_run(second).started is None
    resume_run(second)
    assert get_run(second).state == "queued"
    cancel_run(first)
    assert until(second, ended).result == "b-2"


def test_the_worker_that_ends_starts_the_next_while_nobody_looks(start, until, home):
    first = start("a", steps=2)
    second = start("b", steps=2)
    # Both end without any look at the database; only files are watched.
    deadline_file = home / "b.checkpoint"
    for _ in range(1200):
        if deadline_file.exists() and deadline_file.read_text() == "2":
            break
        threading.Event().wait(0.05)
    assert deadline_file.exists()
    assert until(second, ended).state == "done"
    assert get_run(first).state == "done"


def test_the_same_start_twice_is_one_run(start, until):
    first = start("a", steps=1000, seconds=0.02)
    assert start("a", steps=1000, seconds=0.02) == first
    with pytest.raises(RunError, match=f"The run {first} \\(a: count\\) is running and makes the"):
        start("a", steps=7)
    cancel_run(first)
    until(first, ended)
    second = start("a", steps=1000, seconds=0.02)
    assert second != first
    with pytest.raises(RunError, match="makes the same thing"):
        resume_run(first)


def test_many_starts_at_once_make_one_run(start, until, home):
    ids, errors = [], []

    def begin():
        try:
            ids.append(start_run("fake", {"name": "a", "steps": 1000, "seconds": 0.02}))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert len(list_runs()) == 1


@pytest.mark.parametrize("value", ["0", "two", "nan", "1.5"])
def test_a_wrong_limit_is_a_sentence(start, monkeypatch, value):
    monkeypatch.setenv("FKD_MAX_RUNS", value)
    with pytest.raises(ConfigError, match=f"FKD_MAX_RUNS must be a whole number .*'{value}'"):
        start()
