"""Summaries, curves and histograms against counting by hand."""

import numpy as np
import pandas as pd
import pytest

from fkd.core.errors import ConfigError
from fkd.evaluation import (
    analyse,
    bound_text,
    certified_curve,
    compare,
    histogram,
    parse_analysis,
    reached_text,
    summarise,
)
from tests.support.pairs import save_digits_model


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "epsilon": 0.1,
            "label": [0, 1, 2, 3],
            "teacher_pred": [0, 1, 2, 0],
            "student_pred": [0, 1, 0, 0],
            "gap_clean": [0.0, 0.1, 0.2, 0.3],
            "gap_attack": [0.1, 0.2, 0.6, 0.3],
            "gap_certified": [0.1, 0.5, 1.0, np.nan],
            "disagrees": [False, False, True, False],
            "agrees_certified": [True, False, False, False],
        }
    )


def test_the_figures_are_those_counted_by_hand(table):
    summary = summarise(table)
    assert summary.count == 4 and summary.epsilon == 0.1
    assert summary.teacher_accuracy == 0.75 and summary.student_accuracy == 0.5
    assert summary.agreement_clean == 0.75
    assert summary.agreement_certified == summary.disagreement_found == 0.25
    assert summary.open_share == 0.5
    assert summary.gap_attack_mean == pytest.approx(0.3) and summary.gap_attack_max == 0.6
    assert summary.gap_certified_mean == pytest.approx(1.6 / 3)
    assert summary.bracket_mean == pytest.approx((0.0 + 0.3 + 0.4) / 3)
    assert summary.certified_missing == 1
    assert "agree on 1 of 4 examples, demonstrably disagree on 1, and 2 are undecided" in (
        summary.verdict
    )


def test_a_missing_certificate_is_not_spoken_for(table):
    assert "; on the 3 examples with a certificate, no perturbation can exceed 0.534" in (
        summarise(table).verdict
    )
    assert "; no perturbation can exceed" in summarise(table.iloc[:3]).verdict


@pytest.mark.parametrize(
    ("value", "lower", "upper"),
    [
        (0.9996, "0.999", "1.000"),
        (0.2964, "0.296", "0.297"),
        (1.0, "1.000", "1.000"),
        (0.0, "0.000", "0.000"),
        (0.1 + 0.2, "0.300", "0.300"),
        (1e-6, "0.000", "0.001"),
    ],
)
def test_gaps_are_rounded_to_the_safe_side(table, value, lower, upper):
    assert (reached_text(value), bound_text(value)) == (lower, upper)
    verdict = summarise(table.assign(gap_attack=value, gap_certified=value)).verdict
    assert f"{lower} apart on average (worst example {lower})" in verdict
    assert f"exceed {upper} on average (worst example {upper})" in verdict


def test_without_certificates_nothing_is_claimed(table):
    summary = summarise(table.assign(gap_certified=np.nan, agrees_certified=False))
    assert summary.gap_certified_mean is None and summary.bracket_mean is None
    assert "no certificate is available" in summary.verdict
    with pytest.raises(ConfigError, match="at least one example"):
        summarise(table.iloc[:0])


def test_the_curve_counts_shares(table):
    curve = certified_curve(table, points=11).set_index("gap")
    assert curve.share_certified.loc[0.5] == 0.5
    # The example without a certificate is never proved.
    assert curve.share_certified.iloc[-1] == 0.75
    assert curve.share_attack.iloc[-1] == 1.0
    assert curve.share_attack.iloc[2] == 0.5


def test_the_histogram_counts_every_value_once(table):
    bins = histogram(table, bins=10)
    assert bins.count_certified.sum() == 3 and bins.count_attack.sum() == 4
    assert bins.gap_left.iloc[0] == 0 and bins.gap_right.iloc[-1] == 1
    assert bins.count_certified.iloc[-1] == 1


def test_students_are_compared_only_on_the_same_ball(own_folders):
    save_digits_model("big", "teacher", hidden=(16,), seed=0)
    base = {"dataset": "digits", "teacher": "big", "epsilon": 0.02, "count": 6}
    base["attack"] = {"steps": 3}
    configs = []
    for seed, name in enumerate(("one", "two")):
        save_digits_model(name, "student", hidden=(6 + seed,), seed=seed + 1)
        configs.append(parse_analysis({**base, "student": name}))
    assert compare(configs).empty
    for config in configs:
        analyse(config, device="cpu")
    table = compare(configs)
    assert table.student.tolist() == ["one", "two"]
    assert table.parameters.iloc[0] < table.parameters.iloc[1]
    assert (table.gap_attack_mean <= table.gap_certified_mean).all()
    assert len(compare(configs[:1])) == 1
    with pytest.raises(ConfigError, match=r"same epsilon can be compared, got 0\.02, 0\.03"):
        compare([configs[0], configs[1].model_copy(update={"epsilon": 0.03})])


@pytest.mark.parametrize(
    "changes", [{"attack": {"steps": 4}}, {"certificate": {"name": "crown_ibp"}}]
)
def test_students_are_compared_only_by_the_same_procedure(changes):
    base = {"dataset": "digits", "teacher": "big", "student": "one", "epsilon": 0.02}
    configs = [parse_analysis(base), parse_analysis({**base, **changes})]
    with pytest.raises(ConfigError, match=f"same {next(iter(changes))} can be compared"):
        compare(configs)


def test_a_value_on_an_inner_edge_counts_in_the_bin_to_its_right():
    edge = pd.DataFrame({"gap_certified": [0.15, 0.3, 0.35, 0.6], "gap_attack": [0.05] * 4})
    bins = histogram(edge, bins=20)
    assert bins.gap_left[bins.count_certified > 0].tolist() == [0.15, 0.3, 0.35, 0.6]
    assert bins.gap_left[bins.count_attack > 0].tolist() == [0.05]
