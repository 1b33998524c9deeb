"""What each level proves, and the bracket of one image as a search closes it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from dashboard.figures import theme
from dashboard.figures._brackets import Mark, bracket_figure


def level_brackets(
    rows: pd.DataFrame, labels: Sequence[str], *, height: int | None = None
) -> theme.Chart:
    """One bracket per level, from the mean gap reached to the mean gap certified.

    Args:
        rows: columns ``gap_attack_mean, gap_certified_mean``.
        labels: name of each row, top first.
        height: pixels; by the number of rows if absent.
    """
    names = [str(label) for label in labels]
    figure = bracket_figure(
        rows,
        names,
        [
            Mark("gap_attack_mean", "reached", theme.ATTACK, "circle", theme.reached),
            Mark(
                "gap_certified_mean", "certified", theme.CERTIFICATE, "triangle-left", theme.bound
            ),
        ],
        width=12,
        height=height or 110 + 40 * len(names),
    )
    told = "; ".join(
        f"{name} {theme.reached(low)} to {theme.bound(high) or '1 (no certificate)'}"
        for name, low, high in zip(
            names, rows["gap_attack_mean"], rows["gap_certified_mean"], strict=True
        )
    )
    return theme.Chart(figure, f"Mean bracket by level of the bounds. {told}.")


def closing(history: pd.DataFrame, *, example: int, height: int = 240) -> theme.Chart:
    """The bracket of one image's largest gap as a search narrows it.

    Args:
        history: columns ``seconds, lower, upper``, oldest first; ends hold until the next report.
        example: example id.
        height: pixels.
    """
    figure = go.Figure()
    few = len(history) < 40
    for column, name, colour, dash, shown, fill in (
        ("upper", "certified: never more", theme.CERTIFICATE, "dash", theme.at_most, None),
        ("lower", "reached", theme.ATTACK, "solid", theme.at_least, "tonexty"),
    ):
        figure.add_trace(
            go.Scatter(
                x=history["seconds"],
                y=history[column],
                mode="lines+markers" if few else "lines",
                name=name,
                line={"color": colour, "width": 2, "dash": dash, "shape": "hv"},
                marker={"size": 5},
                fill=fill,
                fillcolor=theme.BAND,
                text=[shown(gap) for gap in history[column]],
                hovertemplate="after %{x:.1f} s: %{text}<extra></extra>",
            )
        )
    theme.lay_out(
        figure,
        x="seconds spent on this image",
        y="largest confidence gap",
        height=height,
        # Keeps the reader's zoom while new points arrive, until the next image.
        uirevision=f"example {example}",
    )
    # Room for the marks at 0 and 1, and none beyond.
    figure.update_yaxes(minallowed=-0.04, maxallowed=1.04)
    figure.update_xaxes(minallowed=0.0)
    last = history.iloc[-1]
    return theme.Chart(
        figure,
        f"The bracket of image {example} over time: after {last['seconds']:.1f} seconds its largest gap "
        f"is {theme.at_least(last['lower'])} and {theme.at_most(last['upper'])}.",
    )
