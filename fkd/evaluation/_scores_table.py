"""The table of a student's figures: its columns, and a group's figures as rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from fkd.evaluation.scored_pair import ScoredPair
from fkd.evaluation.scores import GroupScores, ScoreGroup
from fkd.records import PAIR_COLUMNS, Column, arrow_schema, conform

_DICTIONARY = pa.dictionary(pa.int32(), pa.string())

SCORE_COLUMNS: tuple[Column, ...] = (
    Column("group", pa.string(), "name", "Group of the figure."),
    Column("figure", pa.string(), "name", "What is measured, by its name."),
    Column(
        "value",
        pa.float64(),
        "see unit",
        "Value of the figure; null where it could not be had.",
        nullable=True,
    ),
    Column(
        "lower", pa.float64(), "see unit", "Lower end; null where there is none.", nullable=True
    ),
    Column(
        "upper", pa.float64(), "see unit", "Upper end; null where there is none.", nullable=True
    ),
    Column(
        "interval", pa.string(), "text", "What the two ends are; null without them.", nullable=True
    ),
    Column("unit", pa.string(), "name", "Unit of the value and its ends."),
    Column(
        "better",
        pa.string(),
        "name",
        "Whether a higher or a lower value is better; neither where the figure only informs.",
    ),
    Column(
        "count",
        pa.int64(),
        "examples",
        "Examples that the value is from; null where it is from none.",
        nullable=True,
    ),
    Column(
        "reason",
        pa.string(),
        "text",
        "Why the value is missing, or what it leaves out; null where all is there.",
        nullable=True,
    ),
    Column("dataset", _DICTIONARY, "name", "Data set."),
    *PAIR_COLUMNS,
    Column(
        "epsilon",
        pa.float64(),
        "pixel",
        "Radius of the ball; null for figures that have none.",
        nullable=True,
    ),
    Column(
        "norm",
        _DICTIONARY,
        "name",
        "Norm of the ball, with the scale of each channel after a slash; null for figures that have "
        "none.",
        nullable=True,
    ),
    Column("seed", pa.int64(), "number", "Seed of everything random."),
    Column("key", _DICTIONARY, "hash", "Key of the group's table: hash of all that determines it."),
)

#: What a leaderboard reads.
VALUE_COLUMNS = ("figure", "value")


def empty(columns: tuple[Column, ...]) -> pd.DataFrame:
    """A table of these columns without rows."""
    return arrow_schema(columns).empty_table().to_pandas()


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of several groups as one."""
    if not tables:
        return empty(SCORE_COLUMNS)
    return conform(pd.concat(tables, ignore_index=True), SCORE_COLUMNS)


def values(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of several groups as one, of the columns `VALUE_COLUMNS` alone."""
    parts = [table[list(VALUE_COLUMNS)] for table in tables]
    return pd.concat(parts, ignore_index=True) if parts else empty(SCORE_COLUMNS)[[*VALUE_COLUMNS]]


def rows(group: ScoreGroup, pair: ScoredPair, measured: GroupScores, key: str) -> pd.DataFrame:
    """One group's figures as rows of a table that is stored under ``key``."""
    config, resolved = pair.config, pair.resolved
    scores = [measured.scores[figure.name] for figure in group.figures]
    table = pd.DataFrame(
        {
            "group": group.name,
            "figure": [figure.name for figure in group.figures],
            **{
                end: np.array([getattr(score, end) for score in scores], dtype=float)
                for end in ("value", "lower", "upper")
            },
            "interval": [
                None if score.lower is None else figure.interval
                for figure, score in zip(group.figures, scores, strict=True)
            ],
            "unit": [figure.unit for figure in group.figures],
            "better": [figure.better for figure in group.figures],
            "count": pd.array([score.count for score in scores], "Int64"),
            "reason": [score.reason for score in scores],
            "seed": config.seed,
            "epsilon": config.epsilon if group.needs_ball else np.nan,
        }
    )
    names = {
        "dataset": config.dataset,
        "split": config.split,
        "teacher": resolved.teacher_card.name,
        "student": resolved.student_card.name,
        "teacher_hash": resolved.teacher_card.model_hash,
        "student_hash": resolved.student_card.model_hash,
        "data_hash": pair.data_set.fingerprint(config.split),
        "norm": config.ball.norm_text if group.needs_ball else None,
        "key": key,
    }
    for name, value in names.items():
        table[name] = pd.Categorical([value] * len(table))
    return table
