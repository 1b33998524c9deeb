"""Packed tables are what they were: types, nulls, provenance; and nothing is lost on the way."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from fkd.evaluation import _packed_tables, _stored_tables
from fkd.evaluation._packed_tables import find_packed, pack_tables, packed_keys
from fkd.records import Column, conform, read_table, write_table

COLUMNS = (
    Column("name", pa.dictionary(pa.int32(), pa.string()), "name", "A name."),
    Column("value", pa.float64(), "share", "A value.", nullable=True),
    Column("count", pa.int64(), "examples", "A number.", nullable=True),
)
OTHER = (Column("bins", pa.int64(), "number", "Bins."),)


def write(folder: Path, key: str, start: int = 0, rows: int = 3, columns=COLUMNS) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "name": [f"{key}{row}" for row in range(start, start + rows)],
            "value": [None, *(0.5 + row for row in range(rows - 1))][:rows],
            "count": [*range(rows - 1), None][:rows],
            "bins": range(rows),
        }
    )[[column.name for column in columns]]
    folder.mkdir(exist_ok=True)
    write_table(folder / f"{key}.parquet", table, {"key": key, "note": f"é of {key}"}, columns)
    return conform(table, columns)


def test_tables_come_back_as_they_were(tmp_path):
    folder = tmp_path / "scores"
    keys = {"a": COLUMNS, "b": COLUMNS, "c": OTHER}
    before = {}
    for key, columns in keys.items():
        write(folder, key, columns=columns)
        before[key] = read_table(folder / f"{key}.parquet")
    assert pack_tables(folder, keys) == 0
    assert not [path for path in folder.iterdir() if path.stem in keys]
    assert len(list(folder.iterdir())) == 3  # two kinds of columns, and the index
    for key, expected in before.items():
        found = find_packed(folder, key)
        pd.testing.assert_frame_equal(found.table, expected.table)
        assert found.metadata == expected.metadata
    assert find_packed(folder, "d") is None


def test_a_table_without_rows_is_still_there(tmp_path):
    write(tmp_path, "a")
    expected = write(tmp_path, "none", rows=0, columns=OTHER)
    pack_tables(tmp_path, ["a", "none"])
    found = find_packed(tmp_path, "none")
    assert len(found.table) == 0
    assert list(found.table.dtypes) == list(expected.dtypes)


def test_packing_again_adds_replaces_and_drops(tmp_path):
    for key in "abc":
        write(tmp_path, key)
    pack_tables(tmp_path, "abc")
    replaced = write(tmp_path, "b", start=7)
    added = write(tmp_path, "d")
    assert pack_tables(tmp_path, "abd") == 1
    assert packed_keys(tmp_path) == {"a", "b", "d"}
    pd.testing.assert_frame_equal(find_packed(tmp_path, "b").table, replaced)
    pd.testing.assert_frame_equal(find_packed(tmp_path, "d").table, added)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert pack_tables(tmp_path, "abd") == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert pack_tables(tmp_path, []) == 3
    assert packed_keys(tmp_path) == set()


def test_an_interruption_loses_nothing(tmp_path, monkeypatch):
    for key in "ab":
        write(tmp_path, key)
    pack_tables(tmp_path, "ab")
    expected = write(tmp_path, "c")
    written = _packed_tables._write

    def stop(path, table):
        if path.name == _packed_tables._INDEX:
            raise KeyboardInterrupt
        written(path, table)

    monkeypatch.setattr(_packed_tables, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        pack_tables(tmp_path, "abc")
    monkeypatch.undo()
    assert {key: len(find_packed(tmp_path, key).table) for key in "ab"} == {"a": 3, "b": 3}
    pd.testing.assert_frame_equal(read_table(tmp_path / "c.parquet").table, expected)
    pack_tables(tmp_path, "abc")
    pd.testing.assert_frame_equal(find_packed(tmp_path, "c").table, expected)


def test_a_damaged_file_is_as_good_as_none(tmp_path):
    write(tmp_path, "a")
    pack_tables(tmp_path, "a")
    (rows,) = tmp_path.glob("packed-*.parquet")
    rows.write_bytes(b"PAR1")
    assert find_packed(tmp_path, "a") is None
    assert find_packed(tmp_path / "nowhere", "a") is None


def test_shipped_tables_are_found_packed_and_own_ones_come_first(tmp_path, monkeypatch):
    monkeypatch.setenv("FKD_PRETRAINED_DIR", str(tmp_path / "pretrained"))
    monkeypatch.setenv("FKD_HOME", str(tmp_path / "home"))
    shipped = tmp_path / "pretrained" / "analyses" / "scores"
    shipped.parent.mkdir(parents=True)
    expected = write(shipped, "a")
    pack_tables(shipped, "a")
    pd.testing.assert_frame_equal(_stored_tables.find_table("scores", "a").table, expected)
    (tmp_path / "home" / "results").mkdir(parents=True)
    own = write(tmp_path / "home" / "results" / "scores", "a", start=5)
    pd.testing.assert_frame_equal(_stored_tables.find_table("scores", "a").table, own)
