"""Writing packed folders (`fkd.evaluation._packed_tables`): loose tables join those that are packed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from fkd.core.errors import StoreError
from fkd.core.hashing import hash_json, short
from fkd.evaluation._packed_tables import (
    INDEX,
    PREFIX,
    Packed,
    Place,
    is_packed_file,
    own_categories,
    read_group,
    read_index,
)
from fkd.evaluation._stored_tables import witness_path
from fkd.records import read_tensors

_METADATA = b"fkd"
_PANDAS = b"pandas"
#: Bytes of a row group in memory: reading one table reads its group.
_GROUP_BYTES = 2**20
_LOCK_SECONDS = 600

_PLACE = pa.struct(
    [("file", pa.string()), ("group", pa.int64()), ("start", pa.int64()), ("count", pa.int64())]
)
_INDEX_SCHEMA = pa.schema(
    [("key", pa.string()), ("rows", _PLACE), ("witnesses", _PLACE), ("metadata", pa.string())]
)
_TENSOR_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("name", pa.string()),
        ("dtype", pa.string()),
        # Parquet's own name for an item, so that what is read back has the same type.
        ("shape", pa.list_(pa.field("element", pa.int64()))),
        ("data", pa.binary()),
    ]
)


def pack_tables(folder: Path, keep: Collection[str]) -> int:
    """Pack a folder's tables and their witnesses, loose and packed ones; drop those not to be kept.

    Whatever moment it is interrupted at, each table that is to be kept is still found.  What comes out is
    what went in, to the bit; the same tables make the same files.

    Args:
        folder: holds ``KEY.parquet`` files (with witnesses beside them or none), packed ones, or both.
        keep: keys of tables that stay.

    Returns:
        How many tables were dropped.

    Raises:
        StoreError: a table that is to be kept is damaged (nothing was changed), or another process
            packs the same folder for minutes.
    """
    if not folder.is_dir():
        return 0
    with _alone(folder):
        return _pack(folder, frozenset(keep))


def _pack(folder: Path, keep: frozenset[str]) -> int:
    loose = {path.stem: path for path in folder.glob("*.parquet") if not is_packed_file(path)}
    before = read_index(folder / INDEX)
    dropped = len((loose.keys() | before.keys()) - keep)
    if loose or dropped:
        _write_all(folder, loose, before, keep)
    # Rows before the index that names them, and only then what they replace.
    for path in loose.values():
        path.unlink(missing_ok=True)
        # After their table, which would else be one without any.
        witness_path(path).unlink(missing_ok=True)
    _clean(folder)
    return dropped


def _write_all(
    folder: Path, loose: dict[str, Path], before: dict[str, Packed], keep: frozenset[str]
) -> None:
    tables: dict[str, pa.Table] = {}
    tensors: dict[str, pa.Table] = {}
    metadata: dict[str, str] = {}
    groups: dict[tuple[str, int], pa.Table] = {}

    def part(place: Place) -> pa.Table:
        group = place.file, place.group
        if group not in groups:
            groups[group] = read_group(folder / place.file, place.group)
        return own_categories(groups[group].slice(place.start, place.count))

    for key, packed in before.items():
        if key in keep and key not in loose:
            tables[key], metadata[key] = part(packed.rows), packed.metadata
            if packed.witnesses is not None:
                tensors[key] = part(packed.witnesses)
    for key in loose.keys() & keep:
        tables[key], metadata[key] = _read_loose(loose[key])
        witnesses = _read_witnesses(key, loose[key])
        if witnesses is not None:
            tensors[key] = witnesses
    order = sorted(tables, key=lambda key: _order(key, metadata[key]))
    rows = _write_files(folder, {key: tables[key] for key in order}, metadata)
    witnesses_at = _write_files(folder, {k: tensors[k] for k in order if k in tensors}, metadata)
    _write_index(
        folder / INDEX,
        {key: Packed(metadata[key], rows[key], witnesses_at.get(key)) for key in sorted(order)},
    )


def _clean(folder: Path) -> None:
    """Drop what an index does not need: this time's, and what an interruption left behind."""
    index = read_index(folder / INDEX)
    named = {p.file for one in index.values() for p in (one.rows, one.witnesses) if p is not None}
    for path in folder.glob(f"{PREFIX}-*.parquet"):
        if path.name not in named:
            path.unlink()
    for key in index:
        table = folder / f"{key}.parquet"
        if not table.is_file():
            witness_path(table).unlink(missing_ok=True)


def _read_loose(path: Path) -> tuple[pa.Table, str]:
    try:
        table = pq.read_table(path)
        found = dict(table.schema.metadata or {})
        metadata = found.pop(_METADATA).decode()
        json.loads(metadata)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise StoreError(
            f"'{path}' is not a readable fkd table ({type(error).__name__}) and cannot be packed; "
            "delete it and make it again."
        ) from error
    return own_categories(table.replace_schema_metadata(found)), metadata


