from __future__ import annotations

import math

import pandas as pd
import pytest

from fkd.core.errors import ConfigError
from fkd.evaluation.claims import (
    CCKD_PAPER,
    FAITHFUL_PAPER,
    KDIGA_PAPER,
    TINTEM_PAPER,
    check_claims,
)


def table(rows: dict[str, dict[str, float]], dataset: str = "mnist") -> pd.DataFrame:
    """One teacher's students by label; a label's figure after ``-s1`` is another seed's."""
    return pd.DataFrame(
        [
            {
                "dataset": dataset,
                "teacher": "T",
                "student": name,
                "label": name.removesuffix("-s1"),
                **figures,
            }
            for name, figures in rows.items()
        ]
    )


def only(claims, paper, label=None):
    return [c for c in claims if c.paper == paper and label in (None, c.label)]


FAITHFUL = {
    "faithful": {"clean_accuracy": 0.98, "gap_certified_mean": 0.1, "agreement_certified": 0.9},
    "kd": {"clean_accuracy": 0.985, "gap_certified_mean": 0.9, "agreement_certified": 0.1},
    "rslad": {"clean_accuracy": 0.97, "gap_certified_mean": 0.2, "agreement_certified": 0.8},
}


def changed(label, **figures):
    return {**FAITHFUL, label: {**FAITHFUL[label], **figures}}


def test_faithful_wins_over_every_rival_there_is():
    (claim,) = only(check_claims(table(FAITHFUL)), FAITHFUL_PAPER)
    assert claim.holds
    assert "kd, rslad, at an accuracy at most 1 point below" in claim.statement
    assert claim.figures["rslad: gap_certified_mean"] == 0.2
    assert (claim.n, claim.dataset, claim.teacher, claim.label) == (3, "mnist", "T", "faithful")


@pytest.mark.parametrize(
    "rows",
    [
        changed("rslad", gap_certified_mean=0.1),
        changed("rslad", agreement_certified=0.9),
        changed("kd", clean_accuracy=0.9901),
    ],
    ids=["gap no smaller", "agreement no larger", "accuracy more than a point below"],
)
def test_one_lost_comparison_makes_it_false(rows):
    (claim,) = only(check_claims(table(rows)), FAITHFUL_PAPER)
    assert not claim.holds


def test_equality_is_not_lost_to_rounding():
    # In floats 0.06 is less than 0.07 - 0.01, and 0.1 + 0.2 more than 0.3.
    rows = changed("faithful", clean_accuracy=0.06)
    rows["kd"] = {**rows["kd"], "clean_accuracy": 0.07}
    del rows["rslad"]
    (claim,) = only(check_claims(table(rows)), FAITHFUL_PAPER)
    assert claim.holds
    # 0.55 - 0.52 is a little less than 0.03, at so many examples that there is no noise.
    rows = {"kd": {"robust_accuracy": 0.52}, "cckd_l": {"robust_accuracy": 0.55}}
    (claim,) = only(check_claims(table(rows), attacked={"mnist": 10**30}), CCKD_PAPER)
    assert claim.holds


def test_seeds_are_averaged_and_counted():
    rows = {**FAITHFUL, "faithful-s1": {**FAITHFUL["faithful"], "gap_certified_mean": 0.4}}
    (claim,) = only(check_claims(table(rows)), FAITHFUL_PAPER)
    # 0.25 on average: more than the 0.2 of rslad.
    assert claim.figures["faithful: gap_certified_mean"] == pytest.approx(0.25)
    assert not claim.holds
    assert claim.n == 4


def test_groups_are_teachers_and_data_sets():
    both = pd.concat([table(FAITHFUL), table(changed("rslad", gap_certified_mean=0.0), "digits")])
    found = {c.dataset: c.holds for c in only(check_claims(both), FAITHFUL_PAPER)}
    assert found == {"mnist": True, "digits": False}


def test_what_was_not_measured_is_not_claimed():
    assert check_claims(table({"faithful": FAITHFUL["faithful"]})) == []
    assert check_claims(table({"kd": FAITHFUL["kd"], "rslad": FAITHFUL["rslad"]})) == []
    unknown = changed("faithful", gap_certified_mean=math.nan)
    assert only(check_claims(table(unknown)), FAITHFUL_PAPER) == []


def test_a_figure_that_one_seed_lacks_is_not_compared():
    rows = {**FAITHFUL, "faithful-s1": {**FAITHFUL["faithful"], "gap_certified_mean": math.nan}}
    assert only(check_claims(table(rows)), FAITHFUL_PAPER) == []


def test_every_attack_based_rival_is_a_second_claim():
    rows = {**FAITHFUL, "igdm": {**FAITHFUL["rslad"], "gap_certified_mean": 0.05}}
    first, second = only(check_claims(table(rows)), FAITHFUL_PAPER)
    assert (first.holds, second.holds) == (True, False)
    assert second.statement.startswith("Harder than the paper's: faithful has a smaller mean")
    assert "than rslad, igdm, at" in second.statement and "igdm" not in first.statement


