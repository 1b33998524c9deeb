"""Stored analyses next to each other: two students example by example, several seeds as one histogram."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.backend import analyses
from dashboard.backend.choice import Choice
from fkd import evaluation
from fkd.data import load_split
from fkd.evaluation import SideBySide


def side_by_side(
    choice: Choice, first: str, second: str
) -> tuple[pd.DataFrame, SideBySide] | list[str]:
    """Two students on the same images, with counts; the names that are not analysed where some are not.

    Raises:
        FkdError: the choice names something that does not exist or does not fit.
    """
    names = (first, second)
    found = {name: analyses.find(choice.but(student=name)) for name in names}
    missing = [name for name in names if found[name] is None]
    if missing:
        return missing
    tables = [found[name].analysis.table for name in names]  # type: ignore[union-attr]
    return evaluation.side_by_side(*tables)


def pooled_histogram(
    choice: Choice, students: Sequence[str], bins: int = 20
) -> tuple[pd.DataFrame, float | None, int] | None:
    """Gaps of several students, seeds of one method say, as one histogram; None where none is analysed.

    Returns:
        Columns ``gap_left, gap_right, count_certified, count_attack``; the mean certified bound, None
        where no image has one; and the number of images, each counted once a student.

    Raises:
        FkdError: the choice names something that does not exist or does not fit.
    """
    loaded = [analyses.find(choice.but(student=name)) for name in students]
    there = [one for one in loaded if one is not None]
    if not there:
        return None
    return _pooled(tuple(one.key for one in there), bins, [one.analysis.table for one in there])


@st.cache_data(max_entries=256, show_spinner=False)
def _pooled(
    keys: tuple[str, ...], bins: int, _tables: list[pd.DataFrame]
) -> tuple[pd.DataFrame, float | None, int]:
    together = pd.concat(_tables, ignore_index=True)
    summary = evaluation.summarise(together)
    return evaluation.histogram(together, bins), summary.gap_certified_mean, summary.count


def clean_images(dataset: str, indices: Sequence[int]) -> list[np.ndarray]:
    """Test images by their ids, (C, H, W) in [0, 1] each.

    Raises:
        DataError: the data set's images are not on this machine.
    """
    images = load_split(dataset, "test").images
    return [images[index].numpy() for index in indices]
