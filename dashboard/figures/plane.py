"""A plane of the ball: the signed gap as colours, both networks' decision borders as lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from dashboard.backend import GapPlane
from dashboard.figures import theme

#: Regions smaller than this share of the picture have no room for a label.
_LABELLED = 0.04
_POINTS = (
    ("image", "square", "#ffffff", theme.INK),
    ("teacher's worst point", "circle", theme.TEACHER, "#ffffff"),
    ("student's worst point", "diamond", theme.STUDENT, "#ffffff"),
)


def plane(drawn: GapPlane, classes: Sequence[str], *, index: int, height: int = 480) -> theme.Chart:
    """Heat map of the gap, lines where predictions change, three points, all beyond the ball shaded.

    Args:
        drawn: the plane.
        classes: names of the classes.
        index: example id, for the description.
        height: pixels.
    """
    figure = go.Figure()
    figure.add_trace(
        go.Heatmap(
            x=drawn.across,
            y=drawn.up,
            z=drawn.gap,
            text=_hover(drawn, classes),
            hovertemplate="%{text}<extra></extra>",
            **theme.diverging(1.0, "gap: teacher's minus student's confidence"),
        )
    )
    for margins, colour, dash, width in (
        (drawn.teacher_margins, theme.TEACHER, "solid", 3),
        (drawn.student_margins, theme.STUDENT, "dash", 3),
    ):
        for margin in margins:
            # A light line below keeps the network's colour apart from the same colour of the map.
            figure.add_trace(_border(drawn, margin, "#ffffff", "solid", width + 3))
            figure.add_trace(_border(drawn, margin, colour, dash, width))
    figure.add_trace(_beyond(drawn))
    figure.add_trace(
        go.Scatter(
            x=drawn.edge[:, 0],
            y=drawn.edge[:, 1],
            mode="lines",
            line={"color": theme.INK, "width": 1.5},
            hoverinfo="skip",
        )
    )
    for (name, mark, fill, line), (across, up) in zip(_POINTS, drawn.points, strict=True):
        figure.add_trace(
            go.Scatter(
                x=[across],
                y=[up],
                name=name,
                mode="markers",
                marker={
                    "symbol": mark,
                    "size": 14,
                    "color": fill,
                    "line": {"color": line, "width": 2},
                },
                hovertemplate=f"{name}<extra></extra>",
            )
        )
    theme.lay_out(
        figure,
        x="change across (L2 length, images in [0, 1])",
        y="change up (L2 length)",
        height=height,
        x_range=_ends(drawn.across),
        y_range=_ends(drawn.up),
        legend=False,
    )
    figure.update_layout(margin={"t": 56})
    figure.update_xaxes(showgrid=False, zeroline=False, constrain="domain")
    # In a narrow window what is left of the height comes last.
    figure.update_yaxes(
        showgrid=False,
        zeroline=False,
        constrain="domain",
        constraintoward="top",
        scaleanchor="x",
        scaleratio=1,
    )
    _label(figure, drawn, classes)
    low, high = drawn.gap_range
    return theme.Chart(
        figure,
        f"Plane through image {index} and both networks' worst points: inside the ball the teacher's "
        f"minus the student's confidence runs from {theme.signed(low)} to {theme.signed(high)}, and "
        f"{plane_disagreement(drawn)}.",
    )


def plane_disagreement(drawn: GapPlane) -> str:
    """On how much of the ball's slice the two predict different classes, as part of a sentence."""
    if not drawn.has_disagreement:
        return "no disagreement was found on it"
    if not drawn.disagreement_share:
        return "the two predict different classes at a marked point alone"
    return f"the two predict different classes on {theme.percent(drawn.disagreement_share)} of it"


def _ends(places: np.ndarray) -> tuple[float, float]:
    return float(places[0]), float(places[-1])


def _border(
    drawn: GapPlane, margin: np.ndarray, colour: str, dash: str, width: float
) -> go.Contour:
    """The line on which a margin is 0."""
    return go.Contour(
        x=drawn.across,
        y=drawn.up,
        z=margin,
        contours={"start": 0, "end": 0, "size": 1, "coloring": "none"},
        line={"color": colour, "dash": dash, "width": width, "smoothing": 0},
        connectgaps=False,
        showscale=False,
        hoverinfo="skip",
    )


def _beyond(drawn: GapPlane) -> go.Scatter:
    """A veil over the whole picture with the ball cut out.

    It is one outline: around the picture, along a seam to the ball, around that the other way, and back.
    A shape could have a hole, but would lie above the marks.
    """
    (left, right), (low, high) = _ends(drawn.across), _ends(drawn.up)
    frame = [(left, low), (right, low), (right, high), (left, high), (left, low)]
    outline = np.concatenate([frame, drawn.edge[::-1], frame[:1]])
    return go.Scatter(
        x=outline[:, 0],
        y=outline[:, 1],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=theme.VEIL,
        hoverinfo="skip",
    )


def _label(figure: go.Figure, drawn: GapPlane, classes: Sequence[str]) -> None:
    for region in drawn.regions:
        if region.share < _LABELLED:
            continue
        teacher, student = (_name(classes, c) for c in (region.teacher_pred, region.student_pred))
        both = f"both {teacher}"
        figure.add_annotation(
            x=region.across,
            y=region.up,
            text=both if teacher == student else f"teacher {teacher}<br>student {student}",
            showarrow=False,
            font={"size": 12, "color": theme.INK},
            bgcolor="rgba(255, 255, 255, 0.75)",
            borderpad=2,
        )


def _hover(drawn: GapPlane, classes: Sequence[str]) -> list[list[str]]:
    compared = _name(classes, drawn.gap_class)
    inside = drawn.is_inside
    return [
        [
            f"gap {theme.signed(drawn.gap[row, column])}<br>"
            f"teacher says {_name(classes, drawn.teacher_pred[row, column])}, "
            f"confidence in {compared} {drawn.teacher_conf[row, column]:.3f}<br>"
            f"student says {_name(classes, drawn.student_pred[row, column])}, "
            f"confidence in {compared} {drawn.student_conf[row, column]:.3f}"
            + ("" if inside[row, column] else "<br>outside the ball")
            for column in range(len(drawn.across))
        ]
        for row in range(len(drawn.up))
    ]


def _name(classes: Sequence[str], index: int) -> str:
    return str(classes[index]) if 0 <= index < len(classes) else str(index)
