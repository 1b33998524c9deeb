"""Two students on the same examples, by hand: who is proved better, whose bound and gap are smaller."""

import pandas as pd
import pytest

from fkd.core.errors import ConfigError
from fkd.evaluation import side_by_side


def analysis(found, bounds, index=None, **changes):
    facts = {
        "index": range(len(found)) if index is None else index,
        "teacher_hash": "t",
        "data_hash": "d",
        "epsilon": 0.1,
        "norm": "linf",
        "label": 3,
        "gap_class": 3,
        "gap_clean": 0.0,
        "gap_attack": found,
        "gap_certified": bounds,
        "student_pred": 3,
    }
    return pd.DataFrame({**facts, **changes})


def test_proved_where_one_bracket_lies_below_the_other():
    first = analysis([0.1, 0.5, 0.2, 0.3], [0.2, 0.9, 0.6, None])
    second = analysis([0.3, 0.1, 0.3, 0.4], [0.4, 0.4, 0.5, 0.9])
    table, counts = side_by_side(first, second)
    assert table.better.tolist() == ["a", "b", "open", "open"]
    assert (counts.proved_a, counts.proved_b, counts.count) == (1, 1, 4)
    # Without a certificate the bound is 1, so B's is smaller on all but the first.
    assert (counts.bound_a, counts.bound_b) == (1, 3)
    assert (counts.found_a, counts.found_b) == (3, 1)
    assert table.apart.tolist() == pytest.approx([0.2, 0.45, 0.0, 0.0])


def test_equal_brackets_prove_nothing_and_touching_ends_neither():
    table, counts = side_by_side(analysis([0.1, 0.2], [0.2, 0.2]), analysis([0.2, 0.2], [0.3, 0.2]))
    assert table.better.tolist() == ["open", "open"]
    assert (counts.proved_a, counts.proved_b) == (0, 0)


def test_only_common_examples_are_compared():
    table, counts = side_by_side(
        analysis([0.1, 0.2], [0.3, 0.3], index=[4, 7]),
        analysis([0.4, 0.5], [0.6, 0.6], index=[7, 9]),
    )
    assert table["index"].tolist() == [7] and counts.count == 1 and counts.proved_a == 1


@pytest.mark.parametrize("name", ["teacher_hash", "epsilon", "gap_class"])
def test_what_cannot_be_compared_is_refused(name):
    other = analysis([0.1], [0.2], **{name: 9})
    with pytest.raises(ConfigError, match=name):
        side_by_side(analysis([0.1], [0.2]), other)
    with pytest.raises(ConfigError, match="no example in common"):
        side_by_side(analysis([0.1], [0.2]), analysis([0.1], [0.2], index=[5]))
