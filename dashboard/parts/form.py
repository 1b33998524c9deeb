"""A form drawn from a configuration's fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard import backend


def form_values(fields: Sequence[backend.Field], prefix: str) -> dict[str, Any]:
    """Draw one widget per field, in two columns; the values by field name.

    Empty optional fields are left out, so the configuration's own default applies.  Text that is no
    number is passed on as it is: the configuration says what is wrong with it.

    Args:
        fields: from `backend.fields_of`.
        prefix: of the widgets' keys.
    """
    values: dict[str, Any] = {}
    with st.grid(2, min_column_width=150) as grid:
        for field in fields:
            with grid.cell():
                value = _widget(field, f"{prefix}_{field.name}")
            if value is not None and value != "":
                values[field.name] = value
    return values


def _widget(field: backend.Field, key: str) -> Any:
    label, tip = field.label, field.help or None
    if field.kind == "bool":
        return st.toggle(label, value=bool(field.default), key=key, help=tip)
    if field.kind == "choice":
        options = list(field.choices)
        index = options.index(field.default) if field.default in options else 0
        if field.is_optional:
            index = options.index(field.default) if field.default in options else None
        return st.selectbox(label, options, index=index, key=key, help=tip)
    if field.kind == "int":
        return st.number_input(
            label,
            value=field.default,
            min_value=None if field.minimum is None else int(field.minimum),
            max_value=None if field.maximum is None else int(field.maximum),
            step=1,
            key=key,
            help=tip,
        )
    if field.kind == "float":
        # As text: steps and rounding of a number box would hide 2e-4 or 8/255.
        shown = "" if field.default is None else f"{field.default:g}"
        text = st.text_input(label, value=shown, key=key, help=_with_range(field)).strip()
        return _number(text)
    if field.kind in ("numbers", "decimals"):
        read = _whole if field.kind == "numbers" else _number
        shown = ", ".join(f"{part:g}" for part in field.default or ())
        text = st.text_input(label, value=shown, key=key, help=tip)
        return [read(part.strip()) for part in text.split(",") if part.strip()]
    return st.text_input(label, value=field.default or "", key=key, help=tip).strip()


def _with_range(field: backend.Field) -> str:
    limits = [
        f"at least {field.minimum:g}" if field.minimum is not None else "",
        f"at most {field.maximum:g}" if field.maximum is not None else "",
    ]
    told = ", ".join(part for part in limits if part)
    empty = "May be left empty." if field.is_optional else ""
    return " ".join(part for part in (field.help, f"({told})" if told else "", empty) if part)


def _number(text: str) -> Any:
    if "/" in text:
        return backend.parse_epsilon(text)
    try:
        return float(text)
    except ValueError:
        return text


def _whole(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return text
