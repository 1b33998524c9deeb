"""A run that tries witnesses on other students: checked before it starts, cancelled, found again."""

import json

import pandas as pd
import pytest

from fkd.core.errors import Cancelled, FkdError
from fkd.evaluation import TransferConfig, find_transfer, transfer_witnesses
from fkd.runs import KINDS, list_runs, start_run
from tests.support.transfers import QUICK, save_students


@pytest.fixture
def students(home):
    save_students()


def test_a_transfer_names_its_key_and_is_found_when_asked_again(students):
    entry, reports = KINDS.get("transfer")(), []

    def run(spec):
        return entry.run(entry.check(spec), lambda step: bool(reports.append(step)))

    key = run(QUICK)
    found = find_transfer(TransferConfig.parse(QUICK))
    assert (found.key, len(found.table)) == (key, 16 * 4)
    assert {step.stage for step in reports} == {"attack", "transfer"}
    reports.clear()
    assert (run(QUICK), reports) == (key, [])
    with pytest.raises(Cancelled, match="Stopped during attack"):
        entry.run(entry.check({**QUICK, "seed": 1}), lambda _: True)


def test_a_specification_is_plain_and_one_result_is_one_target(students):
    entry = KINDS.get("transfer")()
    checked = entry.check(QUICK)
    assert json.loads(json.dumps(checked)) == checked == entry.check(checked)
    assert entry.title(checked) == (
        "witnesses of 2 students of big on digits, epsilon 0.08, 16 examples: near, other"
    )
    target = entry.target(checked)
    assert entry.target(entry.check({**QUICK, "students": ["other", "near"]})) == target
    assert entry.target(entry.check({**QUICK, "epsilon": 0.07})) != target


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epsilon": 8}, "epsilon must lie in"),
        ({"students": ["near"]}, "at least two students are needed"),
        ({"students": ["near", "nobody"]}, "no model called 'nobody'"),
        ({"dataset": "mnist"}, "mnist"),
        ({"count": 100_000}, "choose a count of at most"),
    ],
)
def test_a_bad_specification_is_a_sentence_at_once(students, change, sentence):
    with pytest.raises(FkdError, match=sentence) as caught:
        start_run("transfer", {**QUICK, **change})
    assert "\n" not in str(caught.value)
    assert list_runs() == []


@pytest.mark.slow
def test_a_worker_makes_the_same_table(students, until):
    # Another process may have other threads, whose rounding a longer search would follow elsewhere.
    spec = {**QUICK, "attack": {"name": "pgd", "steps": 5}}
    record = until(start_run("transfer", spec), lambda record: record.has_ended)
    assert (record.state, record.message) == ("done", None)
    found = find_transfer(TransferConfig.parse(spec))
    assert record.result == found.key
    fresh = transfer_witnesses(TransferConfig.parse(spec), device="cpu", fresh=True)
    pd.testing.assert_frame_equal(fresh.table, found.table, rtol=1e-6)
