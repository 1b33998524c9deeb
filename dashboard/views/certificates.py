"""Certified bounds: what is proved of the gaps, against what was found."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts, state
from dashboard.guard import guard
from dashboard.views._radius import agreement_radius

TITLE = "Certified bounds"
ICON = ":material/verified:"
SECTION = "Results"
ORDER = 40
# It shows what other levels proved even where nothing is stored at the one chosen.
NEEDS = ("pair",)

_EXPLANATION = """
A certificate bounds the confidence gap on the *whole* neighbourhood of an image at once, by linear
relaxations of both networks; no attack, however clever, can exceed it. **Cumulative**: for each level g,
the share of images proved to stay at or below g, and the share no attack has pushed above g; the truth
lies in the shaded band, whose width is what is not known. **Tightness**: certificate against attack; a
point on the diagonal is known exactly, and none may lie below it, which would mean a mistake.
**Agreement** splits the images at every stored radius into certified, open and refuted.

**Agreement radius** turns the question round: up to which ε around an image can nothing happen? The truth
lies between the triangle, which is proved, and the point, the nearest disagreement found.

**Levels** differ in the work they give the upper end of a bracket, and *Exact* also finds points for the
lower end; all are proofs. Choose one above, or in the sidebar: every page then shows it. What each stored
level proved is set beside what it took; nothing long is computed unless you start it.
"""

#: Columns of the table of levels: what each means, and its width where there is little room.
_LEVEL_COLUMNS = {
    "level": ("How the bounds were made.", 92),
    "an image": ("Time the certificate took an image, on the machine that computed the table.", 68),
    "bound": ("Mean certified bound of the gap.", 58),
    "width": ("Mean of certified bound minus gap reached: what is left open.", 58),
    "decided": ("Share of images certified to agree or shown to disagree.", 66),
}


def render() -> None:
    """Draw the page."""
    choice = state.choice()
    _level(choice)
    loaded = backend.find(choice)
    if loaded is not None:
        _numbers(loaded.summary)
        parts.certificate_note(loaded)
    else:
        parts.not_analysed(choice)
    _levels(choice)
    if loaded is not None:
        _results(choice, loaded)
    with guard():
        agreement_radius(choice)
    if loaded is not None:
        _table(choice, loaded)
    parts.how_to_read(_EXPLANATION)


def _results(choice: backend.Choice, loaded: backend.Loaded) -> None:
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("Share of images below a gap", anchor=False)
        parts.chart(figures.cumulative(backend.certified_curve(loaded), height=320), "cumulative")
        st.subheader("How gaps are spread", anchor=False)
        parts.chart(figures.histogram(backend.histogram(loaded), height=300), "histogram")
    with right:
        st.subheader("Agreement by radius", anchor=False)
        radii = backend.radii(choice)
        parts.chart(
            figures.agreement(
                radii,
                [figures.ball(value, choice.norm) for value in radii["epsilon"]],
                height=320,
            ),
            "agreement",
        )
        st.subheader("Tightness", anchor=False)
        parts.chart(
            figures.examples(loaded.frame, "bracket", classes=state.classes(), height=300),
            "tightness",
        )


# ---------------------------------------------------------------- levels


def _level(choice: backend.Choice) -> None:
    """The sidebar's choice of level once more, where it matters most."""
    levels = backend.levels()
    # Follows the sidebar, whose widget holds the choice.
    st.session_state["page_level"] = choice.level
    with st.container(horizontal=True, vertical_alignment="top"):
        st.pills(
            "Level of the bounds",
            list(levels),
            format_func=lambda name: levels[name].title,
            required=True,
            key="page_level",
            on_change=_level_chosen,
        )
        if choice.seconds is not None:
            st.session_state["page_seconds"] = choice.seconds
            limits = state.seconds_range(levels[choice.level])
            del limits["value"]
            st.number_input(
                "Seconds an image",
                key="page_seconds",
                on_change=_level_chosen,
                width=150,
                **limits,
            )
    st.caption(levels[choice.level].note)


def _level_chosen() -> None:
    state.choose_level(st.session_state["page_level"], st.session_state.get("page_seconds"))