def _read_witnesses(key: str, table_path: Path) -> pa.Table | None:
    path = witness_path(table_path)
    if not path.is_file():
        return None
    tensors = read_tensors(path)
    if tensors is None:
        raise StoreError(
            f"'{path}' holds no readable witnesses and cannot be packed; delete it and the table "
            "beside it, and make them again."
        )
    rows = [
        {
            "key": key,
            "name": name,
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "data": array.tobytes(),
        }
        for name, array in tensors.items()
    ]
    return pa.Table.from_pylist(rows, _TENSOR_SCHEMA)


def _order(key: str, metadata: str) -> tuple[str, str, str, float, str]:
    """Like beside like, which compresses: all radii of a pair, all students of a teacher."""
    config = _config(metadata)
    names = (str(config.get(name, "")) for name in ("dataset", "teacher", "student"))
    return (*names, float(config.get("epsilon") or 0.0), key)


def _config(metadata: str) -> dict[str, Any]:
    return json.loads(metadata).get("config", {})


def _write_files(
    folder: Path, tables: dict[str, pa.Table], metadata: dict[str, str]
) -> dict[str, Place]:
    """Write tables in their order, a file for each data set and kind of columns; where each lies."""
    files: dict[str, list[str]] = {}
    for key, table in tables.items():
        dataset = _config(metadata[key]).get("dataset")
        files.setdefault(hash_json([dataset, _kind(table.schema)]), []).append(key)
    places = {}
    for keys in files.values():
        batches = list(_batches(keys, tables))
        joined = [pa.concat_tables([tables[key] for key in batch]) for batch in batches]
        name = _write(folder, [group.unify_dictionaries().combine_chunks() for group in joined])
        for number, batch in enumerate(batches):
            start = 0
            for key in batch:
                places[key] = Place(name, number, start, len(tables[key]))
                start += len(tables[key])
    return places


def _kind(schema: pa.Schema) -> list[Any]:
    """All that tables of one file share: columns, their documentation, and pandas's types of them."""
    columns = [
        [f.name, str(f.type), f.nullable, str(sorted((f.metadata or {}).items()))] for f in schema
    ]
    frame = json.loads((schema.metadata or {}).get(_PANDAS, b"{}"))
    types = [[column["name"], column["numpy_type"]] for column in frame.get("columns", [])]
    return [columns, types]


def _batches(keys: Iterable[str], tables: dict[str, pa.Table]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for key in keys:
        own = _size(tables[key])
        if batch and size + own > _GROUP_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(key)
        size += own
    if batch:
        yield batch


def _size(table: pa.Table) -> int:
    """About its bytes in memory; the same however it was read, so that the same groups are made."""
    data = [c for c in table.itercolumns() if pa.types.is_binary(c.type)]
    return 8 * table.num_columns * len(table) + sum(
        pc.sum(pc.binary_length(column)).as_py() or 0 for column in data
    )


def _write(folder: Path, groups: list[pa.Table]) -> str:
    """Write a file of row groups under a name that its bytes give it."""
    temporary = folder / f".{PREFIX}.part"
    schema = groups[0].schema
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    binary = [field.name for field in schema if pa.types.is_binary(field.type)]
    others = [field.name for field in schema if field.name not in (*floats, *binary)]
    with pq.ParquetWriter(
        temporary,
        schema,
        compression="zstd",
        compression_level=19,
        # Bytes of like weight beside each other: exponents repeat where mantissas do not.
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
        use_dictionary=others or False,
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        for table in groups:
            writer.write_table(table, row_group_size=max(1, len(table)))
    name = f"{PREFIX}-{short(hashlib.sha256(temporary.read_bytes()).hexdigest())}.parquet"
    _put(temporary, folder / name)
    return name


def _write_index(path: Path, index: dict[str, Packed]) -> None:
    rows = [{"key": key, **asdict(packed)} for key, packed in index.items()]
    temporary = path.with_name(f".{path.name}.part")
    pq.write_table(
        pa.Table.from_pylist(rows, _INDEX_SCHEMA),
        temporary,
        compression="zstd",
        compression_level=19,
        write_page_checksum=True,
    )
    _put(temporary, path)


def _put(temporary: Path, path: Path) -> None:
    # On disk before what it replaces goes.
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time: each would drop what the other has just packed."""
    lock = FileLock(folder / f".{PREFIX}.lock")
    try:
        with lock.acquire(timeout=_LOCK_SECONDS):
            try:
                yield
            finally:
                # The folder is shipped; who waits opens the name anew.
                with contextlib.suppress(OSError):
                    Path(lock.lock_file).unlink()
    except Timeout:
        raise StoreError(
            f"Another process has been packing '{folder}' for {_LOCK_SECONDS // 60} minutes; wait for "
            "it and try again."
        ) from None
