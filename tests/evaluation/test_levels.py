"""Levels of certificates: points that move the lower end, costs, brackets side by side, words."""

import dataclasses
import shlex

import numpy as np
import pandas as pd
import pytest
import torch

from fkd.bounds import certificate_config
from fkd.bounds.crown import JointCrown
from fkd.core.errors import Cancelled, SoundnessError
from fkd.core.paths import results_dir
from fkd.core.precision import double_copy, logits_of
from fkd.data import load_split
from fkd.evaluation import (
    AnalysisConfig,
    ResolvedPair,
    analyse,
    certificate_text,
    compare_levels,
    example_detail,
    find_analysis,
    gap_curve,
    level_figures,
    parse_analysis,
    reproduce_snippet,
    save_analysis,
    time_budget,
)
from fkd.evaluation.pair import attack_examples
from fkd.models import load_model
from fkd.records import read_metadata
from tests.support.fake_levels import NAME, STEPS, fake_level
from tests.support.pairs import save_digits_model

EPSILON = 0.08


@pytest.fixture
def pair(own_folders):
    save_digits_model("big", "teacher", hidden=(24, 16), seed=0)
    save_digits_model("small", "student", hidden=(10,), seed=1)
    return {"dataset": "digits", "teacher": "big", "student": "small"}


def _config(pair, **changes):
    # A weak attack: one step, so that there is something left to find.
    settings = {
        "epsilon": EPSILON,
        "count": 30,
        "attack": {"name": "pgd", "steps": 1, "restarts": 1},
        **changes,
    }
    return parse_analysis({**pair, "certificate": {"name": NAME}, **settings})


def _strong_points(pair):
    """Witnesses of a far stronger attack: gaps' for even rows, disagreements' for odd ones."""
    config = _config(
        pair, attack={"name": "pgd", "steps": 60, "restarts": 4}, certificate={"name": "crown"}
    )
    found = attack_examples(config, list(range(30)))
    points = found.gap_witness.clone()
    odd = torch.arange(30) % 2 == 1
    points[odd] = found.disagreement_witness[odd]
    return points


def _measured(points):
    networks = [double_copy(load_model(name).network) for name in ("big", "small")]
    labels = load_split("digits", "test").labels[: len(points)]
    logits = [logits_of(network, points) for network in networks]
    conf = [torch.softmax(z, 1).gather(1, labels[:, None])[:, 0].numpy() for z in logits]
    return np.abs(conf[0] - conf[1]), [z.argmax(1).numpy() for z in logits]


def test_points_of_the_certificate_move_the_lower_end(pair):
    points = _strong_points(pair)
    with fake_level():
        before = analyse(_config(pair))
    with fake_level(lambda images: points):
        after = analyse(
            _config(pair, seed=1)
        )  # the one step starts at the image, whatever the seed
    gap, (teacher_pred, student_pred) = _measured(points)
    old, new = before.table, after.table
    # Where both found the same point, the last digit decides nothing.
    is_wider = gap > old.gap_attack.to_numpy() + 1e-9
    is_new = (teacher_pred != student_pred) & ~old.disagrees.to_numpy()
    assert 5 < is_wider.sum() < 30 and is_new.sum() >= 1

    np.testing.assert_allclose(new.gap_attack, np.maximum(old.gap_attack, gap), atol=1e-12)
    np.testing.assert_allclose(
        new.gap_attack, (new.teacher_conf_attack - new.student_conf_attack).abs(), atol=1e-12
    )
    witnesses = torch.from_numpy(after.witnesses["gap_witness"])
    np.testing.assert_allclose(_measured(witnesses)[0], new.gap_attack, atol=1e-9)
    np.testing.assert_array_equal(witnesses[is_wider], points[is_wider])
    np.testing.assert_array_equal(witnesses[~is_wider], before.witnesses["gap_witness"][~is_wider])
    assert (new.disagrees == (old.disagrees | is_new)).all()
    for row in np.flatnonzero(is_new):
        np.testing.assert_array_equal(after.disagreement_witness(row), points[row])
        assert new.teacher_pred_witness[row] == teacher_pred[row]
        assert new.student_pred_witness[row] == student_pred[row]
    for row in np.flatnonzero(old.disagrees):
        np.testing.assert_array_equal(
            after.disagreement_witness(row), before.disagreement_witness(row)
        )
    assert after.metadata["witnesses_of_certificate"] == (is_wider | is_new).sum()
    assert before.metadata["witnesses_of_certificate"] == 0
    # What the page shows of an example is the new witness too.
    with fake_level():
        row = int(np.flatnonzero(is_wider)[0])
        detail = example_detail(_config(pair, seed=1), row)
    np.testing.assert_array_equal(detail.gap_witness, points[row])


