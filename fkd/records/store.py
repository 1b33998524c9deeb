"""Parquet tables with provenance in their metadata; every write is whole or not at all.

A file is written under a temporary name in the same folder, flushed to disk and moved into place, so a
full disk or a killed process leaves the old file, or none, and never half of one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fkd.core.disk import elsewhere, write_advice
from fkd.core.errors import StoreError
from fkd.records.schemas import ANALYSIS_COLUMNS, Column, arrow_schema

_METADATA_KEY = b"fkd"


@dataclass(frozen=True)
class StoredTable:
    """A table with what determined it."""

    table: pd.DataFrame
    metadata: dict[str, Any]


@contextlib.contextmanager
def _sentences(what: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"{what} could not be written in '{folder}' ({reason}); {write_advice(error, folder)}. "
            "Nothing was changed there."
        ) from error


def _write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    with _sentences(f"'{path.name}'", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            # mkstemp makes the file private; a result is as readable as any other new file.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def ensure_writable(folder: Path, needed_bytes: int, what: str = "The results") -> None:
    """Check before long work that its result can be stored.

    Args:
        folder: where; made if it is not there.
        needed_bytes: about how much there will be.
        what: is to be stored, for the error's sentence.

    Raises:
        StoreError: the folder cannot be made or written, or the disk lacks ``needed_bytes``.
    """
    with _sentences(what, folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise StoreError(
            f"{what} could not be written in '{folder}', which has {free / 2**20:.0f} MiB free of the "
            f"{needed_bytes / 2**20:.0f} MiB needed; free some space or {elsewhere(folder)}."
        )


def _to_arrow(table: pd.DataFrame, columns: tuple[Column, ...]) -> pa.Table:
    return pa.Table.from_pandas(
        table[[column.name for column in columns]],
        schema=arrow_schema(columns),
        preserve_index=False,
    )


def conform(table: pd.DataFrame, columns: tuple[Column, ...] = ANALYSIS_COLUMNS) -> pd.DataFrame:
    """The table as it will be read back: columns in order, with their documented types."""
    return _to_arrow(table, columns).to_pandas()


def write_table(
    path: Path,
    table: pd.DataFrame,
    metadata: dict[str, Any],
    columns: tuple[Column, ...] = ANALYSIS_COLUMNS,
) -> None:
    """Write a table with documented columns.

    Args:
        path: the ``.parquet`` file; replaced as a whole if it exists.
        table: exactly the columns of ``columns``, in any order.
        metadata: JSON-serialisable provenance, kept in the file's metadata under ``fkd``.
        columns: the schema.

    Raises:
        StoreError: the file cannot be written; whatever was there is untouched.
    """
    arrow = _to_arrow(table, columns)
    merged = {**(arrow.schema.metadata or {}), _METADATA_KEY: json.dumps(metadata).encode()}
    arrow = arrow.replace_schema_metadata(merged)

    def write(temporary: Path) -> None:
        try:
            pq.write_table(arrow, temporary, compression="zstd")
        except pa.ArrowException as error:
            # Arrow reports some failures of the operating system as its own exceptions.
            raise OSError(str(error).splitlines()[0]) from error

    _write_atomically(path, write)


def read_table(path: Path) -> StoredTable:
    """Read a table and its provenance.

    Raises:
        StoreError: the file is absent, damaged or not one of ours.
    """
    try:
        arrow = pq.read_table(path)
        metadata = json.loads((arrow.schema.metadata or {})[_METADATA_KEY])
    except FileNotFoundError:
        raise StoreError(f"There is no table '{path}'; run the analysis first.") from None
    except (OSError, pa.ArrowException, KeyError, json.JSONDecodeError) as error:
        raise StoreError(
            f"'{path}' is not a readable fkd table ({type(error).__name__}); delete it and run the "
            "analysis again."
        ) from error
    return StoredTable(arrow.to_pandas(), metadata)


def read_metadata(path: Path) -> dict[str, Any] | None:
    """A table's provenance without its rows; None where the file is no fkd table."""
    try:
        return json.loads(pq.read_schema(path).metadata[_METADATA_KEY])
    except (OSError, pa.ArrowException, KeyError, TypeError, json.JSONDecodeError):
        return None


def list_tables(folder: Path) -> list[Path]:
    """All Parquet files of a folder, sorted; none where there is no folder."""
    with contextlib.suppress(OSError):
        return sorted(folder.glob("*.parquet"))
    return []


def write_tensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write arrays as safetensors, whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """

    def write(temporary: Path) -> None:
        try:
            save_file(
                {name: np.ascontiguousarray(array) for name, array in tensors.items()},
                temporary,
                metadata=metadata,
            )
        except SafetensorError as error:
            raise OSError(str(error)) from error

    _write_atomically(path, write)


def read_tensors(path: Path) -> dict[str, np.ndarray] | None:
    """Arrays of a safetensors file; None where it is absent or damaged."""
    if not path.is_file():
        return None
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        return None
