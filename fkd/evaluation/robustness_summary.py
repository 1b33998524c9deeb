"""From tables of standard robustness to shares with their intervals, and to what both networks do."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from pydantic import Field

from fkd.core.config import Config
from fkd.core.errors import ConfigError
from fkd.evaluation.robustness import RobustnessConfig

#: Normal quantile of a two-sided interval of 95 %.
_QUANTILE = 1.959963984540054
#: Which networks broke, and what is known of the pair: rows and columns of `cross_robustness`.
_BROKE = ("neither", "teacher", "student", "both")
_STATES = ("certified", "open", "refuted")


class Share(Config):
    """A share of examples, in [0, 1], with its 95 % interval.

    The interval says what the whole population's share may be, of which the examples are a sample.
    """

    value: float = Field(description="Share of the examples measured.")
    low: float = Field(description="Lower end of the 95 % Wilson interval.")
    high: float = Field(description="Upper end of the 95 % Wilson interval.")


class RobustnessSummary(Config):
    """Figures of one measurement of standard robustness."""

    count: int = Field(description="Examples measured.")
    clean: Share = Field(description="Share classified correctly at the image itself.")
    pgd: Share = Field(description="Share that PGD left right.")
    autoattack: Share = Field(description="Share that AutoAttack left right.")
    robust: Share = Field(description="Share that both left right: the worst case of the two.")


def measurement_names(config: RobustnessConfig) -> dict[str, str]:
    """What each share of a `RobustnessSummary` is right at, in words."""
    return {
        "clean": "the image itself",
        "pgd": f"PGD-{config.steps}-{config.restarts}",
        "autoattack": "AutoAttack",
        "robust": "both (worst case)",
    }


def wilson_share(hits: int, count: int) -> Share:
    """``hits`` of ``count`` with the score interval of Wilson (1927); count is at least 1.

    ``(p + q^2 / 2n +- q sqrt(p (1 - p) / n + q^2 / 4n^2)) / (1 + q^2 / n)`` with q = 1.96.

    Example:
        >>> share = wilson_share(87, 100)
        >>> share.value, round(share.low, 3), round(share.high, 3)
        (0.87, 0.79, 0.922)
    """
    value, square = hits / count, _QUANTILE**2
    middle = value + square / (2 * count)
    half = _QUANTILE * math.sqrt(value * (1 - value) / count + square / (4 * count**2))
    scale = 1 + square / count
    # At 0 and 1 the ends are exact; rounding could put them beyond.
    low = 0.0 if hits == 0 else (middle - half) / scale
    high = 1.0 if hits == count else (middle + half) / scale
    return Share(value=value, low=low, high=high)


def robustness_summary(table: pd.DataFrame) -> RobustnessSummary:
    """Summarise a table of standard robustness (columns: `fkd.evaluation.ROBUSTNESS_COLUMNS`).

    Raises:
        ConfigError: the table has no rows.
    """
    if table.empty:
        raise ConfigError("A table without rows has no summary; measure at least one example.")

    def share(column: pd.Series) -> Share:
        return wilson_share(int(column.sum()), len(table))

    return RobustnessSummary(
        count=len(table),
        clean=share(table.predicted == table.label),
        pgd=share(table.robust_pgd),
        autoattack=share(table.robust_autoattack),
        robust=share(table.robust),
    )


def cross_robustness(
    teacher: pd.DataFrame, student: pd.DataFrame, analysis: pd.DataFrame
) -> pd.DataFrame:
    """Which network alone breaks, beside whether the two were found to disagree, example by example.

    A network breaks where a wrong prediction was found, at the image or in its ball.  Where one alone
    breaks, the other either breaks at that very point too, unseen by the attacks on it, or the two
    disagree there; so *certified* beside *one alone* says that the other breaks as well.

    Args:
        teacher: of standard robustness (columns: `fkd.evaluation.ROBUSTNESS_COLUMNS`).
        student: the same examples in the same ball.
        analysis: of the pair in the same ball, at least those examples (`fkd.records.ANALYSIS_COLUMNS`).

    Returns:
        Four rows, ``broke`` is neither, teacher (alone), student (alone) or both; numbers of examples in
        the columns ``certified``, ``open``, ``refuted`` and ``total``.

    Raises:
        ConfigError: the tables are not of the same examples.
    """
    ids = teacher["index"].tolist()
    if ids != student["index"].tolist() or not set(ids) <= set(analysis["index"]):
        raise ConfigError(
            "The two networks and the pair were measured on different examples; measure all three on "
            "the same first ones."
        )
    pair = analysis.set_index("index").loc[ids]
    fell, followed = (~table["robust"].to_numpy(dtype=bool) for table in (teacher, student))
    broke = np.select([fell & followed, fell, followed], ["both", "teacher", "student"], "neither")
    state = np.select(
        [pair["disagrees"], pair["agrees_certified"]], ["refuted", "certified"], "open"
    )
    counts = pd.DataFrame({"broke": broke, "state": state}).value_counts().unstack(fill_value=0)
    counts = counts.reindex(index=list(_BROKE), columns=list(_STATES), fill_value=0)
    return counts.assign(total=counts.sum(axis=1)).reset_index().rename_axis(columns=None)