def test_several_points_of_a_ball_are_all_tried(pair):
    config = _config(
        pair, attack={"name": "pgd", "steps": 60, "restarts": 4}, certificate={"name": "crown"}
    )
    found = attack_examples(config, list(range(30)))
    tables = []
    for seed, order in ((0, [0, 1]), (1, [1, 0])):
        both = torch.stack([found.gap_witness, found.disagreement_witness], dim=1)[:, order]
        with fake_level(lambda images, both=both: both):
            analysis = analyse(_config(pair, seed=seed))
        tables.append(analysis.table)
        assert analysis.table.disagrees[found.disagrees.numpy()].all()
        assert (analysis.table.gap_attack >= found.gap.numpy() - 1e-9).all()
        assert 0 < analysis.metadata["witnesses_of_certificate"] <= 30
    assert found.disagrees.any()
    np.testing.assert_allclose(tables[0].gap_attack, tables[1].gap_attack, atol=1e-12)


def test_points_outside_the_ball_are_brought_back(pair):
    with fake_level(lambda images: 1.0 - images):
        analysis = analyse(_config(pair))
    images = load_split("digits", "test").images[:30].numpy()
    witnesses = analysis.witnesses["gap_witness"]
    assert analysis.metadata["witnesses_of_certificate"] > 0
    assert (np.abs(witnesses - images) <= EPSILON + 1e-7).all()
    assert (witnesses >= 0).all() and (witnesses <= 1).all()
    assert (analysis.table.gap_attack <= analysis.table.gap_certified + 1e-6).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_points_that_are_none_change_nothing(pair, value):
    with fake_level():
        before = analyse(_config(pair))
    with fake_level(lambda images: torch.full_like(images, value)):
        after = analyse(_config(pair), fresh=True)
    np.testing.assert_array_equal(after.witnesses["gap_witness"], before.witnesses["gap_witness"])
    np.testing.assert_array_equal(after.table.gap_attack, before.table.gap_attack)


def test_a_point_above_the_bound_stops_the_program(pair, monkeypatch):
    bound = JointCrown.bound

    def too_tight(self, *args, **more):
        result = bound(self, *args, **more)
        return dataclasses.replace(
            result,
            gap_upper=torch.from_numpy(claim).to(result.gap_upper),
            gap_lower=torch.from_numpy(-claim).to(result.gap_lower),
        )

    points = _strong_points(pair)
    with fake_level():
        claim = analyse(_config(pair)).table.gap_attack.to_numpy() + 0.01
    assert (_measured(points)[0] > claim).any()
    # The attack's own witnesses obey the claim; only the points exceed it.
    monkeypatch.setattr(JointCrown, "bound", too_tight)
    with fake_level():
        analyse(_config(pair, seed=1))
    with fake_level(lambda images: points):
        with pytest.raises(SoundnessError, match="please report"):
            analyse(_config(pair, seed=2))
        assert find_analysis(_config(pair, seed=2)) is None


def test_seconds_of_attack_and_certificate_are_kept_apart(pair):
    with fake_level():
        analysis = analyse(_config(pair))
        metadata = read_metadata(results_dir() / f"{analysis.key}.parquet")
        figures = level_figures(analysis)
    assert metadata["attack_seconds"] > 0 and metadata["certificate_seconds"] > 0
    assert metadata["attack_seconds"] + metadata["certificate_seconds"] <= metadata["seconds"]
    assert figures["certificate_seconds"] == pytest.approx(metadata["certificate_seconds"] / 30)
    assert figures["attack_seconds"] == pytest.approx(metadata["attack_seconds"] / 30)
    old = dataclasses.replace(analysis, metadata={"key": analysis.key})
    assert level_figures(old)["certificate_seconds"] is None


def test_levels_are_set_side_by_side(pair):
    with fake_level():
        configs = [
            _config(pair, certificate=certificate)
            for certificate in (
                {"name": "crown_ibp"},
                {"name": "crown"},
                {"name": NAME},
                {"name": NAME, "seconds": 30},
            )
        ]
        assert compare_levels(configs[0]).empty
        analyses = [analyse(config) for config in configs]
        # Another ball, another attack, other examples: not the same question.
        analyse(_config(pair, epsilon=0.01))
        analyse(_config(pair, count=3))
        analyse(_config(pair, attack={"steps": 2}))
        table = compare_levels(configs[1])
        assert set(table["key"]) == {analysis.key for analysis in analyses}
        assert table["bracket_mean"].is_monotonic_decreasing
        by_settings = table.set_index("settings")
        assert set(by_settings.index) == {
            "crown",
            "crown_ibp",
            "staged (seconds 10)",
            "staged (seconds 30)",
        }
        crown = analyses[1].table
        row = by_settings.loc["crown"]
        assert row.gap_certified_mean == pytest.approx(crown.gap_certified.mean())
        assert row.bracket_mean == pytest.approx((crown.gap_certified - crown.gap_attack).mean())
        assert row.decided_share == pytest.approx((crown.agrees_certified | crown.disagrees).mean())
        pd.testing.assert_frame_equal(table, compare_levels(configs[3]))