def _levels(choice: backend.Choice) -> None:
    known = backend.stored_levels(choice)
    if known:
        st.subheader("What each level proves", anchor=False)
        rows = pd.DataFrame(list(known.values())).reset_index(drop=True)
        names = [backend.level_title(other) for other in known]
        left, right = st.columns(2, gap="medium", vertical_alignment="center")
        with left:
            parts.chart(figures.level_brackets(rows, names), "levels")
        with right:
            _level_table(rows, names)
    for record in backend.live_levels(choice):
        with st.container(border=True):
            parts.watch(record)
    _offer(choice)


def _level_table(rows: pd.DataFrame, names: list[str]) -> None:
    table = pd.DataFrame(
        {
            "level": names,
            "an image": rows["certificate_seconds"].astype(float),
            "bound": rows["gap_certified_mean"].astype(float),
            "width": rows["bracket_mean"].astype(float),
            "decided": rows["decided_share"],
        }
    )
    st.dataframe(
        figures.styled(
            table,
            {
                "an image": figures.seconds,
                "bound": figures.bound,
                "width": figures.bound,
                "decided": figures.percent,
            },
        ),
        hide_index=True,
        placeholder="",
        column_config={
            name: st.column_config.Column(help=meaning, width=width)
            for name, (meaning, width) in _LEVEL_COLUMNS.items()
        },
        alt="What each stored level proves and what it took",
    )


def _offer(choice: backend.Choice) -> None:
    """A button for each level that is not stored; none where nothing can be computed."""
    info = backend.data_set(choice.dataset)
    if backend.is_read_only() or info is None or not info.is_available:
        return
    busy = {record.spec["certificate"]["name"] for record in backend.live_levels(choice)}
    missing = [
        other
        for other in backend.missing_levels(choice)
        if other.level not in {choice.level, *busy}
    ]
    if not missing:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("Not computed for this pair and ε yet:", width="content")
        for other in missing:
            budget = backend.time_budget(other)
            limit = "" if budget is None else f" (up to about {parts.duration(budget)})"
            st.button(
                f"Run {backend.level_title(other)}{limit}",
                icon=":material/play_arrow:",
                key=f"run_level_{other.level}",
                help=f"{backend.levels()[other.level].note} Starts a run on {choice.count} images; you "
                "can leave the page, and cancel it.",
                on_click=_run_level,
                args=(other,),
            )


def _run_level(other: backend.Choice) -> None:
    with guard():
        backend.start_analysis(other)
        state.choose_level(other.level, other.seconds)


# ---------------------------------------------------------------- figures


def _numbers(summary: backend.Summary) -> None:
    meanings = backend.summary_meanings()
    with st.grid(4, min_column_width=150):
        for label, name in (
            ("Mean bound", "gap_certified_mean"),
            ("95 % of bounds", "gap_certified_p95"),
            ("Largest bound", "gap_certified_max"),
            ("Mean width left open", "bracket_mean"),
        ):
            value = getattr(summary, name)
            # A width is what bounds leave open, so it is rounded as they are.
            text = figures.bound if name == "bracket_mean" else figures.at_most
            shown = "—" if value is None else text(value)
            tip = f"{meanings[name]} A difference of two probabilities, from 0 to 1."
            st.metric(label, shown, help=tip, border=True)


def _table(choice: backend.Choice, loaded: backend.Loaded) -> None:
    with st.expander("All columns of this analysis", icon=":material/table_rows:"):
        meanings = backend.column_meanings()
        table = loaded.analysis.table
        st.dataframe(
            table,
            hide_index=True,
            height=320,
            column_config={
                # All digits: numbers are data here, and none is rounded to the wrong side.
                name: st.column_config.NumberColumn(help=meanings.get(name), format="plain")
                if pd.api.types.is_float_dtype(table[name])
                else st.column_config.Column(help=meanings.get(name))
                for name in table.columns
            },
            placeholder="",
            alt="The whole analysis table, one row per image",
        )
        parts.downloads(pd.DataFrame(table), f"analysis-{loaded.key}", "analysis")
        st.markdown("**Reproduce**")
        st.code(backend.reproduce(choice), language="bash", wrap_lines=False)


if __name__ == "__main__":
    render()
