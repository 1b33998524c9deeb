"""From a table of transfers to one cell for each source and target, and what each target gains."""

from __future__ import annotations

import pandas as pd
from pydantic import Field

from fkd.core.config import Config
from fkd.core.errors import ConfigError
from fkd.evaluation.robustness_summary import Share, wilson_share

#: By less than this no witness beats another: two routes to the same float64 figure differ by as much.
_SAME = 1e-9


class TransferCell(Config):
    """One student's witnesses on one student, itself included; gaps are probabilities in [0, 1]."""

    source: str = Field(description="Student against which the witnesses were found.")
    target: str = Field(description="Student on which they are tried.")
    count: int = Field(description="Examples.")
    witnesses: int = Field(description="Examples for which the source has a disagreement witness.")
    carried: Share | None = Field(
        description=(
            "Share of the source's disagreement witnesses at which the target differs from the teacher "
            "too; none where the source has no witness."
        )
    )
    gap_mean: float = Field(description="Mean gap of the target at the source's gap witnesses.")
    gap_own_mean: float = Field(description="Mean gap of the target at its own witnesses.")
    gap_clean_mean: float = Field(description="Mean gap of the target at the clean images.")
    gap_ratio: float | None = Field(
        description=(
            "Mean gap at the source's witnesses over that at the target's own; none where that is 0."
        )
    )
    beats: Share = Field(
        description="Share of examples on which the source's witness shows the target's larger gap."
    )


class TransferGain(Config):
    """What one target gains from all others' witnesses: its lower ends, raised for nothing."""

    target: str = Field(description="Student on which all witnesses are tried.")
    count: int = Field(description="Examples.")
    gap_clean_mean: float = Field(description="Mean gap at the clean images.")
    gap_own_mean: float = Field(description="Mean gap at its own witnesses.")
    gap_best_mean: float = Field(
        description="Mean of the largest gap at its own or any other student's witness."
    )
    improved: Share = Field(
        description="Share of examples on which another student's witness beats its own."
    )
    raised_max: float = Field(
        description="Most by which another student's witness beats its own, on any example."
    )
    disagreements_own: int = Field(
        description="Examples with a disagreement found by the attack on it."
    )
    disagreements_new: int = Field(
        description="Further examples on which another student's witness makes it differ."
    )


class TransferSummary(Config):
    """Figures of one table of transfers.

    Attributes:
        cells: one for each source and target, in the table's order, sources first.
        gains: one for each target.
    """

    cells: tuple[TransferCell, ...] = Field(description="One for each source and target.")
    gains: tuple[TransferGain, ...] = Field(description="One for each target.")


def transfer_summary(table: pd.DataFrame) -> TransferSummary:
    """Summarise a table of transfers (columns: `fkd.evaluation.TRANSFER_COLUMNS`).

    Raises:
        ConfigError: the table has no rows.
    """
    if table.empty:
        raise ConfigError("A table without rows has no summary; measure at least one example.")
    cells = table.groupby(["source", "target"], sort=False)
    targets = table.groupby("target", sort=False)
    return TransferSummary(
        cells=tuple(_cell(*names, rows) for names, rows in cells),
        gains=tuple(_gain(name, rows) for name, rows in targets),
    )


def _cell(source: str, target: str, rows: pd.DataFrame) -> TransferCell:
    known = rows.disagrees.dropna()
    own = float(rows.gap_own.mean())
    gap = float(rows.gap.mean())
    return TransferCell(
        source=source,
        target=target,
        count=len(rows),
        witnesses=len(known),
        carried=wilson_share(int(known.sum()), len(known)) if len(known) else None,
        gap_mean=gap,
        gap_own_mean=own,
        gap_clean_mean=float(rows.gap_clean.mean()),
        gap_ratio=gap / own if own > _SAME else None,
        beats=wilson_share(int((rows.gap > rows.gap_own + _SAME).sum()), len(rows)),
    )


def _gain(target: str, rows: pd.DataFrame) -> TransferGain:
    by_example = rows.groupby("index")
    best, own = by_example.gap.max(), by_example.gap_own.first()
    differs = rows.disagrees.astype("boolean").fillna(False).astype(bool)
    found = set(rows["index"][differs & (rows.source == target)])
    return TransferGain(
        target=target,
        count=len(own),
        gap_clean_mean=float(by_example.gap_clean.first().mean()),
        gap_own_mean=float(own.mean()),
        gap_best_mean=float(best.mean()),
        improved=wilson_share(int((best > own + _SAME).sum()), len(own)),
        raised_max=max(0.0, float((best - own).max())),
        disagreements_own=len(found),
        disagreements_new=len(set(rows["index"][differs]) - found),
    )
