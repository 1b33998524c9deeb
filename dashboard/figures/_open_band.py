"""The grey lines between what was reached and what is proved, one a rank."""

from __future__ import annotations

from collections.abc import Iterable

import plotly.graph_objects as go

from dashboard.figures import theme


def open_band(
    ranks: Iterable[int], lows: Iterable[float], highs: Iterable[float], *, width: int
) -> go.Scatter:
    """An upright line of ``width`` pixels at each rank, from low to high; the truth lies on it."""
    x_lines: list[float | None] = []
    y_lines: list[float | None] = []
    for rank, low, high in zip(ranks, lows, highs, strict=True):
        x_lines += [rank, rank, None]
        y_lines += [low, high, None]
    return go.Scatter(
        x=x_lines,
        y=y_lines,
        mode="lines",
        line={"color": theme.BAND, "width": width},
        hoverinfo="skip",
        name="open: truth lies here",
    )
