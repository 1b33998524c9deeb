"""What charts of a leaderboard need beyond its figures: order, the best, the teacher's, pooled bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fkd.core.errors import ConfigError
from fkd.core.registry import unknown_name_sentence
from fkd.evaluation.leaderboard_summary import figures_of
from fkd.evaluation.leaderboard_text import figure_text
from fkd.evaluation.scores import Figure, all_figures

#: The teacher's figure that a student's is held against, where its name is another.
_TEACHERS = {"clean_accuracy": "teacher_accuracy"}


def ranked(table: pd.DataFrame, figure: str) -> pd.DataFrame:
    """The rows of a `leaderboard` or a `spread`, best first in one figure; those without it come last.

    Where neither end is better, the smallest comes first.

    Raises:
        ConfigError: it is no figure of the table.
    """
    known = _known(table, figure)
    return table.sort_values(
        figure,
        ascending=known.better != "higher",
        na_position="last",
        kind="stable",
        ignore_index=True,
    )


def is_copy(table: pd.DataFrame) -> pd.Series:
    """Which rows of a `leaderboard` or a `spread` are copies: the teacher's own weights, altered.

    They win most figures without having been distilled, so that marks of the best are for the others.

    Returns:
        bool, one entry a row.
    """
    # Imported here: lists of figures need no methods of training.
    from fkd.distillation import COPIES

    return table["method"].isin(list(COPIES))


def is_best(table: pd.DataFrame, figure: str, *, among: pd.Series | None = None) -> pd.Series:
    """Which rows are the best in one figure: all that are written as the best one is.

    Args:
        table: a `leaderboard` or a `spread`.
        figure: of it.
        among: bool, one entry a row: which rows are compared, so that no other is the best; all if None.

    Returns:
        bool, one entry a row; all False where neither end is better, or all values are equal as written.

    Raises:
        ConfigError: it is no figure of the table.
    """
    known, values = _known(table, figure), table[figure]
    if among is not None:
        values = values.where(among)
    texts = pd.Series([figure_text(known, value) for value in values], index=table.index)
    there = texts[values.notna()]
    if known.better == "neither" or there.nunique() < 2:
        return pd.Series(False, index=table.index)
    best = values.idxmax() if known.better == "higher" else values.idxmin()
    return values.notna() & (texts == texts[best])


def _known(table: pd.DataFrame, figure: str) -> Figure:
    known = {one.name: one for one in figures_of(table)}
    if figure not in known:
        raise ConfigError(unknown_name_sentence("figure", figure, list(known)))
    return known[figure]


def teachers_value(table: pd.DataFrame, figure: str) -> float | None:
    """What the teacher itself has where students have ``figure``; None where that is not measured.

    Args:
        table: a `leaderboard` or a `spread` of one teacher's students.
        figure: of the students.
    """
    name = _TEACHERS.get(figure, f"teacher_{figure}")
    if name not in all_figures() or name not in table:
        return None
    # The teacher is the same for all, so any row will do.
    known = table[name].dropna()
    return float(known.iloc[0]) if len(known) else None


def agreement_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Certified, open and refuted shares of each row of a `leaderboard` or a `spread`.

    Returns:
        ``agreement_certified, open_share, disagreement_found``, which add up to 1; rows as in ``table``.
    """
    certified, agreed = table["agreement_certified"], table["agreement_found"]
    return pd.DataFrame(
        {
            "agreement_certified": certified,
            # Rounding may leave less than nothing where all that agree are certified.
            "open_share": (agreed - certified).clip(lower=0.0),
            "disagreement_found": 1.0 - agreed,
        }
    )


def pooled_reliability(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Reliability tables of several students, seeds of one method say, as one.

    In each bin, the means of both networks' confidences over all their examples together.

    Args:
        tables: second tables of the group ``calibration`` (columns `RELIABILITY_COLUMNS`).

    Returns:
        The same columns; NaN confidences where a bin is empty in all; no rows for no tables.
    """
    if not tables:
        return pd.DataFrame(
            columns=["at", "bin", "left", "right", "teacher_conf", "student_conf", "count"]
        )
    together = pd.concat(tables, ignore_index=True)
    parts = ["teacher_conf", "student_conf"]
    # An empty bin's confidence is null and weighs nothing.
    sums = together.assign(
        **{name: (together[name] * together["count"]).fillna(0.0) for name in parts}
    )
    by = ["at", "bin", "left", "right"]
    pooled = sums.groupby(by, sort=False)[[*parts, "count"]].sum().reset_index()
    count = pooled["count"].to_numpy(dtype=float)
    for name in parts:
        values = pooled[name].to_numpy(dtype=float)
        pooled[name] = np.divide(values, count, out=np.full(len(count), np.nan), where=count > 0)
    return pooled
