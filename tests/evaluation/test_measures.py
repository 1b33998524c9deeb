"""Other ways to differ: linear networks by hand, what follows for any pair, certificates, bad input."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from fkd.core.errors import ConfigError, SoundnessError
from fkd.data import load_split
from fkd.evaluation import (
    MEASURES_COLUMNS,
    AnalysisConfig,
    MeasuresConfig,
    analyse,
    find_measures,
    measure_names,
    measure_pair,
    save_analysis,
)
from fkd.models import load_model
from tests.support.linear import MIDDLE, save_linear_pairs
from tests.support.measures import QUICK, SEARCH
from tests.support.transfers import save_students


@pytest.fixture(autouse=True)
def one_thread():
    """On networks this small a second thread is only waited for: it takes three times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config(own_folders):
    save_students()
    return MeasuresConfig.parse(QUICK)


def values(table, column="value_attack"):
    """One column by example and measure."""
    return table.pivot(index="index", columns="measure", values=column)


# ---------------------------------------------------------------- by hand


def _odds(log_odds):
    return 1 / (1 + np.exp(-log_odds))


def test_two_linear_networks_differ_most_where_the_pixel_ends(own_folders):
    pair = {**save_linear_pairs(), "student": "first", "count": 2}
    found = measure_pair(MeasuresConfig.parse(pair), device="cpu")
    table = values(found.table)
    clean = values(found.table, "value_clean")
    # Log-odds of class 1: the teacher's are -1 everywhere, the student's 10 a - 6 of the first pixel a.
    teacher, end, middle = _odds(-1.0), 10 * (MIDDLE + 0.2) - 6, 10 * MIDDLE - 6
    for name in ("label", "teacher_class", "any_class", "total_variation"):
        # Of two classes one confidence tells both.
        assert table[name].tolist() == pytest.approx([_odds(end) - teacher] * 2, abs=1e-6)
        assert clean[name].tolist() == pytest.approx([abs(_odds(middle) - teacher)] * 2, abs=1e-6)

    def divergence(log_odds):
        student = _odds(log_odds)
        return teacher * np.log(teacher / student) + (1 - teacher) * np.log(
            (1 - teacher) / (1 - student)
        )

    assert table["kl"].tolist() == pytest.approx([divergence(end)] * 2, abs=1e-6)
    assert clean["kl"].tolist() == pytest.approx([divergence(middle)] * 2, abs=1e-6)
    # The teacher says 0 by a margin of 1, whatever happens; at the end the student says 1 by more.
    # Image 0 is a 0 and image 1 a 1, so each event is possible on one of them.
    assert end > 1
    assert table["teacher_right"].tolist() == pytest.approx([1.0, -1.0], abs=1e-6)
    assert table["student_right"].tolist() == pytest.approx([-1.0, 1.0], abs=1e-6)
    assert clean["teacher_right"].tolist() == pytest.approx([middle, -1.0], abs=1e-5)
    said = values(found.table, "found")
    assert said["teacher_right"].tolist() == [True, False]
    assert said["student_right"].tolist() == [False, True]
    for name in ("label", "any_class", "total_variation", "kl"):
        pixels = found.witnesses[name][:, 0, 0, 0]
        assert pixels.tolist() == pytest.approx([MIDDLE + 0.2] * 2, abs=1e-6)
    rows = found.table.set_index(["measure", "index"])
    label = rows.loc[("label", 1)]
    assert (label.compared, label.unit) == (1, "probability")
    assert (label.teacher_conf, label.student_conf) == pytest.approx((teacher, _odds(end)))
    assert (label.teacher_pred, label.student_pred) == (0, 1)
    assert rows.loc[("teacher_class", 1)].compared == 0


def test_a_pixel_apart_is_a_witness_by_measure(own_folders):
    pair = {**save_linear_pairs(), "student": "second", "count": 1, "measures": ["kl"]}
    found = measure_pair(MeasuresConfig.parse(pair), device="cpu")
    assert found.witness("kl", 0)[0, 0, 1] == pytest.approx(MIDDLE + 0.2, abs=1e-6)
    assert found.witness("label", 0) is None


