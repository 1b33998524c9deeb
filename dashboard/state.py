"""What a page looks at: the sidebar's choice, the selected example, and the link that reopens both.

Nearly every choice is a widget with ``key=`` and ``bind="query-params"``, so Streamlit keeps it in the
address and across pages (`bound`; see `addressed` for the others).  Defaults stay out of the address;
`link` writes them all down, so a copied link shows the same view wherever the defaults differ.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from dashboard import backend

#: Keys of the sidebar's widgets; also the names in the address.
PAIR_KEYS = (
    "dataset",
    "teacher",
    "student",
    "norm",
    "epsilon",
    "level",
    "seconds",
    "count",
    "gap_class",
)
#: Keys of pages' widgets that belong to a view.
VIEW_KEYS = (
    "example",
    "pairing",
    "show",
    "witness",
    "curve",
    "plane",
    "pixels",
    "measure",
    "seen",
    "page",
    "students",
    "methods",
    "order",
    "together",
    "part",
    "figures",
    "other",
    "end",
    "carried",
    "run",
    "task",
)

_KEY_NAMES = {
    "gap_class": "class compared",
    "dataset": "data set",
    "level": "level of the bounds",
    "seconds": "number of seconds an image",
}

#: Keys of pages' choices among things that come and go, and what a sentence calls them.
_VIEW_NAMES = {
    "students": "students",
    "methods": "methods",
    "order": "order",
    "part": "section",
    "other": "other student",
}

_ASKED = "_asked"
_RADIUS_CHOSEN = "_radius_chosen"
_RADIUS_WANTED = "_radius_wanted"
_CHOICE = "_choice"
_LOADED = "_loaded"
_DRAWN = "_drawn_keys"
_TABLE_ROUND = "_table_round"


def set_choice(choice: backend.Choice | None, loaded: backend.Loaded | None) -> None:
    """Remember the frame's choice for the page (called by the frame in every run)."""
    st.session_state[_CHOICE] = choice
    st.session_state[_LOADED] = loaded


def choice() -> backend.Choice:
    """The present choice; pages whose NEEDS hold "pair" may rely on it."""
    return st.session_state[_CHOICE]


def loaded() -> backend.Loaded:
    """The present choice's analysis; pages whose NEEDS hold "analysis" may rely on it."""
    return st.session_state[_LOADED]


def maybe_choice() -> backend.Choice | None:
    """The present choice, None where no pair can be chosen."""
    return st.session_state.get(_CHOICE)


def classes() -> tuple[str, ...]:
    """Names of the data set's classes; empty where they are unknown."""
    info = backend.data_set(choice().dataset)
    return tuple(info.classes) if info is not None else ()


# ---------------------------------------------------------------- levels


def seconds_range(level: backend.Level) -> dict[str, Any]:
    """Arguments of the box for a level's time budget an image."""
    budget = level.budget
    return {
        "value": float(budget.default),
        "min_value": max(0.1, float(budget.minimum or 0.0)),
        "max_value": None if budget.maximum is None else float(budget.maximum),
        "step": 5.0,
        "format": "%g",
    }


def choose_level(name: str, seconds: float | None = None) -> None:
    """Put a level into the sidebar (in callbacks only: it is taken up in the next run)."""
    st.session_state["level"] = backend.levels()[name].title
    if seconds is not None:
        st.session_state["seconds"] = float(seconds)


# ---------------------------------------------------------------- radius


def note_radius(*, is_chosen: bool) -> None:
    """Remember whether somebody asked for the radius, by a link or in the sidebar."""
    st.session_state[_RADIUS_CHOSEN] = is_chosen


def radius_is_chosen() -> bool:
    """Whether somebody asked for the radius; else a page may open at another one."""
    return st.session_state.get(_RADIUS_CHOSEN, False)


def move_to_radius(epsilon: float) -> None:
    """Begin anew with this radius in the sidebar, which is drawn already in this run."""
    st.session_state[_RADIUS_WANTED] = f"{epsilon:g}"
    st.rerun()


def take_wanted_radius() -> None:
    """Put the radius of `move_to_radius` in place (called by the sidebar before it draws)."""
    wanted = st.session_state.pop(_RADIUS_WANTED, None)
    if wanted is not None:
        st.session_state["epsilon"] = wanted


# ---------------------------------------------------------------- links


def begin_run() -> None:
    """Forget which widgets were drawn before (called by the frame first)."""
    st.session_state[_DRAWN] = {}


