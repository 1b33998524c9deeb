"""Several students of one teacher: each one's mean gap, from below and from above."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dashboard.figures import theme


def brackets(rows: pd.DataFrame, *, height: int | None = None) -> theme.Chart:
    """One bracket per student, from the attack's mean gap to the certificate's.

    Args:
        rows: columns ``student, gap_clean_mean, gap_attack_mean, gap_certified_mean``.
        height: pixels; by the number of rows if absent.
    """
    names = [str(name) for name in rows["student"]]
    figure = go.Figure()
    x_lines: list[float | None] = []
    y_lines: list[str | None] = []
    for name, low, high in zip(
        names, rows["gap_attack_mean"], rows["gap_certified_mean"], strict=True
    ):
        x_lines += [low, 1.0 if pd.isna(high) else high, None]
        y_lines += [name, name, None]
    figure.add_trace(
        go.Scatter(
            x=x_lines,
            y=y_lines,
            mode="lines",
            line={"color": theme.BAND, "width": 10},
            name="open",
            hoverinfo="skip",
        )
    )
    for column, name, colour, mark, shown in (
        ("gap_clean_mean", "clean", theme.NEUTRAL, "line-ns-open", theme.reached),
        ("gap_attack_mean", "attack", theme.ATTACK, "circle", theme.reached),
        ("gap_certified_mean", "certified", theme.CERTIFICATE, "triangle-left", theme.bound),
    ):
        figure.add_trace(
            go.Scatter(
                x=rows[column],
                y=names,
                mode="markers",
                name=name,
                marker={
                    "color": colour,
                    "symbol": mark,
                    "size": 13,
                    "line": {"width": 2 if mark.endswith("open") else 0},
                },
                text=[shown(gap) for gap in rows[column]],
                hovertemplate=f"%{{y}}<br>mean gap, {name}: %{{text}}<extra></extra>",
            )
        )
    theme.lay_out(
        figure,
        x="mean confidence gap (probability)",
        y="",
        height=height or 120 + 44 * len(names),
        x_range=(-0.02, 1.02),
    )
    # Half a row of room above and below, as bars have it, so that charts side by side line up.
    figure.update_yaxes(range=(len(names) - 0.5, -0.5), type="category")
    told = "; ".join(
        f"{row.student} {theme.reached(row.gap_attack_mean)} to "
        f"{theme.bound(row.gap_certified_mean) or '1 (no certificate)'}"
        for row in rows.itertuples()
    )
    return theme.Chart(figure, f"Mean confidence gap, attack to certificate. {told}.")
