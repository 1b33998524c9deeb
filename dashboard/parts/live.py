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
    done = f"{int(last['done'])} of {int(last['total'])} done"
    with st.grid(4, min_column_width=130):
        for label, value, below, tip in (
            ("Image in work", f"{example}", done, "Its position in the test split."),
            (
                "Gap reached",
                figures.at_least(last["lower"]),
                "shown by a point",
                "By a point of the ball that the search has met.",
            ),
            (
                "Gap certified",
                figures.at_most(last["upper"]),
                f"{figures.bound(last['width'])} left open",
                "Proved never to be exceeded on the whole ball.",
            ),
            (
                "Parts still open",
                _whole(last["open"]),
                f"{_whole(last['evaluated'])} evaluated",
                "Pieces of the ball whose bound is not low enough yet; none left ends the search.",
            ),
        ):
            st.metric(
                label,
                value,
                delta=below,
                delta_color="off",
                delta_arrow="off",
                border=True,
                help=tip,
            )
    chart(figures.closing(history, example=example), f"closing_{record.id}")


def _whole(value: float) -> str:
    return "—" if pd.isna(value) else f"{int(value):,}"
