"""From a table of examples to the figures and the verdict people read first."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pydantic import Field

from fkd.core.ball import in_norm
from fkd.core.config import Config
from fkd.core.errors import ConfigError
from fkd.evaluation.rounding import bound_text, reached_text


class Summary(Config):
    """Figures of one analysis; shares and gaps lie in [0, 1]."""

    count: int = Field(description="Examples analysed.")
    epsilon: float = Field(description="Radius of the ball, in the norm of the table.")
    teacher_accuracy: float = Field(description="Share the teacher classifies right, clean.")
    student_accuracy: float = Field(description="Share the student classifies right, clean.")
    agreement_clean: float = Field(description="Share with equal predictions at the clean image.")
    agreement_certified: float = Field(description="Share proved to agree on the whole ball.")
    disagreement_found: float = Field(description="Share with a witness of a disagreement.")
    open_share: float = Field(description="Share neither proved to agree nor shown to disagree.")
    gap_clean_mean: float = Field(description="Mean confidence gap at the clean image.")
    gap_attack_mean: float = Field(description="Mean of the largest gap found in the ball.")
    gap_attack_p95: float = Field(description="95th percentile of the largest gap found.")
    gap_attack_max: float = Field(description="Largest gap found on any example.")
    gap_certified_mean: float | None = Field(
        description="Mean certified bound of the gap, over examples with a certificate."
    )
    gap_certified_p95: float | None = Field(
        description="95th percentile of the certified bound, over the same examples."
    )
    gap_certified_max: float | None = Field(
        description="Largest certified bound on any example with a certificate."
    )
    bracket_mean: float | None = Field(description="Mean of certified bound minus gap found.")
    certified_missing: int = Field(description="Examples without a certificate.")
    verdict: str = Field(description="The same in one or two sentences.")


def summarise(table: pd.DataFrame) -> Summary:
    """Summarise an analysis table.

    Raises:
        ConfigError: the table has no rows.
    """
    if table.empty:
        raise ConfigError("A table without rows has no summary; analyse at least one example.")
    has_bound = table.gap_certified.notna()
    certified = table.gap_certified[has_bound]
    any_bound = bool(has_bound.any())
    agrees, disagrees = table.agrees_certified, table.disagrees
    figures = {
        "count": len(table),
        "epsilon": float(table.epsilon.iloc[0]),
        "teacher_accuracy": float((table.teacher_pred == table.label).mean()),
        "student_accuracy": float((table.student_pred == table.label).mean()),
        "agreement_clean": float((table.teacher_pred == table.student_pred).mean()),
        "agreement_certified": float(agrees.mean()),
        "disagreement_found": float(disagrees.mean()),
        "open_share": float((~agrees & ~disagrees).mean()),
        "gap_clean_mean": float(table.gap_clean.mean()),
        "gap_attack_mean": float(table.gap_attack.mean()),
        "gap_attack_p95": float(table.gap_attack.quantile(0.95)),
        "gap_attack_max": float(table.gap_attack.max()),
        "gap_certified_mean": float(certified.mean()) if any_bound else None,
        "gap_certified_p95": float(certified.quantile(0.95)) if any_bound else None,
        "gap_certified_max": float(certified.max()) if any_bound else None,
        "bracket_mean": float((certified - table.gap_attack[has_bound]).mean())
        if any_bound
        else None,
        "certified_missing": int((~has_bound).sum()),
    }
    ball = f"ε = {figures['epsilon']:g}"
    if "norm" in table:
        ball += in_norm(str(table["norm"].iloc[0]))
    verdict = _verdict(figures, ball, int(agrees.sum()), int(disagrees.sum()))
    return Summary(**figures, verdict=verdict)


def _verdict(figures: dict, ball: str, agreeing: int, disagreeing: int) -> str:
    count = figures["count"]
    undecided = count - agreeing - disagreeing
    first = (
        f"Within {ball}, teacher and student provably agree on {agreeing} of {count} "
        f"examples, demonstrably disagree on {disagreeing}, and {undecided} "
        f"{'is' if undecided == 1 else 'are'} undecided."
    )
    second = (
        "A perturbation was found that drives their confidences "
        f"{reached_text(figures['gap_attack_mean'])} apart on average "
        f"(worst example {reached_text(figures['gap_attack_max'])})"
    )
    if figures["gap_certified_mean"] is None:
        return f"{first} {second}; no certificate is available for this pair."
    missing = figures["certified_missing"]
    # Figures of the certified examples alone say nothing of the others.
    on_which = f"on the {count - missing} examples with a certificate, " if missing else ""
    return (
        f"{first} {second}; {on_which}no perturbation can exceed "
        f"{bound_text(figures['gap_certified_mean'])} on average "
        f"(worst example {bound_text(figures['gap_certified_max'])})."
    )


def certified_curve(table: pd.DataFrame, points: int = 201) -> pd.DataFrame:
    """Shares of examples whose gap stays at or below each value.

    Args:
        table: an analysis table.
        points: number of values on [0, 1].

    Returns:
        Columns ``gap``, ``share_certified`` (share with gap_certified <= gap: proved) and
        ``share_attack`` (share with gap_attack <= gap: not refuted); the truth lies between.
    """
    gap = np.linspace(0.0, 1.0, points)
    # A missing certificate proves nothing, so it counts as infinite.
    certified = np.sort(table.gap_certified.fillna(np.inf).to_numpy())
    attack = np.sort(table.gap_attack.to_numpy())
    return pd.DataFrame(
        {
            "gap": gap,
            "share_certified": np.searchsorted(certified, gap, side="right") / len(table),
            "share_attack": np.searchsorted(attack, gap, side="right") / len(table),
        }
    )


def histogram(table: pd.DataFrame, bins: int = 20) -> pd.DataFrame:
    """Counts of certified bounds and of found gaps in equal bins of [0, 1].

    Returns:
        Columns ``gap_left``, ``gap_right``, ``count_certified``, ``count_attack``; a value on an inner
        edge counts in the bin to its right.
    """
    # Not linspace, whose 0.15 is the float after 0.15.
    edges = np.arange(bins + 1) / bins
    certified, _ = np.histogram(table.gap_certified.dropna(), bins=edges)
    attack, _ = np.histogram(table.gap_attack, bins=edges)
    return pd.DataFrame(
        {
            "gap_left": edges[:-1],
            "gap_right": edges[1:],
            "count_certified": certified,
            "count_attack": attack,
        }
    )
