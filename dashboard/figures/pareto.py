"""Two figures of each student against each other: who is not beaten in both."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from dashboard import backend
from dashboard.figures import theme
from dashboard.figures.ways import Way

#: Units whose values differ by factors rather than by steps.
_LOGARITHMIC = ("s", "ms", "bytes", "examples", "number", "FLOPs")
#: What a plot of half a page has room for, in pixels: labels are placed for it.
_WIDTH, _LETTER, _LINE = 400.0, 7.4, 15.0
#: How far a label's middle may be from its mark, and in which directions, nearest and level first.
_REACHES = (13.0, 26.0, 40.0, 56.0, 74.0)
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


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
        among: which of ``methods`` are compared; the others are drawn, but neither on the front nor said
            to be beaten.  All if None.
        height: pixels.
    """
    known = backend.score_figures()
    drawn = methods.dropna(subset=[x, y])
    is_compared = pd.Series(True, index=drawn.index) if among is None else among.loc[drawn.index]
    is_front = backend.front(drawn, x, y, is_compared)
    figure = go.Figure()
    scale = "log" if _is_logarithmic(drawn, x) else "linear"
    scale_y = "log" if _is_logarithmic(drawn, y) else "linear"
    for axis, name in (("x", x), ("y", y)):
        _teacher(figure, methods, axis, name)
    if is_front.sum() > 1:
        _front(figure, drawn[is_front], x, y)
    dots = students.dropna(subset=[x, y])
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
    places = _label_places(drawn, repeated, is_front, ways, x, y, (scale, scale_y), height)
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
            figure.add_annotation(
                # Where an axis is logarithmic, plotly wants the place as a power of ten.
                x=_place(row[x], scale),
                y=_place(row[y], scale_y),
                text=way.label,
                font={"size": 12.5},
                ax=place[0],
                ay=-place[1],
                arrowhead=0,
                arrowwidth=1,
                # A label beside its mark needs no line to it.
                arrowcolor=theme.NEUTRAL if place[2] else "rgba(0, 0, 0, 0)",
                standoff=6,
                borderpad=0,
            )
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
    return theme.Chart(figure, _told(drawn, is_front, ways, known[x], known[y]))


def _is_logarithmic(rows: pd.DataFrame, name: str) -> bool:
    unit = backend.score_figures()[name].unit
    values = rows[name]
    return (
        unit in _LOGARITHMIC
        and len(values) > 0
        and values.min() > 0
        and values.max() > 10 * values.min()
    )


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


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )


def _label_places(
    rows: pd.DataFrame,
    dots: pd.DataFrame,
    is_front: pd.Series,
    ways: Mapping[str, Way],
    x: str,
    y: str,
    scales: tuple[str, str],
    height: int,
) -> list[tuple[float, float, bool] | None]:
    """Where each mark's label stands without covering a mark or another label; None where nowhere.

    The front's labels are placed first.

    Returns:
        Pixels to the right and up from the mark to the label's middle, and whether it is so far off that
        a line must join them.
    """
    everything = pd.concat([rows[[x, y]], dots[[x, y]]])
    across = _pixels(everything[x], scales[0], _WIDTH)
    up = _pixels(everything[y], scales[1], height - 90.0)
    reach = [7.0] * len(rows) + [3.0] * len(dots)
    taken = [_Box(a - r, b - r, a + r, b + r) for a, b, r in zip(across, up, reach, strict=True)]
    found: list[tuple[float, float, bool] | None] = [None] * len(rows)
    for place in sorted(range(len(rows)), key=lambda one: not is_front.iloc[one]):
        width = _LETTER * len(ways[rows["recipe"].iloc[place]].label)
        others = [*taken[:place], *taken[place + 1 :]]
        for far, right, above in _steps(width):
            middle, level = across[place] + right, up[place] + above
            box = _Box(middle - width / 2, level - _LINE / 2, middle + width / 2, level + _LINE / 2)
            is_inside = box.left > -25 and box.right < _WIDTH + 25 and 0 < level < height - 80
            if is_inside and not any(box.meets(other) for other in others):
                found[place] = (right, above, far)
                taken.append(box)
                break
    return found


def _steps(width: float) -> Iterator[tuple[bool, float, float]]:
    """Whether a place is far from the mark, and the way there, nearest first."""
    for reach, (right, above) in itertools.product(_REACHES, _DIRECTIONS):
        far = reach > _REACHES[0]
        # A label to the side begins at the reach, whatever its length.
        yield (
            far,
            right * (reach + (width / 2 if above == 0 or far else 0.3 * width)),
            above * reach,
        )


def _place(value: float, scale: str) -> float:
    return math.log10(value) if scale == "log" else float(value)


def _pixels(values: pd.Series, scale: str, length: float) -> list[float]:
    """Places on an axis of ``length`` pixels; plotly leaves about a twentieth on either side."""
    numbers = [_place(value, scale) for value in values]
    if not numbers:
        return []
    low, high = min(numbers), max(numbers)
    return [(0.05 + 0.9 * (number - low) / ((high - low) or 1.0)) * length for number in numbers]
