"""The build's report: figures by row of the zoo, seeds together, claims, and what is wrong."""

from __future__ import annotations

import logging
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest

from fkd.core.paths import pretrained_dir
from fkd.evaluation import check_claims
from pretrained import build, report
from pretrained.specs import zoo


def students(**figures) -> pd.DataFrame:
    """kd with two seeds, cckd_l with one."""
    names = ["mnist-kd-of-pgd", "mnist-kd-of-pgd-s1", "mnist-cckd_l-of-pgd"]
    return pd.DataFrame(
        {
            "dataset": "mnist",
            "teacher": "mnist-teacher-pgd",
            "student": names,
            "label": ["kd", "kd", "cckd_l"],
            **figures,
        }
    )


def test_seeds_are_one_row_with_mean_and_deviation():
    table = students(clean_accuracy=[0.98, 0.96, 0.97], gap_attack_mean=[0.1, 0.3, None])
    lines = report.figure_lines("mnist", table)
    assert lines[0].endswith("are at radius 0.1.")
    assert [line for line in lines if line.startswith("###")] == [
        "### Accuracy",
        "### Faithfulness",
    ]
    # sqrt(2) points of deviation; a gap that was reached is rounded down.
    assert "| kd of pgd | 2 | 97.0 ± 1.4 % |" in lines
    assert any(f"| kd of pgd | 2 | {mean} ± 0.141 |" in lines for mean in ("0.200", "0.199"))
    assert "| cckd_l of pgd | 1 | 97.0 % |" in lines
    assert "| cckd_l of pgd | 1 | - |" in lines
    # Rounding errors of equal values are no spread, and thousands are written out.
    nearly = students(
        gap_certified_mean=[1.0, 1.0 - 1e-16, 1.0], training_examples=[2.4e5, 2.5e5, 1]
    )
    lines = report.figure_lines("mnist", nearly)
    assert "| kd of pgd | 2 | 1.000 ± 0.000 |" in lines
    assert "| kd of pgd | 2 | 245,000 ± 7,071 |" in "\n".join(lines).replace(" | - |", " |")
    # A mean of one of two seeds is not shown as the mean of two.
    lines = report.figure_lines("mnist", students(gap_attack_mean=[0.1, None, 0.2]))
    assert "| kd of pgd | 2 | - |" in lines and "| cckd_l of pgd | 1 | 0.200 |" in lines


def test_claims_are_counted_by_paper_and_listed():
    table = students(
        robust_accuracy=[0.5, 0.5, 0.55], clean_accuracy=[0.98, 0.98, 0.5], seed=[0, 1, 0]
    )
    counts = {"mnist-teacher-pgd": {"robust_accuracy": 10_000, "clean_accuracy": 10_000}}
    lines = report.claim_lines(check_claims(table, counts=counts))
    assert lines[0] == "| paper | holds | within noise | does not hold |"
    assert "| CCKD, 2107.06993 | 1 | 0 | 1 |" in lines
    (gain,) = [line for line in lines if "points better than kd under attack" in line]
    assert gain.startswith("| holds | mnist | `mnist-teacher-pgd` |")
    assert "cckd_l: robust_accuracy 55.0 %; kd: robust_accuracy 50.0 %" in gain
    assert gain.endswith("| 2 | 0 | binomial, 10,000 images |")
    assert [line for line in lines if line.startswith("| **does not hold** | mnist")]
    assert report.claim_lines([]) == [
        "No claim could be tested: each needs figures of at least two methods, named in it."
    ]


@pytest.fixture
def card_epochs(monkeypatch):
    """Cards of students whose methods train on bounds say 8 epochs, those of the others 15."""

    def read(name):
        epochs = 8 if "certified_gap" in name or "faithful" in name else 15
        return SimpleNamespace(training_config={"epochs": epochs})

    monkeypatch.setattr(report, "read_card", read)


def of_seed_0(dataset: str, *labels: str):
    return [member for member in zoo(dataset) if member.label in labels and member.teacher]


