"""Names of classes, as pages write them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def named(classes: Sequence[str], index: int | None) -> str:
    """A class's name; its number where there is none."""
    if index is None or pd.isna(index):
        return "—"
    index = int(index)
    return str(classes[index]) if 0 <= index < len(classes) else str(index)
