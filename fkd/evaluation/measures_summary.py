"""From a table of measures to a few figures of each, and to which network stays right."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pydantic import Field

from fkd.core.config import Config
from fkd.core.errors import ConfigError
from fkd.evaluation.robustness_summary import Share, wilson_share

#: The two events that `who_stays_right` brings together: the teacher right and the student wrong, and
#: the other way round.
_TEACHER, _STUDENT = "teacher_right", "student_right"


class Spread(Config):
    """How one value is spread over the examples, in the measure's unit."""

    mean: float = Field(description="Mean over the images.")
    median: float = Field(description="Median over the images.")
    p95: float = Field(description="95th percentile: on one image in twenty it is larger.")
    largest: float = Field(description="Largest value on any image.")


class MeasureSummary(Config):
    """Figures of one measure."""

    measure: str = Field(description="Name of the measure.")
    unit: str = Field(description="Unit of its values: probability, nats or logits.")
    count: int = Field(description="Examples measured.")
    clean: Spread = Field(description="Values at the clean images.")
    attack: Spread = Field(description="Largest values found in the balls.")
    hits_clean: int | None = Field(
        description="Examples at whose image itself the event is; none for other measures."
    )
    hits: int | None = Field(
        description="Examples in whose ball the event was found; none for other measures."
    )
    found: Share | None = Field(description="Their share of the examples; none for other measures.")


class WhoStaysRight(Config):
    """Shares of examples by which network was found to be right where the other is wrong."""

    count: int = Field(description="Examples measured.")
    both: Share = Field(
        description="Both: at one point the teacher alone is right, at another the student."
    )
    teacher: Share = Field(
        description="Only points were found at which the teacher is right and the student wrong."
    )
    student: Share = Field(
        description="Only points were found at which the student is right and the teacher wrong."
    )
    neither: Share = Field(
        description="No point was found at which one is right and the other wrong."
    )


def measures_summary(table: pd.DataFrame) -> tuple[MeasureSummary, ...]:
    """Summarise a table of measures (columns: `fkd.evaluation.MEASURES_COLUMNS`), in its order.

    Raises:
        ConfigError: the table has no rows.
    """
    if table.empty:
        raise ConfigError("A table without rows has no summary; measure at least one example.")
    return tuple(_summary(name, rows) for name, rows in table.groupby("measure", sort=False))


def who_stays_right(table: pd.DataFrame) -> WhoStaysRight | None:
    """Which network was found right where the other is wrong; None where either was not asked for.

    Args:
        table: of measures (columns: `fkd.evaluation.MEASURES_COLUMNS`).
    """
    found = {
        name: table.loc[table["measure"] == name].set_index("index")["found"].astype(bool)
        for name in (_TEACHER, _STUDENT)
    }
    teacher, student = found.values()
    if teacher.empty or student.empty:
        return None
    counts = {
        "both": teacher & student,
        "teacher": teacher & ~student,
        "student": student & ~teacher,
        "neither": ~teacher & ~student,
    }
    shares = {name: wilson_share(int(hits.sum()), len(hits)) for name, hits in counts.items()}
    return WhoStaysRight(count=len(teacher), **shares)


def measure_curve(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Shares of examples whose value of one measure is at least so large, for every value.

    Args:
        table: of measures (columns: `fkd.evaluation.MEASURES_COLUMNS`).
        measure: one of its measures.

    Returns:
        Columns ``value`` (0, every value there is, and for probabilities 1; rising), ``share_clean`` and
        ``share_attack``.  Between two values both shares are those of the larger one.
    """
    rows = table[table["measure"] == measure]
    columns = {name: np.sort(rows[f"value_{name}"]) for name in ("clean", "attack")}
    ends = [0.0, 1.0] if (rows["unit"] == "probability").all() else [0.0]
    value = np.unique(np.concatenate([*columns.values(), ends]))
    shares = {
        f"share_{name}": 1.0 - np.searchsorted(values, value, side="left") / len(rows)
        for name, values in columns.items()
    }
    return pd.DataFrame({"value": value, **shares})


def _summary(name: str, rows: pd.DataFrame) -> MeasureSummary:
    event: dict[str, object] = {"hits_clean": None, "hits": None, "found": None}
    if rows["found"].notna().all():
        hits = int(rows["found"].sum())
        at_image = int((rows["value_clean"] > 0).sum())
        event = {
            "hits_clean": at_image,
            "hits": hits,
            "found": wilson_share(hits, len(rows)),
        }
    return MeasureSummary(
        measure=name,
        unit=rows["unit"].iloc[0],
        count=len(rows),
        clean=_spread(rows["value_clean"]),
        attack=_spread(rows["value_attack"]),
        **event,
    )


def _spread(values: pd.Series) -> Spread:
    return Spread(
        mean=float(values.mean()),
        median=float(values.median()),
        p95=float(values.quantile(0.95)),
        largest=float(values.max()),
    )
