"""Tables, files that are whole or absent, and progress on a terminal and elsewhere."""

import io
import os
import signal
import sys

import pytest

from fkd.cli.output import check_out, format_table, number, percent, write_whole
from fkd.cli.progress import ProgressBar
from fkd.core.errors import Cancelled, StoreError
from fkd.core.progress import report


def test_columns_are_aligned_and_figures_to_the_right():
    rows = [{"name": "a", "share": "9.0 %"}, {"name": "longer", "share": "10.0 %"}]
    assert format_table(rows) == "name     share\na        9.0 %\nlonger  10.0 %"
    assert format_table([]) == ""


def test_missing_figures_are_dashes():
    assert (number(None), number(float("nan")), number(0.12345), number(3)) == (
        "-",
        "-",
        "0.1235",
        "3",
    )
    assert (percent(None), percent(0.1234)) == ("-", "12.3 %")


def test_an_unwritable_folder_is_found_out_in_the_files_own_name(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(StoreError) as caught:
        check_out(tmp_path / "y.parquet", [".parquet"])
    assert str(caught.value).startswith(
        f"'y.parquet' could not be written in '{tmp_path}' (Permission denied); make that folder writable"
    )


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "x.csv"
    write_whole(path, lambda temporary: temporary.write_text("first"))

    def fail(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"x\.csv' could not be written \(No space left"):
        write_whole(path, fail)
    assert path.read_text() == "first"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.csv"]


def test_an_unusable_out_is_found_before_the_work(tmp_path):
    assert check_out(tmp_path / "new" / "x.parquet", [".parquet"]).name == "x.parquet"
    with pytest.raises(StoreError, match=r"must end in \.csv or \.parquet, got 'x\.txt'"):
        check_out(type(tmp_path)("x.txt"), [".csv", ".parquet"])
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(StoreError, match="names the folder"):
        check_out(tmp_path / "d.csv", [".csv"])
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        check_out(tmp_path / "file" / "x.csv", [".csv"])


def steps(progress, count):
    for done in range(1, count + 1):
        report(progress, "training", done, count, loss=1.0 / done)


def test_elsewhere_progress_is_a_few_lines(capsys):
    with ProgressBar(what="s1") as progress:
        steps(progress, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["s1: training: 1 of 100 (loss 1)", "s1: training: 100 of 100 (loss 0.01)"]


def test_quiet_shows_nothing(capsys):
    with ProgressBar(quiet=True) as progress:
        steps(progress, 100)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_a_terminal_gets_a_bar_per_stage(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar() as progress:
        steps(progress, 10)
        report(progress, "measuring", 1, 2)
        report(progress, "measuring", 2, 2)
    shown = terminal.getvalue()
    assert "training: 100%" in shown
    assert "10/10" in shown
    assert "loss 0.1" in shown
    assert "measuring: 100%" in shown


def live(progress, evaluated):
    """A report of branch and bound on the fourth of ten examples: the count stays where it is."""
    report(
        progress,
        "certificate",
        3,
        10,
        example=3,
        upper=0.45551 - evaluated / 1e5,
        lower=0.3129,
        open=12,
        evaluated=evaluated,
        seconds=evaluated / 10,
    )


def test_a_live_bracket_is_shown_with_bounds_rounded_to_the_safe_side(capsys):
    with ProgressBar() as progress:
        live(progress, 21)
    assert capsys.readouterr().err.splitlines() == [
        "certificate: 3 of 10 (example 3: gap 0.312 to 0.456, 12 open, 21 evaluated, 2.1 s)"
    ]


def test_a_live_bracket_moves_while_the_count_stays(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    clock = iter(range(10, 100))
    monkeypatch.setattr("fkd.cli.progress.time.monotonic", lambda: float(next(clock)))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "160")
    with ProgressBar() as progress:
        for evaluated in (10, 200, 3000):
            live(progress, evaluated)
    shown = terminal.getvalue()
    for text in ("0.312 to 0.456", "200 evaluated, 20.0 s", "gap 0.312 to 0.426, 12 open, 3000"):
        assert text in shown


def test_the_first_ctrl_c_stops_at_a_report_and_the_second_at_once(capsys):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Cancelled), ProgressBar(quiet=True) as progress:
        report(progress, "training", 1, 9)
        os.kill(os.getpid(), signal.SIGINT)
        report(progress, "training", 2, 9)
    assert "Stopping at the next safe point" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt), ProgressBar(quiet=True):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second must not come here")
    assert signal.getsignal(signal.SIGINT) is before
