"""``python -m fkd score``."""

import pandas as pd
import pytest

import fkd.cli
from fkd import runs
from fkd.evaluation import all_figures, figure_text
from fkd.models import read_card
from tests.support.pairs import save_digits_model
from tests.support.transfers import save_students

QUICK = ["--teacher", "big", "--epsilon", "0.08", "--count", "8", "--groups", "retention,fidelity"]


@pytest.fixture
def score(own_folders, capsys):
    """Run the command on small models: ``(exit code, stdout, stderr)``."""
    save_students()

    def command(*words):
        code = fkd.cli.main(["score", "--dataset", "digits", *QUICK, *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_the_leaderboard_is_printed_and_written(score, tmp_path):
    path = tmp_path / "t.csv"
    code, out, err = score("--students", "other", "near", "--out", path)
    assert (code, "near: retention: 0 of 2" in err) == (0, True)
    lines = out.splitlines()
    assert lines[0] == (
        "Students of big on digits (test), epsilon 0.08, attacks and certificates on 8 examples, seed 0"
    )
    assert lines[2:4] == ["(1) other: kd, mlp", "(2) near: kd, mlp"]
    assert lines[-1] == f"Table: {path}"
    table = pd.read_csv(path)
    assert table.student.tolist() == ["other", "near"]
    # What is printed is what the table says; what is missing is a dash.
    (shown,) = (line for line in lines if line.startswith("KL, in distribution"))
    texts = [figure_text(all_figures()["kl_inside"], value) for value in table.kl_inside]
    assert shown.split()[-3:] == ["lower", *texts]
    (other_set,) = (line for line in lines if line.startswith("KL, other data set"))
    assert other_set.split()[-2:] == ["-", "-"]

    # Stored: the second time nothing is measured.
    code, again, err = score("--students", "other", "near", "--out", tmp_path / "t.tex")
    assert (code, err) == (0, "")
    assert again.splitlines()[:-1] == lines[:-1]
    assert (tmp_path / "t.tex").read_text().startswith("% Students of big on the first 8 ")


def test_help_explains_every_figure(score, capsys):
    with pytest.raises(SystemExit):
        fkd.cli.main(["score", "--help"])
    shown = capsys.readouterr().out
    assert all(f"  {name}: {figure.meaning}" in shown for name, figure in all_figures().items())


def test_in_the_background_it_is_a_run(score, monkeypatch):
    started = []
    monkeypatch.setattr(runs, "start_run", lambda kind, spec: started.append((kind, spec)) or "7")
    code, out, _ = score("--students", "near", "other", "--background")
    assert (code, out) == (0, "7\n")
    ((kind, spec),) = started
    checked = runs.KINDS.get(kind)().check(spec)
    assert checked["students"] == ["near", "other"]
    assert checked["groups"] == ["fidelity", "retention"] and checked["epsilon"] == 0.08


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--students", "near", "near"], "'near' is named more than once"),
        (["--students", "near", "nobody"], "There is no model called 'nobody'"),
        (["--students", "near", "--groups", "beauty"], "no group of figures called 'beauty'"),
        (["--students", "near", "--out", "t.xls"], "--out must end in .csv or .parquet or .tex"),
        (["--students", "near", "--count", "9999"], "9999 cannot be analysed"),
        (["--students", "near", "--background", "--fresh"], "--background stores"),
    ],
)
def test_bad_input_is_one_sentence(score, words, sentence):
    code, out, err = score(*words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_student_of_another_teacher_is_told_as_such(score):
    save_digits_model("own", "teacher", hidden=(16,), seed=7)
    for name, teacher in (("mine", "big"), ("theirs", "own")):
        made_of = {"name": teacher, "model_hash": read_card(teacher).model_hash}
        save_digits_model(name, "student", hidden=(8,), seed=len(name), teacher=made_of)
    code, out, _ = score("--students", "mine", "theirs")
    expected = ["(1) mine: kd, mlp", "(2) theirs: kd, mlp, distilled from own"]
    assert (code, out.splitlines()[2:4]) == (0, expected)
