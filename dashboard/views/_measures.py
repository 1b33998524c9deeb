"""Other measures than one class's gap, on *Confidence gaps*: what is stored, or the run for it."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts, state

_HEIGHT = 330
#: The example that the table was drawn with, and the one that was last clicked in it.
_DRAWN_WITH, _CLICKED = "_measures_drawn_with", "_measures_clicked"


def other_measures(choice: backend.Choice, loaded: backend.Loaded) -> None:
    """The section.

    Args:
        choice: what is looked at.
        loaded: its analysis.
    """
    st.subheader("Other ways to differ", anchor=False)
    found = backend.find_measures(choice)
    if found is None:
        _not_measured(choice)
    else:
        _measured(choice, loaded, found)


def _graded() -> dict[str, backend.MeasureFacts]:
    """The measures that are large or small; events are told on the page *Disagreements*."""
    return {name: facts for name, facts in backend.measure_facts().items() if not facts.is_event}


# ---------------------------------------------------------------- nothing stored


def _not_measured(choice: backend.Choice) -> None:
    titles = "; ".join(facts.title for facts in backend.measure_facts().values())
    with st.container(border=True):
        st.markdown(
            "Two networks can differ in more than the confidence of one class. Each of these is attacked "
            f"for itself: {titles} (the last two are then shown on *Disagreements*). It is done on the "
            f"first {choice.count} images within "
            f"{figures.ball(choice.epsilon, choice.norm)}; for networks like those shipped that takes "
            "seconds to minutes, and is kept."
        )
        parts.offer_run(
            backend.live_measures(choice),
            choice.dataset,
            key="measures",
            label=f"Attack {choice.count} images",
            work="attack",
            lack="nothing can be attacked",
            start=lambda: backend.start_measures(choice),
        )


# ---------------------------------------------------------------- stored


def _measured(
    choice: backend.Choice, loaded: backend.Loaded, found: backend.LoadedMeasures
) -> None:
    graded = _graded()
    measure = st.segmented_control(
        "Measure",
        list(graded),
        default=next(iter(graded)),
        required=True,
        label_visibility="collapsed",
        **state.bound("measure", {name: facts.title for name, facts in graded.items()}),
    )
    facts = graded[measure]
    st.caption(
        f"{facts.meaning} The largest that the attack found within "
        f"{figures.ball(choice.epsilon, choice.norm)}, a lower end, beside the value at the image itself."
    )
    _numbers(found.summaries[measure])
    left, right = st.columns([3, 2], gap="medium")
    with left:
        parts.chart(_spread(found, measure, facts), "measure_spread")
        _witness(choice, loaded, found, measure)
    with right:
        _table(found.of(measure), f"{found.key}_{measure}", facts)
        with st.container(horizontal=True):
            parts.downloads(found.table, f"measures-{found.key}", "measures")
            with st.popover("Reproduce", icon=":material/terminal:"):
                st.code(backend.reproduce_measures(choice), language="bash", wrap_lines=False)


def _numbers(summary: backend.MeasureSummary) -> None:
    meanings = backend.measures_meanings()
    with st.grid(4, min_column_width=150):
        for label, name in (
            ("Mean", "mean"),
            ("Median", "median"),
            ("95th percentile", "p95"),
            ("Maximum", "largest"),
        ):
            st.metric(
                label,
                figures.at_least(getattr(summary.attack, name)),
                f"{figures.reached(getattr(summary.clean, name))} at the images",
                delta_color="off",
                delta_arrow="off",
                help=f"{meanings[name]} Unit: {summary.unit}.",
                border=True,
            )


def _spread(
    found: backend.LoadedMeasures, measure: str, facts: backend.MeasureFacts
) -> figures.Chart:
    rows = found.of(measure)
    chosen = rows.loc[rows["index"] == state.example(), "value_attack"]
    return figures.measure_spread(
        found.curve(measure),
        title=facts.title,
        unit=facts.unit,
        count=len(rows),
        primary=None if chosen.empty else (state.example(), float(chosen.iloc[0])),
        height=_HEIGHT,
    )


def _witness(
    choice: backend.Choice, loaded: backend.Loaded, found: backend.LoadedMeasures, measure: str
) -> None:
    """The selected image where this measure is at its worst; nothing where no points or images are."""
    index, classes = state.example(), state.classes()
    point = found.measured.witness(measure, index)
    info = backend.data_set(choice.dataset)
    if point is None or (info is not None and not info.is_available):
        return
    row = found.of(measure).set_index("index").loc[index]
    st.markdown(
        f"**Image {index}**, label {parts.named(classes, row['label'])}, at the worst point found: the "
        f"teacher says :blue[**{parts.named(classes, row['teacher_pred'])}**], the student "
        f":orange[**{parts.named(classes, row['student_pred'])}**]"
    )
    with st.container(width=420):
        parts.images_at(backend.example(choice, loaded, index), point, choice.shown_change)


def _table(rows: pd.DataFrame, name: str, facts: backend.MeasureFacts) -> None:
    classes, meanings = state.classes(), backend.measures_meanings()
    ordered = rows.sort_values("value_attack", ascending=False, kind="stable")
    ids = ordered["index"].tolist()
    shown = pd.DataFrame(
        {
            "index": ordered["index"],
            "value_attack": ordered["value_attack"],
            "value_clean": ordered["value_clean"],
        }
    )
    for column in ("value_attack", "value_clean"):
        shown[column] = [figures.rounded(value, figures.reached) for value in shown[column]]
    if ordered["compared"].notna().all():
        shown["compared"] = [parts.named(classes, value) for value in ordered["compared"]]
    for column in ("teacher_pred", "student_pred"):
        shown[column] = [parts.named(classes, value) for value in ordered[column]]
    chosen = state.example()
    # A table cannot be told what is selected while it stays: it is drawn anew where something else was
    # clicked, and only there, so that it stays where it was scrolled to.
    if st.session_state.get(_CLICKED) != chosen:
        st.session_state[_DRAWN_WITH] = chosen
    key = f"measures_table_{name}_{st.session_state.get(_DRAWN_WITH)}"

    def row_clicked() -> None:
        selected = st.session_state[key]["selection"]["rows"]
        if selected:
            st.session_state[_CLICKED] = ids[selected[0]]
            state.select(ids[selected[0]])

    narrow = {"teacher_pred": "teacher", "student_pred": "student", "compared": "class"}
    st.dataframe(
        shown,
        key=key,
        on_select=row_clicked,
        selection_mode="single-row",
        selection_default={"selection": {"rows": [ids.index(chosen)]}} if chosen in ids else None,
        hide_index=True,
        placeholder="",
        height=_HEIGHT + 130,
        column_config={
            "index": st.column_config.NumberColumn("image", help=meanings["index"], width=55),
            "value_attack": st.column_config.NumberColumn(
                "attack", help=f"{facts.meaning} Unit: {facts.unit}.", format="%.3f", width=65
            ),
            "value_clean": st.column_config.NumberColumn(
                "clean", help=meanings["value_clean"], format="%.3f", width=65
            ),
        }
        | {
            column: st.column_config.TextColumn(title, help=meanings[column], width=65)
            for column, title in narrow.items()
            if column in shown
        },
        alt=f"Images by {facts.title}, the largest found first; select a row to see the image",
    )
