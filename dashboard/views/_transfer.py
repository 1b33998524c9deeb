"""Whether witnesses carry over, on the page *Compare methods*: what is stored, or the run for it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts, state

_SHOWN = {"carried": "Disagreements carried over", "ratio": "Gap relative to own"}
_SAID = {
    "carried": "Of the disagreements found against the student of a row, the share at which that of the "
    "column differs from the teacher too.",
    "ratio": "The mean gap of the column's student at the points where the row's has its largest, over "
    "that at its own.",
}
_GAINS = {
    "target": ("student", None),
    "gap_clean_mean": ("gap clean", figures.reached),
    "gap_own_mean": ("gap own", figures.reached),
    "gap_best_mean": ("gap all", figures.reached),
    "improved": ("beaten", figures.percent),
    "raised_max": ("by up to", figures.reached),
    "disagreements_own": ("disagree", None),
    "disagreements_new": ("new", None),
}


def carried_over(choice: backend.Choice, students: list[str]) -> None:
    """The section; nothing where one student is chosen alone.

    Args:
        choice: teacher, images and ball.
        students: those that the page compares.
    """
    st.subheader("Do witnesses carry over?", anchor=False)
    if len(students) < 2:
        st.caption("Choose at least two students: what is found against one is tried on the other.")
        return
    loaded = backend.find_transfer(choice, students)
    if loaded is None:
        _not_measured(choice, students)
    else:
        _measured(choice, students, loaded)


def _not_measured(choice: backend.Choice, students: list[str]) -> None:
    with st.container(border=True):
        st.markdown(
            "The points that an attack found against one student are tried on the others: do those "
            "differ from the teacher there too, and how far? What carries over needs no look at a "
            f"student's weights. It is measured on the first {choice.count} images within "
            f"{figures.ball(choice.epsilon, choice.norm)}; that takes seconds where analyses hold the "
            "points, as long as the attacks on all students where they do not, and is kept."
        )
        parts.offer_run(
            backend.live_transfer(choice, students),
            choice.dataset,
            key="transfer",
            label=f"Try the witnesses of {len(students)} students",
            work="trial",
            lack="no witnesses can be tried",
            start=lambda: backend.start_transfer(choice, students),
        )


def _measured(choice: backend.Choice, students: list[str], loaded: backend.LoadedTransfer) -> None:
    shown = st.segmented_control(
        "Shown",
        list(_SHOWN),
        default="carried",
        required=True,
        label_visibility="collapsed",
        **state.bound("carried", _SHOWN),
    )
    left, right = st.columns([9, 10], gap="medium")
    with left:
        st.caption(_SAID[shown])
        parts.chart(figures.transfer_map(loaded.summary.cells, shown, order=students), "transfer")
    with right:
        st.caption(
            "What others' witnesses show of each student for nothing: where they beat its own, its gap "
            "is at least as large as theirs."
        )
        _gains(sorted(loaded.summary.gains, key=lambda gain: students.index(gain.target)))
        parts.downloads(loaded.table, f"transfer-{loaded.key}", "transfer")
        with st.popover("Reproduce", icon=":material/terminal:"):
            st.code(backend.reproduce_transfer(choice, students), language="bash", wrap_lines=False)


def _gains(gains: Sequence[backend.TransferGain]) -> None:
    rows = pd.DataFrame([{**gain.model_dump(), "improved": gain.improved.value} for gain in gains])[
        list(_GAINS)
    ]
    meanings = backend.transfer_meanings()
    st.dataframe(
        figures.styled(rows, {name: text for name, (_, text) in _GAINS.items()}),
        hide_index=True,
        placeholder="",
        column_config={
            name: st.column_config.Column(title, help=meanings[name])
            for name, (title, _) in _GAINS.items()
        },
        alt="What each student's lower ends gain from the witnesses of the others",
    )
