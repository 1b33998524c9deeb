"""Stored figures of students: each group found by the hash of all that determines it.

Groups are kept apart: a new group, or another setting of one, leaves the others' tables as they are, and
a measurement that is stopped goes on with the groups that are not finished.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from fkd.core.errors import DataError, UnsupportedModelError
from fkd.core.hashing import hash_json, short
from fkd.core.paths import results_dir
from fkd.core.progress import ProgressCallback, report
from fkd.evaluation._scores_table import (
    SCORE_COLUMNS,
    VALUE_COLUMNS,
    empty,
    joined,
    rows,
    values,
)
from fkd.evaluation._stored_tables import find_table, provenance
from fkd.evaluation.scored_pair import ScoredPair, ScoresConfig
from fkd.evaluation.scores import SCORES, GroupScores, ScoreGroup
from fkd.evaluation.scores._base import missing
from fkd.records import SCHEMA_VERSION, StoredTable, conform, ensure_writable, write_table

#: Raised whenever what all groups share gives other figures; each group has a version of its own.
_PROCEDURE_VERSION = 1
_FOLDER = "scores"
#: What figures depend on beside the packages of every table.
_PACKAGES = ("torchmetrics", "torchvision")


@dataclass(frozen=True)
class Scores:
    """Figures of one student and where they came from.

    Attributes:
        key: hash of everything that determines all groups asked for.
        config: what was measured.
        table: one row a figure (columns: `fkd.evaluation.SCORE_COLUMNS`).
        metadata: provenance of each group by its name: versions, seconds, device, hashes.
        details: second tables of groups that have one, by the group's name (``calibration``: the bins of
            a reliability diagram, columns `fkd.evaluation.RELIABILITY_COLUMNS`).
        missing: groups asked for that are not stored; empty after `score_pair`.
    """

    key: str
    config: ScoresConfig
    table: pd.DataFrame
    metadata: dict[str, Any]
    details: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)
    missing: tuple[str, ...] = ()

    def value(self, figure: str) -> float | None:
        """A figure's value; None where it is missing or its group is not there."""
        found = self.table.loc[self.table.figure == figure, "value"].dropna()
        return float(found.iloc[0]) if len(found) else None

    def write(self, path: Path) -> None:
        """Write the table as Parquet, with what it was computed from.

        Raises:
            StoreError: the file cannot be written; what was there is untouched.
        """
        metadata = {"key": self.key, "schema": SCHEMA_VERSION, "groups": self.metadata}
        metadata["config"] = self.config.model_dump(mode="json")
        write_table(Path(path), self.table, metadata, SCORE_COLUMNS)


def scores_key(config: ScoresConfig) -> str:
    """Hash of everything that determines a student's figures.

    Measured times are no part of it: another machine gives others under the same key.

    Raises:
        ConfigError: unknown names, a pair that does not fit, or an unusable set out of distribution.
        DataError: a data set without a known fingerprint is absent.
    """
    pair = ScoredPair(config, device="cpu")
    return _joint_key([_group_key(SCORES.get(name)(), pair) for name in pair.config.groups])


def _joint_key(groups: list[str]) -> str:
    return short(hash_json({"scores": groups}))


def _group_key(group: ScoreGroup, pair: ScoredPair) -> str:
    """Hash of everything that determines one group's table."""
    config, resolved = pair.config, pair.resolved
    determined: dict[str, Any]
    if group.needs_ball:
        # An analysis's key holds all of it: examples, pair, ball, attack and certificate.
        determined = {"analysis": resolved.key()}
    else:
        determined = {
            "schema": SCHEMA_VERSION,
            "dataset": config.dataset,
            "data": pair.data_set.fingerprint(config.split),
            "split": config.split,
            "teacher": [resolved.teacher_card.name, resolved.teacher_card.model_hash],
            "student": [resolved.student_card.name, resolved.student_card.model_hash],
            "seed": config.seed,
        }
    return short(
        hash_json(
            {
                **determined,
                "scores": _PROCEDURE_VERSION,
                "group": group.name,
                "version": group.version,
                "inputs": group.inputs(pair),
            }
        )
    )


def find_scores(config: ScoresConfig) -> Scores | None:
    """The stored groups of ``config``, at once; None where none of them is stored.

    Raises:
        ConfigError: unknown names, a pair that does not fit, or an unusable set out of distribution.
        DataError: a data set without a known fingerprint is absent.
    """
    found = stored_scores(config)
    return None if set(found.missing) == set(config.groups) else found


def stored_scores(config: ScoresConfig, *, values_only: bool = False) -> Scores:
    """As `find_scores`; where no group is stored, a table without rows with all groups ``missing``.

    Args:
        config: whose figures.
        values_only: of the table only the columns ``figure`` and ``value``, which takes half the time.

    Raises:
        FkdError: as `find_scores`.
    """
    return _collect(ScoredPair(config, device="cpu"), {}, VALUE_COLUMNS if values_only else None)


