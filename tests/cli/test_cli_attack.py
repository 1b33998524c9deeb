"""``python -m fkd attack``."""

import pandas as pd
import pytest

import fkd.cli
from fkd.evaluation import MEASURES_COLUMNS, measures_summary, reached_text
from fkd.records import read_metadata
from tests.support.transfers import save_students

QUICK = ["--teacher", "big", "--epsilon", "0.08", "--count", "6"]
QUICK += ["--attack", "steps=3", "starts=1", "copies=1", "budget=12"]


@pytest.fixture
def attack(own_folders, capsys):
    """Run the command on small models: ``(exit code, stdout, stderr)``."""
    save_students()

    def command(*words):
        code = fkd.cli.main(["attack", "--dataset", "digits", *QUICK, *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_the_figures_are_printed_and_the_table_stored(attack, tmp_path):
    words = ["--student", "near", "--measures", "teacher_right", "kl", "any_class"]
    code, out, err = attack(*words)
    assert (code, "attack: 6 of 6" in err) == (0, True)
    lines = out.splitlines()
    assert lines[0] == "near against big on digits (test), epsilon 0.08, 6 examples, seed 0"

    path = tmp_path / "m.parquet"
    code, out, err = attack(*words, "--out", path)
    assert (code, err) == (0, "")
    assert f"Table: {path}" in out and "Witnesses: " in out
    table = pd.read_parquet(path)
    assert list(table) == [column.name for column in MEASURES_COLUMNS]
    assert read_metadata(path)["config"]["measures"] == ["any_class", "kl", "teacher_right"]
    # What is printed is what the table says.
    summaries = {one.measure: one for one in measures_summary(table)}
    printed = {tuple(line.split()[:3]): line.split()[3:] for line in out.splitlines() if line}
    for name, unit in (("kl", "nats"), ("any_class", "probability")):
        for at, spread in (("image", summaries[name].clean), ("ball", summaries[name].attack)):
            figures = (spread.mean, spread.median, spread.p95, spread.largest)
            assert printed[name, unit, at] == [reached_text(value) for value in figures]
    event = next(line for line in out.splitlines() if line.startswith("teacher_right "))
    one = summaries["teacher_right"]
    assert "Teacher right, student wrong" in event
    assert event.split("wrong")[1].split()[:2] == [str(one.hits_clean), str(one.hits)]
    assert f"{100 * one.found.low:.1f} % to {100 * one.found.high:.1f} %" in event


def test_a_table_of_one_sort_shows_nothing_of_the_other(attack):
    _, graded, _ = attack("--student", "near", "--measures", "kl", "--quiet")
    assert "Examples with such a point" not in graded
    _, events, _ = attack("--student", "near", "--measures", "student_right", "--quiet")
    assert "at the clean image and the largest" not in events
    assert "student_right" in events


def test_help_explains_every_measure(attack, capsys):
    with pytest.raises(SystemExit):
        fkd.cli.main(["attack", "--help"])
    out = capsys.readouterr().out
    assert "--measures total_variation: " in out and "--measures kl: " in out
    assert "  budget=400: " in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--student", "nobody"], "There is no model called 'nobody'"),
        (["--student", "near", "--measures", "labl"], "did you mean 'label'?"),
        (["--student", "near", "--measures", "kl,kl"], "'kl' is named more than once"),
        (["--student", "near", "--attack", "name=pgd"], "'search' alone, got 'pgd'"),
        (["--student", "near", "--out", "t.csv"], "--out must end in .parquet"),
        (["--student", "near", "--count", "9999"], "9999 cannot be analysed"),
        (["--student", "near", "--background", "--fresh"], "--background stores"),
    ],
)
def test_bad_input_is_one_sentence(attack, words, sentence):
    code, out, err = attack(*words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
