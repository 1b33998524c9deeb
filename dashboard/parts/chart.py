"""Drawing a chart with its description and toolbar, and offering a table for download."""

from __future__ import annotations

import io
from collections.abc import Callable

import pandas as pd
import streamlit as st

from dashboard import figures


def chart(
    drawn: figures.Chart,
    key: str,
    *,
    on_select: Callable[[], None] | None = None,
) -> None:
    """A figure across the column, with alt text and a toolbar that saves it as SVG.

    Args:
        drawn: from `dashboard.figures`.
        key: unique on the page; also the file's name.
        on_select: called when points are clicked.
    """
    if on_select is None:
        st.plotly_chart(drawn.figure, key=key, alt=drawn.alt, config=figures.toolbar(key))
        return
    st.plotly_chart(
        drawn.figure,
        key=key,
        alt=drawn.alt,
        config=figures.toolbar(key),
        on_select=on_select,
        selection_mode="points",
    )


def clicked_example(key: str) -> int | None:
    """Example id of the point that was clicked in the chart of that key."""
    points = st.session_state[key]["selection"]["points"]
    for point in points:
        data = point.get("customdata")
        if isinstance(data, list | tuple):
            data = data[0] if data else None
        if isinstance(data, dict):
            data = next(iter(data.values()), None)
        if data is not None:
            return int(data)
    return None


def downloads(table: pd.DataFrame, name: str, key: str) -> None:
    """Buttons for the table as CSV and as Parquet."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    with st.container(horizontal=True):
        st.download_button(
            "CSV",
            table.to_csv(index=False).encode(),
            file_name=f"{name}.csv",
            mime="text/csv",
            icon=":material/download:",
            on_click="ignore",
            key=f"{key}_csv",
        )
        st.download_button(
            "Parquet",
            buffer.getvalue(),
            file_name=f"{name}.parquet",
            mime="application/vnd.apache.parquet",
            icon=":material/download:",
            on_click="ignore",
            key=f"{key}_parquet",
        )
