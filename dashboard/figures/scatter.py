"""Examples as points: attack against certificate, and the two other ways to look at a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dashboard.figures import theme

#: Room around [0, 1], so that marks on the edge are whole.
UNIT = (-0.03, 1.03)


@dataclass(frozen=True)
class Pairing:
    """What the two axes of a scatter show."""

    name: str
    x: str
    x_title: str
    y: str
    y_title: str
    diagonal: str


PAIRINGS: dict[str, Pairing] = {
    "bracket": Pairing(
        "Attack and certificate",
        "gap_attack",
        "gap an attack reached (probability)",
        "gap_certified",
        "certified upper bound (probability)",
        "attack = certificate: exactly known",
    ),
    "clean": Pairing(
        "Clean and attacked",
        "gap_clean",
        "gap at the clean image (probability)",
        "gap_attack",
        "gap an attack reached (probability)",
        "the attack gained nothing",
    ),
    "confidence": Pairing(
        "Teacher and student",
        "teacher_conf_attack",
        "teacher's confidence at the witness (probability)",
        "student_conf_attack",
        "student's confidence at the witness (probability)",
        "equally confident",
    ),
}


def examples(
    frame: pd.DataFrame,
    pairing: str = "bracket",
    *,
    primary: int | None = None,
    classes: Sequence[str] = (),
    height: int = 400,
) -> theme.Chart:
    """One mark per example; its example id is the point's ``customdata``.

    Args:
        frame: analysis table with the column ``state`` (refuted, open, certified).
        pairing: key of `PAIRINGS`.
        primary: example id drawn with a ring.
        classes: names of the classes, for the hover text.
        height: pixels.
    """
    pair = PAIRINGS[pairing]
    drawn = frame.dropna(subset=[pair.x, pair.y])
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"},
            name=pair.diagonal,
            hoverinfo="skip",
            showlegend=False,
        )
    )
    for state, (colour, mark, name) in theme.STATES.items():
        rows = drawn[drawn["state"] == state]
        if rows.empty:
            continue
        figure.add_trace(
            go.Scatter(
                x=rows[pair.x],
                y=rows[pair.y],
                mode="markers",
                name=f"{name} ({len(rows)})",
                marker={
                    "color": colour,
                    "symbol": mark,
                    "size": 9,
                    "opacity": 0.85,
                    "line": {"width": 1.5 if mark.endswith("open") else 0},
                },
                # Streamlit's selection dims the rest; the ring below shows the choice instead.
                selected={"marker": {"opacity": 0.95}},
                unselected={"marker": {"opacity": 0.75}},
                customdata=rows["index"],
                text=[_hover(row, classes) for row in rows.itertuples()],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    chosen = drawn[drawn["index"] == primary]
    if len(chosen):
        figure.add_trace(
            go.Scatter(
                x=chosen[pair.x],
                y=chosen[pair.y],
                mode="markers",
                name=f"Image {primary}",
                marker={
                    "color": theme.SELECTED,
                    "symbol": "circle-open",
                    "size": 20,
                    "line": {"width": 3},
                },
                selected={"marker": {"opacity": 1}},
                unselected={"marker": {"opacity": 1}},
                customdata=chosen["index"],
                hoverinfo="skip",
                showlegend=False,
            )
        )
    theme.lay_out(
        figure,
        x=pair.x_title,
        y=pair.y_title,
        height=height,
        x_range=UNIT,
        y_range=UNIT,
    )
    missing = len(frame) - len(drawn)
    return theme.Chart(
        figure,
        f"Scatter of {len(drawn)} images: {pair.x_title} across, {pair.y_title} up"
        + (f"; {missing} without a certificate are not drawn." if missing else "."),
    )


def _hover(row: object, classes: Sequence[str]) -> str:
    def named(index: int) -> str:
        return classes[index] if 0 <= index < len(classes) else str(index)

    certified = getattr(row, "gap_certified", None)
    bound = "no certificate" if pd.isna(certified) else f"certified {theme.at_most(certified)}"
    return (
        f"<b>Image {row.index}</b>, label {named(row.label)}<br>"
        f"gap clean {theme.reached(row.gap_clean)}, attack {theme.reached(row.gap_attack)}, {bound}<br>"
        f"clean: teacher says {named(row.teacher_pred)}, student says {named(row.student_pred)}"
    )
