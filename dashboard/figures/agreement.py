"""Certified, open, refuted: three states that always add up to all examples."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from dashboard.figures import theme

_PARTS = (
    ("agreement_certified", "certified", ""),
    ("open_share", "open", ""),
    ("disagreement_found", "refuted", "/"),
)


def agreement(
    shares: pd.DataFrame, labels: Sequence[str], *, height: int | None = None
) -> theme.Chart:
    """One stacked bar per row.

    Args:
        shares: columns ``agreement_certified, open_share, disagreement_found`` (shares in [0, 1]).
        labels: name of each row, top first.
        height: pixels; by the number of rows if absent.
    """
    figure = go.Figure()
    names = [str(label) for label in labels]
    for column, state, pattern in _PARTS:
        colour, _, name = theme.STATES[state]
        figure.add_trace(
            go.Bar(
                y=names,
                x=shares[column],
                orientation="h",
                name=name,
                marker=theme.bar(colour, pattern, size=8, solidity=0.12),
                # A label needs room: below six per cent the hover text tells.
                text=[theme.percent(v) if v >= 0.06 else "" for v in shares[column]],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont={"color": "#10151c"},
                customdata=[theme.percent(v) for v in shares[column]],
                hovertemplate=f"{name}: %{{customdata}}<extra>%{{y}}</extra>",
            )
        )
    theme.lay_out(
        figure,
        x="share of images",
        y="",
        height=height or 110 + 44 * len(names),
        x_range=(0, 1),
        barmode="stack",
        bargap=0.3,
        # On a phone a label would shrink until it cannot be read.
        uniformtext={"minsize": 10, "mode": "hide"},
    )
    figure.update_xaxes(**theme.percent_axis())
    figure.update_yaxes(autorange="reversed", type="category")
    told = "; ".join(
        f"{label}: {theme.percent(row.agreement_certified)} certified, "
        f"{theme.percent(row.open_share)} open, "
        f"{theme.percent(row.disagreement_found)} refuted"
        for label, row in zip(names, shares.itertuples(), strict=True)
    )
    return theme.Chart(figure, f"Agreement of teacher and student. {told}.")
