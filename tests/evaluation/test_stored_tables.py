"""Tables with witnesses: written together, read from the place where the table was found."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fkd.core.paths import results_dir
from fkd.evaluation import _stored_tables as tables
from fkd.records import Column

COLUMNS = (Column("index", pa.int64(), "position", "Example id."),)


@dataclass(frozen=True)
class Kept:
    key: str
    table: pd.DataFrame
    metadata: dict[str, Any]
    witnesses: dict[str, np.ndarray] = field(default_factory=dict)


def _kept(*ids, points=None):
    witnesses = {} if points is None else {"points": np.full((len(ids), 1), points, np.float32)}
    return Kept("k", pd.DataFrame({"index": ids}), {"key": "k"}, witnesses)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Paths of the user's table and the shipped one."""
    monkeypatch.setattr(tables, "pretrained_dir", lambda: tmp_path / "pretrained")
    return [place / "kind" / "k.parquet" for place in (results_dir(), tables.shipped_dir())]


def test_witnesses_are_those_of_the_table_that_is_found(places):
    mine, shipped = places
    assert tables.find_with_witnesses("kind", "k") is None
    tables.write_with_witnesses(shipped, _kept(1, 2, points=0.25), COLUMNS)
    table, metadata, witnesses = tables.find_with_witnesses("kind", "k")
    assert table["index"].tolist() == [1, 2] and metadata == {"key": "k"}
    assert witnesses["points"].tolist() == [[0.25], [0.25]]
    # The user's own comes first, though it has none.
    tables.write_with_witnesses(mine, _kept(3), COLUMNS)
    table, _, witnesses = tables.find_with_witnesses("kind", "k")
    assert table["index"].tolist() == [3] and witnesses == {}
    assert tables.find_table("kind", "k").table["index"].tolist() == [3]


@pytest.mark.parametrize("damage", [b"", b"no table"])
def test_a_damaged_table_hides_neither_the_shipped_one_nor_its_witnesses(places, damage):
    mine, shipped = places
    tables.write_with_witnesses(shipped, _kept(1, points=0.25), COLUMNS)
    tables.write_with_witnesses(mine, _kept(2, points=0.75), COLUMNS)
    mine.write_bytes(damage)
    table, _, witnesses = tables.find_with_witnesses("kind", "k")
    assert table["index"].tolist() == [1]
    assert witnesses["points"].tolist() == [[0.25]]


def test_a_table_without_witnesses_takes_the_replaced_ones_away(places):
    mine, _ = places
    tables.write_with_witnesses(mine, _kept(1, points=0.5), COLUMNS)
    assert tables.witness_path(mine).is_file()
    tables.write_with_witnesses(mine, _kept(1), COLUMNS)
    assert not tables.witness_path(mine).exists()
