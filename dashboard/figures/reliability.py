"""Is the student as confident as its teacher?  Mean confidences in bins of the teacher's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from dashboard.figures import theme
from dashboard.figures.scatter import UNIT
from dashboard.figures.ways import Way

_DASHES = ("solid", "dot", "dashdot", "longdash")
_AT = {
    "image": "at the image",
    "witness": "at the worst point found",
}


def reliability(
    tables: Sequence[tuple[Way, pd.DataFrame]], at: str, *, height: int = 400
) -> theme.Chart:
    """One line a way through its bins; on the diagonal student and teacher are equally confident.

    Args:
        tables: each way with its bins (columns `fkd.evaluation.RELIABILITY_COLUMNS`).
        at: ``image`` or ``witness``.
        height: pixels.
    """
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            line={"color": theme.TEACHER, "width": 1.5, "dash": "dash"},
            name="as the teacher",
            hoverinfo="skip",
        )
    )
    told = []
    seen: Counter[str] = Counter()
    for way, bins in tables:
        rows = bins[(bins["at"] == at) & (bins["count"] > 0)]
        if rows.empty:
            continue
        total = int(rows["count"].sum())
        # There are more ways than colours.
        dash = _DASHES[seen[way.colour] % len(_DASHES)]
        seen[way.colour] += 1
        figure.add_trace(
            go.Scatter(
                x=list(rows["teacher_conf"]),
                y=list(rows["student_conf"]),
                mode="lines+markers",
                name=way.label,
                line={"color": way.colour, "width": 1.5, "dash": dash},
                marker={
                    "symbol": way.symbol,
                    # A bin's area tells of its share; bins of a few examples say little.
                    "size": [5 + 11 * (count / total) ** 0.5 for count in rows["count"]],
                },
                text=[
                    f"<b>{way.label}</b><br>teacher {teacher:.3f}, student {student:.3f}<br>"
                    f"{count} of {total} examples"
                    for teacher, student, count in zip(
                        rows["teacher_conf"], rows["student_conf"], rows["count"], strict=True
                    )
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )
        top = rows.iloc[-1]
        told.append(
            f"{way.label} {top['student_conf']:.2f} where the teacher has {top['teacher_conf']:.2f}"
        )
    theme.lay_out(
        figure,
        # Two lines: a phone has no room for it in one.
        x=f"teacher's mean confidence<br>{_AT[at]} (probability)",
        y="student's mean confidence (probability)",
        height=height,
        x_range=UNIT,
        y_range=UNIT,
    )
    return theme.Chart(
        figure,
        f"Student confidence against teacher confidence {_AT[at]}, binned by the teacher's: "
        f"{'; '.join(told)}.",
    )
