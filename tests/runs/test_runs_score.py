"""A run that measures students in all figures: checked before it starts, cancelled, found again."""

import json

import pytest

from fkd.core.errors import Cancelled, FkdError
from fkd.evaluation import find_scores, score_configs
from fkd.runs import KINDS, list_runs, start_run
from tests.support.transfers import QUICK as PAIRS
from tests.support.transfers import save_students

QUICK = {**PAIRS, "groups": ["retention", "linearity"]}


@pytest.fixture
def students(home):
    save_students()


def test_figures_are_measured_and_found_when_asked_again(students):
    entry, reports = KINDS.get("score")(), []

    def run(spec, asks=lambda step: False):
        return entry.run(entry.check(spec), lambda step: bool(reports.append(step)) or asks(step))

    with pytest.raises(Cancelled, match="Stopped during linearity"):
        run(QUICK, lambda step: step.stage == "near: linearity")
    reports.clear()
    key = run(QUICK)
    stages = {step.stage for step in reports}
    assert {"students", "near: linearity", "other: retention"} <= stages
    # What was finished before the run was stopped is not measured again.
    assert "near: retention" not in stages
    settings = {name: value for name, value in QUICK.items() if name != "students"}
    found = [find_scores(config) for config in score_configs(settings, QUICK["students"])]
    assert [scores.missing for scores in found] == [(), ()]
    reports.clear()
    assert run(QUICK) == key
    assert {step.stage for step in reports} == {"students"}


def test_a_specification_is_plain_and_one_result_is_one_target(students):
    entry = KINDS.get("score")()
    checked = entry.check(QUICK)
    assert json.loads(json.dumps(checked)) == checked == entry.check(checked)
    assert entry.title(checked) == (
        "figures (retention, linearity) of 2 students of big on digits, epsilon 0.08, 16 examples: "
        "near, other"
    )
    alone = entry.check({**PAIRS, "students": ["near"]})
    assert entry.title(alone).startswith("figures of 1 student of big on digits, epsilon 0.08")
    target = entry.target(checked)
    assert entry.target(entry.check({**QUICK, "students": ["other", "near"]})) == target
    assert entry.target(entry.check({**QUICK, "epsilon": 0.07})) != target


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epsilon": 8}, "epsilon must lie in"),
        ({"students": []}, "At least one student is needed"),
        ({"students": "near"}, "need a list 'students'"),
        ({"students": ["near", "nobody"]}, "no model called 'nobody'"),
        ({"groups": ["beauty"]}, "no group of figures called 'beauty'"),
        ({"count": 100_000}, "choose a count of at most"),
    ],
)
def test_a_bad_specification_is_a_sentence_at_once(students, change, sentence):
    with pytest.raises(FkdError, match=sentence) as caught:
        start_run("score", {**QUICK, **change})
    assert "\n" not in str(caught.value)
    assert list_runs() == []
