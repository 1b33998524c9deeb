"""Faithful distillation with a fixed relaxation: the formula, its limits, and which settings it has."""

import json
from pathlib import Path

import _numpy_reference as reference
import pytest
import torch
from _loss_cases import check, reference_gaps
from _tiny_training import AT_THE_END, make_method

from fkd.core.errors import ConfigError
from fkd.distillation import METHODS, Clock

RELAXATIONS = {"faithful_ibp": "ibp", "faithful_crown_ibp": "crown_ibp"}
RAMP = {"epsilon": 0.06, "warm_up": 0.2, "ramp": 0.6, "ramp_shape": "linear"}
PRETRAINED = Path(__file__).parents[2] / "pretrained"


@pytest.mark.parametrize("name", RELAXATIONS)
@pytest.mark.parametrize("step", [5, 10])
def test_the_certified_gap_by_the_named_relaxation(case, name, step):
    teacher, student, batch, np_teacher, np_student, x = case
    z_teacher = np_teacher.logits(x)
    risen = {5: 0.5, 10: 1.0}[step]
    method = make_method(name, kappa=1.7, temperature=2.0, **RAMP)
    parts = method.loss(batch, teacher, student, Clock(step=step, epoch=0, total_steps=10))
    gaps = reference_gaps(
        np_teacher, np_student, x, 0.06 * risen, z_teacher.argmax(1), RELAXATIONS[name]
    )
    check(
        parts,
        distillation=4.0 * reference.kl(z_teacher, np_student.logits(x), 2.0),
        certified_gap=1.7 * risen * gaps.mean(),
    )
    assert float(parts.observed["delta"]) == pytest.approx(gaps.max(1).mean())
    assert parts.observed["epsilon"] == pytest.approx(0.06 * risen)
    assert 0.005 < gaps.mean() < 0.99


@pytest.mark.parametrize("name", RELAXATIONS)
@pytest.mark.parametrize("more", [{"penalty": "log"}, {"gap_class": "label"}])
def test_the_same_as_faithful_without_an_attack(case, name, more):
    teacher, student, batch, *_ = case
    settings = {"kappa": 2.0, **RAMP, **more}
    fixed = make_method(name, **settings)
    free = make_method("faithful", attack_weight=0.0, relaxation=RELAXATIONS[name], **settings)
    losses = [m.loss(batch, teacher, student, AT_THE_END) for m in (fixed, free)]
    assert dict(losses[0]) == dict(losses[1])
    gradients = [
        torch.autograd.grad(parts["total"], list(student.parameters())) for parts in losses
    ]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", RELAXATIONS)
@pytest.mark.parametrize(("kappa", "step"), [(0.0, 10), (3.0, 1)])
def test_without_a_bound_it_is_kd(case, name, kappa, step):
    teacher, student, batch, *_ = case
    clock = Clock(step=step, epoch=0, total_steps=10)
    method = make_method(name, kappa=kappa, temperature=3.0, **RAMP)
    kd = make_method("kd", temperature=3.0)
    first, second = (m.loss(batch, teacher, student, clock) for m in (method, kd))
    assert dict(first) == dict(second)


def test_linear_relaxation_is_never_looser_than_intervals(case):
    teacher, student, batch, *_ = case
    ibp, crown = (
        make_method(name, **RAMP).loss(batch, teacher, student, AT_THE_END)["certified_gap"].item()
        for name in RELAXATIONS
    )
    assert crown < ibp


@pytest.mark.parametrize("name", RELAXATIONS)
@pytest.mark.parametrize("setting", ["relaxation", "attack_weight", "attack_steps"])
def test_what_is_fixed_is_no_setting(name, setting):
    assert setting not in METHODS.get(name).Config.model_fields
    with pytest.raises(
        ConfigError, match=rf"training method {name} has no setting called '{setting}'"
    ):
        METHODS.get(name).Config.parse({setting: 1})


@pytest.mark.parametrize("card", sorted(PRETRAINED.glob("*-faithful-of-*/card.json")))
def test_settings_in_shipped_cards_are_still_those_of_faithful(card):
    written = json.loads(card.read_text())["method_config"]
    parsed = METHODS.get("faithful").Config.parse(written)
    # In their order too: forms and hashes are made from it.
    assert list(parsed.model_dump(mode="json").items()) == list(written.items())
