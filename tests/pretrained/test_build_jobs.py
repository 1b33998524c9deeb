"""Commands side by side: needs, failures, and no more at once than asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretrained.jobs import Job, run_jobs


def python(code: str) -> tuple[str, ...]:
    # Isolated and without site: such a process starts in 20 ms.
    return (sys.executable, "-I", "-S", "-c", code)


def note(log: Path, name: str, *needs: str, code: str = "") -> Job:
    """A job that writes its name down, then does something more."""
    return Job(name, python(f"open({str(log)!r}, 'a').write('{name} '); {code}"), frozenset(needs))


@pytest.fixture
def log(tmp_path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def test_needs_come_first_whatever_the_order(log):
    jobs = [note(log, "student", "teacher"), note(log, "teacher"), note(log, "third", "student")]
    assert run_jobs(jobs, 3) == {}
    assert log.read_text().split() == ["teacher", "student", "third"]


def test_one_that_fails_stops_only_those_that_need_it(log):
    jobs = [
        note(log, "teacher", code="raise SystemExit(3)"),
        note(log, "student", "teacher"),
        note(log, "of-student", "student"),
        note(log, "other"),
        note(log, "killed", code="import os; os.kill(os.getpid(), 9)"),
    ]
    assert run_jobs(jobs, 2) == {
        "teacher": "exit code 3",
        "student": "needs teacher",
        "of-student": "needs student",
        "killed": "ended by signal 9",
    }
    assert sorted(log.read_text().split()) == ["killed", "other", "teacher"]


def test_needs_that_are_no_job_are_done_already(log):
    assert run_jobs([note(log, "student", "teacher that is there")], 1) == {}
    assert log.read_text() == "student "


def test_a_circle_of_needs_ends(log):
    assert set(run_jobs([note(log, "a", "b"), note(log, "b", "a"), note(log, "c")], 1)) == {
        "a",
        "b",
    }
    assert log.read_text() == "c "


def test_no_more_at_once_than_asked_for(tmp_path):
    code = (
        "import os, time; p = os.path.join({0!r}, '{1}'); open(p, 'w').close();"
        "n = len(os.listdir({0!r})); time.sleep(0.1); os.remove(p); raise SystemExit(n > 2)"
    )
    folder = tmp_path / "running"
    folder.mkdir()
    jobs = [Job(str(k), python(code.format(str(folder), k))) for k in range(6)]
    assert run_jobs(jobs, 2) == {}


def test_processes_have_one_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    code = "import os; raise SystemExit(os.environ['OMP_NUM_THREADS'] != '1')"
    assert run_jobs([Job("one", python(code))], 1) == {}


def test_an_interruption_leaves_no_process_behind(log, monkeypatch):
    """As by Ctrl+C between two looks."""
    started = []
    monkeypatch.setattr("pretrained.jobs.time.sleep", lambda _: started.append(1) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_jobs([note(log, "long", code="import time; time.sleep(60)")], 1)
    assert started == [1]


@pytest.mark.parametrize("said", ["all is kept.", None])
def test_an_interrupted_script_ends_in_a_sentence_or_in_silence(said):
    script = (
        "import logging, os, signal, time; from pretrained.jobs import run_to_end; "
        # A shell's background jobs, and so some CI's, begin with it ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "logging.basicConfig(format='%(message)s'); "
        "main = lambda: os.kill(os.getpid(), signal.SIGINT) or time.sleep(60); "
        f"raise SystemExit(run_to_end(main, {said!r}))"
    )
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 128 + signal.SIGINT
    assert ended.stderr == (f"Interrupted; {said}\n" if said else "")


def test_a_build_that_is_told_to_end_leaves_no_process_behind(tmp_path):
    """By a scheduler or a shell's ``kill``, not only by Ctrl-C."""
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = (
        "import sys; from pretrained.jobs import Job, end_with_children, run_jobs; "
        "end_with_children(); "
        f"run_jobs([Job('one', (sys.executable, '-c', {child!r}))], 1)"
    )
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=root)
    try:
        while not (pid.is_file() and pid.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)
    finally:
        process.kill()
