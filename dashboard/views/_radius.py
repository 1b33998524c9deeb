"""The agreement radius on the page *Certified bounds*: what is stored of it, or the run that makes it."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts

#: What a search takes at each level, for networks and images like those shipped.
_COSTS = {
    "fast": "a few seconds to a minute",
    "tight": "minutes, for larger networks many",
}
_HEIGHT = 400


def agreement_radius(choice: backend.Choice) -> None:
    """The section."""
    st.subheader("Agreement radius", anchor=False)
    loaded = backend.find_radii(choice)
    if loaded is None:
        _not_searched(choice)
    else:
        _searched(choice, loaded)


def _level(choice: backend.Choice) -> str:
    """The level at which radii are searched, and why it is not the chosen one where it is another."""
    level = f"**{backend.levels()[backend.radius_level(choice)].title}**"
    chosen = backend.levels()[choice.level]
    if chosen.name == backend.radius_level(choice):
        return level
    # With a budget an image, every radius that is asked would take it anew.
    what = "would take its seconds" if chosen.budget is not None else "is slow"
    return f"{level} ({chosen.title} {what} at each of a dozen radii an image)"


# ---------------------------------------------------------------- nothing stored


def _not_searched(choice: backend.Choice) -> None:
    search = backend.radius_search(choice)
    level = backend.radius_level(choice)
    with st.container(border=True):
        st.markdown(
            "Around each image, the largest ε up to which both networks *provably* predict the same, and "
            "beside it the distance of the nearest disagreement found. It is searched on the first "
            f"{search.count} images, in {backend.NORM_NAMES[choice.norm]} up to ε = {search.epsilon:g}, "
            f"with bounds of the level {_level(choice)}; that takes {_COSTS[level]}, and is kept."
        )
        parts.offer_run(
            backend.live_radii(choice),
            choice.dataset,
            key="radii",
            label=f"Search {search.count} images",
            work="search",
            lack="no radii can be searched",
            start=lambda: backend.start_radii(choice),
        )


# ---------------------------------------------------------------- stored


def _searched(choice: backend.Choice, loaded: backend.LoadedRadii) -> None:
    search, summary = backend.radius_search(choice), loaded.summary
    st.caption(
        "The largest ε around each image up to which both networks provably predict the same, and the "
        f"nearest disagreement found: {summary.count} images, in {backend.NORM_NAMES[choice.norm]} up to "
        f"ε = {search.epsilon:g}, bounds of the level {_level(choice)}."
    )
    if summary.unsupported:
        st.info(
            "The networks of this pair cannot be bounded at this level, so no radius is certified.",
            icon=":material/info:",
        )
    _numbers(summary)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        drawn = figures.radii(
            loaded.table,
            largest=search.epsilon,
            norm=choice.norm,
            epsilon=choice.epsilon,
            height=_HEIGHT,
        )
        parts.chart(drawn, "radii")
    with right:
        _table(loaded.table)
        parts.downloads(loaded.table, f"radii-{loaded.key}", "radii")
        with st.popover("Reproduce", icon=":material/terminal:"):
            st.code(backend.reproduce_radii(choice), language="bash", wrap_lines=False)


def _numbers(summary: backend.RadiusSummary) -> None:
    meanings = backend.radius_meanings()
    width = figures.found_radius(summary.open_width_median)
    # The median of the true radii lies between the first two.
    with st.grid(4, min_column_width=150):
        for label, name, shown in (
            (
                "Median certified",
                "radius_certified_median",
                figures.at_least_radius(summary.radius_certified_median),
            ),
            (
                "Median found",
                "radius_attack_median",
                figures.at_most_radius(summary.radius_attack_median) or "—",
            ),
            ("Radius known", "known_share", figures.percent(summary.known_share)),
            ("Median width", "open_width_median", width or "—"),
        ):
            st.metric(label, shown, help=meanings[name], border=True)


def _table(table: pd.DataFrame) -> None:
    meanings = backend.radius_meanings()
    statuses = "; ".join(f"*{name}*: {text}" for name, text in backend.radius_statuses().items())
    rows = table.sort_values(["radius_certified", "radius_attack"], ignore_index=True)
    shown = pd.DataFrame(
        {
            "image": rows["index"],
            "certified": rows["radius_certified"],
            "found": rows["radius_attack"],
            "status": rows["status"],
        }
    )
    st.dataframe(
        figures.styled(shown, {"certified": figures.proved_radius, "found": figures.found_radius}),
        hide_index=True,
        height=_HEIGHT - 116,
        placeholder="",
        column_config={
            "image": st.column_config.Column(help=meanings["index"], width=60),
            "certified": st.column_config.Column(help=meanings["radius_certified"], width=85),
            "found": st.column_config.Column(help=meanings["radius_attack"], width=85),
            "status": st.column_config.Column(help=statuses, width=120),
        },
        alt="The agreement radius of each image: proved, nearest disagreement found, status",
    )
