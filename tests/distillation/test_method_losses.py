"""Every method's loss against the published formula in NumPy."""

import _numpy_reference as reference
import numpy as np
import pytest
import torch
from _loss_cases import check, joint_gradient, one_hot, reference_gaps, starts, worst_cross_entropy
from _tiny_training import AT_THE_END, make_batch, make_method, make_mlp, setting_with

from fkd.core.errors import ConfigError
from fkd.distillation import METHODS, Clock, LossParts, kl_divergence

STUDENT_METHODS = [name for name in METHODS if METHODS.get(name).role == "student"]


def test_the_reference_computes_the_same_network(case):
    teacher, student, batch, np_teacher, np_student, x = case
    for network, reference_network in ((teacher, np_teacher), (student, np_student)):
        np.testing.assert_allclose(
            network(batch.images).detach().numpy(), reference_network.logits(x), atol=1e-6
        )


def test_kl_is_summed_over_classes_and_averaged_over_the_batch():
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    for tau in (1.0, 4.0):
        expected = reference.kl(p.numpy(), q.numpy(), tau)
        assert kl_divergence(p, q, tau).item() == pytest.approx(expected, rel=1e-12)
    # Twice the batch is the same value; each class split into two equal ones too.
    assert kl_divergence(p.repeat(2, 1), q.repeat(2, 1)).item() == pytest.approx(
        kl_divergence(p, q).item()
    )
    assert kl_divergence(p.repeat(1, 2), q.repeat(1, 2)).item() == pytest.approx(
        kl_divergence(p, q).item()
    )
    assert kl_divergence(p, p).item() == pytest.approx(0.0, abs=1e-15)


def test_standard(case):
    _, student, batch, _, np_student, x = case
    parts = make_method("standard").loss(batch, None, student, AT_THE_END)
    check(parts, clean=reference.cross_entropy(np_student.logits(x), batch.labels.numpy()))


@pytest.mark.parametrize("clean_weight", [0.0, 0.3])
def test_pgd_at(case, clean_weight):
    _, student, batch, _, net, x = case
    labels = batch.labels.numpy()
    method = make_method("pgd_at", epsilon=0.12, steps=5, step_size=0.03, clean_weight=clean_weight)
    attacked = reference.pgd(
        reference.towards(net, one_hot(labels)),
        x,
        starts(batch, 0.12, "uniform"),
        epsilon=0.12,
        steps=5,
        size=0.03,
    )
    expected = {
        "adversarial": (1 - clean_weight) * reference.cross_entropy(net.logits(attacked), labels)
    }
    if clean_weight:
        expected["clean"] = clean_weight * reference.cross_entropy(net.logits(x), labels)
    check(method.loss(batch, None, student, AT_THE_END), **expected)


def test_trades(case):
    _, student, batch, _, net, x = case
    attacked = reference.pgd(
        reference.towards(net, reference.softmax(net.logits(x))),
        x,
        starts(batch, 0.12, "gaussian"),
        epsilon=0.12,
        steps=6,
        size=0.03,
    )
    method = make_method("trades", epsilon=0.12, steps=6, beta=2.5)
    check(
        method.loss(batch, None, student, AT_THE_END),
        clean=reference.cross_entropy(net.logits(x), batch.labels.numpy()),
        divergence=2.5 * reference.kl(net.logits(x), net.logits(attacked)),
    )


def test_trades_passes_gradients_through_both_arguments_of_the_divergence(case):
    _, student, batch, _, net, x = case
    attacked = reference.pgd(
        reference.towards(net, reference.softmax(net.logits(x))),
        x,
        starts(batch, 0.12, "gaussian"),
        epsilon=0.12,
        steps=3,
        size=0.03,
    )
    p, q = reference.softmax(net.logits(x)), reference.softmax(net.logits(attacked))
    ratio = np.log(p / q)
    through_clean = p * (ratio - (p * ratio).sum(1, keepdims=True))
    parts = make_method("trades", epsilon=0.12, steps=3, beta=1.0).loss(
        batch, None, student, AT_THE_END
    )
    (gradient,) = torch.autograd.grad(parts["divergence"], student.body.logits.bias)
    expected = (through_clean + q - p).mean(0)
    np.testing.assert_allclose(gradient.numpy(), expected, atol=1e-7)
    assert np.abs(through_clean.mean(0)).max() > 1e-4


@pytest.mark.parametrize("alpha", [1.0, 0.7, 0.0])
def test_kd(case, alpha):
    teacher, student, batch, np_teacher, np_student, x = case
    tau = 3.0
    z_teacher, z_student = np_teacher.logits(x), np_student.logits(x)
    expected = {"distillation": alpha * tau**2 * reference.kl(z_teacher, z_student, tau)}
    if alpha < 1:
        expected["labels"] = (1 - alpha) * reference.cross_entropy(z_student, batch.labels.numpy())
    method = make_method("kd", temperature=tau, alpha=alpha)
    check(method.loss(batch, teacher, student, AT_THE_END), **expected)


