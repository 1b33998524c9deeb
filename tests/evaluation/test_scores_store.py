"""Figures of a pair: measured in groups, kept apart, found again, missing with a reason."""

import numpy as np
import pandas as pd
import pytest
import torch

from fkd.core.errors import Cancelled, ConfigError, SoundnessError, UnsupportedModelError
from fkd.core.paths import data_dir, results_dir
from fkd.data import load_split
from fkd.evaluation import (
    RELIABILITY_COLUMNS,
    SCORE_COLUMNS,
    SCORES,
    Figure,
    RobustnessConfig,
    ScoredPair,
    ScoreGroup,
    ScoresConfig,
    all_figures,
    analyse,
    find_scores,
    group_names,
    group_of,
    robustness_summary,
    score_pair,
    scores_key,
    summarise,
)
from fkd.evaluation.scores import GroupScores, Score, ood
from fkd.evaluation.scores.accuracy import certified_right
from tests.support.pairs import save_digits_model

CHEAP = ("fidelity", "retention")
QUICK = {
    "dataset": "digits",
    "teacher": "big",
    "student": "near",
    "epsilon": 0.06,
    "count": 12,
    "attack": {"steps": 5},
}


@pytest.fixture
def pair(own_folders):
    save_digits_model("big", "teacher", hidden=(16,), seed=0)
    save_digits_model("near", "student", hidden=(10,), seed=1)


@pytest.fixture
def short_robustness(monkeypatch):
    """The attacks on the student alone with little effort: their figures are tested elsewhere."""

    def robustness(self):
        effort = {"steps": 5, "restarts": 2, "autoattack_steps": 5, "autoattack_queries": 20}
        shared = {name: getattr(self, name) for name in ("dataset", "epsilon", "count", "seed")}
        return RobustnessConfig(**shared, model=self.student, **effort)

    monkeypatch.setattr(ScoresConfig, "robustness", robustness)


@pytest.fixture
def throw_away():
    """Register a group for a test; what it did is in its ``calls``."""
    added = []

    def add(measure, **more):
        class Group(ScoreGroup):
            """Counts."""

            title = "Counts"
            figures = (Figure("half", "half", "share", "higher", "A half."),)
            calls: list[str] = []

            def measure(self, pair, progress):
                self.calls.append(pair.config.student)
                return measure(pair)

        for name, value in more.items():
            setattr(Group, name, value)
        SCORES.register("throw_away")(Group)
        added.append("throw_away")
        return Group

    yield add
    for name in added:
        SCORES.unregister(name)


def ask(*groups, **changes):
    return ScoresConfig.parse({**QUICK, "groups": groups or CHEAP, **changes})


def test_train_images_are_not_their_own_reference(pair, monkeypatch):
    """Of 1297 train images 648 are told from what is out of distribution by the other 649."""
    seen = []

    class Spy(ood.Reference):
        def __init__(self, latents, labels):
            seen.append(latents)
            super().__init__(latents, labels)

        def knn(self, latents):
            # An image among the references would be at distance 0 of one.
            seen.append(latents)
            return super().knn(latents)

    monkeypatch.setattr(ood, "Reference", Spy)
    config = ask("ood", split="train")
    scores = score_pair(config, device="cpu").table.set_index("figure")
    assert scores.loc["auroc_knn_noise", "count"] == 2 * 648
    bank, inside = seen[0], seen[1]
    assert (len(bank), len(inside)) == (649, 648)
    assert torch.cdist(inside, bank).amin() > 0
    # The test split's images are none of them, so that all are its reference.
    del seen[:]
    score_pair(ask("ood"), device="cpu")
    assert (len(seen[0]), len(seen[1])) == (1297, 500)


def test_every_figure_is_documented_once():
    figures = [figure for name in group_names() for figure in SCORES.get(name).figures]
    names = [figure.name for figure in figures]
    assert len(set(names)) == len(names) == len(all_figures()) > 50
    assert group_names()[:2] == ["accuracy", "faithfulness"]
    assert group_of("retention_train") == "retention"
    for figure in figures:
        assert figure.better in ("higher", "lower", "neither")
        assert figure.meaning.endswith(".") and len(figure.meaning) > 20
        assert figure.title and figure.unit
    # A name says which network where it is not the student.
    assert all(f.better == "neither" for f in figures if f.name.startswith("teacher_"))


