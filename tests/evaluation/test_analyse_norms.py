"""Analyses in L2 balls and with channel scales: keys, tables, curves, commands."""

import shlex

import numpy as np
import pytest
import torch

from fkd.attacks import make_attack
from fkd.cli.options import config_values, options_of, parse
from fkd.core.ball import Ball
from fkd.core.errors import ConfigError
from fkd.data import load_split
from fkd.evaluation import (
    AnalysisConfig,
    ResolvedPair,
    analyse,
    compare,
    find_analysis,
    gap_curve,
    list_analyses,
    parse_analysis,
    reproduce_snippet,
    summarise,
)
from fkd.models import load_model
from tests.support.pairs import save_digits_model


@pytest.fixture
def pair(own_folders):
    save_digits_model("big", "teacher", hidden=(24, 16), seed=0)
    save_digits_model("small", "student", hidden=(10,), seed=1)
    return {"dataset": "digits", "teacher": "big", "student": "small", "attack": {"steps": 12}}


def _config(pair, **changes):
    return parse_analysis({**pair, "epsilon": 0.3, "norm": "l2", "count": 20, **changes})


def test_an_l2_analysis_is_of_the_l2_ball(pair):
    config = _config(pair)
    analysis = analyse(config)
    table = analysis.table
    assert set(table.norm) == {"l2"} and find_analysis(config).key == analysis.key
    images = load_split("digits", "test").images[:20]
    witnesses = torch.from_numpy(analysis.witnesses["gap_witness"])
    lengths = (witnesses.double() - images.double()).flatten(1).norm(dim=1)
    assert (lengths <= 0.3).all() and lengths.mean() > 0.29
    assert (table.gap_attack <= table.gap_certified + 1e-6).all()
    assert table.gap_attack.mean() > table.gap_clean.mean() + 0.01
    assert (table.gap_certified < 0.999).any()
    assert summarise(table).verdict.startswith("Within ε = 0.3 in L2, teacher and student")
    # Between the boxes that lie inside and around the ball: 0.3 / 8 and 0.3.
    inner, outer = (analyse(_config(pair, norm="linf", epsilon=e)).table for e in (0.3 / 8, 0.3))
    assert inner.gap_attack.mean() < table.gap_attack.mean() < outer.gap_attack.mean()


def test_an_l2_radius_may_exceed_one_and_not_the_image_range(pair):
    assert ResolvedPair(_config(pair, epsilon=1.5)).key()
    assert ResolvedPair(_config(pair, epsilon=8)).key()
    with pytest.raises(ConfigError, match=r"epsilon must lie in \[0, 8\] here .* got 8.1"):
        ResolvedPair(_config(pair, epsilon=8.1))
    with pytest.raises(ConfigError, match="did you mean 8/255"):
        _config(pair, norm="linf", epsilon=8)


def test_a_radius_after_the_normalisation_is_the_same_ball_in_pixels(pair):
    """One channel with std 0.4: epsilon 0.1 there is 0.04 in pixels, in tables of their own."""
    card = ResolvedPair(_config(pair)).teacher_card
    after = analyse(_config(pair, norm="linf", epsilon=0.1, channel_scale=card.std))
    pixels = analyse(_config(pair, norm="linf", epsilon=0.1 * 0.4))
    assert after.key != pixels.key
    for column in ("gap_attack", "gap_certified"):
        np.testing.assert_allclose(after.table[column], pixels.table[column], atol=1e-4)
    assert set(after.table.norm) == {"linf / (0.4)"}
    verdict = summarise(after.table).verdict
    assert verdict.startswith("Within ε = 0.1 times the channel scales (0.4), teacher")
    (found,) = [e for e in list_analyses() if e.key == after.key]
    assert found.config.channel_scale == (0.4,)
    assert ResolvedPair(found.config).key() == after.key


def test_scales_of_one_are_no_other_analysis(pair):
    plain = ResolvedPair(_config(pair))
    assert ResolvedPair(_config(pair, channel_scale=[1])).key() == plain.key()
    keys = {
        ResolvedPair(_config(pair, **changes)).key()
        for changes in ({}, {"channel_scale": [0.4]}, {"norm": "linf"}, {"channel_scale": [0.5]})
    }
    assert len(keys) == 4
    with pytest.raises(ConfigError, match="2 values and the images have 1 channel;"):
        ResolvedPair(_config(pair, channel_scale=[0.4, 0.4]))


def test_only_equal_balls_are_compared(pair):
    with pytest.raises(ConfigError, match=r"same norm .* l2, linf"):
        compare([_config(pair), _config(pair, norm="linf")])
    with pytest.raises(ConfigError, match="same channel_scale"):
        compare([_config(pair), _config(pair, channel_scale=[0.4])])


@pytest.mark.parametrize("changes", [{}, {"channel_scale": [0.4]}, {"epsilon": 7.9}])
def test_the_curve_is_drawn_in_the_balls_of_the_analysis(pair, changes):
    config = _config(pair, **changes)
    curve = gap_curve(config, 3)
    assert config.epsilon in set(curve.epsilon) and curve.epsilon.min() == 0
    assert curve.gap_attack.is_monotonic_increasing and curve.gap_certified.is_monotonic_increasing
    row = analyse(config).table.iloc[3]
    here = curve[curve.epsilon == config.epsilon].iloc[0]
    assert here.gap_attack >= row.gap_attack - 1e-6
    assert here.gap_certified <= row.gap_certified + 1e-6
    diameter = config.ball.diameter((1, 8, 8))
    assert curve.epsilon.max() == pytest.approx(min(1.5 * config.epsilon, diameter), rel=1e-5)


def test_the_command_line_takes_and_gives_the_ball(pair):
    config = _config(pair, epsilon=8 / 255, channel_scale=[0.35])
    words = shlex.split(reproduce_snippet(config))[4:-2]
    values = parse("analyse", words, options_of(AnalysisConfig), description="")
    again = AnalysisConfig.parse(config_values(AnalysisConfig, values))
    assert again == config and ResolvedPair(again).key() == ResolvedPair(config).key()
    assert "--norm l2" in " ".join(words) and "--channel-scale 0.35" in " ".join(words)
    usual = reproduce_snippet(_config(pair, norm="linf"))
    assert "--norm" not in usual and "--channel-scale" not in usual


def test_a_stronger_attack_stays_below_the_certificate(pair):
    config = _config(pair, epsilon=0.5, attack={"steps": 60, "restarts": 4})
    table = analyse(config).table
    images, labels = (part[:20] for part in (load_split("digits", "test").images, table.label))
    region = Ball(epsilon=0.5, norm="l2").region(images, torch.arange(20))
    attacked = make_attack(config.attack).run(
        load_model("big").network,
        load_model("small").network,
        region,
        torch.tensor(labels.to_numpy()),
        seed=5,
    )
    assert (attacked.gap.numpy() <= table.gap_certified + 1e-9).all()
    assert not (attacked.disagrees.numpy() & table.agrees_certified).any()
