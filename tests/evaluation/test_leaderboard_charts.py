"""Order, the best, the teacher's figure, shares that add up, and bins together: by hand."""

import numpy as np
import pandas as pd
import pytest

from fkd.core.errors import ConfigError
from fkd.evaluation import (
    agreement_shares,
    is_best,
    is_copy,
    latex_table,
    pareto,
    pooled_reliability,
    ranked,
    teachers_value,
)
from fkd.evaluation.scores.calibration import relative_calibration, reliability

NAN = float("nan")
TABLE = pd.DataFrame(
    {
        "student": ["a", "b", "c", "d"],
        "clean_accuracy": [0.9, 0.97801, 0.97802, NAN],
        "gap_certified_mean": [0.4, 0.1, 0.3, NAN],
        "teacher_accuracy": [NAN, 0.95, 0.95, 0.95],
        "linearity": [1.0, 1.0, 1.0, 1.0],
    }
)


def test_the_best_come_first_and_the_unmeasured_last():
    assert ranked(TABLE, "clean_accuracy").student.tolist() == ["c", "b", "a", "d"]
    assert ranked(TABLE, "gap_certified_mean").student.tolist() == ["b", "c", "a", "d"]
    with pytest.raises(ConfigError, match="speed"):
        ranked(TABLE, "speed")


def test_the_best_are_all_that_are_written_alike():
    assert is_best(TABLE, "clean_accuracy").tolist() == [False, True, True, False]
    assert is_best(TABLE, "gap_certified_mean").tolist() == [False, True, False, False]
    # Nobody is ahead where all are equal, or where no end is better.
    assert not is_best(TABLE, "linearity").any()
    assert not is_best(TABLE, "teacher_accuracy").any()


def test_copies_are_told_and_can_be_left_out_of_the_best():
    rows = TABLE.assign(method=["kd", "quantised", "faithful", "pruned"])
    assert is_copy(rows).tolist() == [False, True, False, True]
    trained = ~is_copy(rows)
    assert is_best(rows, "clean_accuracy", among=trained).tolist() == [False, False, True, False]
    assert is_best(rows, "gap_certified_mean", among=trained).tolist() == [
        False,
        False,
        True,
        False,
    ]
    # The copy b beats everybody on the front but a.
    figures = ("clean_accuracy", "gap_certified_mean")
    assert pareto(rows, *figures).tolist() == [False, True, True, False]
    assert pareto(rows, *figures, among=trained).tolist() == [False, False, True, False]
    latex = latex_table(rows, ["gap_certified_mean"], among=trained)
    assert latex.count("textbf") == 1 and r"\textbf{0.300}" in latex


def test_the_teachers_value_is_from_any_row_that_has_it():
    assert teachers_value(TABLE, "clean_accuracy") == 0.95
    assert teachers_value(TABLE, "linearity") is None
    assert teachers_value(TABLE, "gap_certified_mean") is None


def test_shares_add_up_to_one():
    shares = agreement_shares(
        pd.DataFrame({"agreement_certified": [0.5, 0.3], "agreement_found": [0.75, 0.3]})
    )
    assert shares.loc[0].tolist() == [0.5, 0.25, 0.25]
    assert shares.loc[1].tolist() == [0.3, 0.0, 0.7]
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)


def test_bins_of_two_students_are_those_of_their_examples_together():
    teacher = np.array([0.1, 0.5, 0.51, 0.97, 0.02])
    first, second = np.array([0.2, 0.4, 0.6, 0.9, 0.1]), np.array([0.0, 0.5, 0.7, 1.0, 0.3])
    apart = [reliability(teacher, one).assign(at="image") for one in (first, second)]
    pooled = pooled_reliability(apart)
    whole = reliability(np.tile(teacher, 2), np.concatenate([first, second]))
    pd.testing.assert_frame_equal(pooled.drop(columns="at"), whole)
    assert relative_calibration(pooled) == pytest.approx(relative_calibration(whole))
    assert pooled_reliability([]).empty
