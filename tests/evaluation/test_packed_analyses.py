"""Shipped analyses are found and listed packed as they are loose, and the user's own go before them."""

from __future__ import annotations

import dataclasses
import logging

import pandas as pd
import pytest

from fkd.core.paths import results_dir
from fkd.evaluation import (
    AnalysisConfig,
    _stored_tables,
    find_analysis,
    list_analyses,
    shipped_dir,
    witness_path,
)
from fkd.evaluation._packed_tables import INDEX, packed_tables
from fkd.evaluation._packing import pack_tables
from fkd.evaluation._stored_tables import is_stored
from fkd.evaluation.store import save_analysis

CONFIGS = [
    AnalysisConfig(
        dataset="digits", teacher="digits-teacher-pgd", student=student, epsilon=epsilon, count=200
    )
    for student in ("digits-kd-of-pgd", "digits-rslad-of-pgd")
    for epsilon in (0.02, 0.05)
]


@pytest.fixture
def analyses(tmp_path, monkeypatch):
    """Four shipped analyses, each in a file of its own; the last one without witnesses."""
    found = [find_analysis(config) for config in CONFIGS]
    found[-1] = dataclasses.replace(found[-1], witnesses={})
    monkeypatch.setattr(_stored_tables, "pretrained_dir", lambda: tmp_path / "pretrained")
    shipped_dir().mkdir(parents=True)
    for one in found:
        one.write(shipped_dir() / f"{one.key}.parquet")
    return found


def pack(analyses) -> None:
    pack_tables(shipped_dir(), [one.key for one in analyses])


def assert_found(expected) -> None:
    found = find_analysis(expected.config)
    assert (found.key, found.config) == (expected.key, expected.config)
    assert found.metadata == expected.metadata
    pd.testing.assert_frame_equal(found.table, expected.table, check_exact=True)
    for name, column in expected.table.select_dtypes("float64").items():
        assert found.table[name].to_numpy().tobytes() == column.to_numpy().tobytes()
    assert list(found.witnesses) == list(expected.witnesses)
    for name, array in expected.witnesses.items():
        assert found.witnesses[name].dtype == array.dtype
        assert found.witnesses[name].shape == array.shape
        assert found.witnesses[name].tobytes() == array.tobytes()


def test_what_is_packed_is_found_and_listed_as_before(analyses):
    assert [len(one.witnesses) for one in analyses] == [3, 3, 3, 0]
    before = list_analyses()
    assert [entry.key for entry in before] == sorted(one.key for one in analyses)
    pack(analyses)
    assert not list(shipped_dir().glob("*.safetensors"))
    after = list_analyses()
    assert [(e.key, e.config, e.is_shipped, e.metadata) for e in after] == [
        (e.key, e.config, True, e.metadata) for e in before
    ]
    assert {e.path.name for e in after} == {
        e.rows.file for e in packed_tables(shipped_dir()).values()
    }
    assert [e.config for e in list_analyses(student="digits-kd-of-pgd")] == [
        e.config for e in before if e.config.student == "digits-kd-of-pgd"
    ]
    for one in analyses:
        assert_found(one)


def test_what_is_made_anew_goes_before_what_is_packed(analyses):
    pack(analyses)
    first, *others = analyses
    seconds = {**first.metadata, "seconds": 12345.0}
    anew = dataclasses.replace(first, metadata=seconds, witnesses={})
    anew.write(shipped_dir() / f"{first.key}.parquet")
    assert_found(anew)
    assert [e.metadata["seconds"] for e in list_analyses() if e.key == first.key] == [12345.0]
    assert len(list_analyses()) == 4
    pack(analyses)
    for one in (anew, *others):
        assert_found(one)


def test_the_users_own_goes_before_the_shipped_one(analyses):
    pack(analyses)
    own = dataclasses.replace(
        analyses[2], table=analyses[2].table.assign(gap_attack=0.25), witnesses={}
    )
    save_analysis(own)
    assert_found(own)
    listed = list_analyses()
    assert (listed[0].key, listed[0].is_shipped) == (own.key, False)
    assert sorted(e.key for e in listed) == sorted(one.key for one in analyses)
    (results_dir() / f"{own.key}.parquet").write_bytes(b"no table")
    assert_found(analyses[2])
    assert [e.is_shipped for e in list_analyses()] == [True] * 4


def test_stale_ones_are_dropped_with_their_witnesses(analyses):
    pack(analyses)
    kept = analyses[1:3]
    assert pack_tables(shipped_dir(), [one.key for one in kept]) == 2
    assert [e.key for e in list_analyses()] == sorted(one.key for one in kept)
    assert find_analysis(analyses[0].config) is None
    assert [is_stored(shipped_dir(), one.key) for one in analyses] == [False, True, True, False]
    for one in kept:
        assert_found(one)


def test_of_a_damaged_pack_nothing_is_found_and_one_sentence_says_so(analyses, caplog):
    pack(analyses)
    places = packed_tables(shipped_dir())[analyses[0].key]
    rows, witnesses = (shipped_dir() / place.file for place in (places.rows, places.witnesses))
    witnesses.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        # The figures are there, as those of a downloaded set are, which come without images.
        assert_found(dataclasses.replace(analyses[0], witnesses={}))
        assert_found(dataclasses.replace(analyses[1], witnesses={}))
        rows.unlink()
        assert [find_analysis(one.config) for one in analyses] == [None] * 4
        (shipped_dir() / INDEX).write_bytes(b"")
        assert list_analyses() == []
    assert [message.split("' is damaged or absent")[0] for message in caplog.messages] == [
        f"'{path}" for path in (witnesses, rows, shipped_dir() / INDEX)
    ]
    save_analysis(analyses[0])
    assert_found(analyses[0])
    assert witness_path(results_dir() / f"{analyses[0].key}.parquet").is_file()
