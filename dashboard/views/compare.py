"""Compare methods: several students of one teacher side by side."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts, state
from dashboard.guard import guard
from dashboard.views._transfer import carried_over

TITLE = "Compare methods"
ICON = ":material/compare:"
SECTION = "Results"
ORDER = 50
NEEDS = ("pair",)

_SHOWN = {
    "student": "student",
    "method": "method",
    "architecture": "architecture",
    "parameters": "weights",
    "student_accuracy": "right",
    "agreement_certified": "certified",
    "open_share": "open",
    "disagreement_found": "disagree",
    "gap_clean_mean": "gap clean",
    "gap_attack_mean": "gap attack",
    "gap_certified_mean": "gap certified",
    "gap_attack_max": "worst attack",
    "gap_certified_max": "worst certified",
}

_EXPLANATION = """
All students are measured against the same teacher, on the same images and within the same ε, so their
figures can be compared. The better student has a short bracket near 0: the attack finds little, and the
certificate proves that there is little to find. A short bracket far from 0 is a certain difference; a
long one says that the method cannot tell.

A witness found against one student is a point of the same ball for all others. Where it carries over, the
students share that weakness, and finding it takes no look at the other's weights.
"""


def render() -> None:
    """Draw the page."""
    choice = state.choice()
    cards = backend.students(choice.dataset, choice.teacher)
    names = [card.name for card in cards]
    own = [
        card.name for card in cards if card.teacher and card.teacher.name == choice.teacher
    ] or names
    chosen = st.multiselect(
        f"Students to measure against {choice.teacher}",
        names,
        default=own,
        help="This teacher's own students are chosen at first; others of the data set can be added.",
        **state.bound("students"),
    )
    if not chosen:
        st.info("Choose at least one student.", icon=":material/info:")
        return
    table, missing = backend.compare(choice, chosen)
    if len(table):
        _results(table)
    if missing:
        _missing(choice, missing)
    carried_over(choice, chosen)
    _differences(chosen, choice.dataset)
    parts.how_to_read(_EXPLANATION)


def _results(table: pd.DataFrame) -> None:
    ordered = table.sort_values("gap_certified_mean", kind="stable")
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("Mean confidence gap", anchor=False)
        st.caption(
            "From what attacks reached to what is certified; shorter and further left is better."
        )
        parts.chart(figures.brackets(ordered), "brackets")
    with right:
        st.subheader("Agreement with the teacher", anchor=False)
        st.caption("Share of images certified to agree, open, and shown to disagree.")
        parts.chart(
            figures.agreement(
                ordered,
                list(ordered["student"]),
                height=120 + 44 * len(ordered),
            ),
            "agreement",
        )
    meanings = backend.summary_meanings()
    config: dict = {
        name: st.column_config.NumberColumn(title, help=meanings.get(name))
        for name, title in _SHOWN.items()
        if name not in ("student", "method", "architecture", "parameters")
    }
    config["parameters"] = st.column_config.NumberColumn(
        "weights", help="Number of trained weights.", format="localized"
    )
    st.dataframe(
        figures.styled(ordered[list(_SHOWN)], {name: _text(name) for name in _SHOWN}),
        hide_index=True,
        placeholder="",
        column_config=config,
        alt="Figures of each student",
    )
    parts.downloads(ordered, "comparison", "comparison")


def _text(name: str) -> Callable[[float], str] | None:
    """How a figure of that column is written."""
    if name.startswith("gap_"):
        return figures.bound if "certified" in name else figures.reached
    return figures.percent if name.endswith(("accuracy", "certified", "share", "found")) else None


def _missing(choice: backend.Choice, missing: list[str]) -> None:
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


def _differences(names: list[str], dataset: str) -> None:
    with st.expander("What sets these students apart", icon=":material/difference:"):
        show_all = st.toggle("Show equal settings too", key="all_settings")
        table = backend.card_differences(names, dataset, show_all=show_all)
        if table.empty:
            st.caption("Their settings are equal.")
        else:
            st.dataframe(table, alt="Settings that differ between the students")


if __name__ == "__main__":
    render()
