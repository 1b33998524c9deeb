"""Compare methods: students of one teacher in all figures, and two of them image by image."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard import backend, parts, state
from dashboard.guard import guard
from dashboard.views._bounds_compared import bounds_compared
from dashboard.views._confidences import confidences
from dashboard.views._leaderboard import leaderboard
from dashboard.views._picked import Picked, pick
from dashboard.views._seeds import over_seeds
from dashboard.views._side_by_side import two_students
from dashboard.views._stored_radius import open_where_stored
from dashboard.views._transfer import carried_over

TITLE = "Compare methods"
ICON = ":material/compare:"
SECTION = "Results"
ORDER = 50
NEEDS = ("pair",)

_EXPLANATION = """
All students are measured against the same teacher, on the same images and within the same ε, so their
figures can be compared. **Order by** sorts every table and chart of the page; *best first*.

**Leaderboard**: one row a method, mean ± standard deviation over its seeds, or one row a student. Click
a heading to sort; tick a student to see it on all pages, and a second one to compare the two. Below,
two figures against each other: those on the dotted line are beaten in both by none. **Gaps**: the better
student has a short bracket near 0: the attack finds little, and the certificate proves that there is
little to find. A short bracket far from 0 is a certain difference; a long one cannot tell.
**Two students**: on the same images, whose bracket lies below the other's. **Confidence**: whether a
student is as sure as its teacher. **Carried over**: a witness found against one student is a point of the
same ball for all others; where it carries over, the students share that weakness, and finding it takes no
look at the other's weights.
"""


def render() -> None:
    """Draw the page."""
    choice = state.choice()
    open_where_stored(choice)
    picked = pick(choice)
    if not picked.students:
        st.info(
            "No student is left; choose other methods or students above.", icon=":material/info:"
        )
        return
    sections: dict[str, Callable[[backend.Choice, Picked], None]] = {
        "Leaderboard": leaderboard,
        "Gaps": bounds_compared,
        "Seeds": over_seeds,
        "Two students": two_students,
        "Confidence": confidences,
        "Carried over": _carried,
        "Settings": _differences,
    }
    tabs = st.tabs(list(sections), **state.bound("part"))
    for tab, section in zip(tabs, sections.values(), strict=True):
        # Only what is looked at is computed.
        if tab.open:
            with tab, guard():
                section(choice, picked)
    parts.how_to_read(_EXPLANATION)


def _carried(choice: backend.Choice, picked: Picked) -> None:
    carried_over(choice, list(picked.shown))


def _differences(choice: backend.Choice, picked: Picked) -> None:
    st.subheader("What sets these students apart", anchor=False)
    show_all = st.toggle("Show equal settings too", key="all_settings")
    table = backend.card_differences(list(picked.shown), choice.dataset, show_all=show_all)
    if table.empty:
        st.caption("Their settings are equal.")
    else:
        st.dataframe(
            table.set_axis(picked.labels, axis=1),
            height="content",
            column_config={
                "_index": st.column_config.TextColumn(width=190, pinned=True),
                # By themselves columns are as wide as their names, and cut off what is longer.
                **{name: st.column_config.TextColumn(width=_width(name)) for name in picked.labels},
            },
            alt="Settings that differ between the students",
        )


def _width(label: str) -> int:
    return max(96, 28 + 7 * len(label))


if __name__ == "__main__":
    render()
