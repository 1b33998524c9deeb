"""Stored analyses: found by the hash of everything that determines them, the user's or shipped."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fkd.core.errors import FkdError, StoreError
from fkd.core.paths import results_dir
from fkd.evaluation._packed_tables import (
    INDEX,
    is_packed_file,
    packed_metadata,
    packed_tables,
    stamp,
)
from fkd.evaluation._stored_tables import find_with_witnesses, shipped_dir, write_with_witnesses
from fkd.evaluation.config import AnalysisConfig, ResolvedPair
from fkd.records import ANALYSIS_COLUMNS, list_tables, read_metadata

#: Analyses lie in no folder of their own.
_FOLDER = ""


@dataclass(frozen=True)
class Analysis:
    """An analysis's table (columns: `fkd.records.ANALYSIS_COLUMNS`) and where it came from.

    Attributes:
        key: hash of everything that determines the result.
        config: what was analysed.
        table: one row an example.
        metadata: provenance: versions, seconds, device, cards' facts.
        witnesses: ``gap_witness`` (N, C, H, W), ``disagreement_rows`` (M,),
            ``disagreement_witness`` (M, C, H, W); empty where they are not stored (shipped tables of
            downloaded sets hold no images).
    """

    key: str
    config: AnalysisConfig
    table: pd.DataFrame
    metadata: dict[str, Any]
    witnesses: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def write(self, path: Path) -> None:
        """Write the table to ``path`` (``.parquet``) and the witnesses beside it.

        Raises:
            StoreError: a file cannot be written; what was there is untouched.
        """
        path = Path(path)
        if path.suffix != ".parquet":
            raise StoreError(
                f"The table is written as Parquet; name the file .parquet, not '{path.name}'."
            )
        write_with_witnesses(path, self, ANALYSIS_COLUMNS)

    def gap_witness(self, row: int) -> np.ndarray | None:
        """Stored witness of a row's gap, (C, H, W); None where none is stored."""
        stored = self.witnesses.get("gap_witness")
        return None if stored is None else stored[row]

    def disagreement_witness(self, row: int) -> np.ndarray | None:
        """Stored witness of a row's disagreement, (C, H, W); None where there is none."""
        rows = self.witnesses.get("disagreement_rows")
        if rows is None:
            return None
        place = np.flatnonzero(rows == row)
        return self.witnesses["disagreement_witness"][place[0]] if len(place) else None


@dataclass(frozen=True)
class AnalysisEntry:
    """One stored table, without its rows.

    Attributes:
        key: hash of everything that determines the result.
        config: what was analysed.
        path: the file that holds it, alone or with others (shipped tables are packed).
        is_shipped: whether it came with the program.
        metadata: as `Analysis.metadata`.
    """

    key: str
    config: AnalysisConfig
    path: Path
    is_shipped: bool
    metadata: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


def save_analysis(analysis: Analysis) -> None:
    """Store an analysis under its key.

    Raises:
        StoreError: the folder cannot be written.
    """
    analysis.write(results_dir() / f"{analysis.key}.parquet")


def find_resolved(pair: ResolvedPair) -> Analysis | None:
    """The stored analysis of a resolved pair; None where there is none or it is damaged."""
    key = pair.key()
    stored = find_with_witnesses(_FOLDER, key)
    return None if stored is None else Analysis(key, pair.config, *stored)


def find_analysis(config: AnalysisConfig) -> Analysis | None:
    """The stored answer to ``config``, at once; None where it has not been computed.

    Raises:
        ConfigError: unknown names, or a pair that does not fit.
        DataError: a data set without a known fingerprint is absent.
    """
    return find_resolved(ResolvedPair(config))


def list_analyses(
    dataset: str | None = None, teacher: str | None = None, student: str | None = None
) -> list[AnalysisEntry]:
    """What is stored, the user's first, optionally for one data set, teacher or student."""
    wanted = {"dataset": dataset, "teacher": teacher, "student": student}
    entries: dict[str, AnalysisEntry] = {}
    for folder, is_shipped in ((results_dir(), False), (shipped_dir(), True)):
        for entry in _entries(folder, is_shipped):
            if entry.key in entries:
                continue
            if all(v is None or getattr(entry.config, k) == v for k, v in wanted.items()):
                entries[entry.key] = entry
    return list(entries.values())


def _entries(folder: Path, is_shipped: bool) -> list[AnalysisEntry]:
    """What a folder holds, by file name; a table in a file of its own hides a packed one."""
    found = dict(_packed_entries(folder, stamp(folder / INDEX), is_shipped))
    for path in list_tables(folder):
        if is_packed_file(path):
            continue
        entry = _entry(path, stamp(path), is_shipped)
        if entry is None:
            found.pop(path.stem, None)
        else:
            found[path.stem] = entry
    return [found[name] for name in sorted(found)]


@functools.lru_cache(maxsize=8)
def _packed_entries(folder: Path, _stamp: int, is_shipped: bool) -> dict[str, AnalysisEntry]:
    packed = packed_tables(folder)
    found = {
        key: _described(metadata, folder / packed[key].rows.file, is_shipped)
        for key, metadata in packed_metadata(folder).items()
    }
    return {key: entry for key, entry in found.items() if entry is not None}


@functools.lru_cache(maxsize=4096)
def _entry(path: Path, _mtime: int, is_shipped: bool) -> AnalysisEntry | None:
    return _described(read_metadata(path), path, is_shipped)


def _described(
    metadata: dict[str, Any] | None, path: Path, is_shipped: bool
) -> AnalysisEntry | None:
    if metadata is None or "config" not in metadata:
        return None
    try:
        config = AnalysisConfig.parse(metadata["config"])
    except FkdError:
        # Written by another version with other settings: its key is never asked for either.
        return None
    return AnalysisEntry(str(metadata.get("key")), config, path, is_shipped, metadata)
