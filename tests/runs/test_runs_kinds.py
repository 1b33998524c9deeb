"""The real kinds: checked before they start, found under one target, resumed where they stopped."""

import json

import pandas as pd
import pytest

from fkd.core.errors import Cancelled, ConfigError, DataError, FkdError
from fkd.evaluation import (
    AnalysisConfig,
    RadiusConfig,
    RobustnessConfig,
    find_analysis,
    find_radii,
    find_robustness,
    search_radii,
)
from fkd.models import load_model
from fkd.runs import KINDS, cancel_run, list_runs, resume_run, run_history, start_run

TRAIN = {
    "name": "t",
    "dataset": "digits",
    "method": "standard",
    "architecture": "mlp",
    "architecture_config": {"hidden": [16]},
    "epochs": 1,
    "train_count": 300,
}
STUDENT = {**TRAIN, "name": "s", "method": "kd", "teacher": "t"}
COPY = {"name": "c", "teacher": "t", "report_count": 10, "report_steps": 1}
ANALYSE = {"dataset": "digits", "teacher": "t", "student": "s", "epsilon": 0.1, "count": 4}

RADIUS = {
    "dataset": "digits",
    "teacher": "t",
    "student": "s",
    "count": 4,
    "tolerance": 0.05,
    "certificate": {"name": "fast"},
}
ROBUST = {
    "dataset": "digits",
    "model": "s",
    "epsilon": 0.02,
    # A network so little trained is right on few.
    "count": 40,
    "steps": 2,
    "restarts": 1,
    "autoattack_steps": 2,
    "autoattack_queries": 5,
}
SPECS = {"train": TRAIN, "copy": COPY, "analyse": ANALYSE, "radius": RADIUS, "robust": ROBUST}


def ended(record):
    return record.has_ended


def make(kind, spec):
    """Do a run's work here, without a process of its own."""
    entry = KINDS.get(kind)()
    reports = []
    return entry.run(entry.check(spec), lambda progress: bool(reports.append(progress))), reports


@pytest.fixture
def pair(home):
    make("train", TRAIN)
    make("train", STUDENT)


def test_training_names_its_model_and_reports_losses(home):
    result, reports = make("train", TRAIN)
    assert result == "t"
    assert load_model("t").card.training_config["train_count"] == 300
    assert any("loss" in report.values for report in reports)


def test_a_copy_names_its_model_and_is_found_when_asked_again(pair):
    result, reports = make("copy", COPY)
    assert result == "c"
    assert load_model("c").card.method == "quantised"
    assert {"measuring"} <= {report.stage for report in reports}
    created = load_model("c").card.created
    assert make("copy", COPY)[0] == "c"
    assert load_model("c").card.created == created


def test_an_analysis_names_its_key(pair):
    result, reports = make("analyse", ANALYSE)
    analysis = find_analysis(AnalysisConfig.parse(ANALYSE))
    assert analysis.key == result
    assert len(analysis.table) == 4
    assert {"attack"} <= {report.stage for report in reports}


def test_analyses_of_two_levels_are_two_runs(pair):
    entry = KINDS.get("analyse")()
    specs = [
        entry.check({**ANALYSE, "certificate": {"name": name}}) for name in ("crown", "crown_ibp")
    ]
    assert [entry.title(spec).rsplit(", ", 1)[1] for spec in specs] == ["crown", "crown_ibp"]
    assert entry.target(specs[0]) != entry.target(specs[1])


def test_a_search_for_radii_names_its_key_and_is_found_when_asked_again(pair):
    result, reports = make("radius", RADIUS)
    radii = find_radii(RadiusConfig.parse(RADIUS))
    assert (radii.key, len(radii.table)) == (result, 4)
    assert {"radius attack", "radius fast"} <= {report.stage for report in reports}
    # The second time there is nothing to do.
    assert make("radius", RADIUS) == (result, [])


def test_a_measurement_of_robustness_names_its_key_and_is_found_when_asked_again(pair):
    result, reports = make("robust", ROBUST)
    found = find_robustness(RobustnessConfig.parse(ROBUST))
    assert (found.key, len(found.table)) == (result, 40)
    assert {"pgd", "apgd-ce"} <= {report.stage for report in reports}
    assert make("robust", ROBUST) == (result, [])
    entry = KINDS.get("robust")()
    with pytest.raises(Cancelled, match="Stopped during pgd"):
        entry.run(entry.check({**ROBUST, "seed": 1}), lambda progress: True)


def test_a_specification_is_completed_and_plain(pair):
    for kind, spec in {**SPECS, "train": {**TRAIN, "name": "new"}}.items():
        entry = KINDS.get(kind)()
        checked = entry.check(spec)
        assert json.loads(json.dumps(checked)) == checked
        assert entry.check(checked) == checked
        given = {name: value for name, value in spec.items() if name != "certificate"}
        assert given.items() <= checked.items()
        assert spec.get("name", "s") in entry.title(checked)


