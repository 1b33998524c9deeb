"""Runs on the pages: what the form starts, what each state of a run looks like, and its buttons."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest

from dashboard import backend
from fkd.core.errors import ConfigError
from fkd.distillation import COPIES, METHODS, CopySpec, TrainSpec
from fkd.runs import RunRecord
from fkd.runs.records import RUN_STATES

NOW = datetime.now(UTC)


def record(state: str, **changes: object) -> RunRecord:
    facts = {
        "id": f"train-{state}",
        "kind": "train",
        "spec": {"dataset": "digits", "teacher": "tiny-teacher", "name": "new"},
        "title": "new: kd on digits",
        "state": state,
        "stage": "training",
        "done": 30,
        "total": 120,
        "created": NOW - timedelta(seconds=75),
        "started": NOW - timedelta(seconds=75),
        "finished": None if state in ("queued", "running", "cancelling") else NOW,
    }
    return RunRecord(**{**facts, **changes})


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_form_starts_a_valid_training(method, opened, pair, asked):
    role = METHODS.get(method).role
    button = {"student": "Distil a student", "teacher": "Train a teacher"}[role]
    session = opened("distil", **pair, task=button).check()
    session.app.selectbox(key="run_method").select(method)
    session.rerun().check()
    next(b for b in session.app.button if b.label == button).click()
    session.rerun().check()
    assert session.errors == []
    [(kind, spec)] = asked
    assert kind == "train"
    parsed = TrainSpec.parse(spec)
    assert (parsed.method, parsed.dataset) == (method, "digits")
    assert parsed.teacher == ("tiny-teacher" if role == "student" else None)
    METHODS.get(method).Config.parse(parsed.method_config)


@pytest.mark.parametrize("method", sorted(COPIES))
def test_the_form_starts_a_valid_copy(method, opened, pair, asked):
    session = opened("distil", **pair, task="Round or prune a copy").check()
    session.app.selectbox(key="run_copying").select(method)
    session.rerun().check()
    name = next(box for box in session.app.text_input if box.label == "Name of the new model")
    assert name.value == f"tiny-teacher-{method}-1"
    session.app.text_input(key="run_details_copy_report_epsilons").set_value("8/255")
    next(b for b in session.app.button if b.label == "Make the copy").click()
    session.rerun().check()
    assert session.errors == []
    [(kind, spec)] = asked
    assert kind == "copy"
    parsed = CopySpec.parse(spec)
    assert (parsed.method, parsed.teacher) == (method, "tiny-teacher")
    assert parsed.report_epsilons == pytest.approx((8 / 255,))
    assert COPIES.get(method).Config.parse(parsed.method_config) == COPIES.get(method).Config()


def test_a_copy_is_watched_and_chosen_like_a_training(opened, pair, standing):
    spec = {"name": "copy", "teacher": "tiny-teacher", "method": "pruned"}
    earlier = NOW - timedelta(hours=1)
    standing(
        record("failed", message="It diverged.", created=earlier),
        record("done", id="copy-done", kind="copy", spec=spec, result="tiny-student"),
    )
    session = opened("distil", **pair).check()
    assert session.app.selectbox(key="run").value == "copy-done"
    assert "The model **tiny-student** is ready." in session.text
    elsewhere = opened("distil", **{**pair, "teacher": "digits-teacher-pgd"}).check()
    assert "Choose this pair" in [button.label for button in elsewhere.app.button]


def test_what_is_typed_reaches_the_specification(opened, pair, asked):
    session = opened("distil", **pair)
    app = session.app
    app.selectbox(key="run_method").select("rslad")
    session.rerun()
    app.number_input(key="run_training_cnn_small_epochs").set_value(3)
    app.text_input(key="run_method_rslad_epsilon").set_value("8/255")
    app.text_input(key="run_details_cnn_small_report_epsilons").set_value("0.05, 8/255")
    next(b for b in app.button if b.label == "Distil a student").click()
    session.rerun().check()
    spec = TrainSpec.parse(asked[0][1])
    assert spec.epochs == 3
    assert spec.method_config["epsilon"] == pytest.approx(8 / 255)
    assert spec.report_epsilons == pytest.approx((0.05, 8 / 255))


def test_a_refused_training_says_why_and_keeps_the_form(opened, pair, monkeypatch):
    def refuse(kind, spec):
        raise ConfigError("epochs must be small, got 7.")

    monkeypatch.setattr("fkd.runs.start_run", refuse)
    session = opened("distil", **pair)
    session.app.number_input(key="run_training_cnn_small_epochs").set_value(7)
    next(b for b in session.app.button if b.label == "Distil a student").click()
    session.rerun().check()
    assert session.errors == ["epochs must be small, got 7."]
    assert session.app.number_input(key="run_training_cnn_small_epochs").value == 7


def test_a_radius_that_is_none_starts_nothing(opened, pair, asked):
    session = opened("distil", **pair)
    session.app.selectbox(key="run_method").select("rslad")
    session.rerun()
    session.app.text_input(key="run_method_rslad_epsilon").set_value("8/0")
    next(b for b in session.app.button if b.label == "Distil a student").click()
    session.rerun().check()
    assert asked == []
    assert any("epsilon must be a number" in text for text in session.errors)


@pytest.mark.parametrize("state", RUN_STATES)
def test_each_state_has_its_words_and_buttons(state, opened, pair, asked, standing):
    message = None if state in ("queued", "running") else f"It is {state} because of this."
    standing(record(state, message=message))
    session = opened("distil", **pair).check()
    labels = [button.label for button in session.app.button]
    assert ("Cancel" in labels) == (state in ("queued", "running"))
    assert ("Resume" in labels) == (state in ("cancelled", "failed", "lost"))
    if message:
        assert message in session.text
    assert (message in session.errors) == (state in ("failed", "lost"))
    for label, call in (("Cancel", "cancel"), ("Resume", "resume")):
        if label in labels:
            next(b for b in session.app.button if b.label == label).click()
            session.rerun().check()
            assert asked == [(call, f"train-{state}")]


def test_runs_are_chosen_by_words_and_addressed_by_id(opened, pair, standing):
    standing(
        record("running", kind="analyse"),
        record("done", result="tiny-student", spec={"name": "first", "dataset": "digits"}),
        record("failed", spec={"name": "second", "dataset": "digits"}),
    )
    session = opened("distil", **pair).check()
    box = session.app.selectbox(key="run")
    # Analyses are where their results are missed, not here.
    assert [label.split(" · ")[:2] for label in box.options] == [
        ["first", "done"],
        ["second", "failed"],
    ]
    assert "run" not in session.app.query_params
    box.select("train-failed")
    session.rerun().check()
    assert session.app.query_params["run"] == "train-failed"
    link = next(code.value for code in session.app.code if "dataset=" in code.value)
    assert parse_qs(urlsplit(link).query)["run"] == ["train-failed"]
    again = opened("distil", **pair, run="train-failed").check()
    assert again.app.selectbox(key="run").value == "train-failed"
    gone = opened("distil", **pair, run="train-gone").check()
    assert gone.app.selectbox(key="run").value == "train-done"


def test_after_a_start_another_name_is_proposed(opened, pair, asked, standing, monkeypatch):
    def name(session):
        return next(box for box in session.app.text_input if box.label == "Name of the new model")

    standing()
    session = opened("distil", **pair).check()
    first = name(session).value
    name(session).set_value("mine")
    next(b for b in session.app.button if b.label == "Distil a student").click()
    standing(record("queued", spec={"name": first, "dataset": "digits"}))
    session.rerun().check()
    assert asked[0][1]["name"] == "mine"
    # Neither what was typed nor what a run is making.
    assert name(session).value not in ("mine", first)


def test_both_charts_of_a_training_start_at_its_first_step(opened, pair, standing, monkeypatch):
    standing(record("cancelled"))
    history = pd.DataFrame(
        {
            "stage": "training",
            "done": [5, 10, 20, 20],
            "loss": [3.0, 2.0, 1.0, None],
            "clean_accuracy": [None, None, None, 0.9],
        }
    )
    monkeypatch.setattr("fkd.runs.run_history", lambda _: history)
    session = opened("distil", **pair).check()
    ranges = [
        json.loads(chart.proto.spec)["layout"]["xaxis"]["range"]
        for chart in session.app.get("plotly_chart")
    ]
    assert ranges == [[0.0, 20.0], [0.0, 20.0]]


def test_a_finished_student_can_be_chosen(opened, pair, standing):
    standing(record("done", result="tiny-student"))
    session = opened("distil", **pair).check()
    assert "The model **tiny-student** is ready." in session.text
    # It is the sidebar's choice already, so the way to it is offered at once.
    assert "Choose this pair" not in [button.label for button in session.app.button]


def test_a_lost_analysis_can_be_resumed_where_its_result_is_missed(opened, pair, asked, standing):
    choice = backend.Choice("digits", "tiny-teacher", "tiny-student", 0.37, 3)
    standing(
        record(
            "lost", kind="analyse", spec=choice.config().model_dump(mode="json"), message="Gone."
        )
    )
    session = opened("gaps", **{**pair, "epsilon": 0.37, "count": 3}).check()
    assert "Gone." in session.errors
    assert [b.label for b in session.app.button if b.label.startswith(("Analyse", "Resume"))] == [
        "Resume"
    ]
