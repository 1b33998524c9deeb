"""Class probabilities of both networks at one point."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from dashboard.figures import theme


def probabilities(
    teacher: Sequence[float],
    student: Sequence[float],
    classes: Sequence[str],
    *,
    where: str,
    gap_class: int | None = None,
    height: int = 200,
) -> theme.Chart:
    """Grouped bars, the teacher's plain and the student's hatched.

    Args:
        teacher: K probabilities.
        student: K probabilities.
        classes: K names.
        where: the point, in words: "the image", "the witness".
        gap_class: class whose confidences are compared; its name is set bold.
        height: pixels.
    """
    figure = go.Figure()
    for name, values, colour, pattern in (
        ("Teacher", teacher, theme.TEACHER, ""),
        ("Student", student, theme.STUDENT, "/"),
    ):
        figure.add_trace(
            go.Bar(
                x=list(range(len(classes))),
                y=[float(value) for value in values],
                name=name,
                marker=theme.bar(colour, pattern),
                customdata=list(classes),
                hovertemplate=f"{name}: %{{customdata}} %{{y:.3f}}<extra></extra>",
            )
        )
    theme.lay_out(
        figure,
        x="class",
        y="probability",
        height=height,
        y_range=(0, 1.02),
        # Two of these stand side by side below one legend in words.
        legend=False,
        barmode="group",
        bargap=0.25,
        bargroupgap=0.06,
    )
    labels = [
        f"<b>{name}</b>" if index == gap_class else str(name) for index, name in enumerate(classes)
    ]
    figure.update_xaxes(tickmode="array", tickvals=list(range(len(classes))), ticktext=labels)
    best_teacher = classes[_largest(teacher)]
    best_student = classes[_largest(student)]
    return theme.Chart(
        figure,
        f"Class probabilities at {where}: the teacher's largest is {best_teacher} with "
        f"{max(teacher):.2f}, the student's is {best_student} with {max(student):.2f}.",
    )


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: values[index])