def score_pair(
    config: ScoresConfig,
    *,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    fresh: bool = False,
) -> Scores:
    """The stored figures of ``config``, with those measured and stored that are not there yet.

    The analysis and the student's standard robustness are used where they are stored, and else made and
    stored too.

    Args:
        config: what to measure.
        device: ``auto``, ``cpu`` or ``cuda``; latency is measured on the CPU.
        progress: told about the groups and what they do; answering True cancels.
        fresh: measure anew even where figures are stored, and replace them; analyses and robustness are
            read where they are stored.

    Raises:
        ConfigError: unknown names, a pair or ball that does not fit, or a count beyond the data.
        DataError: the data set is absent or damaged.
        CheckpointError: a model is damaged.
        StoreError: the result cannot be stored (found out before the work where possible).
        SoundnessError: a witness exceeds its certificate, which is a bug in this program.
        Cancelled: ``progress`` asked to stop; groups that were finished are kept.

    Example:
        >>> from fkd.evaluation import ScoresConfig, score_pair
        >>> config = ScoresConfig(
        ...     dataset="digits", teacher="digits-teacher-pgd", student="digits-kd-of-pgd",
        ...     epsilon=0.05, groups=["retention"])
        >>> list(score_pair(config).table.figure)[:2]
        ['retention_train', 'correction_train']
    """
    pair = ScoredPair(config, device=device)
    stored = _collect(pair, {})
    wanted = config.groups if fresh else stored.missing
    if not wanted:
        return stored
    ensure_writable(results_dir() / _FOLDER, needed_bytes=2**20)
    pair.load_split()
    made = {}
    for done, name in enumerate(wanted):
        report(progress, f"figures: {name}", done, len(wanted))
        made[name] = _measure(SCORES.get(name)(), pair, progress)
    report(progress, "figures", len(wanted), len(wanted))
    return _collect(pair, made)


@dataclass(frozen=True)
class _Group:
    """One group's table, and its second one where it has one."""

    scores: StoredTable
    detail: StoredTable | None


def _collect(
    pair: ScoredPair, made: dict[str, _Group], columns: Collection[str] | None = None
) -> Scores:
    """What is there of the groups asked for: made just now, or stored; all columns or those named."""
    found: dict[str, _Group] = {}
    keys = []
    for name in pair.config.groups:
        group = SCORES.get(name)()
        keys.append(_group_key(group, pair))
        one = (
            made.get(name)
            or _measured_elsewhere(group, pair, columns)
            or _find(group, keys[-1], columns)
        )
        if one is not None:
            found[name] = one
    tables = [one.scores.table for one in found.values()]
    return Scores(
        key=_joint_key(keys),
        config=pair.config,
        table=joined(tables) if columns is None else values(tables),
        metadata={name: one.scores.metadata for name, one in found.items()},
        details={name: one.detail.table for name, one in found.items() if one.detail is not None},
        missing=tuple(name for name in pair.config.groups if name not in found),
    )


def _measured_elsewhere(
    group: ScoreGroup, pair: ScoredPair, columns: Collection[str] | None
) -> _Group | None:
    """Figures from where the set out of distribution is, which shipped ones are; None if it is here."""
    if pair.outside is None or pair.outside.is_available():
        return None
    pair.as_if_outside_were_here = True
    try:
        return _find(group, _group_key(group, pair), columns)
    except DataError:
        # A set without a known fingerprint: nobody knows what it would hold.
        return None
    finally:
        pair.as_if_outside_were_here = False


def _find(group: ScoreGroup, key: str, columns: Collection[str] | None) -> _Group | None:
    scores = find_table(_FOLDER, key, columns)
    detail = find_table(_FOLDER, _detail_key(key)) if group.detail_columns else None
    if scores is None or (group.detail_columns and detail is None):
        return None
    return _Group(scores, detail)


def _detail_key(key: str) -> str:
    return f"{key}-detail"


def _measure(group: ScoreGroup, pair: ScoredPair, progress: ProgressCallback | None) -> _Group:
    """Measure one group and store it."""
    started = time.perf_counter()
    try:
        measured = group.measure(pair, progress)
    except UnsupportedModelError as error:
        reason = missing(str(error))
        measured = GroupScores({figure.name: reason for figure in group.figures})
    key, resolved = _group_key(group, pair), pair.resolved
    known = provenance(key, pair.config, started)
    metadata = {
        **known,
        "versions": {**known["versions"], **{name: version(name) for name in _PACKAGES}},
        "group": group.name,
        "version": group.version,
        "teacher_hash": resolved.teacher_card.model_hash,
        "student_hash": resolved.student_card.model_hash,
        "data_hash": pair.data_set.fingerprint(pair.config.split),
        "inputs": group.inputs(pair),
        "analysis": resolved.key() if group.needs_ball else None,
        "device": str(pair.device),
        **(measured.facts or {}),
    }
    folder = results_dir() / _FOLDER
    detail = None
    if group.detail_columns:
        made = measured.detail
        # As it will be read back, so that a first answer and a stored one do not differ.
        table = empty(group.detail_columns) if made is None else conform(made, group.detail_columns)
        detail = StoredTable(table, {**metadata, "key": _detail_key(key)})
        # The figures come last: where they are, their second table is.
        path = folder / f"{_detail_key(key)}.parquet"
        write_table(path, detail.table, detail.metadata, group.detail_columns)
    table = conform(rows(group, pair, measured, key), SCORE_COLUMNS)
    write_table(folder / f"{key}.parquet", table, metadata, SCORE_COLUMNS)
    return _Group(StoredTable(table, metadata), detail)
