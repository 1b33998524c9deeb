"""Two figures against each other, on the page *Compare methods*: who is beaten in both by none."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts, state
from dashboard.views._picked import Picked

#: Key, heading, and the two figures to begin with.
_PLOTS = (
    ("first", "Accuracy against faithfulness", "clean_accuracy", "gap_certified_mean"),
    ("second", "Cost against faithfulness", "training_examples", "gap_certified_mean"),
)
_COPIES = (
    " Copies of the teacher, rounded or pruned, are drawn but not compared; those far off are named "
    "below the plot."
)


def trade_offs(picked: Picked) -> None:
    """Two plots, each with a choice of its axes.

    Args:
        picked: the students.
    """
    st.subheader("Who is ahead in two figures", anchor=False)
    if not picked.methods[[x for _, _, x, _ in _PLOTS]].notna().any(axis=None):
        st.caption(
            "Accuracy and cost are drawn against faithfulness here once students are measured."
        )
        return
    st.caption(
        "One mark a method, at the mean over its seeds, which are the small dots. On the dotted line are "
        "those that no other beats in both figures. Point at a mark that has no room for its name."
        + ("" if picked.compared(picked.methods).all() else _COPIES)
    )
    for column, plot in zip(st.columns(2, gap="medium"), _PLOTS, strict=True):
        with column:
            _plot(picked, *plot)


def _plot(picked: Picked, key: str, title: str, x: str, y: str) -> None:
    st.markdown(f"**{title}**")
    known = {
        name: figure.title
        for name, figure in backend.score_figures().items()
        if figure.better != "neither"
    }
    axes = []
    with st.container(horizontal=True):
        for axis, usual in (("x", x), ("y", y)):
            axes.append(
                st.selectbox(
                    f"{axis} axis",
                    list(known),
                    index=list(known).index(usual),
                    **state.bound(f"{key}_{axis}", known),
                )
            )
    rows = picked.methods
    measured = rows[axes].notna().all(axis=1)
    if axes[0] == axes[1]:
        st.caption("Choose two different figures.")
        return
    if not measured.any():
        st.caption("No student is measured in both figures.")
        return
    among = picked.compared(rows)
    drawn = figures.pareto(rows, picked.each, picked.ways, *axes, among=among)
    parts.chart(drawn, f"pareto_{key}")
    far = rows[rows["recipe"].isin(figures.out_of_view(rows, *axes, among))]
    if len(far):
        st.caption(
            f"Outside of the plot: {'; '.join(_spot(picked, row, axes) for _, row in far.iterrows())}."
        )
    missing = [picked.ways[recipe].label for recipe in rows.loc[~measured, "recipe"]]
    if missing:
        st.caption(f"Not measured in both: {', '.join(missing)}.")


def _spot(picked: Picked, row: pd.Series, axes: Sequence[str]) -> str:
    known = backend.score_figures()
    texts = (f"{known[axis].title} {backend.figure_text(known[axis], row[axis])}" for axis in axes)
    return f"{picked.ways[row['recipe']].label} ({', '.join(texts)})"