def test_tables_of_replaced_weights_are_left_out(pair):
    import shutil

    from fkd.core.paths import models_dir

    config = _config(pair, certificate={"name": "crown"})
    analyse(config)
    assert len(compare_levels(config)) == 1
    shutil.rmtree(models_dir() / "small")
    save_digits_model("small", "student", hidden=(10,), seed=9)
    assert compare_levels(config).empty
    shutil.rmtree(models_dir() / "small")
    assert compare_levels(config).empty


def test_the_curve_uses_points_too(pair):
    config = _config(pair, certificate={"name": "crown"})
    radii = [0.02, EPSILON]
    weak = gap_curve(config, 3, radii)
    strong = attack_examples(
        _config(pair, attack={"name": "pgd", "steps": 60}, certificate={"name": "crown"}), [3]
    )
    with fake_level(lambda images: strong.gap_witness.repeat(len(images), 1, 1, 1)):
        found = gap_curve(_config(pair), 3, radii)
    assert found.gap_attack.iloc[-1] == pytest.approx(float(strong.gap[0]), abs=1e-9)
    assert found.gap_attack.iloc[-1] > weak.gap_attack.iloc[-1]
    assert (found.gap_attack <= found.gap_certified + 1e-6).all()


def test_live_brackets_are_reported_and_stop_the_work(pair):
    seen = []
    with fake_level():
        analyse(_config(pair, count=2), progress=seen.append)
        live = [step for step in seen if "upper" in step.values]
        assert len(live) == 2 * len(STEPS)
        assert [step.values["example"] for step in live] == [0] * len(STEPS) + [1] * len(STEPS)
        stop = lambda step: step.values.get("evaluated") == 64  # noqa: E731
        with pytest.raises(Cancelled):
            analyse(_config(pair, count=3), progress=stop)
        assert find_analysis(_config(pair, count=3)) is None


def test_certificates_and_budgets_in_words(pair):
    assert certificate_text(certificate_config({"name": "crown", "rows": 3})) == "crown"
    with fake_level():
        assert certificate_text(certificate_config({"name": NAME})) == "staged (seconds 10)"
        config = _config(pair, certificate={"name": NAME, "seconds": 0.5, "tolerance": 0.01})
        assert certificate_text(config.certificate) == "staged (seconds 0.5, tolerance 0.01)"
        assert time_budget(config) == pytest.approx(15.0)
    assert time_budget(_config(pair, certificate={"name": "crown"})) is None


@pytest.mark.parametrize("settings", [{}, {"seconds": 30.0}, {"seconds": 0.5, "tolerance": 0.25}])
def test_the_snippet_names_level_and_budget(pair, settings):
    from fkd.cli.options import DEVICE, Option, config_values, options_of, parse

    with fake_level():
        config = _config(pair, certificate={"name": NAME, **settings})
        snippet = reproduce_snippet(config)
        words = " ".join([f"name={NAME}", *(f"{key}={value}" for key, value in settings.items())])
        assert f"--certificate {words} --out" in snippet
        options = [*options_of(AnalysisConfig), Option("out", str, ""), DEVICE]
        values = parse("analyse", shlex.split(snippet)[4:], options, description="")
        again = AnalysisConfig.parse(config_values(AnalysisConfig, values))
        assert ResolvedPair(again).key() == ResolvedPair(config).key()


def test_the_snippet_leaves_the_usual_level_out(pair):
    usual = parse_analysis({**pair, "epsilon": 0.1})
    assert "--certificate" not in reproduce_snippet(usual)
    others = {"crown", "crown_ibp"} - {usual.certificate.name}
    for name in others:
        snippet = reproduce_snippet(
            parse_analysis({**pair, "epsilon": 0.1, "certificate": {"name": name}})
        )
        assert f"--certificate name={name} --out" in snippet


def test_saved_analyses_keep_their_costs(pair):
    with fake_level():
        analysis = analyse(_config(pair))
        save_analysis(analysis)
        assert find_analysis(_config(pair)).metadata == analysis.metadata
