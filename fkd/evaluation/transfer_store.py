"""Stored transfers: found, as analyses are, by the hash of all that determines them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fkd.core.device import choose_device
from fkd.core.hashing import hash_json, short
from fkd.core.paths import results_dir
from fkd.core.progress import ProgressCallback
from fkd.evaluation._stored_tables import find_table, provenance
from fkd.evaluation.transfer import (
    TRANSFER_COLUMNS,
    ResolvedTransfer,
    TransferConfig,
    carry_over,
)
from fkd.records import conform, ensure_writable, write_table

#: Raised whenever what is done with the witnesses changes, rather than the attack that finds them.
_PROCEDURE_VERSION = 1
_FOLDER = "transfers"


@dataclass(frozen=True)
class Transfer:
    """A table of transfers and where it came from.

    Attributes:
        key: hash of everything that determines the result.
        config: what was measured.
        table: one row an example, source and target (columns: `fkd.evaluation.TRANSFER_COLUMNS`).
        metadata: provenance: versions, seconds, hashes of weights and data, origin of the witnesses.
    """

    key: str
    config: TransferConfig
    table: pd.DataFrame
    metadata: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write the table as Parquet, with what it was computed from.

        Raises:
            StoreError: the file cannot be written; what was there is untouched.
        """
        write_table(Path(path), self.table, self.metadata, TRANSFER_COLUMNS)


def transfer_key(resolved: ResolvedTransfer) -> str:
    """Hash of everything that determines a table of transfers."""
    # An analysis's key holds all of it, for each student, and a certificate, which is always the usual.
    analyses = sorted(pair.key() for pair in resolved.pairs)
    return short(hash_json({"analyses": analyses, "transfer": _PROCEDURE_VERSION}))


def find_transfer(config: TransferConfig) -> Transfer | None:
    """The stored answer to ``config``, at once; None where it has not been measured.

    Raises:
        ConfigError: unknown names, or a student that does not fit.
        DataError: a data set without a known fingerprint is absent.
    """
    key = transfer_key(ResolvedTransfer(config))
    stored = find_table(_FOLDER, key)
    return None if stored is None else Transfer(key, config, stored.table, stored.metadata)


def transfer_witnesses(
    config: TransferConfig,
    *,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    fresh: bool = False,
) -> Transfer:
    """The stored transfers of ``config`` or, where there are none, new ones that are stored.

    Args:
        config: what to measure.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: told about the stages ``attack`` and ``transfer``; answering True cancels.
        fresh: attack and measure anew even where an answer is stored, and replace it.

    Raises:
        ConfigError: unknown names, a student or ball that does not fit, or a count beyond the data.
        DataError: the data set is absent or damaged.
        CheckpointError: a model is damaged.
        StoreError: the result cannot be stored (found out before the work where possible).
        SoundnessError: a witness exceeds a stored certificate, which is a bug in this program.
        Cancelled: ``progress`` asked to stop; nothing is stored.

    Example:
        >>> from fkd.evaluation import TransferConfig, transfer_witnesses
        >>> config = TransferConfig(
        ...     dataset="digits", teacher="digits-teacher-pgd", epsilon=0.05, count=5,
        ...     students=["digits-kd-of-pgd", "digits-rslad-of-pgd"])
        >>> len(transfer_witnesses(config).table)  # 5 examples, 2 sources, 2 targets
        20
    """
    stored = None if fresh else find_transfer(config)
    if stored is not None:
        return stored
    folder = results_dir() / _FOLDER
    resolved = ResolvedTransfer(config)
    ensure_writable(folder, needed_bytes=2**20 + 64 * config.count * len(resolved.pairs) ** 2)
    key = transfer_key(resolved)
    started = time.perf_counter()
    table, facts = carry_over(resolved, device=device, progress=progress, fresh=fresh)
    first = resolved.pairs[0]
    metadata = {
        **provenance(key, config, started),
        "teacher_hash": first.teacher_card.model_hash,
        "student_hashes": {p.student_card.name: p.student_card.model_hash for p in resolved.pairs},
        "data_hash": first.data_set.fingerprint(config.split),
        **facts,
        "device": str(choose_device(device)),
    }
    # As it will be read back, so that a first answer and a stored one do not differ.
    found = Transfer(key, config, conform(table, TRANSFER_COLUMNS), metadata)
    found.write(folder / f"{key}.parquet")
    return found
