"""How gaps are spread over the examples: counts per bin and shares below a level."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dashboard.figures import theme


def histogram(bins: pd.DataFrame, *, height: int = 300) -> theme.Chart:
    """Counts of attacked and of certified gaps.

    Args:
        bins: columns ``gap_left, gap_right, count_certified, count_attack``.
        height: pixels.
    """
    figure = go.Figure()
    centre = (bins["gap_left"] + bins["gap_right"]) / 2
    span = [
        f"{left:.2f} to {right:.2f}"
        for left, right in zip(bins["gap_left"], bins["gap_right"], strict=True)
    ]
    for column, name, colour, pattern in (
        ("count_attack", "attack", theme.ATTACK, ""),
        ("count_certified", "certified", theme.CERTIFICATE, "/"),
    ):
        figure.add_trace(
            go.Bar(
                x=centre,
                y=bins[column],
                name=name,
                marker=theme.bar(colour, pattern),
                customdata=span,
                hovertemplate=f"{name}: %{{y}} images with a gap of %{{customdata}}<extra></extra>",
            )
        )
    total = int(bins["count_attack"].sum())
    theme.lay_out(
        figure,
        x="confidence gap (probability)",
        y=f"images (n = {total})",
        height=height,
        x_range=(-0.01, 1.01),
        barmode="group",
        bargap=0.08,
        bargroupgap=0.0,
    )
    return theme.Chart(
        figure,
        f"Histogram of {total} images by confidence gap: reached by an attack, and certified.",
    )


def cumulative(shares: pd.DataFrame, *, height: int = 300) -> theme.Chart:
    """Share of images whose gap is at most g, for every g.

    Args:
        shares: columns ``gap, share_certified, share_attack``.
        height: pixels.
    """
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=shares["gap"],
            y=shares["share_certified"],
            mode="lines",
            name="proved to stay below",
            line={"color": theme.CERTIFICATE, "width": 2.5, "dash": "dash", "shape": "hv"},
            text=[theme.percent(share) for share in shares["share_certified"]],
            hovertemplate="%{text} proved to stay at or below %{x:.3f}<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=shares["gap"],
            y=shares["share_attack"],
            mode="lines",
            name="not yet refuted",
            line={"color": theme.ATTACK, "width": 2.5, "shape": "hv"},
            fill="tonexty",
            fillcolor=theme.BAND,
            text=[theme.percent(share) for share in shares["share_attack"]],
            hovertemplate="%{text} where no attack exceeded %{x:.3f}<extra></extra>",
        )
    )
    theme.lay_out(
        figure,
        x="confidence gap g (probability)",
        y="share of images with gap ≤ g",
        height=height,
        x_range=(-0.01, 1.01),
        y_range=(-0.02, 1.03),
    )
    figure.update_yaxes(**theme.percent_axis())
    return theme.Chart(
        figure,
        "Share of images whose confidence gap stays at or below a level: proved by the certificate, "
        "and not yet refuted by the attack; between the two the answer is open.",
    )
