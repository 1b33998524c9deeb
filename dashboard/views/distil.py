"""Distil: start a training or a copy, watch it, stop and resume it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts, state
from dashboard.guard import guard, guarded
from dashboard.parts import run as run_parts

TITLE = "Distil"
ICON = ":material/model_training:"
SECTION = "Models"
ORDER = 60
NEEDS = ()

#: The name the form last proposed.
_PROPOSED = "_proposed_name"
_TASKS = {
    "student": "Distil a student",
    "copy": "Round or prune a copy",
    "teacher": "Train a teacher",
}
#: Groups of settings: title, and whether they are unfolded at first.
_GROUPS = {
    "training": ("Training", True),
    "method": ("Method", True),
    "architecture": ("Architecture", False),
    "details": ("More settings", False),
}

_EXPLANATION = """
A run is a process of its own: close this page and it goes on; come back and it is in the list. Cancelling
saves a checkpoint, from which *Resume* goes on as if nothing had happened. A finished model is in the
sidebar at once. Every setting is the same as on the command line (`python -m fkd train --help`; also
`distill` and `copy`). A copy is its teacher with rounded weights, or without the smallest ones: nothing
is trained, so it is measured and ready within minutes.
"""


def render() -> None:
    """Draw the page."""
    left, right = st.columns([1, 1], gap="medium")
    with left:
        if backend.is_read_only():
            st.info(
                "This dashboard only shows results (FKD_READ_ONLY), so it starts no runs.",
                icon=":material/visibility:",
            )
        else:
            _new_run()
    with right:
        _runs()
        _models()
    parts.how_to_read(_EXPLANATION)


# ---------------------------------------------------------------- starting


def _new_run() -> None:
    st.subheader("New run", anchor=False)
    task = st.segmented_control(
        "What to make",
        list(_TASKS),
        default="student",
        required=True,
        label_visibility="collapsed",
        **state.bound("task", _TASKS),
    )
    dataset = st.session_state.get("dataset")
    teacher = None
    if task != "teacher":
        teacher = _teacher(dataset, task)
        if teacher is None:
            return
    if task == "copy":
        _new_copy(teacher)
    else:
        _new_training(task, dataset, teacher)


def _teacher(dataset: str, task: str) -> str | None:
    names = [card.name for card in backend.teachers(dataset)]
    if not names:
        st.info(f"There is no teacher on {dataset} yet; train one first.", icon=":material/info:")
        return None
    chosen = st.session_state.get("teacher")
    verb = "copy" if task == "copy" else "imitate"
    return st.selectbox(
        "Teacher",
        names,
        index=names.index(chosen) if chosen in names else 0,
        key="run_teacher",
        help=f"The network to {verb}. The data set is the sidebar's.",
    )


def _new_training(role: str, dataset: str, teacher: str | None) -> None:
    methods = backend.methods(role)
    first, second = st.columns(2)
    method = first.selectbox("Method", list(methods), format_func=methods.get, key="run_method")
    architectures = backend.architectures()
    architecture = second.selectbox(
        "Architecture",
        list(architectures),
        index=list(architectures).index(backend.default_architecture()),
        key="run_architecture",
        help="\n\n".join(f"**{name}**: {text}" for name, text in architectures.items()),
    )
    made = _form(
        _TASKS[role],
        backend.training_fields(method, architecture),
        (dataset, method, architecture),
        {**dict.fromkeys(("training", "architecture", "details"), architecture), "method": method},
    )
    if made is not None:
        name, values = made
        spec = {
            "name": name,
            "dataset": dataset,
            "teacher": teacher,
            "method": method,
            "method_config": values.get("method", {}),
            "architecture": architecture,
            "architecture_config": values.get("architecture", {}),
            **values.get("training", {}),
            **values.get("details", {}),
        }
        _start(name, backend.start_training, spec)


def _new_copy(teacher: str) -> None:
    ways = backend.copyings()
    method = st.selectbox(
        "What is done to its weights", list(ways), format_func=ways.get, key="run_copying"
    )
    made = _form(
        "Make the copy",
        backend.copy_fields(method),
        (teacher, method),
        {"method": method, "details": "copy"},
    )
    if made is not None:
        name, values = made
        spec = {
            "name": name,
            "teacher": teacher,
            "method": method,
            "method_config": values.get("method", {}),
            **values.get("details", {}),
        }
        _start(name, backend.start_copy, spec)


def _form(
    button: str,
    fields: dict[str, list[backend.Field]],
    name_parts: tuple[str, ...],
    prefixes: dict[str, str],
) -> tuple[str, dict[str, dict[str, Any]]] | None:
    """Draw the form; the model's name and each group's values once it is sent and could be read.

    Args:
        button: what sends it.
        fields: of each group.
        name_parts: what the proposed name is made of.
        prefixes: of the widgets' keys, by group.
    """
    key = "_".join(("run_name", *name_parts))
    _propose(key, backend.free_name(*name_parts))
    with st.form("new_run", border=True):
        name = st.text_input(
            "Name of the new model",
            key=key,
            help="Letters, digits, dots, dashes and underscores; also its folder's name.",
        )
        values: dict[str, Any] = {}
        for group, (title, is_open) in _GROUPS.items():
            if not fields.get(group):
                continue
            with st.expander(title, expanded=is_open), guard():
                values[group] = parts.form_values(fields[group], f"run_{group}_{prefixes[group]}")
        submitted = st.form_submit_button(button, type="primary", icon=":material/play_arrow:")
    # A group whose values could not be read has said so; nothing is started without it.
    if submitted and all(group in values for group in fields if fields[group]):
        return name, values
    return None


def _start(name: str, start: Callable[[dict[str, Any]], str], spec: dict[str, Any]) -> None:
    with guard():
        st.session_state["watched_run"] = start(spec)
        # The next run needs another name, whoever chose this one.
        st.session_state[_PROPOSED] = name
        st.toast(f"Started {name}; its progress is under Runs.", icon=":material/play_arrow:")
        st.rerun()


def _propose(key: str, name: str) -> None:
    """Put a free name into the box of that key, unless somebody typed one."""
    if st.session_state.get(key) in (None, st.session_state.get(_PROPOSED)):
        st.session_state[key] = name
    st.session_state[_PROPOSED] = name


# ---------------------------------------------------------------- watching


def _runs() -> None:
    st.subheader("Runs", anchor=False)
    records = backend.recent_runs()
    if not records:
        with st.container(border=True):
            st.markdown(
                ":material/hourglass_empty: **No run yet.** A run you start appears here, with its "
                "progress, its loss and accuracy by epoch, and its log; it can be stopped and resumed."
            )
        return
    by_id = {record.id: record for record in records}
    watched = st.session_state.pop("watched_run", None)
    if watched in by_id:
        st.session_state["run"] = watched
    chosen = st.selectbox(
        "Run",
        list(by_id),
        format_func=lambda run_id: backend.run_label(by_id[run_id]),
        label_visibility="collapsed",
        **state.addressed("run", by_id, records[0].id),
    )
    record = by_id[chosen]
    with st.container(border=True):
        if record.has_ended:
            _details(record)
        else:
            _live(record.id)
    _list(records)


@st.fragment(run_every=1.0)
@guarded
def _live(run_id: str) -> None:
    record = backend.get_run(run_id)
    _details(record)
    if record.has_ended:
        st.rerun()


def _details(record: backend.RunRecord) -> None:
    parts.run_card(record)
    _curves(record.id)
    if record.state == "done" and record.result:
        _finished(record)
    with st.expander("Log", icon=":material/terminal:"):
        log = backend.run_log(record.id)
        st.code(log or "Nothing written yet.", language=None, height=220)
    with st.expander("Settings", icon=":material/tune:"):
        st.json(record.spec)


def _curves(run_id: str) -> None:
    history, shares, losses = backend.training_history(run_id)
    if not (losses or shares):
        return
    # The same steps in both charts, so that they can be read one below the other.
    steps = (0.0, float(history["done"].max()))
    if losses:
        parts.chart(
            figures.lines(
                history, losses, x="done", x_title="training step", y_title="loss", x_range=steps
            ),
            "losses",
        )
    if shares:
        parts.chart(
            figures.lines(
                history,
                shares,
                x="done",
                x_title="training step",
                y_title="share or gap (0 to 1)",
                x_range=steps,
                share=True,
            ),
            "accuracies",
        )


def _finished(record: backend.RunRecord) -> None:
    st.success(f"The model **{record.result}** is ready.", icon=":material/check:")
    wanted = backend.made_pair(record)
    if wanted is None:
        return
    if all(st.session_state.get(key) == value for key, value in wanted.items()):
        parts.page_link(
            "overview", "See how far it is from its teacher", ":material/arrow_forward:"
        )
    else:
        st.button(
            "Choose this pair",
            icon=":material/check_circle:",
            key="choose_finished",
            on_click=st.session_state.update,
            args=(wanted,),
            help="Sets data set, teacher and student in the sidebar.",
        )


def _models() -> None:
    dataset = st.session_state.get("dataset")
    cards = backend.cards(dataset)
    if not cards:
        return
    st.subheader(f"Models on {dataset}", anchor=False)
    table = pd.DataFrame(
        [
            {
                "name": card.name,
                "method": card.method,
                "parameters": card.parameters,
                "right": card.metrics.get("clean_accuracy"),
            }
            for card in sorted(cards, key=lambda card: (card.role == "student", card.name))
        ]
    )
    st.dataframe(
        figures.styled(table, {"right": figures.percent}),
        hide_index=True,
        placeholder="",
        column_config={
            "name": st.column_config.TextColumn(width="medium"),
            "parameters": st.column_config.NumberColumn(
                format="localized", help="Number of trained weights."
            ),
            "right": st.column_config.NumberColumn(
                help="Share of unperturbed test images classified right."
            ),
        },
        alt=f"Models on {dataset}, teachers first",
    )


def _list(records: list[backend.RunRecord]) -> None:
    table = pd.DataFrame(
        [
            {
                "run": record.title,
                "state": run_parts.label(record.state),
                "asked": record.created,
                "took": run_parts.duration(record.seconds) if record.has_ended else "",
            }
            for record in records
        ]
    )
    st.dataframe(
        table,
        hide_index=True,
        height=min(320, 40 + 35 * len(table)),
        column_config={
            "run": st.column_config.TextColumn(width=235),
            "asked": st.column_config.DatetimeColumn(format="distance"),
        },
        alt="All training runs, newest first",
    )


if __name__ == "__main__":
    render()
