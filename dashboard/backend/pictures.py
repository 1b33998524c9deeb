"""Pictures of one example that take a moment: computed when asked for, then kept."""

from __future__ import annotations

import streamlit as st

from dashboard.backend.analyses import Loaded
from dashboard.backend.choice import Choice
from fkd import evaluation
from fkd.evaluation import GapPlane, GapSaliency


# A picture of a colour image is a megabyte, so fewer are kept than of smaller things.
@st.cache_data(max_entries=64, show_spinner=False)
def _plane(key: str, index: int, _choice: Choice) -> GapPlane:
    return evaluation.gap_plane(_choice.config(), index)


def plane(choice: Choice, loaded: Loaded, index: int) -> GapPlane:
    """The plane through one example and both networks' worst points in its ball.

    Raises:
        ConfigError: a ball of radius 0, or an image of one pixel.
        DataError: the data set's images are not on this machine.
    """
    return _plane(loaded.key, index, choice)


@st.cache_data(max_entries=64, show_spinner=False)
def _saliency(key: str, index: int, _choice: Choice) -> GapSaliency:
    return evaluation.gap_saliency(_choice.config(), index)


def saliency(choice: Choice, loaded: Loaded, index: int) -> GapSaliency:
    """Each pixel's part in the gap of one example.

    Raises:
        ConfigError: a ball of radius 0.
        DataError: the data set's images are not on this machine.
    """
    return _saliency(loaded.key, index, choice)
