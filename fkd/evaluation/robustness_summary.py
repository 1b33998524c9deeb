"""From a table of standard robustness to shares with their intervals."""

from __future__ import annotations

import math

import pandas as pd
from pydantic import Field

from fkd.core.config import Config
from fkd.core.errors import ConfigError

#: Normal quantile of a two-sided interval of 95 %.
_QUANTILE = 1.959963984540054


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
