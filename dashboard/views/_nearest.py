"""The nearest disagreements on the page *Disagreements*, where agreement radii are stored."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard import backend, figures, parts
from dashboard.parts.images import picture

#: Witnesses shown.
_SHOWN = 4
_HEIGHT = 290


def nearest_disagreements(choice: backend.Choice) -> None:
    """The section; nothing where no radii are stored, since *Certified bounds* offers their search."""
    loaded = backend.find_radii(choice)
    if loaded is None:
        return
    st.subheader("Nearest disagreement", anchor=False)
    search, summary = backend.radius_search(choice), loaded.summary
    st.caption(
        "How little has to be changed before the two predict different classes: the nearest point found "
        f"where they do, whatever the ε above, and beside it the distance up to which it is proved that "
        f"there is none. {summary.count} images, in {backend.NORM_NAMES[choice.norm]} up to "
        f"ε = {search.epsilon:g}; differing at the image itself: {summary.disagrees_clean}, none found: "
        f"{summary.not_found}."
    )
    ordered = loaded.table.sort_values("radius_attack", kind="stable")
    left, right = st.columns([3, 2], gap="medium")
    with left:
        _witnesses(choice, loaded, ordered)
    with right:
        _table(ordered)
    parts.page_link("certificates", "See the radii of all images", ":material/verified:")


def _witnesses(choice: backend.Choice, loaded: backend.LoadedRadii, ordered: pd.DataFrame) -> None:
    """The nearest of those that agree at the image, as they are stored."""
    moved = ordered[~ordered["disagrees_clean"] & ordered["radius_attack"].notna()]
    if moved.empty:
        st.caption(f"No disagreement found beyond the images themselves, for {choice.student}.")
        return
    with st.grid(_SHOWN, min_column_width=120):
        for row in moved.index[:_SHOWN]:
            witness = loaded.radii.nearest_witness(int(row))
            if witness is None:
                continue
            index = int(moved.loc[row, "index"])
            found = figures.at_most_radius(moved.loc[row, "radius_attack"])
            proved = figures.at_least_radius(moved.loc[row, "radius_certified"])
            st.image(
                picture(witness),
                caption=f"image {index}: found {found}, proved {proved}",
                width="stretch",
                alt=f"Nearest point found to image {index} where the two predict different classes",
            )


def _table(ordered: pd.DataFrame) -> None:
    meanings = backend.radius_meanings()
    shown = pd.DataFrame(
        {
            "image": ordered["index"],
            "found": ordered["radius_attack"],
            "certified": ordered["radius_certified"],
        }
    )
    st.dataframe(
        figures.styled(shown, {"certified": figures.proved_radius, "found": figures.found_radius}),
        hide_index=True,
        height=_HEIGHT,
        placeholder="",
        column_config={
            "image": st.column_config.Column(help=meanings["index"], width=60),
            "found": st.column_config.Column(help=meanings["radius_attack"], width=85),
            "certified": st.column_config.Column(help=meanings["radius_certified"], width=85),
        },
        alt="Nearest disagreement of each image, and up to where there is provably none",
    )
