"""The bracket of the image that a run's search is at, as it closes."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import backend, figures
from dashboard.parts.chart import chart


def live_bracket(record: backend.RunRecord) -> None:
    """Figures and a chart of the run's latest bracket; nothing for runs that report none."""
    bracket = backend.live_bracket(record)
    if bracket is None:
        return
    last = bracket.history.iloc[-1]
    # Between two images the last bracket stays in sight, under a name that is true of it.
    image = "Image in work" if bracket.is_in_work else "Image last in work"
    done = f"{bracket.done} of {bracket.total} done"
    with st.grid(4, min_column_width=130):
        for label, value, below, tip in (
            (image, f"{bracket.example}", done, "Its position in the test split."),
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
    chart(figures.closing(bracket.history, example=bracket.example), f"closing_{record.id}")


def _whole(value: float) -> str:
    return "—" if pd.isna(value) else f"{int(value):,}"
