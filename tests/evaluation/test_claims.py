from __future__ import annotations

import math

import pandas as pd
import pytest

from fkd.core.errors import ConfigError
from fkd.evaluation.claims import (
    CCKD_PAPER,
    FAITHFUL_PAPER,
    KDIGA_PAPER,
    OWN,
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


def check(rows, dataset="mnist", images=10**30, **told):
    """Claims on a table of as many images each: by default so many that there is no noise."""
    return check_claims(table(rows, dataset), counts={"T": counted(images)}, **told)


def counted(images):
    figures = ["clean_accuracy", "gap_certified_mean", "agreement_certified", "robust_accuracy"]
    figures += ["agreement_outside", "agreement_corrupted", "retention_train"]
    return dict.fromkeys(figures, images)


def only(claims, paper):
    return [c for c in claims if c.paper == paper]


FAITHFUL = {
    "faithful": {"clean_accuracy": 0.98, "gap_certified_mean": 0.1, "agreement_certified": 0.9},
    "kd": {"clean_accuracy": 0.985, "gap_certified_mean": 0.9, "agreement_certified": 0.1},
    "rslad": {"clean_accuracy": 0.97, "gap_certified_mean": 0.2, "agreement_certified": 0.8},
}


def changed(label, **figures):
    return {**FAITHFUL, label: {**FAITHFUL[label], **figures}}


def test_faithful_wins_over_every_rival_there_is():
    (claim,) = only(check(FAITHFUL), FAITHFUL_PAPER)
    assert claim.verdict == "holds"
    assert "kd, rslad, at an accuracy at most 1 point below" in claim.statement
    assert claim.figures["rslad: gap_certified_mean"] == 0.2
    assert (claim.n, claim.dataset, claim.teacher, claim.label) == (3, "mnist", "T", "faithful")
    assert claim.noise == f"binomial, {10**30:,} images"


@pytest.mark.parametrize(
    "rows",
    [
        changed("rslad", gap_certified_mean=0.09),
        changed("rslad", agreement_certified=0.91),
        changed("kd", clean_accuracy=0.9901),
    ],
    ids=["gap larger", "agreement smaller", "accuracy more than a point below"],
)
def test_one_lost_comparison_makes_it_false(rows):
    (claim,) = only(check(rows), FAITHFUL_PAPER)
    assert claim.verdict == "does not hold"


def test_equality_is_not_lost_to_rounding():
    # In floats 0.06 is less than 0.07 - 0.01: at the bar no number of images tells.
    rows = changed("faithful", clean_accuracy=0.06)
    rows["kd"] = {**rows["kd"], "clean_accuracy": 0.07}
    del rows["rslad"]
    (claim,) = only(check(rows), FAITHFUL_PAPER)
    assert claim.verdict == "within noise"
    # 0.55 - 0.52 is a little less than 0.03.
    rows = {"kd": {"robust_accuracy": 0.52}, "cckd_l": {"robust_accuracy": 0.55}}
    (claim,) = only(check(rows), CCKD_PAPER)
    assert claim.verdict == "within noise"


def test_seeds_are_averaged_and_counted():
    rows = {**FAITHFUL, "faithful-s1": {**FAITHFUL["faithful"], "gap_certified_mean": 0.4}}
    (claim,) = only(check(rows), FAITHFUL_PAPER)
    # 0.25 on average: more than the 0.2 of rslad.
    assert claim.figures["faithful: gap_certified_mean"] == pytest.approx(0.25)
    assert claim.verdict == "does not hold"
    assert claim.n == 4


def test_groups_are_teachers_and_data_sets():
    both = pd.concat([table(FAITHFUL), table(changed("rslad", gap_certified_mean=0.0), "digits")])
    claims = check_claims(both, counts={"T": counted(10**30)})
    found = {c.dataset: c.verdict for c in only(claims, FAITHFUL_PAPER)}
    assert found == {"mnist": "holds", "digits": "does not hold"}


def test_what_was_not_measured_is_not_claimed():
    assert check({"faithful": FAITHFUL["faithful"]}) == []
    assert check({"kd": FAITHFUL["kd"], "rslad": FAITHFUL["rslad"]}) == []
    # Without a number of images nobody knows the noise.
    assert check_claims(table(FAITHFUL)) == []
    unknown = changed("faithful", gap_certified_mean=math.nan)
    assert only(check(unknown), FAITHFUL_PAPER) == []


def test_a_figure_that_one_seed_lacks_is_not_compared():
    rows = {**FAITHFUL, "faithful-s1": {**FAITHFUL["faithful"], "gap_certified_mean": math.nan}}
    assert only(check(rows), FAITHFUL_PAPER) == []


def test_every_attack_based_rival_is_a_second_claim():
    rows = {**FAITHFUL, "igdm": {**FAITHFUL["rslad"], "gap_certified_mean": 0.05}}
    first, second = only(check(rows), FAITHFUL_PAPER)
    assert (first.verdict, second.verdict) == ("holds", "does not hold")
    assert second.statement.startswith("Harder than the paper's: faithful has a smaller mean")
    assert "than rslad, igdm, at" in second.statement and "igdm" not in first.statement


def robust_of(**right):
    """Tables of 200 images of which the first so many withstand the attack."""
    return {
        name: pd.DataFrame({"robust_accuracy": [index < hits for index in range(200)]})
        for name, hits in right.items()
    }


@pytest.mark.parametrize(
    ("own", "teacher", "verdicts"),
    [
        (0.65, 0.5, ("holds", "holds")),
        (0.45, 0.57, ("within noise", "does not hold")),
        # 1.96 sqrt((0.4 0.6 + 0.5 0.5) / 200) = 0.097
        (0.405, 0.4, ("within noise", "within noise")),
        # A tenth below, where a point is allowed: 0.09 / 0.049 is 1.8 deviations, 0.11 would be 2.2.
        (0.4, 0.4, ("within noise", "within noise")),
        (0.38, 0.5, ("does not hold", "does not hold")),
    ],
)
def test_kdiga_against_kd_and_its_teacher(own, teacher, verdicts):
    rows = {"kd": {"robust_accuracy": 0.5}, "kdiga": {"robust_accuracy": own}}
    images = robust_of(T=round(200 * teacher))
    claims = only(check(rows, images=200), KDIGA_PAPER)
    assert [claim.verdict for claim in claims] == [verdicts[0]]
    claims = only(check_claims(table(rows), counts={"T": counted(200)}, images=images), KDIGA_PAPER)
    assert tuple(claim.verdict for claim in claims) == verdicts
    assert claims[1].figures == {"kdiga: robust_accuracy": own, "teacher: robust_accuracy": teacher}
    assert [claim.n for claim in claims] == [2, 1]
    assert all(claim.noise == "binomial, 200 images" for claim in claims)


def test_the_same_images_tell_more_than_as_many_others():
    """Six images that kd loses and kdiga does not, hidden among 200 by themselves."""
    rows = {"kd": {"robust_accuracy": 0.5}, "kdiga": {"robust_accuracy": 0.53}}
    assert [c.verdict for c in only(check(rows, images=200), KDIGA_PAPER)] == ["within noise"]
    told = {"images": robust_of(kd=100, kdiga=106, T=104)}
    claims = only(check_claims(table(rows), **told), KDIGA_PAPER)
    assert [claim.verdict for claim in claims] == ["holds", "holds"]
    assert {claim.noise for claim in claims} == {"bootstrap, 200 images"}
    # Six images fewer than the teacher, of which two are the point that is allowed.
    told = {"images": robust_of(kd=100, kdiga=106, T=112)}
    claims = only(check_claims(table(rows), **told), KDIGA_PAPER)
    assert [claim.verdict for claim in claims] == ["holds", "within noise"]


def test_gaps_are_compared_image_by_image():
    """Gaps that differ by 0.01 at each image, and from image to image by a hundred times as much."""
    gaps = pd.Series(range(101)) / 101
    own, theirs = ({"gap_certified_mean": gaps + more} for more in (0.0, 0.01))
    agreed = {"agreement_certified": [index < 90 for index in range(101)]}
    rows = changed("kd", gap_certified_mean=0.505, clean_accuracy=0.9)
    del rows["rslad"]
    rows["faithful"] = {**rows["faithful"], "gap_certified_mean": 0.495}
    images = {
        "faithful": pd.DataFrame({**own, "agreement_certified": True}),
        "kd": pd.DataFrame({**theirs, **agreed}),
    }
    told = {"counts": {"T": {"clean_accuracy": 10_000}}}
    (claim,) = only(check_claims(table(rows), images=images, **told), FAITHFUL_PAPER)
    assert claim.verdict == "holds"
    assert claim.noise == ("binomial, 10,000 images; bootstrap, 101 images; McNemar, 101 images")
    # An image whose gap has no bound in one of the two is left out.
    images["kd"].loc[0, "gap_certified_mean"] = math.nan
    (claim,) = only(check_claims(table(rows), images=images, **told), FAITHFUL_PAPER)
    assert "bootstrap, 100 images" in claim.noise


def test_a_student_of_several_seeds_is_compared_by_the_mean_of_each_image():
    rows = {
        "kd": {"robust_accuracy": 0.5},
        "kdiga": {"robust_accuracy": 0.6},
        "kdiga-s1": {"robust_accuracy": 0.5},
    }
    images = robust_of(kd=100, kdiga=120)
    # One seed's images are not those of both.
    assert check_claims(table(rows), images=images) == []
    images |= robust_of(**{"kdiga-s1": 100})
    (claim,) = only(check_claims(table(rows), images=images), KDIGA_PAPER)
    assert (claim.verdict, claim.noise) == ("holds", "bootstrap, 200 images")


def test_kdiga_is_not_tested_where_nobody_is_robust():
    rows = {"kd": {"robust_accuracy": 0.0}, "kdiga": {"robust_accuracy": 0.0}}
    told = {"counts": {"T": counted(200)}, "images": robust_of(T=20)}
    (claim,) = check_claims(table(rows), **told)
    assert "its teacher" in claim.statement and claim.verdict == "does not hold"


@pytest.mark.parametrize(
    ("dataset", "robust", "images", "verdict"),
    [
        ("mnist", 0.531, 10**30, "holds"),
        ("mnist", 0.529, 10**30, "does not hold"),
        ("cifar10_jpeg", 0.55, 10**30, "does not hold"),
        ("cifar10_jpeg", 0.561, 10**30, "holds"),
        # 0.03 + 1.96 sqrt(2 / 4 / 200) = 0.128
        ("mnist", 0.62, 200, "within noise"),
        ("mnist", 0.63, 200, "holds"),
    ],
)
def test_cckd_gains_points_under_attack(dataset, robust, images, verdict):
    rows = {"kd": {"robust_accuracy": 0.5}, "cckd_t": {"robust_accuracy": robust}}
    (claim,) = only(check(rows, dataset, images), CCKD_PAPER)
    assert claim.verdict == verdict


@pytest.mark.parametrize(
    ("kept", "verdict"), [(0.35, "holds"), (0.45, "within noise"), (0.65, "does not hold")]
)
def test_cckd_takes_over_fewer_mistakes(kept, verdict):
    """1.96 sqrt((0.45 0.55 + 0.5 0.5) / 200) = 0.098."""
    rows = {"kd": {"retention_train": 0.5}, "cckd_l": {"retention_train": kept}}
    (claim,) = only(check(rows, images=200), CCKD_PAPER)
    assert claim.verdict == verdict and "mistakes on train examples" in claim.statement
    rows["kd"]["retention_train"] = math.nan
    assert check(rows) == []


@pytest.mark.parametrize(
    ("accuracy", "images", "verdict"),
    [
        (0.9, 10_000, "holds"),
        (0.885, 10_000, "within noise"),
        (0.88, 10_000, "does not hold"),
        (0.88, 500, "within noise"),
        (0.9, 500, "within noise"),
    ],
)
def test_cckd_accuracy_up_to_the_noise_of_the_images(accuracy, images, verdict):
    """1.96 sqrt((0.9 0.1 + 0.88 0.12) / N) is 0.0087 for N = 10,000 and 0.039 for 500."""
    rows = {"kd": {"clean_accuracy": 0.9}, "cckd_l": {"clean_accuracy": accuracy}}
    (claim,) = only(check(rows, images=images), CCKD_PAPER)
    assert claim.verdict == verdict and "at most 1 point less" in claim.statement


@pytest.mark.parametrize(
    ("examples", "accuracy", "verdict"),
    [
        (600.0, 0.9, "holds"),
        (600.0, 0.891, "holds"),
        # Fewer examples alone say nothing: they only ever leave.
        (600.0, 0.889, "does not hold"),
        (1000.0, 0.9, "does not hold"),
    ],
)
def test_self_regulation_needs_fewer_examples_for_the_accuracy_of_kd(examples, accuracy, verdict):
    rows = {
        "kd": {"training_examples": 1000.0, "clean_accuracy": 0.9},
        "cckd_l": {"training_examples": 1000.0},
        "cckd_l_sr": {"training_examples": examples, "clean_accuracy": accuracy},
        "cckd_t_sr": {"training_examples": 600.0},
    }
    (claim,) = [c for c in only(check(rows), CCKD_PAPER) if "fewer examples" in c.statement]
    assert (claim.verdict, claim.label) == (verdict, "cckd_l_sr")
    assert claim.figures["kd: training_examples"] == 1000.0


@pytest.mark.parametrize(
    ("gap", "accuracy", "verdict"),
    [(0.05, 0.98, "holds"), (0.15, 0.98, "does not hold"), (0.05, 0.96, "does not hold")],
)
def test_this_projects_own_method_against_the_others_on_bounds(gap, accuracy, verdict):
    own = {"clean_accuracy": accuracy, "gap_certified_mean": gap}
    rows = {
        "certified_gap": own,
        "faithful": {"clean_accuracy": 0.98, "gap_certified_mean": 0.1},
        "faithful_ibp": {"clean_accuracy": 0.97, "gap_certified_mean": 0.2},
    }
    (claim,) = check(rows)
    assert (claim.paper, claim.label, claim.verdict) == (OWN, "certified_gap", verdict)
    assert "than faithful_ibp, faithful, at" in claim.statement


def seeded(rows):
    """Seeds in a column of their own."""
    made = table(rows)
    return made.assign(seed=made["student"].str.endswith("-s1").astype("Int64"))


def test_those_seeds_are_compared_that_all_have():
    """ARD's second seed is worse: alone it must not pass for a merit of what was trained once."""
    rows = {
        "kd": {"robust_accuracy": 0.9},
        "kd-s1": {"robust_accuracy": 0.3},
        "kdiga": {"robust_accuracy": 0.8},
    }
    told = {"counts": {"T": counted(10**30)}}
    (claim,) = check_claims(seeded(rows), **told)
    assert (claim.verdict, claim.n, claim.seeds) == ("does not hold", 2, (0,))
    assert claim.figures == {"kdiga: robust_accuracy": 0.8, "kd: robust_accuracy": 0.9}
    both = {**rows, "kdiga-s1": {"robust_accuracy": 0.6}}
    (claim,) = check_claims(seeded(both), **told)
    assert (claim.verdict, claim.n, claim.seeds) == ("holds", 4, (0, 1))
    # Without a seed in common, all there are.
    apart = {"kd-s1": rows["kd-s1"], "kdiga": rows["kdiga"]}
    (claim,) = check_claims(seeded(apart), **told)
    assert (claim.verdict, claim.n, claim.seeds) == ("holds", 2, (0, 1))


def test_tintem_out_of_distribution():
    rows = {
        "kd": {"agreement_outside": 0.4, "agreement_corrupted": 0.8},
        "tintem": {"agreement_outside": 0.5, "agreement_corrupted": 0.81},
    }
    claims = only(check(rows, images=2000), TINTEM_PAPER)
    assert [claim.verdict for claim in claims] == ["holds", "within noise"]


def test_a_table_without_names_is_refused():
    with pytest.raises(ConfigError, match="the column 'label', which this one has not"):
        check_claims(table(FAITHFUL).drop(columns="label"))
