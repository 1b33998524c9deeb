"""What every chart shares: the colours of the roles, the axes, the toolbar.

The palette is Okabe and Ito's, so roles stay apart for the colour-blind; each is doubled by a mark or
a dash.  Text, grid and background are left to Streamlit, which adapts them to the light and the dark
theme; neutral marks use a grey that stands out on both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from dashboard import backend

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

TEACHER = "#0072B2"
STUDENT = "#D55E00"
ATTACK = "#CC79A7"
CERTIFICATE = "#009E73"
OPEN = "#8b95a1"
SELECTED = "#E69F00"
NEUTRAL = "#8b95a1"
#: The band between attack and certificate: where the truth lies, unknown more closely.
BAND = "rgba(139, 149, 161, 0.22)"
#: Over what lies outside: grey enough on white and on black.
VEIL = "rgba(100, 110, 122, 0.55)"
#: Marks and words on a coloured map, which has the same colours in the light and the dark theme.
INK = "#1b2430"
#: Signed values, from the student's colour below 0 to the teacher's above.
DIVERGING = ((0.0, STUDENT), (0.25, "#eaa878"), (0.5, "#f7f7f7"), (0.75, "#7fb5d9"), (1.0, TEACHER))

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


def diverging(largest: float, title: str) -> dict[str, Any]:
    """A heat map's colours from -largest to largest, white at 0, with their scale above the plot."""
    ends = {"zmin": -largest, "zmid": 0.0, "zmax": largest}
    return {"colorscale": DIVERGING, **ends, "colorbar": _scale_above(title)}


def sequential(largest: float, title: str) -> dict[str, Any]:
    """A heat map's colours from 0 to ``largest``, a share, with their scale above the plot."""
    scale = {**_scale_above(title), **percent_axis()}
    return {"colorscale": "Cividis", "zmin": 0.0, "zmax": largest, "colorbar": scale}


def _scale_above(title: str) -> dict[str, Any]:
    return {
        "orientation": "h",
        "x": 0.5,
        "y": 1.0,
        "yanchor": "bottom",
        "ypad": 6,
        "len": 1.0,
        "thickness": 10,
        "outlinewidth": 0,
        "nticks": 5,
        "title": {"text": title, "side": "top"},
    }


def percent(share: float) -> str:
    """A share in [0, 1] as people read it: ``0.985`` is ``98.5 %``; never rounded up to all or none."""
    value = 100.0 * share
    if 0.0 < value < 0.1:
        return f"<{_NO_BREAK}0.1{_NO_BREAK}%"
    if 99.9 < value < 100.0:
        return f">{_NO_BREAK}99.9{_NO_BREAK}%"
    number = f"{value:.1f}"
    return f"{number.removesuffix('.0')}{_NO_BREAK}%"


def seconds(value: float | None) -> str:
    """Seconds of a measurement, three digits: ``0.0123 s``; empty where they are unknown."""
    return "" if _is_missing(value) else f"{value:.3g}{_NO_BREAK}s"


def reached(gap: float | None) -> str:
    """A gap found, rounded down; empty where there is none."""
    return "" if _is_missing(gap) else backend.reached_text(gap)


def bound(gap: float | None) -> str:
    """An upper bound of a gap, rounded up; empty where there is none."""
    return "" if _is_missing(gap) else backend.bound_text(gap)


def at_least(gap: float) -> str:
    """A gap found, as what the truth is at least."""
    return f"≥{_NO_BREAK}{reached(gap)}"


def at_most(gap: float) -> str:
    """An upper bound, as what the truth is at most."""
    return f"≤{_NO_BREAK}{bound(gap)}"


def rounded(gap: float, text: Callable[[float], str]) -> float:
    """A gap as the number that ``text`` (`reached` or `bound`) shows; NaN where there is none."""
    return float(text(gap) or "nan")


def signed(gap: float) -> str:
    """A gap found with its sign, rounded towards 0: what was reached is never overstated."""
    size = reached(abs(gap))
    return f"\u2212{size}" if gap < 0 and float(size) > 0 else size


def _is_missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def ball(epsilon: float, norm: str = "linf") -> str:
    """``ε = 0.1``, in L2 ``ε = 0.5 (L2)``, never broken across lines."""
    return unbroken(f"ε = {epsilon:g}") + (f"{_NO_BREAK}(L2)" if norm == "l2" else "")


def ball_in_pixels(epsilon: float, norm: str = "linf") -> str:
    """A radius with its size on the 0 to 255 scale: ``ε = 0.1 (25.5/255)``; in L2 without."""
    return ball(epsilon, norm) + ("" if norm == "l2" else f" ({255.0 * epsilon:.3g}/255)")


def unbroken(text: str) -> str:
    """The text with every ``ε = …`` held together."""
    return text.replace("ε = ", f"ε{_NO_BREAK}={_NO_BREAK}")


def styled(table: pd.DataFrame, texts: Mapping[str, Callable[[Any], str] | None]) -> Styler:
    """A table whose columns are written by ``texts`` and still sort as the numbers they are.

    Args:
        table: a few dozen rows, a style is slow.
        texts: column to the text of one of its values; needed for every column of
            fractions, which are else written with six digits.
    """
    written = {name: text for name, text in texts.items() if text is not None}
    return table.style.format(written, na_rep="")


def figure_title(figure: backend.Figure) -> str:
    """Title of an axis: a figure of students with its unit and the end that is better."""
    unit = {"share": "share of examples", "number": "", "probability, signed": "probability"}.get(
        figure.unit, figure.unit
    )
    arrow = {"higher": "higher is better", "lower": "lower is better"}.get(figure.better, "")
    said = "; ".join(part for part in (unit, arrow) if part)
    return f"{figure.title} ({said})" if said else figure.title


def percent_axis() -> dict[str, Any]:
    """Ticks of an axis of shares, written as `percent` writes them."""
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)
    return {"tickvals": ticks, "ticktext": [percent(tick) for tick in ticks]}