def test_all_groups_of_a_pair_agree_with_where_they_come_from(pair, short_robustness):
    config = ask(*group_names())
    scores = score_pair(config, device="cpu")
    table = scores.table
    assert list(table) == [column.name for column in SCORE_COLUMNS]
    assert table.figure.tolist() == list(all_figures())
    assert scores.missing == ()
    # A value, or the reason why there is none.
    assert (table.value.notna() | table.reason.notna()).all()
    known = table[table.lower.notna()]
    assert (known.lower <= known.value).all() and (known.value <= known.upper).all()
    assert known.interval.notna().all()

    summary = summarise(analyse(config.analysis()).table)
    assert scores.value("gap_attack_mean") == pytest.approx(summary.gap_attack_mean)
    assert scores.value("gap_certified_p95") == pytest.approx(summary.gap_certified_p95)
    assert scores.value("agreement_found") == pytest.approx(1 - summary.disagreement_found)
    assert scores.value("agreement_certified") == summary.agreement_certified
    robust = robustness_summary(ScoredPair(config, device="cpu").robustness().table)
    assert scores.value("robust_accuracy") == robust.robust.value
    assert scores.value("certified_accuracy") <= scores.value("robust_accuracy")
    split = load_split("digits", "test")
    teacher, student = ScoredPair(config, device="cpu").logits(split.images)
    right = (student.argmax(1) == split.labels).double().mean().item()
    assert scores.value("clean_accuracy") == pytest.approx(right)
    same = (student.argmax(1) == teacher.argmax(1)).double().mean().item()
    assert scores.value("agreement_clean") == scores.value("agreement_inside")
    assert scores.value("agreement_clean") == pytest.approx(same)
    # Which has no ball says none.
    assert table.epsilon.isna().tolist() == [
        not SCORES.get(group).needs_ball for group in table.group
    ]

    bins = scores.details["calibration"]
    assert list(bins) == [column.name for column in RELIABILITY_COLUMNS]
    counts = bins.groupby("at")["count"].sum()
    assert (counts["image"], counts["witness"]) == (12, 12)
    of_teacher, of_student = (
        c[:12] for c in ScoredPair(config, device="cpu").compared_confidences()
    )
    signed = scores.value("relative_clean_signed")
    assert signed == pytest.approx((of_student - of_teacher).mean())
    counted = table.set_index("figure")["count"]
    assert counted["relative_clean"] == counted["relative_attack"] == 12
    assert counted["ece"] == len(split)
    # No set out of distribution has such images.
    outside = table[table.figure.str.endswith("_outside")]
    assert outside.value.isna().all() and outside.reason.str.contains("name one of your own").all()

    found = find_scores(config)
    pd.testing.assert_frame_equal(found.table, table)
    pd.testing.assert_frame_equal(found.details["calibration"], bins)
    assert found.metadata["cost"]["processor"] and found.metadata["cost"]["analysis"] is None
    versions = found.metadata["calibration"]["versions"]
    assert {"torch", "torchmetrics", "torchvision", "fkd"} <= versions.keys()
    assert found.metadata["calibration"]["analysis"] == analyse(config.analysis()).key


def test_a_teacher_is_its_own_most_faithful_student(pair, monkeypatch):
    # This one gets 9 train examples wrong.
    monkeypatch.setattr("fkd.evaluation.scores.retention.LEAST_MISTAKES", 5)
    save_digits_model("twin", "student", hidden=(16,), seed=0)
    scores = score_pair(ask("fidelity", "retention", "calibration", student="twin"), device="cpu")
    assert scores.value("kl_corrupted") == 0.0 and scores.value("agreement_noise") == 1.0
    assert scores.value("retention_train") == 1.0 and scores.value("correction_train") == 0.0
    assert scores.value("relative_clean") == 0.0
    assert scores.value("ece") == scores.value("teacher_ece") > 0


