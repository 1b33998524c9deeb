"""From a table of agreement radii to the figures people read first, rounded to the safe side."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
import pandas as pd
from pydantic import Field

from fkd.core.config import Config
from fkd.core.errors import ConfigError

#: Decimals of a radius wherever people read one.
RADIUS_DIGITS = 4
#: What each status of a row means to people.
RADIUS_STATUSES = {
    "disagrees clean": "The predictions differ at the image itself, so the radius is 0.",
    "closed": "The nearest disagreement lies within the search's tolerance of what is proved.",
    "whole": "Proved up to the largest radius looked at.",
    "open": "The true radius lies somewhere between the two ends.",
    "unsupported": "These networks cannot be bounded, so nothing is proved.",
    "not tried": "Only the nearest disagreement was searched; nothing was tried to be proved.",
}


class RadiusSummary(Config):
    """Figures of one search for agreement radii; radii in the unit of the table."""

    count: int = Field(description="Examples searched.")
    radius_certified_median: float = Field(
        description=(
            "At least half of the examples provably keep one prediction up to this radius (lower "
            "median; 0 for an example on which the two differ already)."
        )
    )
    radius_attack_median: float | None = Field(
        description=(
            "On at least half of the examples a disagreement was found this near or nearer (upper "
            "median); none where fewer than half have one."
        )
    )
    known_share: float = Field(
        description=(
            "Share whose radius is known: the two ends meet within the tolerance (at 0 where "
            "predictions differ at the image), or it is proved up to the largest radius looked at."
        )
    )
    open_width_median: float | None = Field(
        description="Median distance between the two ends, over examples that have both."
    )
    disagrees_clean: int = Field(
        description="Examples on which the two differ at the image itself."
    )
    not_found: int = Field(description="Examples without a disagreement found.")
    unsupported: int = Field(description="Examples whose networks cannot be bounded.")


def radius_summary(table: pd.DataFrame) -> RadiusSummary:
    """Summarise a table of radii (columns: `fkd.evaluation.RADIUS_COLUMNS`).

    Medians are values of the table: of two in the middle, the lower of what is proved and the upper of
    what was found, so that each statement holds as it is written.

    Raises:
        ConfigError: the table has no rows.
    """
    if table.empty:
        raise ConfigError("A table without rows has no summary; search at least one example.")
    proved = table.radius_certified.to_numpy(dtype=float)
    # A disagreement that was not found may lie anywhere beyond.
    found = table.radius_attack.fillna(np.inf).to_numpy(dtype=float)
    nearest = float(np.quantile(found, 0.5, method="higher"))
    has_both = np.isfinite(found)
    widths = (found - proved)[has_both]
    status = table.status
    return RadiusSummary(
        count=len(table),
        radius_certified_median=float(np.quantile(proved, 0.5, method="lower")),
        radius_attack_median=nearest if np.isfinite(nearest) else None,
        known_share=float(status.isin(["disagrees clean", "closed", "whole"]).mean()),
        open_width_median=float(np.quantile(widths, 0.5, method="higher")) if len(widths) else None,
        disagrees_clean=int(table.disagrees_clean.sum()),
        not_found=int((~has_both).sum()),
        unsupported=int((status == "unsupported").sum()),
    )


def proved_radius_text(radius: float) -> str:
    """A radius that is proved, rounded down: ``0.09629`` is ``0.0962``."""
    return _rounded(radius, ROUND_FLOOR)


def found_radius_text(radius: float) -> str:
    """The distance of a disagreement found, or another upper end, rounded up."""
    return _rounded(radius, ROUND_CEILING)


def _rounded(value: float, direction: str) -> str:
    # Twelve digits first: a float just beside a decimal (0.3 as 0.29999999999999999) means it.
    exact = Decimal(f"{value:.12f}")
    return str(exact.quantize(Decimal(1).scaleb(-RADIUS_DIGITS), rounding=direction))
