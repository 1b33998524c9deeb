"""Stored measures: found again, never stale, summarised."""

import shlex

import numpy as np
import pandas as pd
import pytest

from fkd.core.errors import Cancelled, ConfigError, StoreError
from fkd.core.paths import results_dir
from fkd.evaluation import (
    MEASURES_COLUMNS,
    MeasuresConfig,
    find_measures,
    list_analyses,
    measure_curve,
    measure_pair,
    measures_key,
    measures_summary,
    reproduce_snippet,
    who_stays_right,
    wilson_share,
    witness_path,
)
from fkd.evaluation import measures_store as store
from fkd.records import arrow_schema, read_metadata, read_tensors
from tests.support.measures import QUICK, SEARCH
from tests.support.transfers import save_students

SMALL = {**QUICK, "count": 4, "measures": ["kl", "teacher_right"]}


@pytest.fixture
def config(own_folders):
    save_students()
    return MeasuresConfig.parse(SMALL)


def test_measures_are_found_again_as_they_were(config, monkeypatch, tmp_path):
    assert find_measures(config) is None
    first = measure_pair(config, device="cpu")
    monkeypatch.setattr(store, "find_differences", None)
    again = measure_pair(config)
    pd.testing.assert_frame_equal(again.table, first.table)
    assert again.metadata == first.metadata
    assert set(again.witnesses) == {"kl", "teacher_right"}
    for name, points in again.witnesses.items():
        assert points.shape == (4, 1, 8, 8)
        np.testing.assert_array_equal(points, first.witnesses[name])
    np.testing.assert_array_equal(again.witness("kl", 2), first.witnesses["kl"][2])
    wanted = {"seed", "versions", "config", "teacher_hash", "student_hash", "data_hash"}
    wanted |= {"gradient_evaluations", "seconds", "device", "created"}
    assert wanted <= set(first.metadata)
    assert first.metadata["gradient_evaluations"] > 0
    assert list_analyses("digits", "big") == []
    first.write(tmp_path / "m.parquet")
    assert read_metadata(tmp_path / "m.parquet")["key"] == first.key
    assert set(read_tensors(witness_path(tmp_path / "m.parquet"))) == set(config.measures)
    # Where images are not to be kept, neither are older ones.
    first.witnesses.clear()
    first.write(tmp_path / "m.parquet")
    assert not witness_path(tmp_path / "m.parquet").exists()
    assert all(field.metadata[b"unit"] for field in arrow_schema(MEASURES_COLUMNS))
    (results_dir() / "measures" / f"{first.key}.parquet").write_bytes(b"nothing")
    assert find_measures(config) is None


def test_what_changes_the_result_changes_the_key(config, monkeypatch):
    def key(**changes):
        return measures_key(MeasuresConfig.parse({**SMALL, **changes}))

    same = key()
    assert key(measures=["teacher_right", "kl"]) == same
    assert key(attack={**SEARCH, "rows": 7}) == same
    # Each measure knows its class.
    assert key(gap_class="teacher") == same
    others = [
        {"epsilon": 0.07},
        {"count": 5},
        {"seed": 1},
        {"split": "train"},
        {"norm": "l2"},
        {"channel_scale": [0.5]},
        {"attack": {**SEARCH, "steps": 4}},
        {"student": "other"},
        {"measures": ["kl"]},
        {"measures": ["kl", "label"]},
    ]
    keys = {key(**change) for change in others}
    assert len(keys) == len(others) and same not in keys
    monkeypatch.setattr(store, "_PROCEDURE_VERSION", 99)
    assert key() not in {same, *keys}


def test_progress_grows_and_the_search_can_be_stopped(config):
    reports = []
    measure_pair(config, device="cpu", progress=lambda p: bool(reports.append(p)))
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert (reports[-1].stage, reports[-1].done, reports[-1].total) == ("attack", 4, 4)
    other = config.model_copy(update={"seed": 1})
    with pytest.raises(Cancelled, match="Stopped during attack"):
        measure_pair(other, progress=lambda p: p.done > 0)
    assert find_measures(other) is None


def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(config, monkeypatch):
    results_dir().mkdir(parents=True)
    (results_dir() / "measures").write_text("in the way")
    monkeypatch.setattr(store, "find_differences", None)
    with pytest.raises(StoreError, match="could not be written"):
        measure_pair(config)


