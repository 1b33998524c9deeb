"""Tables of one kind, found among the results and what is shipped by the hash of what determines them."""

from __future__ import annotations

import datetime
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from fkd.core.errors import StoreError
from fkd.core.paths import pretrained_dir, results_dir
from fkd.core.versions import package_versions
from fkd.evaluation._packed_tables import find_packed, find_packed_tensors, packed_tables
from fkd.evaluation.config import InBallsConfig
from fkd.records import (
    SCHEMA_VERSION,
    Column,
    StoredTable,
    read_table,
    read_tensors,
    write_table,
    write_tensors,
)

_WITNESS_SUFFIX = ".witnesses.safetensors"


class Witnessed(Protocol):
    """A table with the points that it tells of, kept in a file of their own: they are images."""

    key: str
    table: pd.DataFrame
    metadata: dict[str, Any]
    witnesses: dict[str, np.ndarray]


def shipped_dir() -> Path:
    """Where the shipped models' tables lie."""
    return pretrained_dir() / "analyses"


def witness_path(table_path: Path) -> Path:
    """The witnesses' file beside a table's."""
    return table_path.with_suffix(_WITNESS_SUFFIX)


def find_table(folder: str, key: str, columns: Collection[str] | None = None) -> StoredTable | None:
    """The table called ``key`` in a folder of the results, else of what is shipped; None without one.

    A damaged table is as good as none: it is computed again and replaced.

    Args:
        folder: of the results and of what is shipped.
        key: the table's.
        columns: those that are needed, which of a packed table are read alone; all if None.
    """
    found = _find(folder, key, columns)
    return None if found is None else found[1]


def find_with_witnesses(
    folder: str, key: str
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, np.ndarray]] | None:
    """`find_table`: table, metadata and the witnesses beside it, none of them where none are stored."""
    found = _find(folder, key)
    if found is None:
        return None
    path, stored = found
    # Both lie beside each other, packed or not: a table of its own may be newer than a packed one.
    is_packed = not path.is_file()
    tensors = (
        find_packed_tensors(path.parent, key) if is_packed else read_tensors(witness_path(path))
    )
    return stored.table, stored.metadata, tensors or {}


def is_stored(folder: Path, key: str) -> bool:
    """Whether a folder has the table called ``key``, in a file of its own or packed."""
    return (folder / f"{key}.parquet").is_file() or key in packed_tables(folder)


def _find(
    folder: str, key: str, columns: Collection[str] | None = None
) -> tuple[Path, StoredTable] | None:
    """The table, and where it lies or, packed, would lie."""
    for place in (results_dir(), shipped_dir()):
        path = place / folder / f"{key}.parquet"
        try:
            stored = read_table(path) if path.is_file() else find_packed(path.parent, key, columns)
        except StoreError:
            continue
        if stored is not None and stored.metadata.get("key") == key:
            return path, stored
    return None


def write_with_witnesses(path: Path, stored: Witnessed, columns: tuple[Column, ...]) -> None:
    """Write a table and its witnesses beside it; where it has none, those of the one it replaces go.

    Args:
        path: the ``.parquet`` file.
        stored: the table.
        columns: its schema.

    Raises:
        StoreError: a file cannot be written; what was there is untouched.
    """
    path = Path(path)
    # The table comes last: where it is, its witnesses are.
    if stored.witnesses:
        write_tensors(witness_path(path), stored.witnesses, {"key": stored.key})
    else:
        witness_path(path).unlink(missing_ok=True)
    write_table(path, stored.table, stored.metadata, columns)


def provenance(key: str, config: InBallsConfig, started: float) -> dict[str, Any]:
    """What every stored table says of itself; ``started`` is the `time.perf_counter` at its beginning."""
    return {
        "key": key,
        "schema": SCHEMA_VERSION,
        "config": config.model_dump(mode="json"),
        "seed": config.seed,
        "versions": package_versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 3),
    }
