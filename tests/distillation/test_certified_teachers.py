"""SABR and MTL-IBP: the formulas in NumPy, and their ends, IBP and adversarial training."""

import _numpy_reference as reference
import numpy as np
import pytest
import torch
from _loss_cases import check, one_hot, starts, worst_cross_entropy
from _tiny_training import AT_THE_END, make_method

from fkd.core.ball import Ball
from fkd.distillation import Clock

RAMP = {"epsilon": 0.1, "warm_up": 0.2, "ramp": 0.6, "ramp_shape": "linear"}
HALF_WAY = Clock(step=5, epoch=0, total_steps=10)


def attacked(case, radius, steps):
    """PGD on the CE, each step 2.5 radius / steps."""
    _, _, batch, _, net, x = case
    return reference.pgd(
        reference.towards(net, one_hot(batch.labels.numpy())),
        x,
        starts(batch, radius, "uniform"),
        epsilon=radius,
        steps=steps,
        size=2.5 * radius / steps,
    )


def same(first, second, student):
    """Equal totals and gradients."""
    torch.testing.assert_close(first["total"], second["total"])
    gradients = [
        torch.autograd.grad(parts["total"], list(student.parameters())) for parts in (first, second)
    ]
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(("share", "clean_weight"), [(0.4, 0.0), (0.7, 0.25)])
def test_sabr(case, share, clean_weight):
    _, student, batch, _, net, x = case
    labels = batch.labels.numpy()
    method = make_method("sabr", box_share=share, clean_weight=clean_weight, attack_steps=4, **RAMP)
    parts = method.loss(batch, None, student, HALF_WAY)
    # Half way up the ramp: radius 0.05, of which the attack moves the centre by what is left.
    radius = 0.05 * share
    centre = attacked(case, 0.05 - radius, 4)
    low, high = np.clip(centre - radius, 0, 1), np.clip(centre + radius, 0, 1)
    _, margins = net.interval_margins(low, high, labels)
    kappa = 1 - 0.5 * (1 - clean_weight)
    check(
        parts,
        clean=kappa * reference.cross_entropy(net.logits(x), labels),
        worst=(1 - kappa) * worst_cross_entropy(margins),
    )


@pytest.mark.parametrize("step", [0, 5, 10])
@pytest.mark.parametrize("clean_weight", [0.0, 0.4])
def test_sabr_with_the_whole_ball_is_ibp(case, step, clean_weight):
    _, student, batch, *_ = case
    clock = Clock(step=step, epoch=0, total_steps=10)
    sabr = make_method("sabr", box_share=1.0, clean_weight=clean_weight, **RAMP)
    ibp = make_method("ibp", clean_weight=clean_weight, **RAMP)
    first, second = (m.loss(batch, None, student, clock) for m in (sabr, ibp))
    assert dict(first) == dict(second)
    same(first, second, student)


def test_sabr_without_a_box_is_adversarial_training(case):
    _, student, batch, *_ = case
    sabr = make_method("sabr", box_share=0.0, attack_steps=10, **RAMP)
    pgd_at = make_method("pgd_at", epsilon=0.1, steps=10)
    same(*(m.loss(batch, None, student, AT_THE_END) for m in (sabr, pgd_at)), student)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_small_boxes_lie_in_the_ball_and_are_worth_less(case, share):
    _, student, batch, *_ = case
    method = make_method("sabr", box_share=share, **RAMP)
    low, high = method._box(batch, student, 0.1)
    lower, upper = Ball(epsilon=0.1).limits(batch.images)
    assert (low >= lower).all()
    assert (high <= upper).all()
    assert (high - low).amax() == pytest.approx(0.2 * share)
    worst = [
        m.loss(batch, None, student, AT_THE_END)["worst"].item()
        for m in (method, make_method("ibp", clean_weight=0.0, **RAMP))
    ]
    assert worst[0] < worst[1]


@pytest.mark.parametrize("share", [1.0, 2.0])
def test_mtl_ibp(case, share):
    _, student, batch, _, net, x = case
    labels = batch.labels.numpy()
    method = make_method("mtl_ibp", alpha=0.3, attack_steps=4, attack_share=share, **RAMP)
    parts = method.loss(batch, None, student, HALF_WAY)
    _, margins = net.interval_margins(*reference.box(x, 0.05), labels)
    check(
        parts,
        adversarial=0.7
        * reference.cross_entropy(net.logits(attacked(case, 0.05 * share, 4)), labels),
        worst=0.3 * worst_cross_entropy(margins),
    )
    assert parts.observed["epsilon"] == pytest.approx(0.05)


def test_mtl_ibp_warms_up_on_clean_images(case):
    _, student, batch, _, net, x = case
    parts = make_method("mtl_ibp", **RAMP).loss(
        batch, None, student, Clock(step=2, epoch=0, total_steps=10)
    )
    check(parts, clean=reference.cross_entropy(net.logits(x), batch.labels.numpy()))


def test_mtl_ibp_ends_at_ibp_and_at_adversarial_training(case):
    _, student, batch, *_ = case
    ends = {
        1.0: make_method("ibp", clean_weight=0.0, **RAMP),
        0.0: make_method("pgd_at", epsilon=0.1, steps=10),
    }
    for alpha, end in ends.items():
        method = make_method("mtl_ibp", alpha=alpha, attack_steps=10, **RAMP)
        same(*(m.loss(batch, None, student, AT_THE_END) for m in (method, end)), student)


def test_mtl_ibp_lies_between_its_ends(case):
    _, student, batch, *_ = case
    low, middle, high = (
        make_method("mtl_ibp", alpha=alpha, **RAMP).loss(batch, None, student, AT_THE_END)["total"]
        for alpha in (0.0, 0.5, 1.0)
    )
    assert low < middle < high
    assert middle.item() == pytest.approx((low + high).item() / 2)
