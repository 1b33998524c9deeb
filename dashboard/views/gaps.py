"""Confidence gaps: every example as a point and a row; the selected one from close by."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts, state
from dashboard.guard import guard
from dashboard.views._measures import other_measures

TITLE = "Confidence gaps"
ICON = ":material/scatter_plot:"
SECTION = "Results"
ORDER = 20
NEEDS = ("analysis",)

_SHOWN = {
    "all": "All",
    "refuted": "Disagreement",
    "open": "Open",
    "certified": "Certified",
}
_COLUMNS = ("index", "label", "gap_attack", "gap_certified", "gap_clean", "state")

_EXPLANATION = """
Each point and each row is one test image; click either to see it on the right, or step with the arrow
keys. **Attack and certificate**: the true worst-case gap lies between a point's two coordinates, so the
nearer it is to the diagonal, the better it is known; no point may lie below. **Clean and attacked**: how
much perturbing the image adds. **Teacher and student**: both networks' confidence at the witness; off the
diagonal, one of them is surer than the other. Below one image's probabilities, three switches show **how
its gap grows with ε**, **a flat slice of its ball** through the points that are worst for either network,
and **which pixels make the gap**.

**Other ways to differ** asks the same of other measures, each with an attack of its own: the class on
which the two differ most, their whole distributions, the divergence that distillation makes small.
"""


def render() -> None:
    """Draw the page."""
    loaded = state.loaded()
    left, right = st.columns([11, 10], gap="medium")
    with left:
        with st.container(horizontal=True, vertical_alignment="center"):
            shown, pairing = _filter(), _axes()
        frame = loaded.frame if shown == "all" else loaded.frame[loaded.frame["state"] == shown]
        ordered = frame.sort_values("gap_attack", ascending=False, kind="stable")
        _scatter(frame, pairing)
        _table(ordered, shown)
    with right, st.container(border=True):
        parts.example_panel(ordered["index"])
    parts.certificate_note(loaded)
    with guard():
        other_measures(state.choice(), loaded)
    parts.how_to_read(_EXPLANATION)


def _filter() -> str:
    return st.segmented_control(
        "Show",
        list(_SHOWN),
        default="all",
        required=True,
        label_visibility="collapsed",
        **state.bound("show", _SHOWN),
    )


def _axes() -> str:
    return st.selectbox(
        "Axes",
        list(figures.PAIRINGS),
        label_visibility="collapsed",
        width=210,
        **state.bound("pairing", {key: pair.name for key, pair in figures.PAIRINGS.items()}),
    )


def _scatter(frame: pd.DataFrame, pairing: str) -> None:
    parts.chart(
        figures.examples(
            frame, pairing, primary=state.example(), classes=state.classes(), height=380
        ),
        "scatter",
        on_select=_point_clicked,
    )


def _point_clicked() -> None:
    index = parts.clicked_example("scatter")
    if index is not None:
        state.select(index)


def _table(ordered: pd.DataFrame, shown: str) -> None:
    if ordered.empty:
        st.caption("No image is in this state.")
        return
    loaded, meanings = state.loaded(), backend.column_meanings()
    ids = ordered["index"].tolist()
    classes = state.classes()
    table = ordered[list(_COLUMNS)].copy()
    table["label"] = [parts.named(classes, value) for value in table["label"]]
    table["state"] = table["state"].map(_SHOWN)
    # As the panel shows them: what was reached rounded down, an upper bound up.
    for name, text in (
        ("gap_attack", figures.reached),
        ("gap_certified", figures.bound),
        ("gap_clean", figures.reached),
    ):
        table[name] = [figures.rounded(value, text) for value in table[name]]
    chosen = ids.index(state.example()) if state.example() in ids else None
    key = f"gap_table_{loaded.key}_{shown}_{state.table_round()}"

    def row_clicked() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows:
            state.select(ids[rows[0]], by_table=True)

    config = {
        "index": st.column_config.NumberColumn("image", help=meanings["index"], width=55),
        "label": st.column_config.TextColumn("label", help=meanings["label"], width=55),
        "state": st.column_config.TextColumn("agreement", width=95),
        "gap_clean": st.column_config.NumberColumn(
            "clean", help=meanings["gap_clean"], format="%.3f", width=60
        ),
    } | {
        name: st.column_config.ProgressColumn(
            title, help=meanings[name], min_value=0.0, max_value=1.0, format="%.3f", width=110
        )
        for name, title in (
            ("gap_attack", "attack"),
            ("gap_certified", "certified"),
        )
    }
    st.dataframe(
        table,
        key=key,
        on_select=row_clicked,
        selection_mode="single-row",
        selection_default=None if chosen is None else {"selection": {"rows": [chosen]}},
        hide_index=True,
        placeholder="",
        height=470,
        column_config=config,
        alt="Images with their gaps, the largest gap found first; select a row to see the image",
    )


if __name__ == "__main__":
    render()
