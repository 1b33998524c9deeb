"""Two students on the same images, on the page *Compare methods*."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts, state
from dashboard.parts.images import picture
from dashboard.views._picked import Picked

#: What the two sides of the diagonal say, by what is compared.
_DIAGONAL = {
    "gap_certified": "Above the diagonal A has the smaller bound, below it B: less is possible, which "
    "proves nobody nearer to the teacher unless it lies below what was found of the other.",
    "gap_attack": "Above the diagonal less was found of A, below it less of B: more may be there.",
    "gap_clean": "Above the diagonal A is nearer to the teacher at the image itself, below it B.",
}
#: So many images are shown.
_IMAGES = 6


def two_students(choice: backend.Choice, picked: Picked) -> None:
    """Student A, which all pages show, against another: image by image.

    Args:
        choice: teacher, images and ball.
        picked: the students.
    """
    names = list(picked.students)
    if choice.student not in names:
        names = [choice.student, *names]
    if len(names) < 2:
        st.info("Two students are needed; choose another one above.", icon=":material/info:")
        return
    first, second = _pair(choice, picked, names)
    if first == second:
        st.caption("Choose two different students.")
        return
    found = backend.side_by_side(choice, first, second)
    if isinstance(found, list):
        st.info(f"Not analysed yet: {', '.join(found)}; analyse on *Gaps*.", icon=":material/info:")
        return
    table, counts = found
    _counts(counts)
    left, right = st.columns([10, 9], gap="medium")
    with left:
        end = st.segmented_control(
            "Compared",
            list(figures.ENDS),
            default=next(iter(figures.ENDS)),
            required=True,
            label_visibility="collapsed",
            **state.bound("end", figures.ENDS),
        )
        parts.chart(figures.side_by_side(table, end, first=first, second=second), "side_by_side")
        st.caption(_DIAGONAL[end])
    with right:
        _furthest(choice, table)


def _pair(choice: backend.Choice, picked: Picked, names: list[str]) -> tuple[str, str]:
    left, right = st.columns(2, gap="medium")
    # A is the student of the sidebar: so are links to other pages its own.
    st.session_state["student_a"] = choice.student
    with left:
        first = st.selectbox(
            "A",
            names,
            key="student_a",
            on_change=_chosen,
            help="The student that all pages show; another one chosen here is chosen in the sidebar.",
        )
    # A copy of the teacher's weights is close to it without having learnt anything.
    copies = {
        card.name for card in backend.students(choice.dataset, choice.teacher) if not card.history
    }
    seeds = dict(zip(picked.each["student"], picked.each["seed"].astype(object), strict=True))
    # Another seed of one of the two would pass for a merit of its method.
    others = sorted(
        (name for name in names if name != first),
        key=lambda name: (name in copies, seeds.get(name) != seeds.get(first)),
    )
    with right:
        second = st.selectbox(
            "B",
            others,
            help="Without a choice the best trained one of the same seed, in the page's order.",
            **state.addressed("other", others, others[0]),
        )
    return first, second


def _chosen() -> None:
    st.session_state["student"] = st.session_state["student_a"]


def _counts(counts: backend.SideBySide) -> None:
    rows = (
        (
            "proved closer to the teacher",
            counts.proved_a,
            counts.proved_b,
            "Its certified bound lies below the gap found of the other.",
        ),
        ("smaller certified bound", counts.bound_a, counts.bound_b, "What can be at most."),
        ("smaller gap found", counts.found_a, counts.found_b, "What attacks reached."),
    )
    for column, (title, a, b, help_) in zip(st.columns(3), rows, strict=True):
        rest = counts.count - a - b
        column.metric(
            title[:1].upper() + title[1:],
            f"A {a} · B {b}",
            help=f"{help_} Of {counts.count} images; neither on {rest}.",
        )


def _furthest(choice: backend.Choice, table: pd.DataFrame) -> None:
    st.markdown("**Where they differ most**")
    st.caption("Images whose brackets' middles are furthest apart.")
    rows = table.nlargest(_IMAGES, "apart")
    info = backend.data_set(choice.dataset)
    images = (
        backend.clean_images(choice.dataset, [int(i) for i in rows["index"]])
        if info is not None and info.is_available
        else None
    )
    if images is None:
        parts.images_absent(choice.dataset, "side_by_side")
    classes = state.classes()
    columns = st.columns(2, gap="small")
    for place, row in enumerate(rows.set_index("index").itertuples()):
        with columns[place % 2], st.container(border=True, horizontal=True):
            if images is not None:
                st.image(picture(images[place]), width=76)
            with st.container(width="content", gap=None):
                index = int(row.Index)
                st.markdown(
                    f"**Image {index}**, {parts.named(classes, row.label)}  \n"
                    f"A {figures.bracket_text(row.gap_attack_a, row.gap_certified_a)}  \n"
                    f"B {figures.bracket_text(row.gap_attack_b, row.gap_certified_b)}"
                )
                parts.page_link(
                    "gaps", "Look closer at A", ":material/scatter_plot:", example=index
                )
