"""What every chart shares: the colours of the roles, the axes, the toolbar.

The palette is Okabe and Ito's, so roles stay apart for the colour-blind; each is doubled by a mark or
a dash.  Text, grid and background are left to Streamlit, which adapts them to the light and the dark
theme; neutral marks use a grey that stands out on both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

import plotly.graph_objects as go

TEACHER = "#0072B2"
STUDENT = "#D55E00"
ATTACK = "#CC79A7"
CERTIFICATE = "#009E73"
OPEN = "#8b95a1"
SELECTED = "#E69F00"
NEUTRAL = "#8b95a1"
#: The band between attack and certificate: where the truth lies, unknown more closely.
BAND = "rgba(139, 149, 161, 0.22)"

#: Further lines of a chart that has no roles, loss parts say.
SEQUENCE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8b95a1")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")

#: State of an example: colour, marker, short name.
STATES: dict[str, tuple[str, str, str]] = {
    "refuted": (ATTACK, "x", "Disagreement"),
    "open": (OPEN, "diamond-open", "Open"),
    "certified": (CERTIFICATE, "circle", "Certified"),
}

HEIGHT = 360
_NO_BREAK = "\u00a0"


@dataclass(frozen=True)
class Chart:
    """A figure with the sentence that screen readers get."""

    figure: go.Figure
    alt: str


def toolbar(name: str) -> dict[str, Any]:
    """Plotly's toolbar: save as SVG, no logo, nothing that does not help."""
    return {
        "displaylogo": False,
        "modeBarButtonsToRemove": ["autoScale2d", "zoomIn2d", "zoomOut2d"],
        "toImageButtonOptions": {"format": "svg", "filename": name},
    }


def lay_out(
    figure: go.Figure,
    *,
    x: str,
    y: str,
    height: int = HEIGHT,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    legend: bool = True,
    **more: Any,
) -> go.Figure:
    """Titles with units, ranges, and a legend above the plot.

    Args:
        figure: changed in place and returned.
        x: title of the x axis with its unit.
        y: title of the y axis with its unit.
        height: pixels.
        x_range: limits of x; automatic if absent.
        y_range: limits of y; automatic if absent.
        legend: whether there is one.
        more: further settings for plotly's ``update_layout``.
    """
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 22, "t": 34 if legend else 12, "b": 8},
        showlegend=legend,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "title": None,
            "traceorder": "normal",
        },
        hovermode="closest",
        **more,
    )
    figure.update_xaxes(title={"text": x, "standoff": 12}, range=x_range, automargin=True)
    figure.update_yaxes(title={"text": y, "standoff": 16}, range=y_range, automargin=True)
    return figure


def bar(colour: str, pattern: str = "", size: int = 5, solidity: float = 0.3) -> dict[str, Any]:
    """A bar's marker: filled, or filled and hatched so that it also differs without colour."""
    marker: dict[str, Any] = {"color": colour, "line": {"width": 0}}
    if pattern:
        marker["pattern"] = {
            "shape": pattern,
            "bgcolor": colour,
            "fgcolor": "rgba(255, 255, 255, 0.55)",
            "size": size,
            "solidity": solidity,
        }
    return marker


def percent(share: float) -> str:
    """A share in [0, 1] as people read it: ``0.985`` is ``98.5 %``; never rounded up to all or none."""
    value = 100.0 * share
    if 0.0 < value < 0.1:
        return f"<{_NO_BREAK}0.1{_NO_BREAK}%"
    if 99.9 < value < 100.0:
        return f">{_NO_BREAK}99.9{_NO_BREAK}%"
    number = f"{value:.1f}"
    return f"{number.removesuffix('.0')}{_NO_BREAK}%"


def at_least(value: float) -> str:
    """A lower bound to three decimals, rounded down so that it stays one."""
    return f"≥{_NO_BREAK}{_rounded(value, ROUND_FLOOR)}"


def at_most(value: float) -> str:
    """An upper bound to three decimals, rounded up so that it stays one."""
    return f"≤{_NO_BREAK}{_rounded(value, ROUND_CEILING)}"


def rounded_up(value: float) -> float:
    """An upper bound as a number of three decimals, for tables; NaN where there is none."""
    return value if math.isnan(value) else float(_rounded(value, ROUND_CEILING))


def _rounded(value: float, direction: str) -> Decimal:
    # Twelve digits first: a float just beside a decimal (0.3 as 0.30000000000000004) means it.
    return Decimal(f"{value:.12f}").quantize(Decimal("0.001"), rounding=direction)


def pixels(epsilon: float) -> str:
    """A radius with its size on the 0 to 255 scale: ``0.1 (25.5/255)``."""
    return f"{epsilon:g} ({255.0 * epsilon:.3g}/255)"
