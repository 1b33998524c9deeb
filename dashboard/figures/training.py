"""A run as it goes: loss parts and accuracies by step or epoch."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from dashboard.figures import theme


def lines(
    history: pd.DataFrame,
    columns: Sequence[str],
    *,
    x: str,
    x_title: str,
    y_title: str,
    x_range: tuple[float, float] | None = None,
    share: bool = False,
    height: int = 240,
) -> theme.Chart:
    """One line per column, missing values left out.

    Args:
        history: one row per report.
        columns: which to draw.
        x: column of the x axis.
        x_title: its title.
        y_title: title of the y axis.
        x_range: limits of the x axis; automatic if absent.
        share: whether values are shares in [0, 1].
        height: pixels.
    """
    figure = go.Figure()
    for position, column in enumerate(columns):
        rows = history[[x, column]].dropna()
        style = position % len(theme.SEQUENCE)
        figure.add_trace(
            go.Scatter(
                x=rows[x],
                y=rows[column],
                mode="lines+markers" if len(rows) < 40 else "lines",
                name=column.replace("_", " "),
                line={"color": theme.SEQUENCE[style], "dash": theme.DASHES[style], "width": 2},
                marker={"size": 5},
                hovertemplate=f"{column}: %{{y:.4g}}<extra>{x_title} %{{x:g}}</extra>",
            )
        )
    theme.lay_out(
        figure,
        x=x_title,
        y=y_title,
        height=height,
        x_range=x_range,
        y_range=(-0.02, 1.02) if share else None,
        # Keeps the reader's zoom while new points arrive.
        uirevision="live",
    )
    return theme.Chart(figure, f"{y_title} by {x_title}: {', '.join(columns)}.")
