"""Every example's agreement radius: from what is proved to the nearest disagreement found."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dashboard import backend
from dashboard.figures import theme
from dashboard.figures._open_band import open_band

_UNITS = {"linf": "largest pixel change", "l2": "length of the change, L2"}


def proved_radius(radius: float | None) -> str:
    """A radius that is proved, rounded down; empty where there is none."""
    return "" if radius is None or pd.isna(radius) else backend.proved_radius_text(radius)


def found_radius(radius: float | None) -> str:
    """The distance of a disagreement, or a width left open, rounded up; empty where there is none."""
    return "" if radius is None or pd.isna(radius) else backend.found_radius_text(radius)


def at_least_radius(radius: float | None) -> str:
    """A radius that is proved, as what the truth is at least."""
    return f"≥\u00a0{proved_radius(radius)}" if proved_radius(radius) else ""


def at_most_radius(radius: float | None) -> str:
    """The distance of a disagreement, as what the truth is at most."""
    return f"≤\u00a0{found_radius(radius)}" if found_radius(radius) else ""


def radii(
    frame: pd.DataFrame,
    *,
    largest: float,
    norm: str = "linf",
    epsilon: float | None = None,
    height: int = 380,
) -> theme.Chart:
    """Examples side by side, the smallest radius first; the true radius lies on each grey line.

    Args:
        frame: columns `fkd.evaluation.RADIUS_COLUMNS`.
        largest: largest radius looked at: where no disagreement was found, the line reaches it.
        norm: of the balls.
        epsilon: the radius chosen in the sidebar, marked by a line where it is in sight.
        height: pixels.
    """
    ordered = frame.sort_values(["radius_certified", "radius_attack"]).reset_index(drop=True)
    ordered["rank"] = range(1, len(ordered) + 1)
    found = ordered["radius_attack"].notna()
    ends = ordered["radius_attack"].fillna(largest)
    top = float(ends.max()) or largest

    figure = go.Figure()
    figure.add_trace(open_band(ordered["rank"], ordered["radius_certified"], ends, width=5))
    clean = ordered["disagrees_clean"]
    refuted = theme.STATES["refuted"]
    for part, column, name, colour, symbol, text in (
        (
            found & ~clean,
            "radius_attack",
            "nearest disagreement found",
            theme.ATTACK,
            "circle",
            found_radius,
        ),
        (
            ~clean,
            "radius_certified",
            "certified: same prediction up to here",
            theme.CERTIFICATE,
            "triangle-up",
            proved_radius,
        ),
        (clean, "radius_attack", "differ at the image itself", refuted[0], refuted[1], None),
    ):
        rows = ordered[part]
        if rows.empty:
            continue
        shown = rows[column].map(text) if text is not None else [""] * len(rows)
        figure.add_trace(
            go.Scatter(
                x=rows["rank"],
                y=rows[column],
                mode="markers",
                name=name,
                marker={"color": colour, "symbol": symbol, "size": 9},
                customdata=rows["index"],
                text=shown,
                hovertemplate=f"Image %{{customdata}}: {name} %{{text}}<extra></extra>",
            )
        )
    if epsilon is not None and epsilon <= 1.05 * top:
        figure.add_hline(y=epsilon, line={"color": theme.SELECTED, "width": 2, "dash": "dot"})
        figure.add_annotation(
            x=1,
            xref="paper",
            xanchor="right",
            y=epsilon,
            yanchor="bottom",
            text=theme.ball(epsilon, norm),
            showarrow=False,
            font={"color": theme.SELECTED},
        )
    theme.lay_out(
        figure,
        x=f"images, smallest certified radius first (n = {len(ordered)})",
        y=f"radius ({_UNITS[norm]})",
        height=height,
        x_range=(0, len(ordered) + 1),
        y_range=(-0.03 * top, 1.06 * top),
    )
    return theme.Chart(
        figure,
        f"For each of {len(ordered)} images, the radius up to which both networks provably predict the "
        "same and the distance of the nearest disagreement found, joined by a line on which the true "
        f"radius lies. {int(clean.sum())} differ at the image itself; on {int((~found).sum())} no "
        f"disagreement was found up to {largest:g}.",
    )
