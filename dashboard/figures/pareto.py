"""Two figures of each student against each other: who is not beaten in both."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from dashboard import backend
from dashboard.figures import theme
from dashboard.figures._labels import label_places, place_on
from dashboard.figures.ways import Way

#: Units whose values differ by factors rather than by steps.
_LOGARITHMIC = ("s", "ms", "bytes", "examples", "number", "FLOPs")
#: Copies are left out of view where they would stretch an axis beyond so many times what is compared.
_STRETCH = 3.0


def pareto(
    methods: pd.DataFrame,
    students: pd.DataFrame,
    ways: Mapping[str, Way],
    x: str,
    y: str,
    *,
    among: pd.Series | None = None,
    height: int = 400,
) -> theme.Chart:
    """One mark a way at its mean over seeds, its seeds as dots, and the front through those not beaten.

    The teacher's own value, where it is measured, is a dashed line in its colour.

    Args:
        methods: columns ``recipe``, both figures, and perhaps ``FIGURE_std``; one row a way.
        students: columns ``recipe, student`` and both figures; one row a seed.
        ways: by recipe.
        x: a figure.
        y: another.
        among: which of ``methods`` are compared; the others are drawn, but for those `out_of_view`, and
            neither on the front nor said to be beaten.  All if None.
        height: pixels.
    """
    known = backend.score_figures()
    drawn = methods.dropna(subset=[x, y])
    drawn = drawn[~drawn["recipe"].isin(out_of_view(methods, x, y, among))]
    is_compared = pd.Series(True, index=drawn.index) if among is None else among.loc[drawn.index]
    is_front = backend.front(drawn, x, y, is_compared)
    figure = go.Figure()
    scale = "log" if _is_logarithmic(drawn, x) else "linear"
    scale_y = "log" if _is_logarithmic(drawn, y) else "linear"
    for axis, name in (("x", x), ("y", y)):
        _teacher(figure, methods, axis, name)
    if is_front.sum() > 1:
        _front(figure, drawn[is_front], x, y)
    dots = students[students["recipe"].isin(drawn["recipe"])].dropna(subset=[x, y])
    # A seed alone is its own mean.
    repeated = dots[dots["recipe"].map(dots["recipe"].value_counts()) > 1]
    figure.add_trace(
        go.Scatter(
            x=repeated[x],
            y=repeated[y],
            mode="markers",
            name="single seeds",
            marker={
                "color": [ways[recipe].colour for recipe in repeated["recipe"]],
                "size": 6,
                "opacity": 0.55,
            },
            text=list(repeated["student"]),
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    )
    places = label_places(drawn, repeated, is_front, ways, x, y, (scale, scale_y), height)
    notes = []
    for (index, row), on_front, place in zip(drawn.iterrows(), is_front, places, strict=True):
        way = ways[row["recipe"]]
        rank = "not beaten in both" if on_front else "beaten in both"
        verdict = rank if is_compared[index] else "a copy of the teacher, not compared"
        figure.add_trace(
            go.Scatter(
                x=[row[x]],
                y=[row[y]],
                mode="markers",
                name=way.label,
                marker={
                    "color": way.colour,
                    "symbol": way.symbol,
                    "size": 14 if on_front else 11,
                    "line": {"width": 2 if on_front else 0, "color": theme.NEUTRAL},
                },
                hovertext=[_hover(row, way, known[x], known[y], verdict)],
                hovertemplate="%{hovertext}<extra></extra>",
                showlegend=False,
            )
        )
        if place is not None:
            notes.append(
                {
                    # Where an axis is logarithmic, plotly wants the place as a power of ten.
                    "x": place_on(row[x], scale),
                    "y": place_on(row[y], scale_y),
                    "text": way.label,
                    "font": {"size": 12.5},
                    "ax": place[0],
                    "ay": -place[1],
                    "arrowhead": 0,
                    "arrowwidth": 1,
                    # A label beside its mark needs no line to it.
                    "arrowcolor": theme.NEUTRAL if place[2] else "rgba(0, 0, 0, 0)",
                    "standoff": 6,
                    "borderpad": 0,
                }
            )
    # All at once: plotly checks every one again whenever one is added.
    figure.update_layout(annotations=[*figure.layout.annotations, *notes])
    theme.lay_out(
        figure,
        x=theme.figure_title(known[x]),
        y=theme.figure_title(known[y]),
        height=height,
        legend=False,
    )
    for update, name, kind in (
        (figure.update_xaxes, x, scale),
        (figure.update_yaxes, y, scale_y),
    ):
        # Without it plotly writes the digits 2 and 5 between powers of ten.
        ticks = {"dtick": 1} if kind == "log" else {}
        update(type=kind, **ticks, tickformat=".2~%" if known[name].unit == "share" else None)
        if drawn[name].nunique() == 1:
            update(range=_around(float(drawn[name].iloc[0])))
    return theme.Chart(figure, _told(drawn, is_front, ways, known[x], known[y]))


def out_of_view(
    methods: pd.DataFrame, x: str, y: str, among: pd.Series | None = None
) -> tuple[str, ...]:
    """Recipes that `pareto` leaves out: of those not compared, which would squeeze all the others.

    A copy has a gap near 0, and the methods that are to be told apart would lie on one line.

    Args:
        methods: as `pareto` has it.
        x: a figure.
        y: another.
        among: which of ``methods`` are compared; all if None.
    """
    known = methods.dropna(subset=[x, y])
    if among is None or not among.loc[known.index].any():
        return ()
    compared, others = known[among.loc[known.index]], known[~among.loc[known.index]]
    found = pd.Series(False, index=others.index)
    for name in (x, y):
        low, high = compared[name].min(), compared[name].max()
        # Where all that is compared is one point, there is nothing to squeeze.
        spare = (_STRETCH - 1.0) * (high - low) if high > low else math.inf
        found |= (others[name] < low - spare) | (others[name] > high + spare)
    return tuple(others.loc[found, "recipe"])


def _is_logarithmic(rows: pd.DataFrame, name: str) -> bool:
    unit = backend.score_figures()[name].unit
    values = rows[name]
    return (
        unit in _LOGARITHMIC
        and len(values) > 0
        and values.min() > 0
        and values.max() > 10 * values.min()
    )


def _around(value: float) -> tuple[float, float]:
    """An axis for one value: plotly's own goes from 1 less to 1 more, whatever the unit."""
    spare = 0.1 * abs(value) or 1.0
    return value - spare, value + spare