def test_groups_are_kept_apart_and_measured_once(pair, throw_away):
    group = throw_away(lambda _: GroupScores({"half": Score(0.5, 0.4, 0.6, 10)}))
    assert find_scores(ask("throw_away")) is None
    first = score_pair(ask("retention"), device="cpu")
    both = ask("retention", "throw_away")
    assert find_scores(both).missing == ("throw_away",)
    scores = score_pair(both, device="cpu")
    assert (scores.value("half"), scores.missing, group.calls) == (0.5, (), ["near"])
    assert scores.value("retention_test") == first.value("retention_test")
    # Without a ball, every ball has the same figures.
    assert find_scores(ask("throw_away", epsilon=0.01, count=3)).value("half") == 0.5
    score_pair(ask("throw_away", epsilon=0.01), device="cpu")
    assert len(group.calls) == 1
    score_pair(ask("throw_away"), device="cpu", fresh=True)
    assert len(group.calls) == 2
    # Another version of the group is another figure.
    group.version = 2
    assert find_scores(ask("throw_away")) is None


def test_the_key_is_of_what_determines_the_figures(pair, throw_away):
    save_digits_model("other", "student", hidden=(12,), seed=2)
    throw_away(lambda _: GroupScores({"half": Score(0.5)}), needs_ball=True)
    key = scores_key(ask("throw_away"))
    assert scores_key(ask("throw_away", outside=None)) == key
    changes = ({"epsilon": 0.05}, {"count": 11}, {"seed": 1}, {"student": "other"})
    assert key not in {scores_key(ask("throw_away", **change)) for change in changes}
    free = ask("fidelity", "retention")
    assert scores_key(free) == scores_key(ask("retention", "fidelity", epsilon=0.01))
    assert scores_key(free) != scores_key(ask("fidelity", "retention", student="other"))


def test_networks_a_group_is_not_for_have_a_reason(pair, throw_away):
    def refuse(_):
        raise UnsupportedModelError("This network has no such thing.")

    throw_away(refuse)
    scores = score_pair(ask("throw_away"), device="cpu")
    (row,) = scores.table.to_dict("records")
    assert np.isnan(row["value"]) and row["reason"] == "This network has no such thing."
    assert scores.missing == ()


def test_what_was_finished_before_it_was_stopped_is_kept(pair, throw_away):
    throw_away(lambda _: GroupScores({"half": Score(0.5)}), order=1)
    config = ask("throw_away", "retention")
    with pytest.raises(Cancelled):
        score_pair(config, device="cpu", progress=lambda step: step.stage == "retention")
    assert find_scores(config).missing == ("retention",)


def test_a_damaged_table_is_measured_again(pair, throw_away):
    group = throw_away(lambda _: GroupScores({"half": Score(0.5)}))
    score_pair(ask("throw_away"), device="cpu")
    (path,) = (results_dir() / "scores").glob("*.parquet")
    path.write_bytes(b"PAR1")
    assert find_scores(ask("throw_away")) is None
    assert score_pair(ask("throw_away"), device="cpu").value("half") == 0.5
    assert len(group.calls) == 2


def save_set(name, classes, size=8):
    """A user's data set of grey images in the data folder."""
    data_dir().mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (20, size, size), dtype=np.uint8)
    labels = np.arange(20)[:, None] % classes
    arrays = {
        f"{split}_{what}": value
        for split in ("train", "test")
        for what, value in (("images", images), ("labels", labels))
    }
    np.savez(data_dir() / f"{name}.npz", **arrays)


def test_another_set_of_the_same_shape_is_out_of_distribution(pair):
    save_set("mine", 4)
    scores = score_pair(ask("fidelity", "ood", outside="mine"), device="cpu")
    chosen = scores.table.set_index("figure")
    assert chosen.loc["kl_outside", "count"] == 20
    assert 0 < chosen.loc["auroc_knn_outside", "value"] <= 1
    assert scores_key(ask("ood", outside="mine")) != scores_key(ask("ood"))
    # In the same place, other images are other figures.
    key = scores_key(ask("ood", outside="mine"))
    save_set("mine", 5)
    assert scores_key(ask("ood", outside="mine")) != key