def test_rslad(case):
    teacher, student, batch, np_teacher, np_student, x = case
    target = np_teacher.logits(x)
    attacked = reference.pgd(
        reference.towards(np_student, reference.softmax(target)),
        x,
        starts(batch, 0.12, "gaussian"),
        epsilon=0.12,
        steps=10,
        size=0.03,
    )
    check(
        make_method("rslad", epsilon=0.12).loss(batch, teacher, student, AT_THE_END),
        adversarial=5 / 6 * reference.kl(target, np_student.logits(attacked)),
        clean=1 / 6 * reference.kl(target, np_student.logits(x)),
    )


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_ibp(case, fraction):
    _, student, batch, _, net, x = case
    labels = batch.labels.numpy()
    config = {"epsilon": 0.08, "warm_up": 0.1, "ramp": 0.4, "ramp_shape": "linear"}
    method = make_method("ibp", clean_weight=0.4, **config)
    parts = method.loss(
        batch, None, student, Clock(step=int(fraction * 10), epoch=0, total_steps=10)
    )
    risen = {0.0: 0.0, 0.3: 0.5, 1.0: 1.0}[fraction]
    kappa = 1 - risen * 0.6
    expected = {"clean": kappa * reference.cross_entropy(net.logits(x), labels)}
    if risen:
        _, high = net.interval_margins(*reference.box(x, 0.08 * risen), labels)
        expected["worst"] = (1 - kappa) * worst_cross_entropy(high)
    check(parts, **expected)
    assert parts.observed["epsilon"] == pytest.approx(0.08 * risen)


@pytest.mark.parametrize(("fraction", "final_mix"), [(0.3, 0.0), (1.0, 0.0), (1.0, 0.25)])
def test_crown_ibp(case, fraction, final_mix):
    _, student, batch, _, net, x = case
    labels = batch.labels.numpy()
    method = make_method(
        "crown_ibp",
        epsilon=0.08,
        warm_up=0.1,
        ramp=0.4,
        ramp_shape="linear",
        clean_weight=0.5,
        final_mix=final_mix,
    )
    clock = Clock(step=int(fraction * 10), epoch=0, total_steps=10)
    risen = 0.5 if fraction == 0.3 else 1.0
    beta = 1 - risen * (1 - final_mix)
    low, high = reference.box(x, 0.08 * risen)
    _, interval = net.interval_margins(low, high, labels)
    linear = reference.concretise(net.linear_margins(low, high, labels, 1), low, high)
    kappa = 1 - risen * 0.5
    check(
        method.loss(batch, None, student, clock),
        clean=kappa * reference.cross_entropy(net.logits(x), labels),
        worst=(1 - kappa) * worst_cross_entropy(beta * linear + (1 - beta) * interval),
    )


@pytest.mark.parametrize("relaxation", ["ibp", "crown_ibp", "joint"])
@pytest.mark.parametrize("gap_class", ["teacher", "label"])
@pytest.mark.parametrize("penalty", ["gap", "log"])
def test_faithful(case, relaxation, gap_class, penalty):
    teacher, student, batch, np_teacher, np_student, x = case
    z_teacher = np_teacher.logits(x)
    classes = z_teacher.argmax(1) if gap_class == "teacher" else batch.labels.numpy()
    method = make_method(
        "faithful",
        epsilon=0.06,
        kappa=1.7,
        temperature=2.0,
        attack_weight=0.0,
        relaxation=relaxation,
        gap_class=gap_class,
        penalty=penalty,
    )
    parts = method.loss(batch, teacher, student, AT_THE_END)
    gaps = reference_gaps(np_teacher, np_student, x, 0.06, classes, relaxation)
    values = gaps if penalty == "gap" else -np.log1p(-gaps)
    distillation = 4.0 * reference.kl(z_teacher, np_student.logits(x), 2.0)
    assert parts["distillation"].item() == pytest.approx(distillation, rel=1e-6)
    # The reference's joint maximum is a grid's: at most 0.0015 between two points.
    exact = 2e-3 if relaxation == "joint" else 1e-6
    assert parts["certified_gap"].item() == pytest.approx(1.7 * values.mean(), rel=exact)
    assert float(parts.observed["delta"]) == pytest.approx(gaps.max(1).mean(), rel=exact)
    assert set(parts) == {"distillation", "certified_gap", "total"}
    assert 0.01 < gaps.mean() < 0.99


