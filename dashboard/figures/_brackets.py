"""Brackets of mean gaps, one a row: what both the students' and the levels' charts draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from dashboard.figures import theme


class Mark(NamedTuple):
    """One kind of point: its column, legend, colour, plotly symbol and how its value is written."""

    column: str
    name: str
    colour: str
    symbol: str
    shown: Callable[[float | None], str]


def bracket_figure(
    rows: pd.DataFrame, names: Sequence[str], marks: Sequence[Mark], *, width: int, height: int
) -> go.Figure:
    """Bars from ``gap_attack_mean`` to ``gap_certified_mean``, with marks on them.

    Args:
        rows: those columns, and the marks'.
        names: of each row, top first.
        marks: the points.
        width: of the bars, pixels.
        height: of the figure, pixels.
    """
    figure = go.Figure()
    x_lines: list[float | None] = []
    y_lines: list[str | None] = []
    for name, low, high in zip(
        names, rows["gap_attack_mean"], rows["gap_certified_mean"], strict=True
    ):
        # Without a certificate nothing is excluded: the bracket reaches 1.
        x_lines += [low, 1.0 if pd.isna(high) else high, None]
        y_lines += [name, name, None]
    figure.add_trace(
        go.Scatter(
            x=x_lines,
            y=y_lines,
            mode="lines",
            line={"color": theme.BAND, "width": width},
            name="open",
            hoverinfo="skip",
        )
    )
    for mark in marks:
        figure.add_trace(
            go.Scatter(
                x=rows[mark.column],
                y=list(names),
                mode="markers",
                name=mark.name,
                marker={
                    "color": mark.colour,
                    "symbol": mark.symbol,
                    "size": 13,
                    "line": {"width": 2 if mark.symbol.endswith("open") else 0},
                },
                text=[mark.shown(gap) for gap in rows[mark.column]],
                hovertemplate=f"%{{y}}<br>mean gap, {mark.name}: %{{text}}<extra></extra>",
            )
        )
    theme.lay_out(
        figure,
        x="mean confidence gap (probability)",
        y="",
        height=height,
        x_range=(-0.02, 1.02),
    )
    # Half a row of room above and below, as bars have it, so that charts side by side line up.
    figure.update_yaxes(range=(len(names) - 0.5, -0.5), type="category")
    return figure
