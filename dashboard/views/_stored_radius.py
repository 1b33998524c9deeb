"""The radius at which *Compare methods* opens: one at which its figures are stored."""

from __future__ import annotations

import streamlit as st

from dashboard import backend, figures, state

_ASKED, _MOVED = "_asked_for_stored", "_moved_to_stored"


def open_where_stored(choice: backend.Choice) -> None:
    """Go to a radius with stored figures, where nobody asked for one and the usual one has none.

    Once for each teacher; afterwards say where the page is, and offer the way back.

    Args:
        choice: the sidebar's.
    """
    asked: set[tuple[str, str]] = st.session_state.setdefault(_ASKED, set())
    teacher = (choice.dataset, choice.teacher)
    is_usual = choice.epsilon == backend.default_pair(choice.dataset)[2]
    if teacher not in asked and is_usual and not state.radius_is_chosen():
        asked.add(teacher)
        stored = backend.stored_radius(choice)
        if stored is not None:
            st.session_state[_MOVED] = (choice, stored)
            state.move_to_radius(stored)
    usual, stored = st.session_state.get(_MOVED, (None, None))
    if usual is None or choice.epsilon != stored or usual.dataset != choice.dataset:
        return
    here, there = (figures.ball(epsilon, choice.norm) for epsilon in (stored, usual.epsilon))
    with st.container(horizontal=True, vertical_alignment="center", key="stored_radius"):
        st.caption(
            f":material/info: Shown within **{here}**, where the figures of this teacher's students are "
            f"stored; within the usual {there} not all of them are.",
            width="content",
        )
        st.button(f"Back to {there}", icon=":material/undo:", on_click=_back, args=(usual.epsilon,))


def _back(epsilon: float) -> None:
    st.session_state["epsilon"] = f"{epsilon:g}"
    st.session_state.pop(_MOVED, None)
    state.note_radius(is_chosen=True)