def test_the_snippet_asks_for_the_same_table(config):
    words = shlex.split(reproduce_snippet(config.model_copy(update={"gap_class": "teacher"})))
    assert words[:4] == ["python", "-m", "fkd", "attack"]
    assert words[words.index("--measures") + 1 :][:2] == ["kl", "teacher_right"]
    assert words[words.index("--attack") + 1 :][:2] == ["steps=3", "starts=1"]
    assert {"--gap-class", "--certificate", "--students"}.isdisjoint(words)
    assert "--measures" not in reproduce_snippet(MeasuresConfig.parse(QUICK))


# ---------------------------------------------------------------- summaries


def made(measure, unit, clean, attack, found=None):
    count = len(clean)
    return pd.DataFrame(
        {
            "index": range(count),
            "measure": measure,
            "unit": unit,
            "value_clean": clean,
            "value_attack": attack,
            "found": pd.array(found or [None] * count, "boolean"),
        }
    )


TABLE = pd.concat(
    [
        made("kl", "nats", [0.0, 0.5, 0.0, 0.1], [0.0, 1.5, 0.5, 0.4]),
        made("label", "probability", [0.0, 0.2, 0.0, 0.1], [0.0, 0.6, 0.2, 0.2]),
        made(
            "teacher_right",
            "logits",
            [-1.0, 0.3, -2.0, -1.0],
            [-1.0, 0.3, 0.2, 0.5],
            [False, True, True, True],
        ),
        made(
            "student_right",
            "logits",
            [-1.0, -1.0, -1.0, 0.0],
            [-1.0, -0.5, 0.2, 0.0],
            [False, False, True, False],
        ),
    ]
)


def test_figures_are_those_of_the_values():
    kl, label, teacher, student = measures_summary(TABLE)
    assert [one.measure for one in (kl, label, teacher, student)] == list(TABLE["measure"].unique())
    assert (kl.unit, kl.count, kl.hits, kl.found) == ("nats", 4, None, None)
    assert (kl.attack.mean, kl.attack.median, kl.attack.largest) == pytest.approx((0.6, 0.45, 1.5))
    assert kl.attack.p95 == pytest.approx(np.quantile([0.0, 1.5, 0.5, 0.4], 0.95))
    assert (kl.clean.mean, kl.clean.median, kl.clean.largest) == pytest.approx((0.15, 0.05, 0.5))
    assert label.attack.mean == pytest.approx(0.25)
    assert (teacher.hits_clean, teacher.hits, teacher.found) == (1, 3, wilson_share(3, 4))
    # A margin of exactly 0 is a tie.
    assert (student.hits_clean, student.hits, student.found.value) == (0, 1, 0.25)
    with pytest.raises(ConfigError, match="without rows"):
        measures_summary(TABLE.iloc[:0])


def test_who_stays_right_counts_each_image_once():
    who = who_stays_right(TABLE)
    assert who.count == 4
    # Image 2 has both, 1 and 3 only points where the teacher is right, 0 none.
    assert (who.both, who.teacher) == (wilson_share(1, 4), wilson_share(2, 4))
    assert (who.student, who.neither) == (wilson_share(0, 4), wilson_share(1, 4))
    shuffled = TABLE.sample(frac=1, random_state=0)
    assert who_stays_right(shuffled) == who
    assert who_stays_right(TABLE[TABLE["measure"] != "student_right"]) is None
    assert who_stays_right(TABLE[TABLE["measure"] == "kl"]) is None


def test_the_curve_counts_what_is_at_least_so_large():
    curve = measure_curve(TABLE, "label")
    assert curve["value"].tolist() == [0.0, 0.1, 0.2, 0.6, 1.0]
    assert curve["share_clean"].tolist() == [1.0, 0.5, 0.25, 0.0, 0.0]
    assert curve["share_attack"].tolist() == [1.0, 0.75, 0.75, 0.25, 0.0]
    nats = measure_curve(TABLE, "kl")
    assert nats["value"].iloc[[0, -1]].tolist() == [0.0, 1.5]
    assert nats["share_attack"].iloc[-1] == 0.25