# ---------------------------------------------------------------- on digits


def test_the_table_says_what_the_networks_say_at_the_witnesses(config):
    found = measure_pair(config, device="cpu")
    table = found.table
    assert list(table) == [column.name for column in MEASURES_COLUMNS]
    assert table["measure"].tolist() == measure_names() * 12
    assert table["index"].tolist() == np.repeat(np.arange(12), len(measure_names())).tolist()
    split = load_split("digits", "test")
    images, labels = split.images[:12], split.labels[:12]
    assert table["label"].tolist() == labels.repeat_interleave(len(measure_names())).tolist()
    networks = [load_model(name).network.double() for name in ("big", "near")]
    for name in measure_names():
        points = torch.from_numpy(found.witnesses[name])
        assert float((points - images).abs().max()) <= 0.08 + 1e-6
        assert float(points.min()) >= 0 and float(points.max()) <= 1
        rows = table[table.measure == name]
        with torch.no_grad():
            logits = [network(points.double()) for network in networks]
        assert rows.teacher_pred.tolist() == logits[0].argmax(1).tolist()
        assert rows.student_pred.tolist() == logits[1].argmax(1).tolist()
        if name in ("kl", "total_variation"):
            assert rows[["compared", "teacher_conf", "student_conf"]].isna().all(axis=None)
            continue
        compared = torch.tensor(rows.compared.to_numpy(dtype=int))
        for part, column in zip(logits, ("teacher_conf", "student_conf"), strict=True):
            confidence = part.softmax(1).gather(1, compared[:, None])[:, 0]
            np.testing.assert_allclose(rows[column], confidence, atol=1e-9)
        if name.endswith("_right"):
            right, wrong = (logits, logits[::-1])[name == "student_right"]
            happens = (right.argmax(1) == labels) & (wrong.argmax(1) != labels)
            assert rows.found.tolist() == happens.tolist() == (rows.value_attack > 0).tolist()
        else:
            assert rows.found.isna().all()
            gap = (rows.teacher_conf - rows.student_conf).abs()
            np.testing.assert_allclose(rows.value_attack, gap, atol=1e-9)


def test_what_holds_at_every_point_holds_for_the_reported_values(config):
    table = measure_pair(config, device="cpu").table
    assert (table.value_attack >= table.value_clean).all()
    for column in ("value_clean", "value_attack"):
        found = values(table, column)
        assert (found.any_class >= found.label - 1e-12).all()
        assert (found.any_class >= found.teacher_class - 1e-12).all()
        assert (found.total_variation >= found.any_class - 1e-12).all()
        # Pinsker's inequality.
        assert (found.kl >= 2 * found.total_variation**2 - 1e-12).all()
    # Something was found beyond the images, else all of this says little.
    assert (values(table).label > values(table, "value_clean").label + 0.01).any()


def test_a_network_and_its_copy_never_differ(config):
    table = measure_pair(MeasuresConfig.parse({**QUICK, "student": "big", "count": 4})).table
    graded = table[table.found.isna()]
    assert graded.value_attack.abs().max() < 1e-12
    assert not table.found.dropna().any()


def test_in_a_ball_without_room_the_image_is_all_there_is(config):
    found = measure_pair(MeasuresConfig.parse({**QUICK, "epsilon": 0.0, "count": 4}), device="cpu")
    assert found.table.value_attack.tolist() == found.table.value_clean.tolist()
    images = load_split("digits", "test").images[:4].numpy()
    assert all((points == images).all() for points in found.witnesses.values())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_measures_are_those_of_an_analysis(config, norm):
    ball = {"norm": norm, "epsilon": 0.3 if norm == "l2" else 0.08}
    small = MeasuresConfig.parse({**QUICK, **ball, "measures": ["label", "teacher_class"]})
    found = values(measure_pair(small, device="cpu").table, "value_clean")
    for name, gap_class in (("label", "label"), ("teacher_class", "teacher")):
        analysis = analyse(small.analysis(gap_class), device="cpu").table
        np.testing.assert_allclose(found[name], analysis.gap_clean, atol=1e-9)
    # And now both are held against those bounds.
    measure_pair(small, device="cpu", fresh=True)


