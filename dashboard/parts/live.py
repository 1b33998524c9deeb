"""The bracket of the image that a run's search is at, as it closes."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import backend, figures
from dashboard.parts.chart import chart


def live_bracket(record: backend.RunRecord) -> None:
    """Figures and a chart of the run's latest bracket; nothing for runs that report none."""
    history = backend.live_bracket(record.id)
    if history.empty:
        return
    last = history.iloc[-1]
    example = int(last["example"])
    with st.grid(4, min_column_width=130):
        st.metric(
            "Image in work", f"{example}", border=True, help="Its position in the test split."
        )
        st.metric(
            "Largest gap",
            f"{figures.reached(last['lower'])} … {figures.bound(last['upper'])}",
            border=True,
            help="Reached by a point inside the ball … proved never to be exceeded.",
        )
        st.metric(
            "Parts still open",
            _whole(last["open"]),
            border=True,
            help="Pieces of the ball whose bound is not yet low enough; the search ends with none.",
        )
        st.metric(
            "Parts evaluated", _whole(last["evaluated"]), border=True, help="Pieces bounded so far."
        )
    chart(figures.closing(history, example=example), f"closing_{record.id}")


def _whole(value: float) -> str:
    return "—" if pd.isna(value) else f"{int(value):,}"
