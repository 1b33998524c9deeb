"""How far students that differ by seed alone are apart in one figure."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from dashboard import backend
from dashboard.figures import theme
from dashboard.figures.ways import Way

#: Between which values those of a unit lie.
_POSSIBLE = {"share": (0.0, 1.0), "probability": (0.0, 1.0), "area": (0.0, 1.0)}


def seeds(
    methods: pd.DataFrame, students: pd.DataFrame, ways: Mapping[str, Way], name: str
) -> theme.Chart:
    """One row a way: a dot for each seed, the mean, and a standard deviation to either side.

    Whiskers end where the figure does: at 0 and 1 of a share.

    Args:
        methods: columns ``recipe``, the figure and ``FIGURE_std``; rows in the order to draw, top first.
        students: columns ``recipe, student`` and the figure.
        ways: by recipe.
        name: of the figure.
    """
    known = backend.score_figures()[name]
    drawn = methods.dropna(subset=[name])
    labels = [ways[recipe].label for recipe in drawn["recipe"]]
    colours = [ways[recipe].colour for recipe in drawn["recipe"]]
    texts = [
        backend.figure_text(known, value, deviation)
        for value, deviation in zip(drawn[name], drawn[f"{name}_std"], strict=True)
    ]
    deviations = drawn[f"{name}_std"].fillna(0.0)
    # No seed can be beyond what is possible, though the mean and a deviation may.
    least, most = _POSSIBLE.get(known.unit, (-math.inf, math.inf))
    figure = go.Figure()
    value = backend.teachers_value(students, name)
    if value is not None:
        figure.add_vline(
            x=value,
            line={"color": theme.TEACHER, "width": 1.5, "dash": "dash"},
            annotation_text="teacher",
        )
    figure.add_trace(
        go.Scatter(
            x=drawn[name],
            y=labels,
            mode="markers",
            name="mean ± standard deviation",
            marker={"symbol": "line-ns-open", "size": 18, "color": theme.NEUTRAL},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": deviations.clip(upper=(most - drawn[name]).clip(lower=0.0)),
                "arrayminus": deviations.clip(upper=(drawn[name] - least).clip(lower=0.0)),
                "color": theme.NEUTRAL,
                "thickness": 2,
                "width": 5,
            },
            text=texts,
            hovertemplate="%{y}<br>mean %{text}<extra></extra>",
        )
    )
    by_recipe = dict(zip(drawn["recipe"], zip(labels, colours, strict=True), strict=True))
    dots = students[students["recipe"].isin(by_recipe)].dropna(subset=[name])
    figure.add_trace(
        go.Scatter(
            x=dots[name],
            y=[by_recipe[recipe][0] for recipe in dots["recipe"]],
            mode="markers",
            name="one seed each",
            marker={
                "color": [by_recipe[recipe][1] for recipe in dots["recipe"]],
                "symbol": [ways[recipe].symbol for recipe in dots["recipe"]],
                "size": 9,
                "opacity": 0.85,
            },
            text=[
                f"{row['student']}<br>{backend.figure_text(known, row[name])}"
                for _, row in dots.iterrows()
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    theme.lay_out(
        figure,
        # Two lines: beside the names a phone has no room for it in one.
        x=theme.figure_title(known).replace(" (", "<br>(", 1),
        y="",
        height=130 + 34 * max(1, len(drawn)),
    )
    if known.unit == "share":
        figure.update_xaxes(tickformat=".2~%")
    figure.update_yaxes(range=(len(labels) - 0.5, -0.5), type="category")
    told = "; ".join(f"{label} {text}" for label, text in zip(labels, texts, strict=True))
    return theme.Chart(figure, f"{known.title}, seeds and their mean, by method: {told}.")
