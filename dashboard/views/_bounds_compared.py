"""Gaps of students side by side, on the page *Compare methods*: brackets, agreement, histograms."""

from __future__ import annotations

import math

import streamlit as st

from dashboard import backend, figures, parts
from dashboard.guard import guard
from dashboard.views._picked import Picked

#: So many histograms are drawn at once.
_PANELS = 12


def bounds_compared(choice: backend.Choice, picked: Picked) -> None:
    """The section, from stored analyses.

    Args:
        choice: teacher, images and ball.
        picked: the students.
    """
    _missing(choice, list(picked.board.unanalysed))
    is_known = picked.rows["gap_attack_mean"].notna().to_numpy()
    rows = picked.rows[is_known].reset_index(drop=True)
    labels = [name for name, known in zip(picked.labels, is_known, strict=True) if known]
    if rows.empty:
        return
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("Mean confidence gap", anchor=False)
        st.caption(
            "From what attacks reached to what is certified; shorter and further left is better."
        )
        gaps = rows[["gap_clean_mean", "gap_attack_mean", "gap_certified_mean"]]
        parts.chart(figures.brackets(gaps.assign(student=labels)), "brackets")
    with right:
        st.subheader("Agreement with the teacher", anchor=False)
        st.caption("Share of images certified to agree, open, and shown to disagree.")
        parts.chart(
            figures.agreement(
                backend.agreement_shares(rows), labels, height=120 + 44 * len(labels)
            ),
            "agreement",
        )
    _histograms(
        choice,
        picked,
        [n for n, known in zip(picked.shown, is_known, strict=True) if known],
        labels,
    )


def _histograms(
    choice: backend.Choice, picked: Picked, first: list[str], labels: list[str]
) -> None:
    st.subheader("Certified bounds, image by image", anchor=False)
    st.caption(
        "Share of images by certified bound, and as an outline by the gap that attacks reached; all on "
        "the same axes. The dashed line is the mean bound: the further left, the better."
    )
    pages = math.ceil(len(first) / _PANELS)
    page = 1
    if pages > 1:
        spans = [f"{1 + i * _PANELS} to {min(len(first), (i + 1) * _PANELS)}" for i in range(pages)]
        page = 1 + spans.index(
            st.segmented_control(
                "Shown", spans, default=spans[0], required=True, key=f"panels_{len(first)}"
            )
        )
    recipes = dict(zip(picked.each["student"], picked.each["recipe"], strict=True))
    chosen = set(picked.students)
    panels = []
    for name, label in list(zip(first, labels, strict=True))[(page - 1) * _PANELS : page * _PANELS]:
        way = picked.ways[recipes[name]]
        members = [one for one in way.students if one in chosen] if picked.together else [name]
        pooled = backend.pooled_histogram(choice, members)
        if pooled is not None:
            panels.append(figures.Panel(label, *pooled))
    if panels:
        parts.chart(figures.multiples(panels), "multiples")


def _missing(choice: backend.Choice, missing: list[str]) -> None:
    if not missing:
        return
    info = backend.data_set(choice.dataset)
    with st.container(border=True):
        st.markdown(
            f"**Not analysed yet** within {figures.ball(choice.epsilon, choice.norm)} on "
            f"{choice.count} images with bounds of the level {backend.level_title(choice)}: "
            f"{', '.join(missing)}."
        )
        budget = backend.time_budget(choice)
        if budget is not None:
            st.caption(f"Each student takes up to about {parts.duration(budget)}.")
        if info is not None and not info.is_available:
            parts.images_absent(choice.dataset, "compare", "they cannot be analysed here")
            return
        live = [record for name in missing if (record := _live(choice, name)) is not None]
        if live:
            parts.watch(live[0])
            if len(live) > 1:
                st.caption(f"{len(live) - 1} more waiting.")
            return
        if backend.is_read_only():
            st.caption("This dashboard only shows results (FKD_READ_ONLY).")
            return
        if st.button(
            f"Analyse {len(missing)} student{'s' if len(missing) > 1 else ''}",
            type="primary",
            icon=":material/play_arrow:",
            key="analyse_missing",
        ):
            with guard():
                for name in missing:
                    backend.start_analysis(choice.but(student=name))
                st.rerun()


def _live(choice: backend.Choice, student: str) -> backend.RunRecord | None:
    record = backend.live_analysis(choice.but(student=student))
    return record if record is not None and not record.has_ended else None
