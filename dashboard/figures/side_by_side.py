"""Two students on the same examples, one mark an example."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dashboard.figures import theme
from dashboard.figures.scatter import UNIT

ENDS = {
    "gap_certified": "certified bound",
    "gap_attack": "gap found",
    "gap_clean": "gap at the image",
}
#: Who is proved better: colour, mark, words.
_WHO = {
    "a": (theme.STUDENT, "diamond", "A proved closer to the teacher"),
    "b": ("#56B4E9", "square", "B proved closer"),
    "open": (theme.OPEN, "circle-open", "not proved"),
}


def side_by_side(
    table: pd.DataFrame, end: str, *, first: str, second: str, height: int = 430
) -> theme.Chart:
    """Student A's gap across, B's up; the example id is the point's ``customdata``.

    Args:
        table: columns of `fkd.evaluation.side_by_side`.
        end: key of `ENDS`.
        first: A's name.
        second: B's name.
        height: pixels.
    """
    title = ENDS[end]
    drawn = table.dropna(subset=[f"{end}_a", f"{end}_b"])
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    drawn = drawn.set_index("index", drop=False)
    for who, (colour, symbol, words) in _WHO.items():
        rows = drawn[drawn["better"] == who]
        if rows.empty:
            continue
        figure.add_trace(
            go.Scatter(
                x=list(rows[f"{end}_a"]),
                y=list(rows[f"{end}_b"]),
                mode="markers",
                name=f"{words} ({len(rows)})",
                marker={
                    "color": colour,
                    "symbol": symbol,
                    "size": 8,
                    "opacity": 0.85,
                    "line": {"width": 1.5 if symbol.endswith("open") else 0},
                },
                customdata=rows["index"],
                text=[_hover(row) for row in rows.itertuples()],
                hovertemplate="%{text}<extra></extra>",
                selected={"marker": {"opacity": 0.95}},
                unselected={"marker": {"opacity": 0.75}},
            )
        )
    theme.lay_out(
        figure,
        x=f"A, {first}: {title} (probability)",
        y=f"B, {second}: {title} (probability)",
        height=height,
        x_range=UNIT,
        y_range=UNIT,
    )
    missing = len(table) - len(drawn)
    left_out = f"; {missing} without a certificate are not drawn" if missing else ""
    return theme.Chart(
        figure,
        f"Scatter of {len(drawn)} images: {title} of {first} across, of {second} up{left_out}. "
        "Above the diagonal A is the nearer one.",
    )


def bracket_text(found: float, bound: float | None) -> str:
    """Both ends of a bracket: ``0.123 to 0.456``; the upper end is 1 without a certificate."""
    return f"{theme.reached(found)} to {theme.bound(bound) or '1 (no certificate)'}"


def _hover(row: object) -> str:
    return (
        f"<b>Image {row.Index}</b><br>"
        f"A {bracket_text(row.gap_attack_a, row.gap_certified_a)}<br>"
        f"B {bracket_text(row.gap_attack_b, row.gap_certified_b)}"
    )
