"""How certified bounds are spread over the examples, one small histogram a method, all on one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.figures import theme

#: So many panels stand in a row, and so many pixels high each is.
_COLUMNS, _HEIGHT = 3, 150
#: A name of so many letters is written smaller.
_LONG = 14


@dataclass(frozen=True)
class Panel:
    """One histogram.

    Attributes:
        label: above it.
        bins: columns ``gap_left, gap_right, count_certified, count_attack``; the same bins in all panels.
        mean: of the certified bounds; None where no example has one.
        count: examples, those without a certificate too.
    """

    label: str
    bins: pd.DataFrame
    mean: float | None
    count: int


def multiples(panels: Sequence[Panel]) -> theme.Chart:
    """Shares of examples by certified bound, filled, and by gap found, as an outline.

    All panels have the same axes, so that heights and places can be compared; a line marks the bounds'
    mean.

    Args:
        panels: in the order to draw, row after row; at least one.
    """
    rows = math.ceil(len(panels) / _COLUMNS)
    figure = make_subplots(
        rows=rows,
        cols=min(_COLUMNS, len(panels)),
        shared_xaxes="all",
        shared_yaxes="all",
        subplot_titles=[_panel_title(panel) for panel in panels],
        horizontal_spacing=0.03,
        vertical_spacing=min(0.3, 62 / (rows * _HEIGHT)),
    )
    for place, panel in enumerate(panels):
        at = {"row": place // _COLUMNS + 1, "col": place % _COLUMNS + 1}
        is_first = place == 0
        for trace in _traces(panel, is_first):
            figure.add_trace(trace, **at)
    # All at once: plotly checks every one again whenever one is added.
    figure.update_layout(
        shapes=[
            _mean_line(panel.mean, place)
            for place, panel in enumerate(panels)
            if panel.mean is not None
        ]
    )
    theme.lay_out(figure, x="", y="", height=110 + rows * (_HEIGHT + 30), bargap=0.0)
    figure.update_layout(
        margin={"l": 8, "r": 8, "t": 78, "b": 40}, legend={"y": 1.0, "yref": "container"}
    )
    figure.update_layout(legend={"yanchor": "top"})
    figure.update_xaxes(range=(0.0, 1.0), tickvals=[0, 0.5, 1])
    # The lines of the means would stretch an automatic range.
    most = max(
        share
        for panel in panels
        for name in ("count_certified", "count_attack")
        for share in panel.bins[name] / panel.count
    )
    figure.update_yaxes(tickformat=".0%", range=(0.0, 1.08 * most), nticks=4)
    # On a phone a panel is a hundred pixels wide, and a long name would run into the next one.
    longest = max(len(panel.label) for panel in panels)
    figure.update_annotations(font_size=13 if longest < _LONG else 10.5)
    # One title for all, below the middle one of the last full row: three would run into each other.
    middle = (min(_COLUMNS, len(panels)) + 1) // 2
    last = rows if (rows - 1) * _COLUMNS + middle <= len(panels) else rows - 1
    figure.update_xaxes(title={"text": "confidence gap (probability)"}, row=last, col=middle)
    figure.update_yaxes(title={"text": "images"}, col=1)
    told = "; ".join(
        f"{panel.label} mean {theme.bound(panel.mean) or 'unknown, no certificate'}"
        for panel in panels
    )
    return theme.Chart(
        figure, f"Histograms of certified bounds, one a method, on the same axes: {told}."
    )


def _mean_line(mean: float, place: int) -> dict[str, object]:
    """A line across the panel of that place, as high as it is."""
    axis = "" if place == 0 else str(place + 1)
    return {
        "type": "line",
        "x0": mean,
        "x1": mean,
        "y0": 0,
        "y1": 1,
        "xref": f"x{axis}",
        "yref": f"y{axis} domain",
        "line": {"color": theme.CERTIFICATE, "width": 2, "dash": "dash"},
    }


def _panel_title(panel: Panel) -> str:
    mean = "no certificate" if panel.mean is None else f"mean {theme.at_most(panel.mean)}"
    # Two lines: on a phone a panel is a hundred pixels wide.
    return f"<b>{panel.label}</b><br>{mean}"


def _traces(panel: Panel, is_first: bool) -> list[go.Bar | go.Scatter]:
    bins = panel.bins
    centre = (bins["gap_left"] + bins["gap_right"]) / 2
    width = bins["gap_right"] - bins["gap_left"]
    span = [
        f"{left:.2f} to {right:.2f}"
        for left, right in zip(bins["gap_left"], bins["gap_right"], strict=True)
    ]
    certified, found = bins["count_certified"], bins["count_attack"]
    said = [
        f"<b>{panel.label}</b>, gap {where}<br>certified bound: {a} of {panel.count}<br>"
        f"gap found: {b} of {panel.count}"
        for where, a, b in zip(span, certified, found, strict=True)
    ]
    # Steps begin and end on the axis, so that the outline is closed.
    edges = [bins["gap_left"].iloc[0], *bins["gap_left"], bins["gap_right"].iloc[-1]]
    outline = [0, *found, found.iloc[-1]]
    return [
        go.Bar(
            x=centre,
            y=[value / panel.count for value in certified],
            width=width,
            name="certified bound",
            marker={"color": theme.CERTIFICATE, "opacity": 0.75, "line": {"width": 0}},
            text=said,
            textposition="none",
            hovertemplate="%{text}<extra></extra>",
            legendgroup="certified",
            showlegend=is_first,
        ),
        go.Scatter(
            x=edges,
            y=[value / panel.count for value in outline],
            mode="lines",
            name="gap found",
            line={"color": theme.ATTACK, "width": 1.8, "shape": "hv"},
            hoverinfo="skip",
            legendgroup="found",
            showlegend=is_first,
        ),
    ]
