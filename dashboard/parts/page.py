"""Heading, link, and what a page says when it has nothing to draw yet."""

from __future__ import annotations

import streamlit as st

from dashboard import backend, figures, state
from dashboard.guard import guard
from dashboard.parts import run

_STATE_COLOURS = {"refuted": "violet", "open": "gray", "certified": "green"}
_STATE_ICONS = {
    "refuted": ":material/close:",
    "open": ":material/question_mark:",
    "certified": ":material/verified:",
}


def heading(title: str, choice: backend.Choice | None) -> object:
    """Title, what is being looked at, and a place for the link (filled once the page is drawn)."""
    row = st.container(
        horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
    )
    with row:
        st.title(title, width="content", anchor=False)
        slot = st.container(width="content")
    if choice is not None:
        st.markdown(
            f":blue-badge[:material/school: {choice.teacher}] "
            f":orange-badge[:material/person: {choice.student}] "
            f":gray-badge[{figures.ball_in_pixels(choice.epsilon, choice.norm)}] "
            f":gray-badge[{choice.dataset}, {choice.count} images] "
            f":green-badge[:material/verified: {backend.level_title(choice)}]"
        )
    return slot


def copy_link(slot: object) -> None:
    """The link to this very view, in the heading."""
    with slot, st.popover("Copy link", icon=":material/link:"):  # type: ignore[attr-defined]
        st.caption("Opens this page with the same data, pair, radius and selected image.")
        st.code(state.link(), language=None, wrap_lines=True)


def page_link(page: str, label: str, icon: str, **changes: object) -> None:
    """A link to another page that keeps the pair.

    The browser adds ``changes`` to what the address holds already, so they may only name choices that
    this page does not draw itself (given twice, a choice is none).  `st.switch_page` would refuse to
    leave the bound ones behind.

    Args:
        page: module's name.
        label: what to click.
        icon: beside it.
        changes: choices to make on the way, by their keys in the address.
    """
    st.page_link(
        f"views/{page}.py",
        label=label,
        icon=icon,
        query_params={name: str(value) for name, value in changes.items()},
    )


def state_badge(name: str) -> None:
    """Certified, open or refuted, in words and colour."""
    st.badge(backend.STATE_NAMES[name], color=_STATE_COLOURS[name], icon=_STATE_ICONS[name])


def how_to_read(text: str) -> None:
    """Folded explanation of a page."""
    with st.expander("How to read this page", icon=":material/help:"):
        st.markdown(text)


def certificate_note(loaded: backend.Loaded) -> None:
    """Say how many examples have no certificate, and why."""
    missing = loaded.summary.certified_missing
    if not missing:
        return
    reasons = loaded.frame["certificate_reason"].dropna().unique()
    why = f" ({reasons[0]})" if len(reasons) else ""
    st.info(
        f"{missing} of {loaded.summary.count} images have no certificate{why}; for them only the "
        "attack's lower end is known.",
        icon=":material/info:",
    )


def no_pair(problem: str) -> None:
    """Say why there is no pair to show.

    Args:
        problem: the sidebar's sentence.
    """
    st.info(problem, icon=":material/info:")
    if problem.startswith("There is no"):
        page_link("distil", "Train or distil", ":material/model_training:")


def not_analysed(choice: backend.Choice) -> None:
    """Explain that nothing is stored for this choice, and offer the one next step.

    Where a run is to answer it, say how far that is and what is kept of it.
    """
    info = backend.data_set(choice.dataset)
    live = backend.live_analysis(choice)
    with st.container(border=True):
        title, text = _standing(choice, live)
        st.subheader(title, anchor=False)
        st.markdown(text)
        if live is not None and not live.has_ended:
            run.watch(live)
        elif info is not None and not info.is_available:
            images_absent(choice.dataset, "analyse", "nothing new can be analysed")
        else:
            if live is not None:
                run.run_card(live)
            if live is None or not live.can_resume:
                _start(choice)
    _stored_instead(choice)


#: Heading, and what has become of the analysis, for each way in which a run ends without a table.
_ENDED = {
    "cancelled": ("Analysis cancelled", "was cancelled"),
    "failed": ("Analysis failed", "failed"),
    "lost": ("Analysis interrupted", "ended with its process"),
}


