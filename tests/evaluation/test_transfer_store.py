"""Stored transfers: found again, never stale, summarised; bad input in one sentence."""

import shlex

import pandas as pd
import pytest

from fkd.core.errors import Cancelled, ConfigError, StoreError
from fkd.core.paths import models_dir, results_dir
from fkd.evaluation import (
    TRANSFER_COLUMNS,
    ResolvedTransfer,
    TransferConfig,
    find_transfer,
    list_analyses,
    reproduce_snippet,
    transfer_key,
    transfer_summary,
    transfer_witnesses,
)
from fkd.evaluation import transfer_store as store
from fkd.records import arrow_schema, read_metadata
from tests.support.transfers import QUICK, save_students


@pytest.fixture
def config(own_folders):
    save_students()
    return TransferConfig.parse(QUICK)


def test_a_transfer_is_found_again_as_it_was(config, monkeypatch, tmp_path):
    assert find_transfer(config) is None
    first = transfer_witnesses(config, device="cpu")
    monkeypatch.setattr(store, "carry_over", None)
    again = transfer_witnesses(config)
    pd.testing.assert_frame_equal(again.table, first.table)
    assert again.metadata == first.metadata
    wanted = {"seed", "versions", "config", "teacher_hash", "student_hashes", "data_hash"}
    assert wanted | {"seconds", "device", "created"} <= set(first.metadata)
    assert list_analyses("digits", "big") == []
    first.write(tmp_path / "t.parquet")
    assert read_metadata(tmp_path / "t.parquet")["key"] == first.key
    assert all(field.metadata[b"unit"] for field in arrow_schema(TRANSFER_COLUMNS))
    (results_dir() / "transfers" / f"{first.key}.parquet").write_bytes(b"nothing")
    assert find_transfer(config) is None


def test_what_changes_the_result_changes_the_key(config, monkeypatch):
    def key(**changes):
        return transfer_key(ResolvedTransfer(TransferConfig.parse({**QUICK, **changes})))

    same = key()
    assert key(students=["other", "near"]) == same
    assert key(attack={"steps": 5, "rows": 7}) == same
    others = [
        {"epsilon": 0.07},
        {"count": 15},
        {"seed": 1},
        {"split": "train"},
        {"norm": "l2"},
        {"gap_class": "teacher"},
        {"attack": {"steps": 6}},
        {"students": ["near", "big"]},
        {"students": ["near", "other", "big"]},
    ]
    keys = {key(**change) for change in others}
    assert len(keys) == len(others) and same not in keys
    monkeypatch.setattr(store, "_PROCEDURE_VERSION", 99)
    assert key() not in {same, *keys}


def test_progress_grows_and_every_stage_can_be_stopped(config):
    reports = []
    transfer_witnesses(config, device="cpu", progress=lambda p: bool(reports.append(p)))
    assert list(dict.fromkeys(p.stage for p in reports)) == ["attack", "transfer"]
    for stage, total in (("attack", 32), ("transfer", 2)):
        done = [p.done for p in reports if p.stage == stage]
        assert done == sorted(done) and done[-1] == total
        other = config.model_copy(update={"seed": 1})
        with pytest.raises(Cancelled, match=rf"^Stopped during {stage} after .* of {total}"):
            transfer_witnesses(other, progress=lambda p, at=stage: p.stage == at and p.done > 0)
        assert find_transfer(other) is None


def test_the_snippet_asks_for_the_same_table(config):
    words = shlex.split(reproduce_snippet(config.model_copy(update={"gap_class": "teacher"})))
    assert words[:4] == ["python", "-m", "fkd", "transfer"]
    assert words[words.index("--students") + 1 :][:2] == ["near", "other"]
    assert words[words.index("--gap-class") + 1] == "teacher"
    assert "--certificate" not in words and "--tolerance" not in words
    assert words[words.index("--attack") + 1] == "steps=5"


# ---------------------------------------------------------------- figures


def test_a_summary_counts_what_is_in_the_table():
    names = [column.name for column in TRANSFER_COLUMNS]
    rows = [
        (0, "a", "a", True, 0.5, 0.5, 0.1),
        (1, "a", "a", None, 0.3, 0.3, 0.1),
        (0, "a", "b", False, 0.4, 0.2, 0.0),
        (1, "a", "b", None, 0.1, 0.2, 0.0),
        (0, "b", "a", None, 0.5, 0.5, 0.1),
        (1, "b", "a", True, 0.3 + 1e-12, 0.3, 0.1),
        (0, "b", "b", None, 0.2, 0.2, 0.0),
        (1, "b", "b", True, 0.2, 0.2, 0.0),
    ]
    table = pd.DataFrame(rows, columns=names)
    found = {(cell.source, cell.target): cell for cell in transfer_summary(table).cells}
    assert list(found) == [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
    assert (found["a", "b"].witnesses, found["a", "b"].carried.value) == (1, 0.0)
    assert found["a", "b"].gap_mean == 0.25
    assert found["a", "b"].gap_ratio == 1.25
    assert found["a", "b"].beats.value == 0.5
    # What rounding alone tells apart beats nothing.
    assert found["b", "a"].beats.value == 0.0
    first, second = transfer_summary(table).gains
    assert (first.target, first.improved.value, first.disagreements_new) == ("a", 0.0, 1)
    assert (second.gap_own_mean, second.gap_best_mean) == pytest.approx((0.2, 0.3))
    assert (first.raised_max, second.raised_max) == pytest.approx((0.0, 0.2))
    assert (second.improved.value, second.disagreements_own, second.disagreements_new) == (
        0.5,
        1,
        0,
    )
    with pytest.raises(ConfigError, match="without rows"):
        transfer_summary(table.iloc[:0])


def test_nothing_over_nothing_is_no_figure():
    names = [column.name for column in TRANSFER_COLUMNS]
    rows = [(0, a, b, None, 0.0, 0.0, 0.0) for a in "ab" for b in "ab"]
    for cell in transfer_summary(pd.DataFrame(rows, columns=names)).cells:
        assert (cell.carried, cell.gap_ratio) == (None, None)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"students": ["near"]}, "at least two students are needed, got 'near' alone; name two"),
        ({"students": []}, "at least two students are needed, got none"),
        ({"students": ["near", "other", "near"]}, "The student 'near' is named more than once"),
        ({"students": "near"}, "'students' is not usable"),
        ({"student": "near"}, "transfer has no setting called 'student'"),
        ({"certificate": {"name": "fast"}}, "transfer has no setting called 'certificate'"),
        ({"epsilon": 8}, "did you mean 8/255"),
        ({"students": ["near", "nobody"]}, "There is no model called 'nobody'"),
        ({"students": ["near", "mnist-kd-of-pgd"]}, "the student 'mnist-kd-of-pgd' 1x28x28"),
        ({"count": 9999}, "choose a count of at most"),
    ],
)
def test_bad_input_is_one_sentence(config, changes, sentence):
    with pytest.raises(ConfigError) as caught:
        transfer_witnesses(TransferConfig.parse({**QUICK, **changes}))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_second_student(config):
    again = [*QUICK["students"], str(models_dir() / "near")]
    with pytest.raises(ConfigError, match="The student 'near' is named more than once"):
        ResolvedTransfer(TransferConfig.parse({**QUICK, "students": again}))


def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(config, monkeypatch):
    results_dir().mkdir(parents=True)
    (results_dir() / "transfers").write_text("in the way")
    monkeypatch.setattr(store, "carry_over", None)
    with pytest.raises(StoreError, match="could not be written"):
        transfer_witnesses(config)