def _teacher(figure: go.Figure, rows: pd.DataFrame, axis: str, name: str) -> None:
    value = backend.teachers_value(rows, name)
    if value is None:
        return
    line = {"color": theme.TEACHER, "width": 1.5, "dash": "dash"}
    note = {
        "annotation_text": "teacher",
    }
    if axis == "x":
        figure.add_vline(x=value, line=line, annotation_position="top left", **note)
    else:
        figure.add_hline(y=value, line=line, annotation_position="bottom right", **note)


def _front(figure: go.Figure, rows: pd.DataFrame, x: str, y: str) -> None:
    """A line that joins those that are not beaten."""
    ordered = rows.sort_values(x)
    figure.add_trace(
        go.Scatter(
            x=ordered[x],
            y=ordered[y],
            mode="lines",
            line={"color": theme.NEUTRAL, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        )
    )


def _hover(row: pd.Series, way: Way, x: backend.Figure, y: backend.Figure, verdict: str) -> str:
    texts = [
        f"{one.title} {backend.figure_text(one, row[one.name], row.get(f'{one.name}_std'))}"
        for one in (x, y)
    ]
    seeds = len(way.students)
    said = f"<b>{way.label}</b><br>{way.students[0]}" + (
        f" and {seeds - 1} more seeds" if seeds > 1 else ""
    )
    return "<br>".join([said, *texts, verdict])


def _told(
    rows: pd.DataFrame,
    is_front: pd.Series,
    ways: Mapping[str, Way],
    x: backend.Figure,
    y: backend.Figure,
) -> str:
    told = "; ".join(
        f"{ways[row['recipe']].label} {backend.figure_text(x, row[x.name])}, "
        f"{backend.figure_text(y, row[y.name])}{', on the front' if on_front else ''}"
        for (_, row), on_front in zip(rows.iterrows(), is_front, strict=True)
    )
    return f"{x.title} against {y.title}, one mark a method: {told}."
