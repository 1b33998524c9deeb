"""A run that searches a pair's measures: checked before it starts, cancelled, found again."""

import json

import pytest

from fkd.core.errors import Cancelled, FkdError
from fkd.evaluation import MeasuresConfig, find_measures
from fkd.runs import KINDS, list_runs, start_run
from tests.support.measures import QUICK
from tests.support.transfers import save_students

SMALL = {**QUICK, "count": 4, "measures": ["kl", "label"]}


@pytest.fixture
def students(home):
    save_students()


def test_a_run_names_its_key_and_is_found_when_asked_again(students):
    entry, reports = KINDS.get("attack")(), []

    def run(spec):
        return entry.run(entry.check(spec), lambda step: bool(reports.append(step)))

    key = run(SMALL)
    found = find_measures(MeasuresConfig.parse(SMALL))
    assert (found.key, len(found.table)) == (key, 4 * 2)
    assert {step.stage for step in reports} == {"attack"}
    reports.clear()
    assert (run(SMALL), reports) == (key, [])
    with pytest.raises(Cancelled, match="Stopped during attack"):
        entry.run(entry.check({**SMALL, "seed": 1}), lambda _: True)


def test_a_specification_is_plain_and_one_result_is_one_target(students):
    entry = KINDS.get("attack")()
    checked = entry.check(SMALL)
    assert json.loads(json.dumps(checked)) == checked == entry.check(checked)
    assert entry.title(checked) == (
        "near against big on digits, epsilon 0.08, 4 examples: label, kl"
    )
    everything = entry.check({**QUICK, "count": 4})
    assert entry.title(everything).endswith("4 examples: all measures")
    target = entry.target(checked)
    assert entry.target(entry.check({**SMALL, "measures": ["label", "kl"]})) == target
    assert entry.target(entry.check({**SMALL, "measures": ["label"]})) != target


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epsilon": 8}, "epsilon must lie in"),
        ({"measures": []}, "At least one measure is needed"),
        ({"student": "nobody"}, "no model called 'nobody'"),
        ({"dataset": "mnist"}, "mnist"),
        ({"count": 100_000}, "choose a count of at most"),
    ],
)
def test_a_bad_specification_is_a_sentence_at_once(students, change, sentence):
    with pytest.raises(FkdError, match=sentence) as caught:
        start_run("attack", {**SMALL, **change})
    assert "\n" not in str(caught.value)
    assert list_runs() == []
