"""One example's gap against the radius: attack from below, certificate from above."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dashboard.figures import theme

_MEANINGS = {"linf": "largest pixel change", "l2": "length of the change, L2"}


def curve(
    frame: pd.DataFrame,
    *,
    epsilon: float | None = None,
    norm: str = "linf",
    index: int,
    height: int = 270,
) -> theme.Chart:
    """A band that holds the true worst-case gap at each radius.

    Args:
        frame: columns ``epsilon, gap_attack, gap_certified``.
        epsilon: the radius chosen in the sidebar, marked by a line.
        norm: of the balls.
        index: example id, for the description.
        height: pixels.
    """
    ordered = frame.sort_values("epsilon")
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=ordered["epsilon"],
            y=ordered["gap_certified"],
            mode="lines+markers",
            name="certified",
            line={"color": theme.CERTIFICATE, "width": 2, "dash": "dash"},
            marker={"symbol": "triangle-down", "size": 8},
            text=[theme.at_most(gap) for gap in ordered["gap_certified"]],
            hovertemplate="ε = %{x:g}: certified %{text}<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=ordered["epsilon"],
            y=ordered["gap_attack"],
            mode="lines+markers",
            name="attack",
            line={"color": theme.ATTACK, "width": 2},
            marker={"symbol": "circle", "size": 7},
            fill="tonexty",
            fillcolor=theme.BAND,
            text=[theme.reached(gap) for gap in ordered["gap_attack"]],
            hovertemplate="ε = %{x:g}: attack reached %{text}<extra></extra>",
        )
    )
    if epsilon is not None:
        figure.add_vline(x=epsilon, line={"color": theme.SELECTED, "width": 2, "dash": "dot"})
    theme.lay_out(
        figure,
        x=f"ε ({_MEANINGS[norm]}, images in [0, 1])",
        y="confidence gap (probability)",
        height=height,
        y_range=(-0.03, 1.03),
    )
    return theme.Chart(
        figure,
        f"Confidence gap of image {index} against epsilon: the attack's lower end and the "
        "certificate's upper end, with the unknown between them shaded.",
    )