def test_one_model_and_one_result_are_one_target(pair, tmp_path):
    train, analyse = KINDS.get("train")(), KINDS.get("analyse")()
    assert train.target({**TRAIN, "epochs": 9}) == train.target(TRAIN)
    # A training and a copy of one name would write one folder.
    assert KINDS.get("copy")().target({**COPY, "name": "t"}) == train.target(TRAIN)
    target = analyse.target(analyse.check(ANALYSE))
    # How much is computed at once changes nothing of the result.
    assert analyse.target(analyse.check({**ANALYSE, "attack": {"rows": 7}})) == target
    assert analyse.target(analyse.check({**ANALYSE, "seed": 1})) != target
    radius = KINDS.get("radius")()
    target = radius.target(radius.check(RADIUS))
    # Radii compare predictions, not confidences.
    assert radius.target(radius.check({**RADIUS, "gap_class": "teacher"})) == target
    assert radius.target(radius.check({**RADIUS, "tolerance": 0.1})) != target
    robust = KINDS.get("robust")()
    target = robust.target(robust.check(ROBUST))
    assert robust.target(robust.check({**ROBUST, "channel_scale": [1.0]})) == target
    assert robust.target(robust.check({**ROBUST, "model": "t"})) != target


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        ("train", {"name": "../outside"}, r"cannot be called '\.\./outside'"),
        ("train", {"name": "t", "epochs": 7}, "already a model called 't'"),
        ("train", {"name": "x", "method": "magic"}, "no training method called 'magic'"),
        ("train", {"name": "x", "method": "kd"}, "was given none"),
        ("train", {"name": "x", "method_config": {"alpha": 1}}, "no setting called 'alpha'"),
        ("train", {"name": "x", "architecture": "mlpp"}, "did you mean 'mlp'"),
        ("train", {"name": "x", "dataset": "mnist"}, "mnist"),
        ("copy", {"name": "../outside"}, r"cannot be called '\.\./outside'"),
        ("copy", {"name": "t"}, "already a model called 't'"),
        ("copy", {"method": "kd"}, "no way of copying called 'kd'"),
        ("copy", {"method_config": {"bits": 40}}, "'bits' is not usable"),
        ("copy", {"teacher": "tt"}, "no model called 'tt'"),
        ("analyse", {"epsilon": float("nan")}, "epsilon must lie in"),
        ("analyse", {"teacher": "tt"}, "no model called 'tt'"),
        ("analyse", {"dataset": "mnist"}, "mnist"),
        ("analyse", {"count": 100_000}, "cannot be analysed; choose a count of at most"),
        ("analyse", {"attack": {"steps": 0}}, "'.*steps' is not usable"),
        ("radius", {"epsilon": 8}, "epsilon must lie in"),
        ("radius", {"tolerance": 0}, "'tolerance' is not usable"),
        ("radius", {"student": "ss"}, "no model called 'ss'"),
        ("radius", {"dataset": "mnist"}, "mnist"),
        ("radius", {"count": 100_000}, "choose a count of at most"),
        ("robust", {"epsilon": 8}, "epsilon must lie in"),
        ("robust", {"model": "ss"}, "no model called 'ss'"),
        ("robust", {"dataset": "mnist"}, "choose the data set it was trained on"),
        ("robust", {"count": 100_000}, "choose a count of at most"),
    ],
)
def test_a_bad_specification_is_a_sentence_at_once(pair, kind, change, sentence):
    with pytest.raises(FkdError, match=sentence) as caught:
        start_run(kind, {**SPECS[kind], **change})
    assert isinstance(caught.value, ConfigError | DataError)
    assert "\n" not in str(caught.value)
    assert list_runs() == []


@pytest.mark.slow
def test_a_real_training_is_cancelled_and_resumed(home, until):
    spec = {**TRAIN, "name": "long", "train_count": None, "epochs": 40}
    run_id = start_run("train", spec)
    until(run_id, lambda record: record.stage == "training")
    cancel_run(run_id)
    record = until(run_id, ended)
    assert record.state == "cancelled", record.message
    stopped_at = record.done

    resume_run(run_id)
    record = until(run_id, ended)
    assert (record.state, record.result) == ("done", "long")
    history = run_history(run_id)
    training = history[history["stage"] == "training"]
    # It went on from the checkpoint and reached the end, each step once.
    assert training[training["attempt"] == 2]["done"].min() > min(stopped_at, 1)
    assert training["done"].max() == training["total"].max()
    assert training["done"].is_monotonic_increasing
    assert training["loss"].notna().all()
    assert load_model("long").card.metrics["clean_accuracy"] > 0.8


@pytest.mark.slow
def test_real_searches_for_radii_are_cancelled_and_found_again(pair, until):
    spec = {**RADIUS, "count": 40, "attack": {"steps": 200, "restarts": 4}, "tolerance": 0.001}
    run_id = start_run("radius", spec)
    until(run_id, lambda record: record.stage == "radius attack")
    # Asked for while it lives, it is the same run.
    assert start_run("radius", spec) == run_id
    cancel_run(run_id)
    record = until(run_id, ended)
    assert record.state == "cancelled", record.message
    assert find_radii(RadiusConfig.parse(spec)) is None

    run_id = start_run("radius", RADIUS)
    record = until(run_id, ended)
    assert (record.state, record.message) == ("done", None)
    radii = find_radii(RadiusConfig.parse(RADIUS))
    assert record.result == radii.key
    # A worker's table is the one made here, but for the clock.
    fresh = search_radii(RadiusConfig.parse(RADIUS), fresh=True).table
    pd.testing.assert_frame_equal(
        fresh.drop(columns="seconds"), radii.table.drop(columns="seconds"), rtol=1e-6
    )
