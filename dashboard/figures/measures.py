"""How far images get apart by one measure, and which network was found right where the other is wrong."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dashboard.backend import WhoStaysRight
from dashboard.figures import theme
from dashboard.figures.robustness import share_with_interval

_LINES = (
    ("clean", "at the image", theme.NEUTRAL, "dash"),
    ("attack", "in the ball (attack)", theme.ATTACK, "solid"),
)
#: Parts of `WhoStaysRight`, top first: colour, hatching, name.
_PARTS = (
    ("teacher", theme.TEACHER, "", "only teacher right"),
    ("student", theme.STUDENT, "/", "only student right"),
    ("both", theme.ATTACK, "x", "each at some point"),
    ("neither", theme.NEUTRAL, "", "none found"),
)


def measure_spread(
    curve: pd.DataFrame,
    *,
    title: str,
    unit: str,
    count: int,
    primary: tuple[int, float] | None = None,
    height: int = 300,
) -> theme.Chart:
    """Share of images that are at least so far apart, clean and attacked.

    Args:
        curve: columns ``value, share_clean, share_attack``, values rising.
        title: of the measure.
        unit: of its values.
        count: images.
        primary: an example id and its attacked value, drawn with a ring.
        height: pixels.
    """
    figure = go.Figure()
    for column, name, colour, dash in _LINES:
        figure.add_trace(
            go.Scatter(
                x=curve["value"],
                y=curve[f"share_{column}"],
                mode="lines",
                name=name,
                # Between two values the share is that of the larger one.
                line={"color": colour, "width": 2.5, "dash": dash, "shape": "vh"},
                text=[theme.percent(share) for share in curve[f"share_{column}"]],
                hovertemplate=f"%{{text}} of the images at least %{{x:.3f}} apart, {name}<extra></extra>",
            )
        )
    if primary is not None:
        index, value = primary
        figure.add_trace(
            go.Scatter(
                x=[value],
                y=curve.loc[curve["value"] <= value, "share_attack"].tail(1),
                mode="markers",
                name=f"image {index}",
                marker={
                    "color": theme.SELECTED,
                    "symbol": "circle-open",
                    "size": 15,
                    "line": {"width": 3},
                },
                hovertemplate=f"image {index}: {theme.reached(value)}<extra></extra>",
            )
        )
    is_share = unit == "probability"
    theme.lay_out(
        figure,
        x=f"{title[:1].lower() if title[1:2].islower() else title[:1]}{title[1:]} v ({unit})",
        y=f"share of images ≥ v (n = {count})",
        height=height,
        x_range=(-0.01, 1.01) if is_share else None,
        y_range=(-0.02, 1.03),
    )
    figure.update_yaxes(**theme.percent_axis())
    return theme.Chart(
        figure,
        f"Share of {count} images by {title} ({unit}): at least so far apart at the image itself, and at "
        "the worst point that the attack found in the ball.",
    )


def who_stays_right(who: WhoStaysRight, *, height: int = 230) -> theme.Chart:
    """One bar a case, with its 95 % interval.

    Args:
        who: shares of images.
        height: pixels.
    """
    figure = go.Figure()
    told = []
    for name, colour, pattern, said in _PARTS:
        share = getattr(who, name)
        text = share_with_interval(share.value, share.low, share.high)
        told.append(f"{said} {text}")
        figure.add_trace(
            go.Bar(
                x=[share.value],
                y=[said],
                orientation="h",
                # Pale, so that the interval stands out on the bar as it does beside it.
                marker={**theme.bar(colour, pattern), "opacity": 0.45},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [share.high - share.value],
                    "arrayminus": [share.value - share.low],
                    "color": colour,
                    "thickness": 2,
                    "width": 5,
                },
                customdata=[text],
                hovertemplate="%{y}: %{customdata}<extra></extra>",
            )
        )
    theme.lay_out(
        figure,
        x=f"share of images (n = {who.count})",
        y="",
        height=height,
        x_range=(0, 1.03),
        legend=False,
        bargap=0.35,
    )
    figure.update_xaxes(**theme.percent_axis())
    figure.update_yaxes(autorange="reversed")
    return theme.Chart(
        figure,
        "Share of images with a point at which one network is right and the other wrong, by which one is "
        f"right there, with 95 % intervals: {'; '.join(told)}.",
    )
