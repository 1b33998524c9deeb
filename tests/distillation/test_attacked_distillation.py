"""ARD, IAD-I, AKD, AdaAD and IGDM: the formulas in NumPy, their limits, and what they look at."""

import dataclasses

import _numpy_reference as reference
import numpy as np
import pytest
import torch
from _loss_cases import check, joint_gradient, one_hot, starts
from _tiny_training import AT_THE_END, frozen, make_batch, make_method, make_mlp

from fkd.distillation import Clock
from fkd.distillation.iad import IAD

BALL = {"epsilon": 0.12, "steps": 5, "step_size": 0.03}
HALF_WAY = Clock(step=5, epoch=0, total_steps=10)


def label_attack(case):
    """PGD on the student's CE."""
    _, _, batch, _, np_student, x = case
    return reference.pgd(
        reference.towards(np_student, one_hot(batch.labels.numpy())),
        x,
        starts(batch, 0.12, "uniform"),
        epsilon=0.12,
        steps=5,
        size=0.03,
    )


def divergence_attack(case, base):
    """PGD on the divergence from the teacher, at the attacked image or at the clean one."""
    _, _, batch, np_teacher, np_student, x = case
    gradient = (
        joint_gradient(np_teacher, np_student)
        if base == "adaad"
        else reference.towards(np_student, reference.softmax(np_teacher.logits(x)))
    )
    start = starts(batch, 0.12, "gaussian")
    return reference.pgd(gradient, x, start, epsilon=0.12, steps=5, size=0.03)


def gradients(parts, student):
    return torch.autograd.grad(parts["total"], list(student.parameters()))


def assert_same(first, second, student):
    """Equal totals and gradients."""
    torch.testing.assert_close(first["total"], second["total"])
    pairs = zip(gradients(first, student), gradients(second, student), strict=True)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in pairs)


@pytest.mark.parametrize("alpha", [1.0, 0.7, 0.0])
def test_ard(case, alpha):
    teacher, student, batch, np_teacher, np_student, x = case
    attacked = np_student.logits(label_attack(case))
    divergence = reference.kl(np_teacher.logits(x), attacked, 3.0)
    expected = {"adversarial": alpha * 9.0 * divergence}
    if alpha < 1:
        labels = batch.labels.numpy()
        expected["labels"] = (1 - alpha) * reference.cross_entropy(np_student.logits(x), labels)
    method = make_method("ard", temperature=3.0, alpha=alpha, **BALL)
    check(method.loss(batch, teacher, student, AT_THE_END), **expected)


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_ard_without_a_ball_is_kd(case, alpha):
    teacher, student, batch, *_ = case
    weights = {"temperature": 5.0, "alpha": alpha}
    ard = make_method("ard", epsilon=0.0, **weights).loss(batch, teacher, student, AT_THE_END)
    kd = make_method("kd", **weights).loss(batch, teacher, student, AT_THE_END)
    assert_same(ard, kd, student)


def test_iad(case):
    teacher, student, batch, np_teacher, np_student, x = case
    attacked = label_attack(case)
    z_clean, z_attacked = np_student.logits(x), np_student.logits(attacked)
    guide = reference.softmax(np_teacher.logits(attacked))
    trust = np.array([guide[i, y] ** 0.4 for i, y in enumerate(batch.labels)])
    own = [reference.kl(z_clean[i : i + 1], z_attacked[i : i + 1]) for i in range(len(x))]
    method = make_method("iad", temperature=2.0, beta=0.4, begin=0.5, **BALL)
    parts = method.loss(batch, teacher, student, HALF_WAY)
    distillation = 4.0 * reference.kl(np_teacher.logits(x), z_attacked, 2.0)
    check(parts, distillation=distillation, introspection=np.mean((1 - trust) * np.array(own)))
    assert float(parts.observed["trust"]) == pytest.approx(trust.mean())
    before = method.loss(batch, teacher, student, Clock(step=4, epoch=0, total_steps=10))
    check(before, distillation=distillation)


def test_iad_with_full_trust_is_ard(case):
    teacher, student, batch, *_ = case
    iad = make_method("iad", temperature=2.0, beta=0.0, **BALL)
    ard = make_method("ard", temperature=2.0, alpha=1.0, **BALL)
    first, second = (m.loss(batch, teacher, student, AT_THE_END) for m in (iad, ard))
    assert first["introspection"].item() == 0.0
    assert_same(first, second, student)


def test_iad_distrusts_a_teacher_that_the_attack_fools(case):
    teacher, student, batch, *_ = case
    method: IAD = make_method("iad", beta=0.4, **BALL)
    wrong = dataclasses.replace(batch, labels=teacher(batch.images).argmin(1))
    right = dataclasses.replace(batch, labels=teacher(batch.images).argmax(1))
    trusted, distrusted = (
        float(method.loss(b, teacher, student, AT_THE_END).observed["trust"])
        for b in (right, wrong)
    )
    assert distrusted < trusted - 0.1


