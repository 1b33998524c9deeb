"""Many tables in a few files, read one at a time: what is shipped would else be footers mostly.

A Parquet file of some rows is several times as large as they are, since it documents every column.
In a packed folder, ``packed.parquet`` holds each table's key, place and provenance.  Tables of one
data set with the same columns lie in one ``packed-HASH.parquet``, their witnesses in another; about a
megabyte of them is a row group, so that reading one leaves most others alone.  Such a file is named
after its contents: an index that was read earlier never tells of another file's rows.
`fkd.evaluation._packing` writes them.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fkd.core.errors import StoreError
from fkd.records import StoredTable

_LOG = logging.getLogger(__name__)

PREFIX = "packed"
INDEX = f"{PREFIX}.parquet"


@dataclass(frozen=True)
class Place:
    """Rows of a packed file: ``count`` from ``start`` on in the row group ``group``."""

    file: str
    group: int
    start: int
    count: int


@dataclass(frozen=True)
class Packed:
    """A packed table: its provenance (JSON, as it was written), and where it and its witnesses lie."""

    metadata: str
    rows: Place
    witnesses: Place | None


def is_packed_file(path: Path) -> bool:
    """Whether a file of a folder of tables is the index or holds several tables."""
    return path.name.startswith(PREFIX)


def find_packed(
    folder: Path, key: str, columns: Collection[str] | None = None
) -> StoredTable | None:
    """The table called ``key`` of a packed folder; None where it is not there, or damaged.

    Args:
        folder: the packed folder.
        key: the table's.
        columns: those that are wanted, in the table's order; all if None.
    """
    packed = packed_tables(folder).get(key)
    rows = None if packed is None else _part(folder, packed.rows)
    if rows is None:
        return None
    if columns is not None:
        rows = rows.select([name for name in rows.column_names if name in columns])
    return StoredTable(own_categories(rows).to_pandas(), json.loads(packed.metadata))


def find_packed_tensors(folder: Path, key: str) -> dict[str, np.ndarray] | None:
    """The witnesses of a packed table; None where there are none, or they are damaged."""
    packed = packed_tables(folder).get(key)
    rows = None if packed is None or packed.witnesses is None else _part(folder, packed.witnesses)
    if rows is None:
        return None
    columns = (rows[name].to_pylist() for name in ("name", "dtype", "shape", "data"))
    return {
        # A copy can be written to, as what is read from a file of its own.
        name: np.frombuffer(data, dtype).reshape(shape).copy()
        for name, dtype, shape, data in zip(*columns, strict=True)
    }


def own_categories(table: pa.Table) -> pa.Table:
    """The table without categories of others in its row group: its own, as they first appear."""
    for position, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table.column(position).cast(field.type.value_type)
            own = plain.dictionary_encode().cast(field.type)
            table = table.set_column(position, field, own)
    return table


def packed_tables(folder: Path) -> dict[str, Packed]:
    """Every table that is packed in a folder, by its key; none where the index is damaged."""
    path = folder / INDEX
    return _index(path, stamp(path))


def packed_metadata(folder: Path) -> dict[str, dict[str, Any]]:
    """Provenance of every table that is packed in a folder, by its key."""
    return {key: json.loads(packed.metadata) for key, packed in packed_tables(folder).items()}


def stamp(path: Path) -> int:
    """What changes when a file does; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def read_index(path: Path) -> dict[str, Packed]:
    """Every packed table by its key, empty where there is no index.

    Raises:
        StoreError: the index is damaged.
    """
    if not path.is_file():
        return {}
    try:
        rows = pq.read_table(path, page_checksum_verification=True).to_pylist()
        return {
            row["key"]: Packed(
                row["metadata"],
                Place(**row["rows"]),
                None if row["witnesses"] is None else Place(**row["witnesses"]),
            )
            for row in rows
        }
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def read_group(path: Path, group: int) -> pa.Table:
    """One row group of a packed file.

    Raises:
        StoreError: the file is absent or damaged.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read_row_group(group, use_threads=False)
    except (OSError, pa.ArrowException, IndexError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"'{path}' is damaged or absent ({type(error).__name__}), and with it the tables packed in it; "
        f"restore it, or delete '{path.parent / INDEX}' to have them computed again."
    )


def _part(folder: Path, place: Place) -> pa.Table | None:
    path = folder / place.file
    rows = _group(path, stamp(path), place.group)
    return None if rows is None else rows.slice(place.start, place.count)


# What is damaged is said once for each state of a file, and then as good as none.
@functools.lru_cache(maxsize=8)
def _index(path: Path, _stamp: int) -> dict[str, Packed]:
    try:
        return read_index(path)
    except StoreError as error:
        _LOG.warning("%s", error)
        return {}


@functools.lru_cache(maxsize=16)
def _group(path: Path, _stamp: int, group: int) -> pa.Table | None:
    try:
        return read_group(path, group)
    except StoreError as error:
        _LOG.warning("%s", error)
        return None
