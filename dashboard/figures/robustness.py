"""How often each network alone stays right: shares with their intervals, side by side."""

from __future__ import annotations

import textwrap

import pandas as pd
import plotly.graph_objects as go

from dashboard.figures import theme

_NETWORKS = (
    ("teacher", "Teacher", theme.TEACHER, ""),
    ("student", "Student", theme.STUDENT, "/"),
)

#: Letters in a line below the bars.
_TICK = 11


def share_with_interval(share: float, low: float, high: float) -> str:
    """A share with the two ends of its 95 % interval in brackets, one unit for both."""
    least = theme.percent(low).removesuffix("\u00a0%")
    return f"{theme.percent(share)} ({least}\u2013{theme.percent(high)})"


def robustness(shares: pd.DataFrame, *, count: int, height: int = 300) -> theme.Chart:
    """Grouped bars with intervals, the teacher's plain and the student's hatched.

    Args:
        shares: columns ``network`` (teacher or student), ``at`` (where it was right), ``share, low,
            high`` in [0, 1]; one network may be missing.
        count: images measured.
        height: pixels.
    """
    figure = go.Figure()
    told = []
    for network, name, colour, pattern in _NETWORKS:
        rows = shares[shares["network"] == network]
        if rows.empty:
            continue
        texts = [
            share_with_interval(row.share, row.low, row.high)
            for row in rows.itertuples(index=False)
        ]
        figure.add_trace(
            go.Bar(
                x=rows["at"],
                y=rows["share"],
                name=name,
                # Pale, so that the interval stands out on the bar as it does above it.
                marker={**theme.bar(colour, pattern), "opacity": 0.45},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": rows["high"] - rows["share"],
                    "arrayminus": rows["share"] - rows["low"],
                    "color": colour,
                    "thickness": 2,
                    "width": 5,
                },
                customdata=texts,
                hovertemplate=f"{name}, %{{x}}: %{{customdata}}<extra></extra>",
            )
        )
        parts = ", ".join(f"{at} {text}" for at, text in zip(rows["at"], texts, strict=True))
        told.append(f"{name}: {parts}")
    theme.lay_out(
        figure,
        x="",
        y=f"share right (n = {count})",
        height=height,
        y_range=(0, 1.03),
        barmode="group",
        bargap=0.3,
        bargroupgap=0.06,
    )
    figure.update_yaxes(**theme.percent_axis())
    # In short lines, so that they stay level where there is little room.
    places = list(shares["at"].unique())
    lines = ["<br>".join(textwrap.wrap(at, _TICK)) for at in places]
    figure.update_xaxes(tickvals=places, ticktext=lines, tickangle=0)
    return theme.Chart(
        figure,
        "Share of images that each network alone classifies right, with 95 % intervals. "
        f"{'; '.join(told)}.",
    )
