"""Every example's bracket: from what an attack reached to what a certificate allows."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dashboard.figures import theme
from dashboard.figures._open_band import open_band


def bracket(frame: pd.DataFrame, *, primary: int | None = None, height: int = 330) -> theme.Chart:
    """Examples side by side, ordered by the gap found; the truth lies on each grey line.

    Args:
        frame: analysis table.
        primary: example id to mark.
        height: pixels.
    """
    ordered = frame.sort_values(["gap_attack", "gap_certified"], ascending=False)
    ordered = ordered.reset_index(drop=True)
    rank = list(range(1, len(ordered) + 1))
    bounded = ordered["gap_certified"].notna()

    # Without a certificate nothing is excluded: the bracket reaches 1.
    ends = ordered["gap_certified"].fillna(1.0)
    figure = go.Figure()
    figure.add_trace(open_band(rank, ordered["gap_attack"], ends, width=3))
    figure.add_trace(
        go.Scatter(
            x=[r for r, known in zip(rank, bounded, strict=True) if known],
            y=ordered.loc[bounded, "gap_certified"],
            mode="markers",
            name="certified: never more",
            marker={"color": theme.CERTIFICATE, "symbol": "triangle-down", "size": 6},
            customdata=ordered.loc[bounded, "index"],
            text=[theme.at_most(gap) for gap in ordered.loc[bounded, "gap_certified"]],
            hovertemplate="Image %{customdata}: certified %{text}<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=rank,
            y=ordered["gap_attack"],
            mode="markers",
            name="attack: reached",
            marker={"color": theme.ATTACK, "symbol": "circle", "size": 6},
            customdata=ordered["index"],
            text=[theme.reached(gap) for gap in ordered["gap_attack"]],
            hovertemplate="Image %{customdata}: attack reached %{text}<extra></extra>",
        )
    )
    chosen = ordered.index[ordered["index"] == primary]
    if len(chosen):
        figure.add_trace(
            go.Scatter(
                x=[int(chosen[0]) + 1],
                y=[ordered.loc[chosen[0], "gap_attack"]],
                mode="markers",
                name=f"image {primary}",
                marker={
                    "color": theme.SELECTED,
                    "symbol": "circle-open",
                    "size": 16,
                    "line": {"width": 3},
                },
                hoverinfo="skip",
                showlegend=False,
            )
        )
    theme.lay_out(
        figure,
        x=f"images, largest gap found first (n = {len(ordered)})",
        y="confidence gap (probability)",
        height=height,
        x_range=(0, len(ordered) + 1),
        y_range=(-0.03, 1.03),
    )
    return theme.Chart(
        figure,
        f"For each of {len(ordered)} images, the confidence gap an attack reached and the certified "
        "upper bound, joined by a line on which the true worst case lies.",
    )