def _standing(choice: backend.Choice, live: backend.RunRecord | None) -> tuple[str, str]:
    """Heading and text for a choice whose table is not stored.

    Args:
        choice: what is asked for.
        live: the run that is to answer it, if there is one.
    """
    what = (
        f"**{choice.student}** against **{choice.teacher}** within "
        f"{figures.ball_in_pixels(choice.epsilon, choice.norm)} on the first {choice.count} test "
        f"images of **{choice.dataset}** with bounds of the level **{backend.level_title(choice)}**"
    )
    if live is None:
        return "Not analysed yet", (
            f"Nothing is stored for {what}. An analysis attacks each image to find how far the two "
            f"get apart, and certifies how far they can get at most; it takes {_duration(choice)}, and "
            "is kept."
        )
    if not live.has_ended:
        kept = (
            "images are bounded in small groups, and finished groups are kept, also when it is cancelled"
            if backend.keeps_finished(choice)
            else "when it is cancelled, nothing of it is kept"
        )
        return "Being analysed", (
            f"Results for {what} appear here when all images are done. You can leave the page; {kept}."
        )
    title, ended = _ENDED.get(live.state, ("Analysis ended", "ended"))
    finished = backend.finished_images(choice)
    kept = (
        f"The bounds of {finished} images, in finished groups, are kept; *Resume* does the others."
        if finished
        else "Nothing of it is kept; *Resume* begins anew."
    )
    return title, f"The analysis of {what} {ended} before all images were done. {kept}"


def _duration(choice: backend.Choice) -> str:
    """How long an analysis takes, as far as that is known."""
    budget = backend.time_budget(choice)
    return "seconds to minutes" if budget is None else f"up to about {run.duration(budget)}"


def _start(choice: backend.Choice) -> None:
    if backend.is_read_only():
        st.caption("This dashboard only shows results (FKD_READ_ONLY), so it starts no analysis.")
        return
    if st.button(
        f"Analyse {choice.count} images",
        type="primary",
        icon=":material/play_arrow:",
        key="start_analysis",
    ):
        with guard():
            backend.start_analysis(choice)
            st.rerun()


def _stored_instead(choice: backend.Choice) -> None:
    others = [other for other in backend.stored(choice) if other != choice]
    if not others:
        return
    st.markdown("**Stored for this pair:**")
    with st.container(horizontal=True):
        for other in others[:12]:
            by_teacher = ", teacher's class" if other.gap_class == "teacher" else ""
            seconds = "" if other.seconds is None else f"_{other.seconds:g}"
            st.button(
                f"{figures.ball(other.epsilon, other.norm)}, {other.count} images{by_teacher}, "
                f"{backend.level_title(other)}",
                key=f"stored_{other.norm}_{other.epsilon:g}_{other.count}_{other.gap_class}"
                f"_{other.level}{seconds}",
                on_click=_take,
                args=(other,),
            )


def _take(other: backend.Choice) -> None:
    st.session_state["norm"] = backend.NORM_NAMES[other.norm]
    st.session_state["epsilon"] = f"{other.epsilon:g}"
    st.session_state["count"] = other.count
    st.session_state["gap_class"] = other.gap_class
    state.choose_level(other.level, other.seconds)


def images_absent(dataset: str, key: str, lack: str = "there are tables but no pictures") -> None:
    """Say that the images are elsewhere, and offer to download them where that can be done.

    Args:
        dataset: its name.
        key: unique on the page.
        lack: what cannot be done without them.
    """
    info = backend.data_set(dataset)
    title = info.title if info is not None else dataset
    st.markdown(
        f":material/image_not_supported: The images of {title} are not on this machine, so {lack}."
    )
    if info is None or not info.can_download:
        st.caption("Put the set's files into the data folder; the page About names it.")
        return
    if backend.is_read_only():
        return
    if st.button(f"Download {title}", icon=":material/download:", key=f"download_{key}"):
        with guard():
            bar = st.progress(0.0, text=f"Downloading {title}")

            def show(step: object) -> None:
                bar.progress(step.fraction, text=f"Downloading {title}: {step.stage}")  # type: ignore[attr-defined]

            backend.download(dataset, show)
            st.rerun()
