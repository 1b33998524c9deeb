"""Stored standard robustness: found, as analyses are, by the hash of all that determines it."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fkd.attacks.single import left_out, library_version
from fkd.core.device import choose_device
from fkd.core.hashing import hash_json, short
from fkd.core.paths import results_dir
from fkd.core.progress import ProgressCallback
from fkd.evaluation._stored_tables import find_table, provenance
from fkd.evaluation.robustness import (
    ROBUSTNESS_COLUMNS,
    ResolvedModel,
    RobustnessConfig,
    attack_model,
)
from fkd.records import SCHEMA_VERSION, conform, ensure_writable, write_table

#: Raised whenever the attacks or the measurement compute something else.
_PROCEDURE_VERSION = 1
#: Its place among the results, and among the shipped tables.
ROBUSTNESS_FOLDER = "robustness"


@dataclass(frozen=True)
class Robustness:
    """A table of standard robustness and where it came from.

    Attributes:
        key: hash of everything that determines the result.
        config: what was measured.
        table: one row an example (columns: `fkd.evaluation.ROBUSTNESS_COLUMNS`).
        metadata: provenance: versions, seconds, hashes of weights and data.
    """

    key: str
    config: RobustnessConfig
    table: pd.DataFrame
    metadata: dict[str, Any]

    @property
    def left_out(self) -> list[str]:
        """A sentence for each of AutoAttack's members that could not attack this model."""
        return list(self.metadata["left_out"])

    def write(self, path: Path) -> None:
        """Write the table as Parquet, with what it was computed from.

        Raises:
            StoreError: the file cannot be written; what was there is untouched.
        """
        write_table(Path(path), self.table, self.metadata, ROBUSTNESS_COLUMNS)


def robustness_key(resolved: ResolvedModel) -> str:
    """Hash of everything that determines a table of standard robustness (content, not names)."""
    config = resolved.config
    # Scales only where they say something: tables made before there were any keep their keys.
    idle = {"model"} if config.channel_scale else {"model", "channel_scale"}
    return short(
        hash_json(
            {
                **config.model_dump(mode="json", exclude=idle),
                "schema": SCHEMA_VERSION,
                "robustness": _PROCEDURE_VERSION,
                "model": resolved.card.model_hash,
                "data": resolved.data_set.fingerprint(config.split),
            }
        )
    )


def find_robustness(config: RobustnessConfig) -> Robustness | None:
    """The stored answer to ``config``, at once; None where it has not been measured.

    Raises:
        ConfigError: unknown names, or a model that does not fit.
        DataError: a data set without a known fingerprint is absent.
    """
    key = robustness_key(ResolvedModel(config))
    stored = find_table(ROBUSTNESS_FOLDER, key)
    return None if stored is None else Robustness(key, config, stored.table, stored.metadata)


def measure_robustness(
    config: RobustnessConfig,
    *,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    fresh: bool = False,
) -> Robustness:
    """The stored robustness of ``config`` or, where there is none, a new one that is stored.

    Args:
        config: what to measure.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: told about the stages ``pgd`` and AutoAttack's members; answering True cancels.
        fresh: measure anew even where an answer is stored, and replace it.

    Raises:
        ConfigError: unknown names, a model, ball or count that does not fit, or a missing library.
        DataError: the data set is absent or damaged.
        CheckpointError: the model is damaged.
        StoreError: the result cannot be stored (found out before the work where possible).
        Cancelled: ``progress`` asked to stop; nothing is stored.

    Example:
        >>> from fkd.evaluation import RobustnessConfig, measure_robustness
        >>> config = RobustnessConfig(
        ...     dataset="digits", model="digits-teacher-pgd", epsilon=0.1, count=5,
        ...     autoattack_queries=100)
        >>> table = measure_robustness(config).table
        >>> bool((table.robust <= table.robust_pgd).all())
        True
    """
    stored = None if fresh else find_robustness(config)
    if stored is not None:
        return stored
    folder = results_dir() / ROBUSTNESS_FOLDER
    ensure_writable(folder, needed_bytes=2**20)
    resolved = ResolvedModel(config)
    key = robustness_key(resolved)
    started = time.perf_counter()
    table, seconds = attack_model(config, device=device, progress=progress)
    origin = provenance(key, config, started)
    metadata = {
        **origin,
        "versions": {**origin["versions"], "adv_lib": library_version()},
        "model_hash": resolved.card.model_hash,
        "data_hash": resolved.data_set.fingerprint(config.split),
        "left_out": list(left_out(resolved.data_set.num_classes).values()),
        "device": str(choose_device(device)),
        **seconds,
    }
    # As it will be read back, so that a first answer and a stored one do not differ.
    found = Robustness(key, config, conform(table, ROBUSTNESS_COLUMNS), metadata)
    found.write(folder / f"{key}.parquet")
    return found


def reproduce_robustness(config: RobustnessConfig, *, lines: bool = False) -> str:
    """The command line that measures this again: the same key on the same files.

    Args:
        config: what was measured.
        lines: one option per line, for where there is little room; a shell reads both the same.
    """
    parts = ["python -m fkd robust"]
    for name, field in RobustnessConfig.model_fields.items():
        value = getattr(config, name)
        if field.is_required() or name in ("count", "seed") or value != field.default:
            words = value if isinstance(value, tuple) else (value,)
            parts.append(f"--{name.replace('_', '-')} {shlex.join(map(str, words))}")
    # Two networks are often measured one after the other: neither may overwrite the other's table.
    parts.append(f"--out {shlex.quote(f'robustness-{Path(config.model).name}.parquet')}")
    return (" \\\n  " if lines else " ").join(parts)
