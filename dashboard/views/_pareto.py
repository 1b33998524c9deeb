"""Two figures against each other, on the page *Compare methods*: who is beaten in both by none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    if not picked.rows[[x for _, _, x, _ in _PLOTS]].notna().any(axis=None):
        st.caption(
            "Accuracy and cost are drawn against faithfulness here once students are measured."
        )
        return
    one = (
        "method, at the mean over its seeds, which are the small dots"
        if picked.together
        else "student"
    )
    st.caption(
        f"One mark a {one}. On the dotted line are those that no other beats in both figures. Point at a "
        "mark that has no room for its name."
        + ("" if picked.compared(picked.rows).all() else _COPIES)
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
    rows, marks = picked.drawn, picked.marks
    measured = rows[axes].notna().all(axis=1)
    if axes[0] == axes[1]:
        st.caption("Choose two different figures.")
        return
    if not measured.any():
        st.caption("No student is measured in both figures.")
        return
    among = picked.compared(rows)
    each = picked.each if picked.together else rows
    drawn = figures.pareto(rows, each, marks, *axes, among=among)
    parts.chart(drawn, f"pareto_{key}")
    if "training_examples" in axes:
        st.caption(
            "Examples do not cost the same: one on bounds or attacks takes several times one of KD. "
            "*Cost* in the table above has the training times, of the machines that trained."
        )
    far = rows[rows["recipe"].isin(figures.out_of_view(rows, *axes, among))]
    if len(far):
        st.caption(
            f"Outside of the plot: {'; '.join(_spot(marks, row, axes) for _, row in far.iterrows())}."
        )
    missing = [marks[recipe].label for recipe in rows.loc[~measured, "recipe"]]
    if missing:
        st.caption(f"Not measured in both: {', '.join(missing)}.")


def _spot(marks: Mapping[str, figures.Way], row: pd.Series, axes: Sequence[str]) -> str:
    known = backend.score_figures()
    texts = (f"{known[axis].title} {backend.figure_text(known[axis], row[axis])}" for axis in axes)
    return f"{marks[row['recipe']].label} ({', '.join(texts)})"
