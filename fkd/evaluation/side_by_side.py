"""Two students of one teacher on the same examples: whose gap is smaller, and where that is proved."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pydantic import Field

from fkd.core.config import Config
from fkd.core.errors import ConfigError

#: Columns of an analysis that both students' rows must agree in.
_SHARED = ("teacher_hash", "data_hash", "epsilon", "norm", "label", "gap_class")
_ENDS = ("gap_clean", "gap_attack", "gap_certified", "student_pred")


class SideBySide(Config):
    """How many examples each of two students, A and B, is the better one on."""

    count: int = Field(description="Examples that both analyses have.")
    proved_a: int = Field(
        description="Examples on which A's certified bound is below the gap found of B: A is proved to "
        "be the more faithful one there."
    )
    proved_b: int = Field(description="The same for B.")
    bound_a: int = Field(
        description="Examples on which A has the smaller certified bound; none counts as 1."
    )
    bound_b: int = Field(description="The same for B.")
    found_a: int = Field(
        description="Examples on which the attack found a smaller gap of A than of B."
    )
    found_b: int = Field(description="The same for B.")


def side_by_side(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, SideBySide]:
    """Join two analyses of one teacher, example by example.

    A is proved to be the more faithful one on an example where its certified bound lies below the gap
    that the attack reached of B: whatever the true gaps are, A's is the smaller one.

    Args:
        first: analysis table of student A.
        second: of student B.

    Returns:
        A row for each example in both, in the order of ``first``: ``index, label, gap_class`` (class
        compared), then with the suffixes ``_a`` and ``_b`` ``gap_clean, gap_attack, gap_certified,
        student_pred``, then ``better`` (``a`` or ``b`` where that is proved, else ``open``) and ``apart``
        in [0, 1], by how much the middles of the brackets differ; and the counts.

    Raises:
        ConfigError: they have no example in common, or differ in teacher, data, ball or compared class.
    """
    columns = ["index", *_SHARED, *_ENDS]
    joined = first[columns].merge(second[columns], on="index", suffixes=("_a", "_b"))
    if joined.empty:
        raise ConfigError(
            "The two analyses have no example in common; analyse both students on the same examples."
        )
    for name in _SHARED:
        if (joined[f"{name}_a"].astype(str) != joined[f"{name}_b"].astype(str)).any():
            raise ConfigError(
                f"Two students can only be compared example by example where the {name} is the same; "
                "choose two analyses of one teacher, data set and ball."
            )
    # Without a certificate nothing is excluded.
    low_a, low_b = joined.gap_attack_a.to_numpy(), joined.gap_attack_b.to_numpy()
    high_a = joined.gap_certified_a.fillna(1.0).to_numpy()
    high_b = joined.gap_certified_b.fillna(1.0).to_numpy()
    proved_a, proved_b = high_a < low_b, high_b < low_a
    kept = [f"{name}_{side}" for side in "ab" for name in _ENDS]
    table = joined[["index", *kept]].assign(
        label=joined.label_a,
        gap_class=joined.gap_class_a,
        better=np.select([proved_a, proved_b], ["a", "b"], "open"),
        apart=np.abs((low_a + high_a) - (low_b + high_b)) / 2.0,
    )
    ordered = ["index", "label", "gap_class", *kept, "better", "apart"]
    return table[ordered], SideBySide(
        count=len(table),
        proved_a=int(proved_a.sum()),
        proved_b=int(proved_b.sum()),
        bound_a=int((high_a < high_b).sum()),
        bound_b=int((high_b < high_a).sum()),
        found_a=int((low_a < low_b).sum()),
        found_b=int((low_b < low_a).sum()),
    )
