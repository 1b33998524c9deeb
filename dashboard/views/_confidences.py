"""Reliability of students against their teacher, on the page *Compare methods*."""

from __future__ import annotations

import streamlit as st

from dashboard import backend, figures, parts
from dashboard.views._picked import Picked

#: Lines beyond these cannot be told apart.
_LINES = 6


def confidences(choice: backend.Choice, picked: Picked) -> None:
    """Student's confidence against the teacher's, at the images and at the worst points found.

    Args:
        choice: teacher, images and ball.
        picked: the students.
    """
    st.subheader("Is the student as sure as its teacher?", anchor=False)
    st.caption(
        "Images are put together by the teacher's confidence in the compared class. On the diagonal both "
        "are as confident; above it the student is surer than its teacher. Larger marks hold more images."
    )
    # A copy is as sure as its teacher by itself.
    order = picked.compared(picked.methods).sort_values(ascending=False, kind="stable").index
    recipes = list(picked.methods.loc[order, "recipe"])
    labels = {recipe: picked.ways[recipe].label for recipe in recipes}
    lines = st.multiselect(
        "Methods drawn",
        recipes,
        default=recipes[:_LINES],
        format_func=labels.__getitem__,
        max_selections=_LINES,
        key=f"lines_{'_'.join(recipes[:_LINES])}",
        help=f"At most {_LINES}, so that lines can be told apart; the first in the page's order.",
    )
    chosen = set(picked.students)
    tables = []
    for recipe in lines:
        members = [name for name in picked.ways[recipe].students if name in chosen]
        table = backend.reliability(picked.board, members)
        if len(table):
            tables.append((picked.ways[recipe], table))
    if not tables:
        st.info(
            "No bins are stored for these students; measure them on *Leaderboard*.",
            icon=":material/info:",
        )
        return
    left, right = st.columns(2, gap="medium")
    for column, at in ((left, "image"), (right, "witness")):
        with column:
            parts.chart(figures.reliability(tables, at), f"reliability_{at}")
    missing = [labels[r] for r in lines if picked.ways[r] not in [way for way, _ in tables]]
    if missing:
        st.caption(f"Not measured: {', '.join(missing)}.")
