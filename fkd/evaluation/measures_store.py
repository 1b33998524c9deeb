"""Stored measures: found, as analyses are, by the hash of all that determines them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fkd.core.device import choose_device
from fkd.core.hashing import hash_json, short
from fkd.core.paths import results_dir
from fkd.core.progress import ProgressCallback
from fkd.evaluation._stored_tables import find_with_witnesses, provenance, write_with_witnesses
from fkd.evaluation.config import ResolvedPair
from fkd.evaluation.measures import MEASURES_COLUMNS, MeasuresConfig, find_differences
from fkd.records import conform, ensure_writable

#: Raised whenever the searches of measures, or what is done with their points, give others.
_PROCEDURE_VERSION = 1
_FOLDER = "measures"


@dataclass(frozen=True)
class Measured:
    """A table of measures and where it came from.

    Attributes:
        key: hash of everything that determines the result.
        config: what was measured.
        table: one row an example and measure (columns: `fkd.evaluation.MEASURES_COLUMNS`).
        metadata: provenance: versions, seconds, hashes of weights and data, gradient evaluations.
        witnesses: each measure's points, float32 (N, C, H, W), in the order of the examples; empty where
            they are not stored (they are images).
    """

    key: str
    config: MeasuresConfig
    table: pd.DataFrame
    metadata: dict[str, Any]
    witnesses: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def write(self, path: Path) -> None:
        """Write the table as Parquet, with what it was computed from, and the witnesses beside it.

        Raises:
            StoreError: a file cannot be written; what was there is untouched.
        """
        write_with_witnesses(path, self, MEASURES_COLUMNS)

    def witness(self, measure: str, index: int) -> np.ndarray | None:
        """Where an example's value was found, (C, H, W) in [0, 1]; None where no points are stored."""
        points = self.witnesses.get(measure)
        return None if points is None else points[index]


def measures_key(config: MeasuresConfig) -> str:
    """Hash of everything that determines a table of measures.

    Raises:
        ConfigError: unknown names, or a pair that does not fit.
        DataError: a data set without a known fingerprint is absent.
    """
    # An analysis's key holds all of it but the measures, and a certificate, which is always the usual.
    return short(
        hash_json(
            {
                "analysis": ResolvedPair(config.analysis()).key(),
                "measures": config.measures,
                "procedure": _PROCEDURE_VERSION,
            }
        )
    )


def find_measures(config: MeasuresConfig) -> Measured | None:
    """The stored answer to ``config``, at once; None where it has not been measured.

    Raises:
        ConfigError: unknown names, or a pair that does not fit.
        DataError: a data set without a known fingerprint is absent.
    """
    key = measures_key(config)
    stored = find_with_witnesses(_FOLDER, key)
    return None if stored is None else Measured(key, config, *stored)


def measure_pair(
    config: MeasuresConfig,
    *,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    fresh: bool = False,
) -> Measured:
    """The stored measures of ``config`` or, where there are none, new ones that are stored.

    Args:
        config: what to measure.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: told how far the searches are; answering True cancels.
        fresh: search anew even where an answer is stored, and replace it.

    Raises:
        ConfigError: unknown names, a pair or ball that does not fit, or a count beyond the data.
        DataError: the data set is absent or damaged.
        CheckpointError: a model is damaged.
        StoreError: the result cannot be stored (found out before the work where possible).
        SoundnessError: a point exceeds a stored certificate, which is a bug in this program.
        Cancelled: ``progress`` asked to stop; nothing is stored.

    Example:
        >>> from fkd.evaluation import MeasuresConfig, measure_pair
        >>> config = MeasuresConfig(
        ...     dataset="digits", teacher="digits-teacher-pgd", student="digits-kd-of-pgd",
        ...     epsilon=0.05, count=3, measures=["label", "kl"])
        >>> len(measure_pair(config).table)  # 3 examples, 2 measures
        6
    """
    stored = None if fresh else find_measures(config)
    if stored is not None:
        return stored
    pair, key = ResolvedPair(config.analysis()), measures_key(config)
    folder = results_dir() / _FOLDER
    pixels = int(np.prod(pair.teacher_card.image_shape))
    needed = 4 * pixels * config.count * len(config.measures)
    ensure_writable(folder, needed_bytes=2**20 + needed)
    started = time.perf_counter()
    found = find_differences(config, device=device, progress=progress)
    metadata = {
        **provenance(key, config, started),
        "teacher_hash": pair.teacher_card.model_hash,
        "student_hash": pair.student_card.model_hash,
        "data_hash": pair.data_set.fingerprint(config.split),
        "gradient_evaluations": found.gradient_evaluations,
        "device": str(choose_device(device)),
    }
    # As it will be read back, so that a first answer and a stored one do not differ.
    table = conform(found.table, MEASURES_COLUMNS)
    measured = Measured(key, config, table, metadata, found.witnesses)
    measured.write(folder / f"{key}.parquet")
    return measured