# ---------------------------------------------------------------- certificates


@pytest.mark.parametrize("gap_class", ["label", "teacher"])
@pytest.mark.parametrize("bound", ["gap_certified", "gap_upper_certified", "gap_lower_certified"])
def test_a_witness_beyond_any_stored_certificate_stops_the_program(config, gap_class, bound):
    """Of another attack, seed, level and number of examples: the certificate holds all the same."""
    analysis = analyse(
        AnalysisConfig(
            **{**QUICK, "attack": {"steps": 2}, "count": 9, "seed": 5}, gap_class=gap_class
        ),
        device="cpu",
    )
    # No measure of that class is asked for: whatever is searched, its points are in the ball.
    kl = config.model_copy(update={"measures": ("kl",)})
    measure_pair(kl, device="cpu")
    wrong = {"gap_certified": 0.0, "gap_upper_certified": -0.99, "gap_lower_certified": 0.99}
    analysis.table[bound] = wrong[bound]
    save_analysis(analysis)
    with pytest.raises(SoundnessError, match=rf"certificate of {analysis.key} claims .* to "):
        measure_pair(kl, device="cpu", fresh=True)


def test_a_disagreement_where_agreement_is_certified_stops_the_program(config):
    analysis = analyse(config.analysis().model_copy(update={"count": 30}), device="cpu")
    assert analysis.table.disagrees[: config.count].any()
    analysis.table["agrees_certified"] = True
    save_analysis(analysis)
    with pytest.raises(SoundnessError, match=f"a disagreement where the .* {analysis.key} claims"):
        measure_pair(config, device="cpu")
    assert find_measures(config) is None


def test_a_certificate_of_another_ball_says_nothing(config):
    analysis = analyse(config.analysis().model_copy(update={"epsilon": 0.07}), device="cpu")
    analysis.table["gap_certified"] = 0.0
    save_analysis(analysis)
    assert len(measure_pair(config, device="cpu").table) == 12 * len(measure_names())


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"measures": []},
            "At least one measure is needed, got none; name some of any_class, label",
        ),
        ({"measures": ["labl"]}, "There is no measure called 'labl'; did you mean 'label'?"),
        ({"measures": ["kl", "kl"]}, "The measure 'kl' is named more than once"),
        ({"attack": {"name": "pgd"}}, "driven up by the attack 'search' alone, got 'pgd'"),
        ({"attack": {"name": "pdg"}}, "There is no attack called 'pdg'"),
        ({"attack": {"stepz": 3}}, "attack search has no setting called 'stepz'"),
        ({"certificate": {"name": "fast"}}, "measures has no setting called 'certificate'"),
        ({"students": ["near"]}, "measures has no setting called 'students'"),
        ({"epsilon": 8}, "did you mean 8/255"),
        ({"student": "nobody"}, "There is no model called 'nobody'"),
        ({"count": 9999}, "choose a count of at most"),
    ],
)
def test_bad_input_is_one_sentence(config, changes, sentence):
    with pytest.raises(ConfigError) as caught:
        measure_pair(MeasuresConfig.parse({**QUICK, **changes}))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_search_is_the_attack_where_none_is_named(config):
    assert config.attack.name == "search"
    assert MeasuresConfig.parse({**QUICK, "attack": {**SEARCH, "name": "search"}}) == config
    assert MeasuresConfig.parse(json.loads(config.model_dump_json())) == config
    assert pd.Series(config.measures).is_unique and set(config.measures) == set(measure_names())
