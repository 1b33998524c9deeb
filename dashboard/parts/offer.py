"""A result that a run makes: the run on its way, how the last one ended, or the button for one."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard import backend
from dashboard.guard import guard
from dashboard.parts.page import images_absent
from dashboard.parts.run import run_card, watch


def offer_run(
    live: backend.RunRecord | None,
    dataset: str,
    *,
    key: str,
    label: str,
    work: str,
    lack: str,
    start: Callable[[], object],
) -> None:
    """Watch the run that lives; otherwise say how it ended, and offer the next one.

    Args:
        live: the newest run of this result, None where there is none or it is done.
        dataset: whose images the run needs.
        key: unique on the page.
        label: of the button.
        work: what a server that only shows results does not start: "search".
        lack: what cannot be done without the images.
        start: starts the run; whatever it raises becomes a sentence.
    """
    info = backend.data_set(dataset)
    if live is not None and not live.has_ended:
        watch(live)
        return
    if info is not None and not info.is_available:
        images_absent(dataset, key, lack)
        return
    if live is not None:
        run_card(live)
        if live.can_resume:
            return
    if backend.is_read_only():
        st.caption(f"This dashboard only shows results (FKD_READ_ONLY), so it starts no {work}.")
        return
    if st.button(
        label,
        icon=":material/play_arrow:",
        key=f"start_{key}",
        help="Starts a run; you can leave the page, and cancel it.",
    ):
        with guard():
            start()
            st.rerun()
