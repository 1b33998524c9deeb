"""Many small tables in a few files: what is shipped would else be footers for the most part.

A Parquet file of a few rows is twenty times as large as they are, since it documents every column.  In a
packed folder, ``packed-HASH.parquet`` holds the rows of all tables with the same columns, and
``packed.parquet`` each table's key, file and provenance.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fkd.core.hashing import hash_json, short
from fkd.records import StoredTable

_INDEX = "packed.parquet"
_PREFIX = "packed"
_KEY = "packed_key"
_METADATA = b"fkd"


def find_packed(folder: Path, key: str) -> StoredTable | None:
    """The table called ``key`` of a packed folder; None where it is not there, or damaged."""
    try:
        index = _index(folder / _INDEX, _stamp(folder / _INDEX))
        if key not in index:
            return None
        name, metadata = index[key]
        rows = _rows(folder / name, _stamp(folder / name))
    except (OSError, pa.ArrowException, KeyError):
        return None
    table = rows.filter(pc.equal(rows[_KEY], key)).drop_columns([_KEY]).to_pandas()
    for column in table.select_dtypes("category"):
        # Those of the other tables in the file.
        table[column] = table[column].cat.remove_unused_categories()
    return StoredTable(table, json.loads(metadata))


def packed_keys(folder: Path) -> set[str]:
    """Keys of the tables that are packed in a folder."""
    path = folder / _INDEX
    return set(_index(path, _stamp(path))) if path.is_file() else set()


def pack_tables(folder: Path, keep: Collection[str]) -> int:
    """Pack a folder's tables, loose and packed ones, and drop those that are not to be kept.

    Whatever moment it is interrupted at, each table that is to be kept is still found.

    Args:
        folder: holds ``KEY.parquet`` files, packed ones, or both.
        keep: keys of tables that stay.

    Returns:
        How many tables were dropped.
    """
    loose = [path for path in folder.glob("*.parquet") if not path.name.startswith(_PREFIX)]
    before = packed_keys(folder)
    fresh = {path.stem for path in loose}
    dropped = len((fresh | before) - set(keep))
    if not loose and not dropped:
        return 0
    by_schema: dict[str, list[pa.Table]] = {}
    index: dict[str, tuple[str, str]] = {}

    def add(key: str, table: pa.Table, metadata: str) -> None:
        plain = {k: v for k, v in (table.schema.metadata or {}).items() if k != _METADATA}
        table = table.replace_schema_metadata(plain)
        columns = [[f.name, str(f.type), f.nullable] for f in table.schema]
        name = f"{_PREFIX}-{short(hash_json(columns))}.parquet"
        keys = pa.array([key] * len(table), pa.string())
        by_schema.setdefault(name, []).append(table.append_column(_KEY, keys))
        index[key] = (name, metadata)

    for key, (name, metadata) in _index(folder / _INDEX, _stamp(folder / _INDEX)).items():
        if key in keep and key not in fresh:
            rows = _rows(folder / name, _stamp(folder / name))
            add(key, rows.filter(pc.equal(rows[_KEY], key)).drop_columns([_KEY]), metadata)
    for path in sorted(loose):
        if path.stem in keep:
            table = pq.read_table(path)
            add(path.stem, table, table.schema.metadata[_METADATA].decode())
    for name, tables in by_schema.items():
        _write(folder / name, pa.concat_tables(tables).unify_dictionaries().combine_chunks())
    keys = sorted(index)
    # Rows before the index that names them, and only then what they replace.
    _write(
        folder / _INDEX,
        pa.table(
            {
                "key": pa.array(keys, pa.string()),
                "file": pa.array([index[key][0] for key in keys], pa.string()),
                "metadata": pa.array([index[key][1] for key in keys], pa.string()),
            }
        ),
    )
    for path in loose:
        path.unlink()
    for path in folder.glob(f"{_PREFIX}-*.parquet"):
        if path.name not in by_schema:
            path.unlink()
    return dropped


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


@functools.lru_cache(maxsize=8)
def _index(path: Path, stamp: int) -> dict[str, tuple[str, str]]:
    """Each key's file and provenance (JSON), read once for each state of the file."""
    if not stamp:
        return {}
    found = pq.read_table(path).to_pydict()
    return {
        key: (name, metadata)
        for key, name, metadata in zip(found["key"], found["file"], found["metadata"], strict=True)
    }


@functools.lru_cache(maxsize=8)
def _rows(path: Path, _stamp: int) -> pa.Table:
    return pq.read_table(path)


def _write(path: Path, table: pa.Table) -> None:
    temporary = path.with_name(f".{path.name}.part")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)
