"""A figure that could not be had is NaN on the leaderboard, and no error."""

import math

from fkd.evaluation import leaderboard, score_configs, score_pair

SETTINGS = {
    "dataset": "digits",
    "teacher": "digits-teacher-pgd",
    "epsilon": 0.1,
    "count": 5,
    "groups": ["retention", "fidelity"],
}


def test_a_missing_figure_is_not_a_number():
    """No built-in data set has images of the same shape as digits."""
    (config,) = score_configs(SETTINGS, ["digits-kd-of-pgd"])
    score_pair(config, device="cpu")
    table = leaderboard([config])
    (row,) = table.to_dict("records")
    assert math.isnan(row["kl_outside"])
    assert 0 < row["kl_inside"] < 1
    assert table["kl_outside"].dtype == float
