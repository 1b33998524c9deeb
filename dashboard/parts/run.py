"""One run: where it stands, what it says, and how to stop or resume it."""

from __future__ import annotations

import streamlit as st

from dashboard import backend
from dashboard.guard import guard, guarded
from dashboard.parts.live import live_bracket

_STATES = {
    "queued": ("gray", ":material/schedule:", "Waiting for a free slot"),
    "running": ("blue", ":material/play_arrow:", "Running"),
    "cancelling": ("orange", ":material/hourglass_bottom:", "Stopping"),
    "cancelled": ("orange", ":material/stop_circle:", "Cancelled"),
    "done": ("green", ":material/check:", "Done"),
    "failed": ("red", ":material/error:", "Failed"),
    "lost": ("red", ":material/link_off:", "Lost"),
}


def badge(state: str) -> None:
    """The run's state in words and colour."""
    colour, icon, label = _STATES.get(state, ("gray", ":material/help:", state))
    st.badge(label, color=colour, icon=icon)


def label(state: str) -> str:
    """The run's state in words."""
    return _STATES.get(state, ("", "", state))[2]


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def run_card(record: backend.RunRecord, *, controls: bool = True) -> None:
    """State, progress, message, and buttons to stop or resume."""
    with st.container(horizontal=True, vertical_alignment="center"):
        badge(record.state)
        st.markdown(record.title, width="content")
        if record.started is not None:
            st.caption(duration(record.seconds), width="content")
    if not record.has_ended:
        stage = record.stage or "starting"
        of = f" {record.done} of {record.total}" if record.total else ""
        st.progress(record.fraction, text=f"{stage[:1].upper()}{stage[1:]}{of}")
    if record.message:
        show = st.error if record.state in ("failed", "lost") else st.caption
        show(record.message)
    if controls and not backend.is_read_only():
        _controls(record)


def _controls(record: backend.RunRecord) -> None:
    if record.can_cancel and st.button("Cancel", icon=":material/stop:", key=f"cancel_{record.id}"):
        with guard():
            backend.cancel_run(record.id)
            st.rerun()
    if record.can_resume and st.button(
        "Resume", icon=":material/play_arrow:", key=f"resume_{record.id}"
    ):
        with guard():
            backend.resume_run(record.id)
            st.rerun()


def watch(record: backend.RunRecord) -> None:
    """The run's card, refreshed every second while it lives; the page is redrawn when it ends.

    Where the run searches, the bracket it is closing is below.
    """
    if record.has_ended:
        run_card(record)
    else:
        _live(record.id)


@st.fragment(run_every=1.0)
@guarded
def _live(run_id: str) -> None:
    record = backend.get_run(run_id)
    run_card(record)
    live_bracket(record)
    if record.has_ended:
        st.rerun()