def test_figures_out_of_distribution_are_found_where_that_set_is_not(pair, monkeypatch):
    from fkd.data._npz import NpzSet

    save_set("mine", 4)
    here = score_pair(ask("fidelity", outside="mine"), device="cpu")
    monkeypatch.setattr(NpzSet, "is_available", lambda self: False)
    there = find_scores(ask("fidelity", outside="mine"))
    assert there.missing == () and there.value("kl_outside") == here.value("kl_outside") > 0


def test_cifar_10_as_jpeg_is_not_out_of_distribution_for_it(pair, monkeypatch):
    from fkd.evaluation import scored_pair

    def outside(name):
        data_set = scored_pair.get_data_set(name)
        return scored_pair._outside_set(ask(), data_set)

    assert outside("mnist").name == "fashion_mnist"
    assert outside("fashion_mnist").name == "mnist"
    assert outside("cifar10") is None
    # It is not here: figures say so.
    assert "data download" in _why_absent()


def _why_absent():
    from fkd.evaluation import scored_pair

    found = ScoredPair(ask(), device="cpu")
    found.outside = scored_pair.get_data_set("mnist")
    assert found.outside_images(5) is None
    return found.why_no_outside()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"groups": []}, "At least one group of figures is needed"),
        ({"groups": ["cost", "beauty"]}, "no group of figures called 'beauty'"),
        ({"outside": "mnist"}, "another data set with 1x8x8 images is needed"),
        ({"outside": "digits"}, "'digits' cannot be out of distribution for 'digits'"),
        ({"outside": "nothing"}, "nothing"),
        ({"student": "nobody"}, "no model called 'nobody'"),
        ({"count": 10_000}, "10000 cannot be analysed"),
    ],
)
def test_bad_input_is_one_sentence(pair, change, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        score_pair(ScoresConfig.parse({**QUICK, "groups": CHEAP, **change}), device="cpu")
    assert "\n" not in str(caught.value)


def test_proofs_of_the_student_alone_are_counted_where_the_pair_disagrees(pair):
    # In a ball that is hardly more than a point all is proved, also where a poor teacher differs.
    save_digits_model("poor", "teacher", hidden=(3,), seed=3)
    config = ask("accuracy", teacher="poor", epsilon=1e-6, count=60)
    table = analyse(config.analysis()).table
    right = table.student_pred == table.label
    apart = right & (table.teacher_pred != table.student_pred)
    assert apart.any() and not table.student_robust_certified[apart].any()
    proved = certified_right(ScoredPair(config, device="cpu"))
    np.testing.assert_array_equal(proved, right)


def test_a_proof_that_an_attack_contradicts_stops_the_measurement(
    pair, short_robustness, monkeypatch
):
    monkeypatch.setattr(
        "fkd.evaluation.scores.accuracy.certified_right", lambda *_: np.ones(12, dtype=bool)
    )
    config = ask("accuracy", epsilon=0.3)
    with pytest.raises(SoundnessError, match="an attack fooled 'near' although"):
        score_pair(config, device="cpu")
    assert find_scores(config) is None


def test_proofs_that_there_cannot_be_leave_the_other_figures(pair, short_robustness, monkeypatch):
    def refuse(*_):
        raise UnsupportedModelError("No bound passes through.")

    monkeypatch.setattr("fkd.evaluation.scores.accuracy.certified_right", refuse)
    scores = score_pair(ask("accuracy"), device="cpu")
    row = scores.table.set_index("figure").loc["certified_accuracy"]
    assert np.isnan(row.value) and row.reason == "No bound passes through."
    assert scores.value("robust_accuracy") is not None


def test_relative_calibration_is_of_the_compared_class(pair):
    found = ScoredPair(ask("calibration", gap_class="teacher"), device="cpu")
    teacher, student = found.compared_confidences()
    logits = found.logits(load_split("digits", "test").images)
    first, second = (torch.softmax(part, 1) for part in logits)
    np.testing.assert_allclose(teacher, first.amax(1))
    classes = first.argmax(1, keepdim=True)
    np.testing.assert_allclose(student, second.gather(1, classes)[:, 0])
