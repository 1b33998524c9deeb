"""Packed tables are what they were: types, nulls, provenance; and nothing is lost on the way."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fkd.core.errors import StoreError
from fkd.evaluation import _packing, _stored_tables, witness_path
from fkd.evaluation._packed_tables import (
    INDEX,
    find_packed,
    find_packed_tensors,
    is_packed_file,
    packed_metadata,
    packed_tables,
)
from fkd.evaluation._packing import pack_tables
from fkd.records import Column, conform, read_table, read_tensors, write_table, write_tensors

COLUMNS = (
    Column("name", pa.dictionary(pa.int32(), pa.string()), "name", "A name."),
    Column("value", pa.float64(), "share", "A value.", nullable=True),
    Column("count", pa.int64(), "examples", "A number.", nullable=True),
)
OTHER = (Column("bins", pa.int64(), "number", "Bins."),)
#: Every kind of float64: shortest and longest mantissas, both zeros, infinities, subnormal numbers.
HARD = [0.1, 1 / 3, -0.0, 0.0, np.inf, -np.inf, 5e-324, 1.7976931348623157e308]


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


def write_witnesses(folder: Path, key: str, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    tensors = {
        "points": generator.random((3, 1, 4, 4), np.float32),
        "none": np.empty((0, 1, 4, 4), np.float32),
        "rows": generator.integers(0, 9, 3),
        "is_flat": np.array([True]),
    }
    write_tensors(witness_path(folder / f"{key}.parquet"), tensors, {"key": key})
    return tensors


def assert_same(found: dict[str, np.ndarray] | None, expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
        assert found[name].flags.writeable


def test_tables_come_back_as_they_were(tmp_path):
    folder = tmp_path / "scores"
    keys = {"a": COLUMNS, "b": COLUMNS, "c": OTHER}
    before = {}
    for key, columns in keys.items():
        write(folder, key, columns=columns)
        before[key] = read_table(folder / f"{key}.parquet")
    assert pack_tables(folder, keys) == 0
    assert not [path for path in folder.iterdir() if path.stem in keys]
    # Two kinds of columns, and the index; no lock and no temporary file.
    assert len(list(folder.iterdir())) == 3
    for key, expected in before.items():
        found = find_packed(folder, key)
        pd.testing.assert_frame_equal(found.table, expected.table)
        assert found.metadata == expected.metadata
        # Columns come in the table's order, whatever order they are named in.
        some = list(expected.table)[::-2]
        pd.testing.assert_frame_equal(
            find_packed(folder, key, some).table, expected.table[some[::-1]]
        )
    assert find_packed(folder, "d") is None and find_packed_tensors(folder, "a") is None
    assert packed_metadata(folder) == {key: one.metadata for key, one in before.items()}


def test_every_bit_of_a_number_is_kept(tmp_path):
    table = pd.DataFrame({"name": "x", "value": HARD, "count": 1})
    write_table(tmp_path / "a.parquet", table, {"key": "a"}, COLUMNS)
    write(tmp_path, "b")
    pack_tables(tmp_path, "ab")
    found = find_packed(tmp_path, "a").table["value"].to_numpy()
    assert found.tobytes() == np.array(HARD).tobytes()


def test_columns_keep_their_documentation(tmp_path):
    write(tmp_path, "a")
    pack_tables(tmp_path, "a")
    schema = pq.read_schema(tmp_path / packed_tables(tmp_path)["a"].rows.file)
    assert schema.field("value").metadata == {b"unit": b"share", b"meaning": b"A value."}


def test_witnesses_come_back_as_they_were(tmp_path):
    for key in "abc":
        write(tmp_path, key)
    expected = {key: write_witnesses(tmp_path, key, seed) for seed, key in enumerate("ac")}
    pack_tables(tmp_path, "abc")
    assert not list(tmp_path.glob("*.safetensors"))
    for key, tensors in expected.items():
        assert_same(find_packed_tensors(tmp_path, key), tensors)
    assert find_packed_tensors(tmp_path, "b") is None
    # Made anew, and this time without.
    write(tmp_path, "c", start=9)
    changed = write_witnesses(tmp_path, "a", seed=9)
    write(tmp_path, "a")
    pack_tables(tmp_path, "abc")
    assert_same(find_packed_tensors(tmp_path, "a"), changed)
    assert find_packed_tensors(tmp_path, "c") is None


def test_reading_one_leaves_other_row_groups_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(_packing, "_GROUP_BYTES", 200)
    expected = {key: write(tmp_path, key) for key in "abcdef"}
    pack_tables(tmp_path, expected)
    places = [one.rows for one in packed_tables(tmp_path).values()]
    assert len({place.file for place in places}) == 1
    assert [place.group for place in places] == [0, 0, 1, 1, 2, 2]
    for key, table in expected.items():
        pd.testing.assert_frame_equal(find_packed(tmp_path, key).table, table)


def test_a_table_without_rows_is_still_there(tmp_path):
    write(tmp_path, "a")
    expected = write(tmp_path, "none", rows=0, columns=OTHER)
    pack_tables(tmp_path, ["a", "none"])
    found = find_packed(tmp_path, "none")
    assert len(found.table) == 0
    assert list(found.table.dtypes) == list(expected.dtypes)


@pytest.mark.parametrize("counts", [(0, 20, 0, 20), (20, 0, 0), (0, 0)])
def test_row_groups_are_counted_rightly_where_tables_have_no_rows(tmp_path, monkeypatch, counts):
    monkeypatch.setattr(_packing, "_GROUP_BYTES", 100)
    keys = "abcd"[: len(counts)]
    for key, rows in zip(keys, counts, strict=True):
        write(tmp_path, key, rows=rows, columns=OTHER)
    pack_tables(tmp_path, keys)
    assert [len(find_packed(tmp_path, key).table) for key in keys] == list(counts)


def test_packing_again_adds_replaces_and_drops(tmp_path):
    for key in "abc":
        write(tmp_path, key)
        write_witnesses(tmp_path, key)
    pack_tables(tmp_path, "abc")
    replaced = write(tmp_path, "b", start=7)
    added = write(tmp_path, "d")
    assert pack_tables(tmp_path, "abd") == 1
    assert packed_tables(tmp_path).keys() == {"a", "b", "d"}
    pd.testing.assert_frame_equal(find_packed(tmp_path, "b").table, replaced)
    pd.testing.assert_frame_equal(find_packed(tmp_path, "d").table, added)
    assert [find_packed_tensors(tmp_path, key) is None for key in "abd"] == [False, True, True]
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert pack_tables(tmp_path, "abd") == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert pack_tables(tmp_path, []) == 3
    assert packed_tables(tmp_path) == {}
    assert [path.name for path in tmp_path.iterdir()] == [INDEX]


def test_the_same_tables_make_the_same_files(tmp_path):
    for folder in (tmp_path / "at-once", tmp_path / "in-turn"):
        for key in "abc":
            write(folder, key)
            write_witnesses(folder, key)
            if folder.name == "in-turn":
                pack_tables(folder, "abc")
        pack_tables(folder, "abc")
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("at-once", "in-turn")
    )
    assert one == other and len(one) == 3


@pytest.mark.parametrize("where", ["_write_index", "_clean"])
def test_an_interruption_loses_nothing(tmp_path, monkeypatch, where):
    for key in "ab":
        write(tmp_path, key)
    pack_tables(tmp_path, "ab")
    replaced, added = write(tmp_path, "b", start=5), write(tmp_path, "c")
    tensors = write_witnesses(tmp_path, "c")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_packing, where, stop)
    with pytest.raises(KeyboardInterrupt):
        pack_tables(tmp_path, "abc")
    monkeypatch.undo()
    assert len(find_packed(tmp_path, "a").table) == 3
    for key, table in (("b", replaced), ("c", added)):
        path = tmp_path / f"{key}.parquet"
        found = read_table(path) if path.is_file() else find_packed(tmp_path, key)
        pd.testing.assert_frame_equal(found.table, table)
    found = find_packed_tensors(tmp_path, "c") or read_tensors(witness_path(tmp_path / "c.parquet"))
    assert_same(found, tensors)
    pack_tables(tmp_path, "abc")
    pd.testing.assert_frame_equal(find_packed(tmp_path, "c").table, added)
    assert_same(find_packed_tensors(tmp_path, "c"), tensors)
    assert all(is_packed_file(path) for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_file_is_as_good_as_none_and_is_named_once(tmp_path, caplog):
    write(tmp_path, "a")
    write(tmp_path, "b", columns=OTHER)
    pack_tables(tmp_path, "ab")
    rows = tmp_path / packed_tables(tmp_path)["a"].rows.file
    whole = rows.read_bytes()
    for damaged in (b"PAR1", whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        caplog.clear()
        rows.write_bytes(damaged)
        with caplog.at_level(logging.WARNING):
            assert find_packed(tmp_path, "a") is None and find_packed(tmp_path, "a") is None
        (message,) = caplog.messages
        assert message.startswith(f"'{rows}' is damaged or absent (")
        assert f"restore it, or delete '{tmp_path / INDEX}'" in message
    assert len(find_packed(tmp_path, "b").table) == 3
    # Packing would lose what cannot be read, so it stops.
    write(tmp_path, "c")
    with pytest.raises(StoreError, match="is damaged or absent"):
        pack_tables(tmp_path, "abc")
    assert (tmp_path / "c.parquet").is_file() and rows.is_file()
    rows.unlink()
    assert find_packed(tmp_path, "a") is None
    assert find_packed(tmp_path / "nowhere", "a") is None


def test_a_damaged_index_is_as_good_as_none_but_stops_packing(tmp_path, caplog):
    write(tmp_path, "a")
    pack_tables(tmp_path, "a")
    (tmp_path / INDEX).write_bytes(b"PAR1")
    with caplog.at_level(logging.WARNING):
        assert packed_tables(tmp_path) == {} and find_packed(tmp_path, "a") is None
    assert [message.split(" is ")[0] for message in caplog.messages] == [f"'{tmp_path / INDEX}'"]
    with pytest.raises(StoreError, match=r"packed\.parquet' is damaged or absent"):
        pack_tables(tmp_path, "a")
    assert pack_tables(tmp_path / "nowhere", "a") == 0


@pytest.mark.parametrize("which", ["a.parquet", "a.witnesses.safetensors"])
def test_what_is_damaged_is_not_packed(tmp_path, which):
    write(tmp_path, "a")
    write_witnesses(tmp_path, "a")
    write(tmp_path, "b")
    (tmp_path / which).write_bytes(b"no table")
    with pytest.raises(StoreError, match=f"{which}' .* cannot be packed; delete it"):
        pack_tables(tmp_path, "ab")
    assert read_table(tmp_path / "b.parquet").metadata["key"] == "b"
    # What is not to be kept need not be read.
    assert pack_tables(tmp_path, "b") == 1
    assert [path for path in tmp_path.iterdir() if not is_packed_file(path)] == []


def test_one_process_at_a_time_packs_a_folder(tmp_path, monkeypatch):
    write(tmp_path, "a")
    monkeypatch.setattr(_packing, "_LOCK_SECONDS", 0)
    with (
        _packing._alone(tmp_path),
        pytest.raises(StoreError, match="Another process has been packing"),
    ):
        pack_tables(tmp_path, "a")
    assert pack_tables(tmp_path, "a") == 0 and find_packed(tmp_path, "a") is not None


def test_shipped_tables_are_found_packed_and_own_ones_come_first(tmp_path, monkeypatch):
    monkeypatch.setenv("FKD_PRETRAINED_DIR", str(tmp_path / "pretrained"))
    monkeypatch.setenv("FKD_HOME", str(tmp_path / "home"))
    shipped = tmp_path / "pretrained" / "analyses" / "scores"
    shipped.parent.mkdir(parents=True)
    expected = write(shipped, "a")
    tensors = write_witnesses(shipped, "a")
    pack_tables(shipped, "a")
    pd.testing.assert_frame_equal(_stored_tables.find_table("scores", "a").table, expected)
    assert_same(_stored_tables.find_with_witnesses("scores", "a")[2], tensors)
    (tmp_path / "home" / "results").mkdir(parents=True)
    own = write(tmp_path / "home" / "results" / "scores", "a", start=5)
    pd.testing.assert_frame_equal(_stored_tables.find_table("scores", "a").table, own)
    assert _stored_tables.find_with_witnesses("scores", "a")[2] == {}
