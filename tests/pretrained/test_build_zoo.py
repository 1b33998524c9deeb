"""The build script: what is asked for, what is made, what is kept and what is dropped."""

from __future__ import annotations

import json
import logging
import shutil

import pandas as pd
import pytest

from fkd import evaluation
from fkd.core import paths
from fkd.core.errors import FkdError
from fkd.core.paths import pretrained_dir
from fkd.evaluation import shipped_dir
from fkd.models import read_card
from pretrained import build, tables
from pretrained.estimate import (
    Estimate,
    TableEstimate,
    duration,
    folder_size,
    packed_sizes,
    total_size,
)
from pretrained.make import make
from pretrained.specs import Member, is_current, zoo
from pretrained.zoo import DATA

DIGITS = zoo("digits")
EVERYTHING = [member for name in DATA for member in zoo(name)]


def names(members) -> list[str]:
    return [member.name for member in members]


def member(name: str) -> Member:
    return next(member for member in EVERYTHING if member.name == name)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of shipped models that a test may change: a teacher and two students of it."""
    for name in ("digits-teacher-pgd", "digits-kd-of-pgd", "digits-rslad-of-pgd"):
        shutil.copytree(pretrained_dir() / name, tmp_path / "pretrained" / name)
    monkeypatch.setenv("FKD_PRETRAINED_DIR", str(tmp_path / "pretrained"))
    return tmp_path / "pretrained"


def test_teachers_come_along_and_come_first():
    picked = build.chosen(EVERYTHING, only=["digits-rslad-of-ibp"])
    assert names(picked) == ["digits-teacher-ibp", "digits-rslad-of-ibp"]
    picked = build.chosen(EVERYTHING, datasets=["mnist"], methods=["kd"], seeds=[1])
    assert names(picked) == [
        "mnist-teacher-pgd",
        "mnist-teacher-mtl",
        "mnist-kd-of-pgd-s1",
        "mnist-kd-of-mtl-s1",
    ]
    assert build.chosen(EVERYTHING) == EVERYTHING


def test_a_name_that_is_none_is_refused():
    with pytest.raises(FkdError, match="The zoo has no model called 'digits-kd-of-nobody'"):
        build.chosen(EVERYTHING, only=["digits-kd-of-nobody"])


def test_only_what_is_missing_is_trained(folder):
    jobs = {job.name: job for job in build.training_jobs(DIGITS, "cpu")}
    assert set(names(DIGITS)) - set(jobs) == {
        "digits-teacher-pgd",
        "digits-kd-of-pgd",
        "digits-rslad-of-pgd",
    }
    assert jobs["digits-kd-of-ibp"].needs == {"digits-teacher-ibp"}
    assert jobs["digits-teacher-ibp"].needs == frozenset()
    assert jobs["digits-kd-of-ibp"].command[-4:] == (
        "--train",
        "digits-kd-of-ibp",
        "--device",
        "cpu",
    )


def test_students_of_a_stale_teacher_are_made_again(folder):
    card = folder / "digits-teacher-pgd" / "card.json"
    values = json.loads(card.read_text())
    values["training_config"]["epochs"] += 1
    card.write_text(json.dumps(values))
    assert is_current(member("digits-kd-of-pgd").spec)
    jobs = {job.name for job in build.training_jobs(DIGITS, "cpu")}
    assert {"digits-teacher-pgd", "digits-kd-of-pgd", "digits-rslad-of-pgd"} <= jobs


@pytest.mark.parametrize("damage", ["cut", "one bit", "gone"])
def test_weights_that_are_not_the_cards_are_made_again(folder, damage):
    path = folder / "digits-kd-of-pgd" / "model.safetensors"
    content = bytearray(path.read_bytes())
    assert is_current(member("digits-kd-of-pgd").spec)
    if damage == "gone":
        path.unlink()
    else:
        content[-1] ^= 1
        path.write_bytes(content[:2] if damage == "cut" else content)
    assert not is_current(member("digits-kd-of-pgd").spec)
    assert "digits-kd-of-pgd" in {job.name for job in build.training_jobs(DIGITS, "cpu")}


SHORT = {"epochs": 1, "train_count": 128, "report_count": 8, "report_steps": 1}


def test_a_model_is_made_once_and_again_when_its_row_changes(folder, caplog):
    spec = member("digits-kd-of-pgd").spec.model_copy(update={**SHORT, "report_epsilons": (0.1,)})
    assert not is_current(spec)
    with caplog.at_level(logging.INFO):
        make(spec)
        first = read_card(folder / spec.name).created
        make(spec)
    assert is_current(spec)
    assert read_card(folder / spec.name).created == first
    assert "digits-kd-of-pgd is up to date" in caplog.text
    assert caplog.text.count("digits-kd-of-pgd: done in") == 1
    changed = spec.model_copy(update={"seed": 5})
    make(changed)
    assert read_card(folder / spec.name).seed == 5
    assert is_current(changed) and not is_current(spec)


def test_a_failure_is_named_and_the_exit_code_says_so(folder, monkeypatch, caplog):
    monkeypatch.setattr(
        build, "run_jobs", lambda jobs, _: {job.name: "exit code 9" for job in jobs[:1]}
    )
    monkeypatch.setattr(tables, "prune", lambda _: 0)
    with caplog.at_level(logging.ERROR):
        code = build.main(["--only", "digits-kd-of-ibp"])
    assert code == 1
    assert "not made: digits-teacher-ibp (exit code 9)" in caplog.text


def test_all_there_is_success(folder, monkeypatch):
    monkeypatch.setattr(tables, "missing", lambda _: [])
    monkeypatch.setattr(tables, "prune", lambda _: 0)
    assert build.main(["--only", "digits-kd-of-pgd"]) == 0
    # The report is of all that is there, whatever was asked for.
    text = (folder / build.REPORT).read_text()
    assert "\n3 models; " in text and "`digits-kd-of-ibp`" in text


def test_too_much_is_an_error(folder, monkeypatch, caplog):
    monkeypatch.setattr(tables, "prune", lambda _: 0)
    monkeypatch.setattr(build, "LARGEST_TOTAL", total_size() - 1)
    with caplog.at_level(logging.ERROR):
        build.build([], [], 1, "cpu", train=True)
    assert "MB are more than the" in caplog.text
    (folder / build.REPORT).unlink()
    assert total_size() == folder_size(folder)


def test_stale_tables_are_dropped_and_current_ones_kept(folder):
    student = member("digits-kd-of-pgd")
    keep = [tables.table_path(config) for config in tables.robustness_of(student)]
    gone = [
        shipped_dir() / "0123456789abcdef0123.parquet",
        shipped_dir() / "0123456789abcdef0123.witnesses.safetensors",
        shipped_dir() / "robustness" / "0123456789abcdef0123.parquet",
        shipped_dir() / "scores" / "0123456789abcdef0123-detail.parquet",
    ]
    for path in (*keep, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert tables.prune(DIGITS) == len(gone)
    assert all(path.exists() for path in keep) and not any(path.exists() for path in gone)


def shipped_analyses(name: str) -> list[evaluation.Analysis]:
    return [evaluation.find_analysis(config) for config in tables.analyses_of(member(name))]


def test_analyses_are_made_one_by_one_and_packed_at_the_end(folder, monkeypatch):
    with monkeypatch.context() as real:
        real.delenv("FKD_PRETRAINED_DIR")
        made = [*shipped_analyses("digits-kd-of-pgd"), *shipped_analyses("digits-rslad-of-pgd")]
    students = [member("digits-kd-of-pgd"), member("digits-rslad-of-pgd")]
    shipped_dir().mkdir()
    for number, one in enumerate(made):
        path = shipped_dir() / f"{one.key}.parquet"
        one.write(path)
        if number == 3:
            # A build that ended here goes on with what is missing, once packed too.
            assert ["analyses" in tables.missing(m) for m in students] == [False, True]
            assert tables.prune(DIGITS) == 0
            assert not path.exists()
            assert ["analyses" in tables.missing(m) for m in students] == [False, True]
    assert tables.prune(DIGITS) == 0
    assert {path.name.split("-")[0].split(".")[0] for path in shipped_dir().iterdir()} == {"packed"}
    assert ["analyses" in tables.missing(m) for m in students] == [False, False]
    for one in made:
        pd.testing.assert_frame_equal(evaluation.find_analysis(one.config).table, one.table)
    tables._make_analysis(made[0].config, "cpu")
    assert not (shipped_dir() / f"{made[0].key}.parquet").exists(), "what is packed is not remade"
    # With the model its tables go.
    shutil.rmtree(folder / "digits-rslad-of-pgd")
    assert tables.prune(DIGITS) == len(tables.analyses_of(students[1]))
    listed = [entry.key for entry in evaluation.list_analyses() if entry.is_shipped]
    assert listed == sorted(one.key for one in made[: len(listed)])


def test_sizes_are_those_of_packed_analyses(folder, monkeypatch):
    with monkeypatch.context() as real:
        real.delenv("FKD_PRETRAINED_DIR")
        first, second, *others = shipped_analyses("digits-kd-of-pgd")
    student = member("digits-rslad-of-pgd")
    assert TableEstimate().size(student) is None
    shipped_dir().mkdir()
    for one in (first, second, *others):
        one.write(shipped_dir() / f"{one.key}.parquet")
    loose = folder_size(shipped_dir())
    assert TableEstimate().size(student) == pytest.approx(loose)
    tables.prune(DIGITS)
    packed = folder_size(shipped_dir())
    assert packed < loose / 2
    assert TableEstimate().size(student) == pytest.approx(packed)
    assert sum(packed_sizes(shipped_dir()).values()) == pytest.approx(packed)
    # One that waits to be packed is counted as those that are.
    first.write(shipped_dir() / "0123456789abcdef0123.parquet")
    assert TableEstimate().size(student) == pytest.approx(packed)
    assert TableEstimate().seconds(student) > 0


def test_what_is_missing_of_tables_is_named(folder):
    student, teacher = member("digits-kd-of-pgd"), member("digits-teacher-pgd")
    assert tables.missing(student) == ["analyses", "robustness", "figures"]
    assert tables.missing(teacher) == ["robustness"]
    assert [job.name for job in build.table_jobs(DIGITS, "cpu")] == [
        "tables of digits-teacher-pgd",
        "tables of digits-kd-of-pgd",
        "tables of digits-rslad-of-pgd",
    ]


def test_figures_that_the_user_measured_are_not_taken_for_shipped_ones(
    folder, tmp_path, monkeypatch
):
    student = member("digits-kd-of-pgd")
    monkeypatch.setenv("FKD_HOME", str(tmp_path / "home"))
    home = paths.results_dir()
    cheap = tables.scores_of(student).model_copy(update={"groups": ("retention",)})
    monkeypatch.setattr(tables, "scores_of", lambda _: cheap)
    evaluation.score_pair(cheap, device="cpu")
    assert evaluation.find_scores(cheap) is not None
    assert "figures" in tables.missing(student)
    assert paths.results_dir() == home
    shutil.copytree(home / "scores", shipped_dir() / "scores")
    assert "figures" not in tables.missing(student)


def test_times_are_those_of_like_models():
    estimate = Estimate(EVERYTHING)
    like = [m for m in zoo("mnist") if m.label == "kd" and (pretrained_dir() / m.name).is_dir()]
    seconds = [read_card(pretrained_dir() / m.name).seconds for m in like]
    found = estimate.seconds(member("mnist-kd-of-mtl-s1"))
    assert found is not None and len(seconds) > 1 and min(seconds) < found < max(seconds)
    # Nothing of Fashion-MNIST need be there: MNIST's images are as large.
    assert estimate.seconds(member("fashion_mnist-rslad-of-mtl")) > found
    assert estimate.size(member("fashion_mnist-rslad-of-mtl")) == pytest.approx(
        folder_size(pretrained_dir() / "mnist-rslad-of-ibp"), rel=0.1
    )


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (180, "3 min"), (4000, "1.1 h")])
def test_durations_are_written_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_the_list_says_what_is_missing(folder, caplog):
    with caplog.at_level(logging.INFO):
        assert build.main(["--dataset", "digits", "--methods", "kd", "--list"]) == 0
    assert "digits-teacher-ibp: missing or out of date, ?" in caplog.text
    assert "digits-kd-of-pgd: lacks analyses, robustness, figures" in caplog.text
    assert "of one process for what is missing" in caplog.text
