"""Schedules by their values, and settings that are refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fkd.core.errors import ConfigError
from fkd.distillation import METHODS, Clock, TrainSpec
from fkd.distillation.trainer import learning_rate


def at(fraction):
    return Clock(step=round(fraction * 1000), epoch=0, total_steps=1000)


@pytest.mark.parametrize("shape", ["linear", "smooth"])
def test_ramps_start_at_0_and_end_at_1(shape):
    for fraction in (0.0, 0.1, 0.2):
        assert at(fraction).ramp(0.2, 0.6, shape) == 0.0
    for fraction in (0.6, 0.9, 1.0):
        assert at(fraction).ramp(0.2, 0.6, shape) == 1.0
    assert at(0.4).ramp(0.2, 0.6, shape) == pytest.approx(0.5)
    quarter = 0.25 if shape == "linear" else 0.5 * (1 - math.cos(math.pi / 4))
    assert at(0.3).ramp(0.2, 0.6, shape) == pytest.approx(quarter)


@given(
    start=st.floats(0, 1),
    length=st.floats(0, 1),
    shape=st.sampled_from(["linear", "smooth"]),
)
def test_ramps_never_fall_and_stay_in_0_to_1(start, length, shape):
    values = [at(i / 50).ramp(start, min(1.0, start + length), shape) for i in range(51)]
    assert values == sorted(values)
    assert min(values) >= 0.0
    assert values[-1] == 1.0


def test_a_ramp_of_no_length_is_a_step():
    assert at(0.299).ramp(0.3, 0.3) == 0.0
    assert at(0.3).ramp(0.3, 0.3) == 1.0
    assert at(0.0).ramp(0.0, 0.0) == 1.0


def test_the_clock_of_an_empty_run_is_over():
    assert Clock(0, 0, 0).fraction == 1.0
    assert Clock(3, 1, 10).fraction == 0.3
    assert Clock(12, 1, 10).fraction == 1.0


RAMPED = [name for name in METHODS if "warm_up" in METHODS.get(name).Config.model_fields]
ATTACKING = [name for name in METHODS if "step_size" in METHODS.get(name).Config.model_fields]


@pytest.mark.parametrize("name", RAMPED)
def test_warm_up_and_ramp_fit_into_the_run(name):
    config = METHODS.get(name).Config
    with pytest.raises(ConfigError, match="warm_up and ramp must not exceed 1 together"):
        config.parse({"warm_up": 0.6, "ramp": 0.5})
    for share in range(0, 101, 5):
        config.parse({"warm_up": share / 100, "ramp": (100 - share) / 100})
    settings = config.parse({"warm_up": 0.2, "ramp": 0.4, "ramp_shape": "linear"})
    assert [settings.risen(at(f)) for f in (0.1, 0.3, 0.6, 1.0)] == pytest.approx([0, 0.25, 1, 1])
    with pytest.raises(ConfigError, match=r"'ramp_shape' is not usable, .*'linear' or 'smooth'"):
        config.parse({"ramp_shape": "square"})


@pytest.mark.parametrize("name", ATTACKING)
def test_an_attack_steps_a_quarter_of_epsilon_unless_told(name):
    config = METHODS.get(name).Config
    assert config.parse({"epsilon": 0.2}).step_length == pytest.approx(0.05)
    assert config.parse({"epsilon": 0.2, "step_size": 0.01}).step_length == 0.01
    with pytest.raises(ConfigError, match=r"'steps' is not usable, .*greater than or equal to 1"):
        config.parse({"steps": 0})
    with pytest.raises(ConfigError, match=r"'step_size' is not usable, .*greater than 0, got 0"):
        config.parse({"step_size": 0})


OUT_OF_RANGE = [
    ("kd", "temperature", 0),
    ("kd", "alpha", 1.1),
    ("rslad", "clean_weight", -0.1),
    ("trades", "beta", -1),
    ("pgd_at", "epsilon", 8),
    ("ibp", "clean_weight", 2),
    ("crown_ibp", "final_mix", -0.5),
    ("faithful", "kappa", -1),
    ("faithful", "attack_weight", -0.1),
    ("faithful", "attack_steps", 0),
    ("faithful", "temperature", 0),
    ("faithful", "epsilon", float("nan")),
]


@pytest.mark.parametrize(("name", "field", "value"), OUT_OF_RANGE)
def test_values_out_of_range_are_one_sentence_with_the_value(name, field, value):
    config = METHODS.get(name).Config
    with pytest.raises(ConfigError, match=f"'{field}' is not usable, .* got {value}") as caught:
        config.parse({field: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_setting_is_described_and_unknown_ones_are_refused(name):
    config = METHODS.get(name).Config
    for field, info in config.model_fields.items():
        assert info.description, field
        assert info.description.strip().endswith("."), field
    with pytest.raises(ConfigError, match="has no setting called 'epsilom'"):
        config.parse({"epsilom": 0.1})


def spec(**values):
    return TrainSpec.parse({"name": "x", "learning_rate": 0.5, **values})


def test_learning_rates_follow_their_schedules():
    rates = {
        schedule: [learning_rate(spec(schedule=schedule), f) for f in (0.0, 0.1, 0.2, 0.6, 0.85)]
        for schedule in ("constant", "cosine", "one_cycle", "steps")
    }
    assert rates["constant"] == [0.5] * 5
    cosine = [0.25 * (1 + math.cos(math.pi * f)) for f in (0.0, 0.1, 0.2, 0.6, 0.85)]
    assert rates["cosine"] == pytest.approx(cosine)
    cycle = [0.025, 0.2625, 0.5, 0.25, 0.25 * (1 + math.cos(math.pi * 0.65 / 0.8))]
    assert rates["one_cycle"] == pytest.approx(cycle)
    assert rates["steps"] == pytest.approx([0.5, 0.5, 0.5, 0.05, 0.005])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("seed", -1),
        ("seed", 2**31),
        ("gradient_clip", 0),
        ("shift", 9),
        ("train_count", 0),
        ("report_count", 0),
        ("report_steps", 0),
    ],
)
def test_a_specification_out_of_range_is_one_sentence(field, value):
    with pytest.raises(ConfigError, match=f"training: '{field}' is not usable, .* got {value}"):
        spec(**{field: value})


def test_a_specification_needs_a_name_and_knows_its_settings():
    with pytest.raises(ConfigError, match="training needs a value for 'name'"):
        TrainSpec.parse({})
    with pytest.raises(ConfigError, match="training has no setting called 'epoch'"):
        spec(epoch=3)
    assert all(info.description for info in TrainSpec.model_fields.values())
