"""Stored tables of agreement radii: found, as analyses are, by the hash of all that determines them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fkd.core.hashing import hash_json, short
from fkd.core.paths import results_dir
from fkd.core.progress import ProgressCallback
from fkd.evaluation._stored_tables import find_with_witnesses, provenance, write_with_witnesses
from fkd.evaluation.config import ResolvedPair
from fkd.evaluation.radius import RADIUS_COLUMNS, RadiusConfig, find_agreement_radii
from fkd.records import conform, ensure_writable

#: Raised whenever the search itself, rather than the attacks and certificates it asks, gives others.
_SEARCH_VERSION = 4
_FOLDER = "radii"


@dataclass(frozen=True)
class Radii:
    """A table of agreement radii (columns: `fkd.evaluation.RADIUS_COLUMNS`) and where it came from.

    Attributes:
        key: hash of everything that determines the result.
        config: what was searched.
        table: one row an example.
        metadata: provenance: versions, seconds, hashes of weights and data.
        witnesses: ``rows`` int64 (M,) with a disagreement and ``points`` float32 (M, C, H, W), the
            nearest; empty where they are not stored (they are images).
    """

    key: str
    config: RadiusConfig
    table: pd.DataFrame
    metadata: dict[str, Any]
    witnesses: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def write(self, path: Path) -> None:
        """Write the table as Parquet, with what it was computed from, and the witnesses beside it.

        Raises:
            StoreError: the file cannot be written; what was there is untouched.
        """
        write_with_witnesses(path, self, RADIUS_COLUMNS)

    def nearest_witness(self, row: int) -> np.ndarray | None:
        """The nearest disagreement of a row of the table, (C, H, W) in [0, 1]; the image itself where
        predictions differ there, None where none was found or none is stored.
        """
        place = np.flatnonzero(self.witnesses.get("rows", np.empty(0)) == row)
        return self.witnesses["points"][place[0]] if len(place) else None


def radius_key(pair: ResolvedPair) -> str:
    """Hash of everything that determines a table of radii; the pair's config is a `RadiusConfig`."""
    config = pair.config
    # A search compares predictions, so the class whose confidences an analysis compares is idle.
    idle: dict[str, Any] = {"gap_class": "label"}
    if not config.proofs:
        idle["certificate"] = RadiusConfig.model_fields["certificate"].get_default(
            call_default_factory=True
        )
    return short(
        hash_json(
            {
                "analysis": ResolvedPair(config.model_copy(update=idle)).key(),
                "tolerance": config.tolerance,
                "starts": config.starts,
                "proofs": config.proofs,
                "search": _SEARCH_VERSION,
            }
        )
    )


def find_radii(config: RadiusConfig) -> Radii | None:
    """The stored answer to ``config``, at once; None where it has not been computed.

    Raises:
        ConfigError: unknown names, or a pair that does not fit.
        DataError: a data set without a known fingerprint is absent.
    """
    key = radius_key(ResolvedPair(config))
    stored = find_with_witnesses(_FOLDER, key)
    return None if stored is None else Radii(key, config, *stored)


def search_radii(
    config: RadiusConfig,
    *,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    fresh: bool = False,
) -> Radii:
    """The stored radii of ``config`` or, where there are none, new ones that are stored.

    Args:
        config: what to search.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: told about each round of the search; answering True cancels.
        fresh: search anew even where an answer is stored, and replace it.

    Raises:
        ConfigError: unknown names, a pair or ball that does not fit, a count beyond the data.
        DataError: the data set is absent or damaged.
        StoreError: the result cannot be stored (found out before the work where possible).
        SoundnessError: a witness lies within a proved radius, which is a bug in this program.
        Cancelled: ``progress`` asked to stop; nothing is stored.

    Example:
        >>> from fkd.evaluation import RadiusConfig, search_radii
        >>> config = RadiusConfig(
        ...     dataset="digits", teacher="digits-teacher-pgd", student="digits-kd-of-pgd",
        ...     count=2, certificate={"name": "fast"})
        >>> bool((search_radii(config).table.radius_certified <= 0.3).all())
        True
    """
    stored = None if fresh else find_radii(config)
    if stored is not None:
        return stored
    folder = results_dir() / _FOLDER
    ensure_writable(folder, needed_bytes=2**20)
    pair = ResolvedPair(config)
    key = radius_key(pair)
    started = time.perf_counter()
    found = find_agreement_radii(config, device=device, progress=progress)
    metadata = {
        **provenance(key, config, started),
        "teacher_hash": pair.teacher_card.model_hash,
        "student_hash": pair.student_card.model_hash,
        "data_hash": pair.data_set.fingerprint(config.split),
    }
    witnesses = {"rows": found.rows, "points": found.points}
    # As it will be read back, so that a first answer and a stored one do not differ.
    radii = Radii(key, config, conform(found.table, RADIUS_COLUMNS), metadata, witnesses)
    radii.write(folder / f"{key}.parquet")
    return radii
