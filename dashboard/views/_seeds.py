"""One figure over seeds, on the page *Compare methods*."""

from __future__ import annotations

import streamlit as st

from dashboard import backend, figures, parts
from dashboard.views._picked import Picked


def over_seeds(choice: backend.Choice, picked: Picked) -> None:
    """The figure that orders the page: every seed as a dot, with means and standard deviations.

    Args:
        choice: teacher, images and ball.
        picked: the students.
    """
    figure = backend.score_figures()[picked.order]
    st.subheader(figure.title[:1].upper() + figure.title[1:], anchor=False)
    st.caption(f"{figure.meaning} *Order by* above chooses the figure.")
    if not picked.methods[picked.order].notna().any():
        st.info("No student is measured in this figure; measure them on *Leaderboard*.")
        return
    parts.chart(figures.seeds(picked.methods, picked.each, picked.ways, picked.order), "over_seeds")
    absent = picked.methods.loc[picked.methods[picked.order].isna(), "recipe"]
    if len(absent):
        st.caption(
            f"Without this figure: {', '.join(picked.ways[recipe].label for recipe in absent)}."
        )
    alone = int((picked.methods["seeds"] < 2).sum())
    if alone:
        st.caption(
            f"{alone} of {len(picked.methods)} methods have one student alone, and so no spread: "
            "distil with other seeds to see one."
        )