@pytest.mark.parametrize(
    ("own", "teacher", "holds"),
    [
        (0.6, 0.5, (True, True)),
        (0.45, 0.57, (True, False)),
        (0.3, 0.3, (False, True)),
        # 1.96 sqrt((0.4 0.6 + 0.5 0.5) / 200) = 0.097
        (0.404, 0.4, (True, True)),
        (0.4, 0.4, (False, True)),
    ],
)
def test_kdiga_against_kd_and_its_teacher_up_to_noise(own, teacher, holds):
    rows = {"kd": {"robust_accuracy": 0.5}, "kdiga": {"robust_accuracy": own}}
    told = {"attacked": {"mnist": 200}, "teacher_robust": {"T": teacher}}
    claims = only(check_claims(table(rows), **told), KDIGA_PAPER)
    assert all("95 % noise of 200 examples" in claim.statement for claim in claims)
    assert tuple(claim.holds for claim in claims) == holds
    assert claims[1].figures == {"kdiga: robust_accuracy": own, "teacher: robust_accuracy": teacher}
    assert [claim.n for claim in claims] == [2, 1]
    assert len(only(check_claims(table(rows), attacked={"mnist": 200}), KDIGA_PAPER)) == 1
    assert check_claims(table(rows), teacher_robust={"T": teacher}) == []


def test_kdiga_is_not_tested_where_nobody_is_robust():
    rows = {"kd": {"robust_accuracy": 0.0}, "kdiga": {"robust_accuracy": 0.0}}
    told = {"attacked": {"mnist": 200}, "teacher_robust": {"T": 0.1}}
    (claim,) = check_claims(table(rows), **told)
    assert "its teacher" in claim.statement and not claim.holds


@pytest.mark.parametrize(
    ("dataset", "robust", "holds"),
    [
        ("mnist", 0.53, True),
        ("mnist", 0.529, False),
        ("cifar10_jpeg", 0.55, False),
        ("cifar10_jpeg", 0.56, True),
        ("mnist", 0.5, False),
    ],
)
def test_cckd_gains_points_under_attack_without_allowance_for_noise(dataset, robust, holds):
    rows = {"kd": {"robust_accuracy": 0.5}, "cckd_t": {"robust_accuracy": robust}}
    (claim,) = only(check_claims(table(rows, dataset), attacked={dataset: 200}), CCKD_PAPER)
    assert claim.holds == holds


@pytest.mark.parametrize(("kept", "holds"), [(0.4, True), (0.5, False), (0.6, False)])
def test_cckd_takes_over_fewer_mistakes(kept, holds):
    rows = {"kd": {"retention_train": 0.5}, "cckd_l": {"retention_train": kept}}
    (claim,) = only(check_claims(table(rows)), CCKD_PAPER)
    assert claim.holds == holds and "mistakes on train examples" in claim.statement
    rows["kd"]["retention_train"] = math.nan
    assert check_claims(table(rows)) == []


def test_cckd_accuracy_up_to_the_noise_of_the_examples():
    """1.96 sqrt((0.9 0.1 + 0.89 0.11) / N) is 0.0084 for N = 10,000 and 0.038 for 500."""
    rows = {"kd": {"clean_accuracy": 0.9}, "cckd_l": {"clean_accuracy": 0.89}}
    for examples, holds in ((10_000, False), (500, True)):
        (claim,) = only(check_claims(table(rows), examples={"mnist": examples}), CCKD_PAPER)
        assert claim.holds == holds
    assert check_claims(table(rows)) == []


def test_self_regulation_sees_fewer_examples_than_the_same_form_without():
    rows = {
        "cckd_l": {"training_examples": 1000.0},
        "cckd_l_sr": {"training_examples": 600.0},
        "cckd_t_sr": {"training_examples": 600.0},
    }
    (claim,) = only(check_claims(table(rows)), CCKD_PAPER)
    assert claim.holds
    assert claim.label == "cckd_l_sr"
    rows["cckd_l_sr"]["training_examples"] = 1000.0
    assert not only(check_claims(table(rows)), CCKD_PAPER)[0].holds


def test_tintem_out_of_distribution():
    rows = {
        "kd": {"agreement_outside": 0.4, "agreement_corrupted": 0.8},
        "tintem": {"agreement_outside": 0.5, "agreement_corrupted": 0.8},
    }
    claims = only(check_claims(table(rows)), TINTEM_PAPER)
    assert [claim.holds for claim in claims] == [True, False]


def test_a_table_without_names_is_refused():
    with pytest.raises(ConfigError, match="the column 'label', which this one has not"):
        check_claims(table(FAITHFUL).drop(columns="label"))