def test_faithful_joint_bounds_are_never_looser_and_somewhere_tighter(case):
    teacher, _, batch, np_teacher, *_ = case
    # A student that is nearly its teacher: what they share cancels.
    student = make_mlp(1, (9,))
    with torch.no_grad():
        student.body.logits.weight.mul_(1.05)
    classes = np_teacher.logits(batch.images.flatten(1).numpy()).argmax(1)
    gaps = {
        relaxation: make_method("faithful", relaxation=relaxation).gap_bounds(
            batch.images, torch.from_numpy(classes), 4, teacher, student, 0.1
        )
        for relaxation in ("ibp", "crown_ibp", "joint")
    }
    for side in (0, 1):
        ibp, crown, joint = (gaps[name][side].gap for name in ("ibp", "crown_ibp", "joint"))
        assert (joint <= crown + 1e-12).all()
        assert (crown <= ibp + 1e-12).all()
        assert joint.mean() < 0.9 * crown.mean()


def test_faithful_with_an_attack_from_below(case):
    teacher, student, batch, np_teacher, np_student, x = case
    ball = {"epsilon": 0.1, "warm_up": 0.2, "ramp": 0.6, "ramp_shape": "linear"}
    weights = {"temperature": 4.0, "kappa": 0.0, "attack_weight": 2.0}
    method = make_method("faithful", attack_steps=4, **ball, **weights)
    # Half way up the ramp: half the radius and half the weight.
    parts = method.loss(batch, teacher, student, Clock(step=5, epoch=0, total_steps=10))
    attacked = reference.pgd(
        joint_gradient(np_teacher, np_student),
        x,
        starts(batch, 0.05, "uniform"),
        epsilon=0.05,
        steps=4,
        size=2.5 * 0.05 / 4,
    )
    at_clean = reference.kl(np_teacher.logits(x), np_student.logits(x))
    at_attacked = reference.kl(np_teacher.logits(attacked), np_student.logits(attacked))
    assert at_attacked > at_clean
    check(
        parts,
        distillation=16.0 * reference.kl(np_teacher.logits(x), np_student.logits(x), 4.0),
        attacked=2.0 * 0.5 * at_attacked,
    )


@pytest.mark.parametrize("step", [0, 5, 10])
def test_faithful_without_bound_and_attack_is_kd(case, step):
    teacher, student, batch, *_ = case
    clock = Clock(step=step, epoch=0, total_steps=10)
    faithful = make_method("faithful", kappa=0.0, attack_weight=0.0, temperature=3.0)
    kd = make_method("kd", temperature=3.0)
    losses = [m.loss(batch, teacher, student, clock) for m in (faithful, kd)]
    assert dict(losses[0]) == dict(losses[1])
    gradients = [
        torch.autograd.grad(parts["total"], list(student.parameters())) for parts in losses
    ]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_faithful_in_the_warm_up_is_kd(case):
    teacher, student, batch, *_ = case
    method = make_method("faithful", kappa=3.0, attack_weight=2.0, warm_up=0.5, temperature=3.0)
    parts = method.loss(batch, teacher, student, Clock(step=4, epoch=0, total_steps=10))
    expected = make_method("kd", temperature=3.0).loss(batch, teacher, student, AT_THE_END)
    assert dict(parts) == dict(expected)
    assert parts.observed["epsilon"] == 0.0


@pytest.mark.parametrize("name", STUDENT_METHODS)
def test_the_teacher_gets_no_gradient_and_the_student_does(name):
    # A teacher that was not frozen by anyone: the method itself must keep gradients out.
    teacher, student, batch = make_mlp(1).eval(), make_mlp(2), make_batch()
    more = {"attack_weight": 1.0, "relaxation": "joint"} if name == "faithful" else {}
    method = make_method(name, **more)
    method.set_up(setting_with(batch, teacher, student))
    parts = method.loss(batch, teacher, student, AT_THE_END)
    parts["total"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    # A method on latent vectors leaves the last layer to what it does between epochs.
    below = [p for n, p in student.named_parameters() if not n.startswith("body.logits")]
    assert all(parameter.grad is not None for parameter in below)
    assert not teacher.training
    assert student.training


@pytest.mark.parametrize("name", STUDENT_METHODS)
def test_a_student_method_without_a_teacher_says_so(name):
    with pytest.raises(
        ConfigError, match=r"distils a teacher and was given none; name a teacher\."
    ):
        make_method(name).loss(make_batch(), None, make_mlp(2), AT_THE_END)


def test_parts_are_weighted_and_summed():
    parts = LossParts.weighted(
        {"a": (2.0, torch.tensor(3.0)), "b": (0.5, torch.tensor(-1.0))}, {"share": 0.25}
    )
    assert {k: v.item() for k, v in parts.items()} == {"a": 6.0, "b": -0.5, "total": 5.5}
    assert parts.observed == {"share": 0.25}
