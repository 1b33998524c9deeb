"""Several students of one teacher: each one's mean gap, from below and from above."""

from __future__ import annotations

import pandas as pd

from dashboard.figures import theme
from dashboard.figures._brackets import Mark, bracket_figure


def brackets(rows: pd.DataFrame, *, height: int | None = None) -> theme.Chart:
    """One bracket per student, from the attack's mean gap to the certificate's.

    Args:
        rows: columns ``student, gap_clean_mean, gap_attack_mean, gap_certified_mean``.
        height: pixels; by the number of rows if absent.
    """
    names = [str(name) for name in rows["student"]]
    figure = bracket_figure(
        rows,
        names,
        [
            Mark("gap_clean_mean", "clean", theme.NEUTRAL, "line-ns-open", theme.reached),
            Mark("gap_attack_mean", "attack", theme.ATTACK, "circle", theme.reached),
            Mark(
                "gap_certified_mean", "certified", theme.CERTIFICATE, "triangle-left", theme.bound
            ),
        ],
        width=10,
        height=height or 120 + 44 * len(names),
    )
    told = "; ".join(
        f"{row.student} {theme.reached(row.gap_attack_mean)} to "
        f"{theme.bound(row.gap_certified_mean) or '1 (no certificate)'}"
        for row in rows.itertuples()
    )
    return theme.Chart(figure, f"Mean confidence gap, attack to certificate. {told}.")