def test_students_that_were_not_trained_alike_are_told_beside_the_claims(card_epochs, monkeypatch):
    members = of_seed_0("cifar10_jpeg", "kd", "rslad", "kdiga", "faithful", "certified_gap")
    monkeypatch.setattr(report, "is_current", lambda _: True)
    monkeypatch.setattr(report, "missing", lambda _: [])
    monkeypatch.setattr(report, "students_table", lambda of: students(clean_accuracy=0.9))
    monkeypatch.setattr(report, "tested_claims", lambda *_: [])
    monkeypatch.setattr(report, "DATA", {"cifar10_jpeg": report.DATA["cifar10_jpeg"]})
    lines, _ = report.report(members)
    (told,) = [line for line in lines if "equally long" in line]
    assert told == (
        "On cifar10_jpeg not all were trained equally long: faithful, certified_gap for 8 epochs, the "
        "others for 15. On cifar10_jpeg methods that train on attacks do so at 8/255, those that train "
        "on certificates at 2/255, and all are measured at 2/255."
    )
    assert lines.index("## Claims") < lines.index(told) < lines.index("## cifar10_jpeg")


def test_students_that_were_trained_alike_need_no_words(card_epochs):
    assert report.unequal(of_seed_0("mnist", "kd", "rslad")) == []
    assert report.unequal(of_seed_0("mnist", "faithful")) == []
    assert report.unequal([]) == []


def test_claims_are_of_the_images_that_are_shipped():
    names = ("digits-kd-of-pgd", "digits-kdiga-of-pgd")
    members = [member for member in zoo("digits") if member.name in names]
    counts = report.count_images(members)["digits-teacher-pgd"]
    assert (counts["clean_accuracy"], counts["robust_accuracy"]) == (500, 200)
    # Five corruptions of 500 images.
    assert counts["agreement_corrupted"] == 500
    images = report.images_of(members)
    assert {"digits-teacher-pgd", *names} == set(images)
    table = report.students_table(members).set_index("student")
    for name in names:
        for figure in ("gap_certified_mean", "agreement_certified"):
            assert images[name][figure].mean() == pytest.approx(table.loc[name, figure])
        assert images[name]["clean_accuracy"].mean() == table.loc[name, "clean_accuracy"]
        assert len(images[name]) == 500
    for name in ("digits-teacher-pgd", *names):
        assert images[name]["robust_accuracy"].notna().sum() == 200


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "pretrained"
    shutil.copytree(pretrained_dir() / "digits-teacher-pgd", path / "digits-teacher-pgd")
    monkeypatch.setenv("FKD_PRETRAINED_DIR", str(path))
    return path


def test_what_is_missing_and_too_large_is_an_error(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(report, "LARGEST_TOTAL", 10_000)
    out = tmp_path / "report.md"
    words = ["--only", "digits-kd-of-pgd", "--report", "--out", str(out)]
    with caplog.at_level(logging.ERROR):
        assert build.main(words) == 1
    text = out.read_text()
    for error in (
        "1 of 2 models are missing or out of date.",
        "1 models lack tables.",
        "0.1 MB are more than the 0 allowed.",
    ):
        assert f"**Error: {error}**" in text
        assert error in caplog.text
    assert "Missing or out of date: `digits-kd-of-pgd`." in text
    assert "Without all tables: `digits-teacher-pgd`." in text


def test_a_report_without_errors_goes_to_the_output(folder, monkeypatch, capsys):
    monkeypatch.setattr(report, "missing", lambda _: [])
    assert build.main(["--only", "digits-teacher-pgd", "--report"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# The shipped models\n\n1 models; the folder has 0.1 MB.\n")
    assert "Error" not in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--report", "--out", "{here}/nowhere/R.md"], "name a file in a folder that exists."),
        (["--report", "--out", "{here}"], "name a file in a folder that exists."),
        (["--list", "--out", "{here}/R.md"], "--out names the file of a report; add --report"),
        (
            ["--list", "--dataset", "digits", "--seeds", "1", "--methods", "kd"],
            "no model that fits",
        ),
    ],
)
def test_wrong_words_are_one_sentence_before_any_work(folder, tmp_path, caplog, words, sentence):
    with caplog.at_level(logging.ERROR):
        assert build.main([word.format(here=tmp_path) for word in words]) == 1
    assert sentence in caplog.text


@pytest.mark.parametrize(
    "words", [["--jobs", "0"], ["--jobs", "-3"], ["--jobs", "two"], ["--seeds", "7"]]
)
def test_numbers_out_of_range_are_refused(words, capsys):
    with pytest.raises(SystemExit) as ended:
        build.main(["--list", *words])
    assert ended.value.code == 2
    assert f"argument {words[0]}: " in capsys.readouterr().err