@pytest.mark.parametrize("alpha", [1.0, 0.6, 0.0])
def test_akd(case, alpha):
    teacher, student, batch, np_teacher, np_student, _ = case
    attacked = label_attack(case)
    target, logits = np_teacher.logits(attacked), np_student.logits(attacked)
    expected = {"distillation": alpha * reference.kl(target, logits)}
    if alpha < 1:
        labels = batch.labels.numpy()
        expected["labels"] = (1 - alpha) * reference.cross_entropy(logits, labels)
    parts = make_method("akd", alpha=alpha, **BALL).loss(batch, teacher, student, AT_THE_END)
    check(parts, **expected)
    # One CE against the mixed target, as far as the gradient is concerned.
    (gradient,) = torch.autograd.grad(parts["total"], student.body.logits.bias)
    mixed = (1 - alpha) * one_hot(batch.labels.numpy()) + alpha * reference.softmax(target)
    np.testing.assert_allclose(
        gradient.numpy(), (reference.softmax(logits) - mixed).mean(0), atol=1e-7
    )


def test_akd_without_the_teacher_is_adversarial_training(case):
    teacher, student, batch, *_ = case
    akd = make_method("akd", alpha=0.0, **BALL).loss(batch, teacher, student, AT_THE_END)
    assert_same(akd, make_method("pgd_at", **BALL).loss(batch, None, student, AT_THE_END), student)


@pytest.mark.parametrize("clean_weight", [0.0, 0.3])
def test_adaad(case, clean_weight):
    teacher, student, batch, np_teacher, np_student, x = case
    attacked = divergence_attack(case, "adaad")
    at_attacked = reference.kl(np_teacher.logits(attacked), np_student.logits(attacked))
    at_clean = reference.kl(np_teacher.logits(x), np_student.logits(x))
    assert at_attacked > at_clean
    expected = {"adversarial": (1 - clean_weight) * at_attacked}
    if clean_weight:
        expected["clean"] = clean_weight * at_clean
    method = make_method("adaad", clean_weight=clean_weight, **BALL)
    check(method.loss(batch, teacher, student, AT_THE_END), **expected)


@pytest.mark.parametrize("base", ["adaad", "rslad"])
def test_igdm(case, base):
    teacher, student, batch, np_teacher, np_student, x = case
    attacked = divergence_attack(case, base)
    fixed = np_teacher.logits(attacked if base == "adaad" else x)
    expected = {"adversarial": 0.7 * reference.kl(fixed, np_student.logits(attacked))}
    expected["clean"] = 0.3 * reference.kl(np_teacher.logits(x), np_student.logits(x))
    v = attacked - x
    differences = [
        network.logits(x + 0.8 * v) - network.logits(x - 0.5 * v)
        for network in (np_teacher, np_student)
    ]
    # Half of the run, half of the weight.
    expected["differences"] = 0.5 * 6.0 * reference.kl(*differences)
    method = make_method(
        "igdm", base=base, clean_weight=0.3, alpha=6.0, beta=0.8, gamma=0.5, **BALL
    )
    parts = method.loss(batch, teacher, student, HALF_WAY)
    check(parts, **expected)
    assert parts.observed["alpha"] == 3.0


@pytest.mark.parametrize("base", ["adaad", "rslad"])
@pytest.mark.parametrize(("alpha", "step"), [(0.0, 10), (20.0, 0)])
def test_igdm_without_weight_is_its_base(case, base, alpha, step):
    teacher, student, batch, *_ = case
    clock = Clock(step=step, epoch=0, total_steps=10)
    igdm = make_method("igdm", base=base, alpha=alpha, **BALL)
    first, second = (
        m.loss(batch, teacher, student, clock) for m in (igdm, make_method(base, **BALL))
    )
    assert dict(first) == dict(second)
    assert_same(first, second, student)


def test_igdm_matches_directional_derivatives_for_small_perturbations(case):
    teacher, student, batch, np_teacher, np_student, x = case
    small = {"epsilon": 1e-4, "steps": 3, "step_size": 5e-5}
    adversarial, _ = make_method("adaad", **small).terms(batch, teacher, student)
    v = adversarial.flatten(1).numpy() - x
    method = make_method("igdm", alpha=1.0, **small)
    found = method.loss(batch, teacher, student, AT_THE_END)["differences"].item()
    slopes = [
        np.stack(
            [(n.pull_back(x, np.tile(row, (len(x), 1))) * 2 * v).sum(1) for row in np.eye(4)], 1
        )
        for n in (np_teacher, np_student)
    ]
    assert found == pytest.approx(reference.kl(*slopes), rel=1e-2)
    assert found > 0


@pytest.mark.parametrize("name", ["adaad", "igdm"])
def test_a_perfect_student_of_a_joint_attack_has_no_loss(name):
    batch = make_batch()
    parts = make_method(name, **BALL).loss(batch, frozen(make_mlp(1)), make_mlp(1), AT_THE_END)
    assert parts["total"].item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", ["adaad", "igdm", "rslad"])
def test_methods_without_labels_do_not_look_at_them(case, name):
    teacher, student, batch, *_ = case
    method = make_method(name, **BALL)
    other = dataclasses.replace(batch, labels=(batch.labels + 1) % 4)
    first, second = (method.loss(b, teacher, student, AT_THE_END) for b in (batch, other))
    assert dict(first) == dict(second)