def bound(key: str, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Arguments that tie a widget to the address: ``st.toggle("...", **bound("curve"))``.

    Args:
        key: of the widget, and its name in the address.
        names: how the options are shown, for a choice among several.  Streamlit writes what is shown
            into the address and reads it back from there, so names must not change with the data.
    """
    st.session_state.setdefault(_DRAWN, {})[key] = names
    shown = {} if names is None else {"format_func": names.__getitem__}
    return {"key": key, "bind": "query-params", **shown}


def addressed(
    key: str, known: Collection[str] | None, default: str, *, is_told: bool = False
) -> dict[str, Any]:
    """Arguments that tie a choice among changing options to the address by the option itself.

    `bound` would put the option's shown name there, which must then never change; and it leaves out what
    no hand chose.

    Args:
        key: of the widget, and its name in the address.
        known: the options there are now; a choice that is none of them gives way to the default.  None
            takes what was typed, whatever it is.
        default: stays out of the address.
        is_told: whether the default is in the address too.
    """
    # A widget that is not drawn, on another page, is forgotten; the second entry is not.
    kept = f"_kept_{key}"
    wanted = st.session_state.get(key) or st.session_state.get(kept) or st.query_params.get(key)
    value = wanted if wanted and (known is None or wanted in known) else default
    st.session_state[key] = st.session_state[kept] = value
    if value != default or is_told:
        st.query_params[key] = value
    elif key in st.query_params:
        del st.query_params[key]
    st.session_state.setdefault(_DRAWN, {})[key] = None
    return {"key": key}


def put(key: str, value: str) -> None:
    """Choose an option of an `addressed` widget that is not drawn now (in callbacks only)."""
    st.session_state[key] = st.session_state[f"_kept_{key}"] = value


def parameters(**changes: Any) -> dict[str, Any]:
    """Every choice of this view as address parameters, with some replaced (None leaves one out)."""
    drawn: dict[str, Mapping[str, str] | None] = st.session_state.get(_DRAWN, {})
    values = {}
    for key, names in drawn.items():
        value = st.session_state.get(key)
        values[key] = value if names is None or value is None else names[value]
    values |= changes
    found: dict[str, Any] = {}
    for key, value in values.items():
        if value is None or value == []:
            continue
        found[key] = [str(v) for v in value] if isinstance(value, list | tuple) else _text(value)
    return found


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def link() -> str:
    """The address that reopens this very view."""
    base = st.context.url or ""
    query = urlencode(parameters(), doseq=True)
    return f"{base}?{query}" if query else base


def asked_parameters() -> dict[str, list[str]]:
    """What the link that opened this session asks for, until a page was drawn to its end.

    A page that begins anew, with another radius say, has not told what the link did not get.
    """
    if _ASKED not in st.session_state:
        st.session_state[_ASKED] = {key: st.query_params.get_all(key) for key in st.query_params}
    return st.session_state[_ASKED]


def forget_asked() -> None:
    """The page was drawn to its end (called by the frame)."""
    st.session_state[_ASKED] = {}


def dropped_view_parameters(asked: Mapping[str, list[str]]) -> list[str]:
    """Sentences for what a link asked the page for and did not get, once the page is drawn.

    Args:
        asked: `asked_parameters`.
    """
    drawn = st.session_state.get(_DRAWN, {})
    sentences = []
    for key, name in _VIEW_NAMES.items():
        if key not in asked or key not in drawn:
            continue
        got, names = st.session_state.get(key), drawn[key]
        values = got if isinstance(got, list | tuple) else [got]
        shown = {value if names is None else names.get(value) for value in values}
        lost = [f"“{wanted}”" for wanted in asked[key] if wanted and wanted not in shown]
        if lost:
            sentences.append(
                f"The link asks for the {name} {', '.join(lost)}, which cannot be used."
            )
    return sentences


def dropped_parameters(asked: Mapping[str, list[str]]) -> list[str]:
    """Sentences for what a link asked the sidebar for and did not get.

    Args:
        asked: `asked_parameters`.
    """
    sentences = []
    for key in PAIR_KEYS:
        wanted, got = (asked.get(key) or [""])[-1], st.session_state.get(key)
        if wanted == "" or got is None or _same(wanted, got):
            continue
        name = _KEY_NAMES.get(key, key)
        sentences.append(
            f"The link asks for the {name} “{wanted}”, which cannot be used; this is “{got}”."
        )
    return sentences


def _same(wanted: str, got: Any) -> bool:
    if str(got) == wanted:
        return True
    try:
        return float(got) == float(wanted)
    except (TypeError, ValueError):
        return False


# ---------------------------------------------------------------- the selected example


def default_example() -> int:
    """The example whose gap the attack drove furthest."""
    frame = loaded().frame
    return int(frame.loc[frame["gap_attack"].idxmax(), "index"])


def example() -> int:
    """The selected example's id."""
    known = loaded().frame["index"]
    value = st.session_state.get("example")
    if value is None or value not in set(known):
        return default_example()
    return int(value)


def select(index: int, *, by_table: bool = False) -> None:
    """Make an example the selected one (in callbacks only: widgets take it up in the next run).

    Args:
        index: example id.
        by_table: the table was clicked, so it shows the selection already; otherwise it is drawn
            anew, because a table's selection cannot be set while it stays.
    """
    st.session_state["example"] = int(index)
    if not by_table:
        st.session_state[_TABLE_ROUND] = table_round() + 1


def table_round() -> int:
    """Part of the table's key: changes when the table must take up a selection made elsewhere."""
    return st.session_state.get(_TABLE_ROUND, 0)


def neighbour(ordered: pd.Series, step: int) -> int:
    """The example ``step`` places further in an order of ids, staying at its ends."""
    ids = [int(index) for index in ordered]
    here = ids.index(example()) if example() in ids else 0
    return ids[min(len(ids) - 1, max(0, here + step))]
