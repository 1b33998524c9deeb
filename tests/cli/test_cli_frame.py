"""The frame around every command: exit codes, sentences, logs, and what is not imported."""

import os
import signal
import subprocess
import sys
import time

import pytest

import fkd.cli
from fkd import __version__
from fkd.cli import frame
from fkd.core.errors import Cancelled, ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FKD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FKD_DEBUG", raising=False)
    return tmp_path / "home"


def failing(monkeypatch, error):
    def raise_it(_words):
        raise error

    monkeypatch.setattr(frame, "_dispatch", raise_it)


def test_help_names_every_command(capsys):
    assert fkd.cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in frame.COMMANDS)
    assert fkd.cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_no_command_shows_the_help_and_fails(capsys):
    assert fkd.cli.main([]) == 2
    assert "usage: python -m fkd COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_a_sentence(capsys):
    assert fkd.cli.main(["anaylse"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("There is no command called 'anaylse'; did you mean 'analyse'?")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (
            ConfigError("epsilon must lie in [0, 1], got 8."),
            2,
            "epsilon must lie in [0, 1], got 8.",
        ),
        (Cancelled("Stopped, as asked."), 130, "Stopped, as asked."),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (PermissionError(13, "Permission denied", "x.csv"), 2, "'x.csv' could not be used (Permi"),
    ],
)
def test_an_expected_error_is_one_sentence(monkeypatch, capsys, error, code, sentence):
    failing(monkeypatch, error)
    assert fkd.cli.main(["analyse"]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(sentence)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_an_unexpected_error_is_a_sentence_and_a_log(monkeypatch, capsys, home):
    failing(monkeypatch, ValueError("inner detail"))
    assert fkd.cli.main(["analyse", "--count", "3"]) == 2
    shown = capsys.readouterr().err
    (log,) = (home / "logs").iterdir()
    assert shown == f"Sorry, something unexpected went wrong; the details are in {log}.\n"
    text = log.read_text()
    assert "ValueError: inner detail" in text
    assert "analyse --count 3" in text


def test_the_log_goes_elsewhere_where_home_cannot_be_written(monkeypatch, capsys, home, tmp_path):
    home.write_text("no folder")
    monkeypatch.setattr(frame.tempfile, "gettempdir", lambda: str(tmp_path))
    failing(monkeypatch, ValueError("inner detail"))
    assert fkd.cli.main(["analyse"]) == 2
    (log,) = tmp_path.glob("fkd-*.log")
    assert str(log) in capsys.readouterr().err


def test_debugging_shows_the_traceback(monkeypatch, capsys, home):
    monkeypatch.setenv("FKD_DEBUG", "1")
    failing(monkeypatch, ValueError("inner detail"))
    assert fkd.cli.main(["analyse"]) == 2
    assert "ValueError: inner detail" in capsys.readouterr().err
    assert not home.exists()


def fkd_process(*words, **more):
    return subprocess.run(
        [sys.executable, "-m", "fkd", *words], capture_output=True, text=True, timeout=60, **more
    )


def imported_by(*words):
    """Modules that a command imports."""
    code = (
        "import sys, fkd.cli; code = fkd.cli.main(sys.argv[1:]); "
        "sys.stderr.write(' '.join(sys.modules)); sys.exit(code)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stderr
    return set(found.stderr.split())


@pytest.mark.parametrize("words", [["--help"], ["runs"], ["models", "--json"], ["models"]])
def test_quick_commands_stay_quick(words):
    assert not imported_by(*words) & {"torch", "pandas", "sklearn", "auto_LiRPA", "onnx"}


def test_the_module_runs():
    assert fkd_process("--version").stdout.strip() == __version__
    found = fkd_process("nothing")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("There is no command called 'nothing'")


def test_output_that_nobody_reads_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "fkd", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


def test_ctrl_c_before_anything_works_is_a_sentence(tmp_path):
    ready = tmp_path / "ready"
    code = (
        # A run in the background starts its children with this signal ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import pathlib, sys, time, fkd.cli, fkd.cli.frame as frame\n"
        f"def wait(words):\n    pathlib.Path({str(ready)!r}).touch()\n    time.sleep(60)\n"
        "frame._dispatch = wait\n"
        "sys.exit(fkd.cli.main(['analyse']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while not ready.exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.read() == "Interrupted.\n"
    process.stderr.close()
