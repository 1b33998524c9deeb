"""KDIGA's loss against the formula in NumPy, its limits, and where its gradients go."""

import _numpy_reference as reference
import numpy as np
import pytest
import torch
from _tiny_training import AT_THE_END, frozen, make_batch, make_method, make_mlp, tiny_spec

from fkd.core.seeding import uniform_noise
from fkd.distillation import Clock, check_spec, train_model
from fkd.distillation.base import _STREAMS_PER_STEP


@pytest.fixture
def case():
    """Teacher, student, batch; both networks and the images in NumPy."""
    teacher, student, batch = frozen(make_mlp(1, (9,))), make_mlp(2), make_batch()
    x = batch.images.flatten(1).numpy()
    return teacher, student, batch, reference.MLP.of(teacher), reference.MLP.of(student), x


def expected_parts(np_teacher, np_student, x, labels, tau):
    """The three terms without their weights."""
    z_teacher, z_student = np_teacher.logits(x), np_student.logits(x)
    slopes = [
        network.pull_back(x, reference.softmax(network.logits(x)) - np.eye(4)[labels])
        for network in (np_student, np_teacher)
    ]
    return {
        "distillation": tau**2 * reference.kl(z_teacher, z_student, tau),
        "labels": reference.cross_entropy(z_student, labels),
        "gradients": np.sqrt(((slopes[0] - slopes[1]) ** 2).sum(1)).mean(),
    }


WEIGHTS = {"distillation": 0.7, "labels": 0.4, "gradients": 5.0}
SETTINGS = {"distillation_weight": 0.7, "label_weight": 0.4, "gradient_weight": 5.0}


def check(parts, expected):
    assert set(parts) == {*expected, "total"}
    for name, value in expected.items():
        assert parts[name].item() == pytest.approx(WEIGHTS[name] * value, rel=1e-6)
    total = sum(WEIGHTS[name] * value for name, value in expected.items())
    assert parts["total"].item() == pytest.approx(total, rel=1e-6)


def test_kdiga(case):
    teacher, student, batch, np_teacher, np_student, x = case
    parts = make_method("kdiga", temperature=3.0, **SETTINGS).loss(
        batch, teacher, student, AT_THE_END
    )
    check(parts, expected_parts(np_teacher, np_student, x, batch.labels.numpy(), 3.0))


def test_kdiga_a_takes_every_term_at_the_attacked_images(case):
    teacher, student, batch, np_teacher, np_student, x = case
    labels = batch.labels.numpy()
    stream = batch.step * _STREAMS_PER_STEP
    u = uniform_noise(batch.example_ids, (6,), seed=batch.seed, stream=stream).double().numpy()
    attacked = reference.pgd(
        reference.towards(np_student, np.eye(4)[labels]),
        x,
        x + 0.12 * (2 * u - 1),
        epsilon=0.12,
        steps=5,
        size=0.03,
    )
    method = make_method(
        "kdiga", temperature=3.0, adversarial=True, epsilon=0.12, steps=5, **SETTINGS
    )
    parts = method.loss(batch, teacher, student, AT_THE_END)
    expected = expected_parts(np_teacher, np_student, attacked, labels, 3.0)
    check(parts, expected)
    clean = expected_parts(np_teacher, np_student, x, labels, 3.0)
    assert all(abs(clean[name] - value) > 1e-3 for name, value in expected.items())


def test_the_students_gradient_is_that_of_a_difference_quotient(case):
    # Double back-propagation: the derivative in a weight, by two evaluations of the NumPy formula.
    teacher, student, batch, np_teacher, _, x = case
    method = make_method("kdiga", gradient_weight=1.0, label_weight=0.0, distillation_weight=0.0)
    parts = method.loss(batch, teacher, student, AT_THE_END)
    (gradient,) = torch.autograd.grad(parts["total"], student.body.fc1.weight)
    values = []
    for step in (1e-6, -1e-6):
        # The weight acts on normalised pixels, (x - 0.4) / 0.5.
        moved = reference.MLP.of(student)
        weight, bias = moved.layers[0]
        weight[2, 1] += step / 0.5
        bias[2] -= step * 0.4 / 0.5
        slopes = expected_parts(np_teacher, moved, x, batch.labels.numpy(), 1.0)
        values.append(slopes["gradients"])
    quotient = (values[0] - values[1]) / 2e-6
    assert gradient[2, 1].item() == pytest.approx(quotient, rel=1e-4)
    assert abs(quotient) > 1e-3


def test_without_the_gradients_it_is_kd(case):
    teacher, student, batch, *_ = case
    parts = make_method("kdiga", gradient_weight=0.0, label_weight=0.0, temperature=3.0).loss(
        batch, teacher, student, AT_THE_END
    )
    kd = make_method("kd", temperature=3.0).loss(batch, teacher, student, AT_THE_END)
    assert dict(parts) == dict(kd)


def test_the_gradients_weight_rises_after_a_warm_up(case):
    teacher, student, batch, *_ = case
    method = make_method("kdiga", warm_up=0.2, ramp=0.4, ramp_shape="linear", **SETTINGS)
    parts = [
        method.loss(batch, teacher, student, Clock(step=step, epoch=0, total_steps=10))
        for step in (2, 4, 6)
    ]
    assert "gradients" not in parts[0]
    assert parts[1]["gradients"].item() == pytest.approx(parts[2]["gradients"].item() / 2)


@pytest.mark.parametrize("adversarial", [False, True])
def test_a_student_that_is_its_teacher_has_no_loss_and_a_finite_gradient(adversarial):
    teacher, student, batch = frozen(make_mlp(1)), make_mlp(1), make_batch()
    method = make_method("kdiga", label_weight=0.0, adversarial=adversarial)
    parts = method.loss(batch, teacher, student, AT_THE_END)
    assert parts["total"].item() == pytest.approx(0.0, abs=1e-12)
    parts["total"].backward()
    assert all(parameter.grad.abs().max() < 1e-9 for parameter in student.parameters())


@pytest.mark.parametrize("adversarial", [False, True])
def test_only_the_student_gets_a_gradient(adversarial):
    teacher, student, batch = make_mlp(1).eval(), make_mlp(2), make_batch()
    method = make_method("kdiga", adversarial=adversarial)
    method.loss(batch, teacher, student, AT_THE_END)["gradients"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    weights = [p for name, p in student.named_parameters() if name.endswith("weight")]
    assert all(parameter.grad.abs().max() > 0 for parameter in weights)
    assert batch.images.grad is None and not batch.images.requires_grad


def test_the_card_names_a_ball_only_where_one_was_attacked(teacher, tmp_path):
    spec = tiny_spec("kdiga", teacher, epochs=1, method_config={"epsilon": 0.05})
    assert check_spec(spec).epsilon is None
    assert train_model(spec, out=tmp_path / "clean").card.epsilon is None
    config = {"epsilon": 0.05, "steps": 1, "adversarial": True}
    spec = tiny_spec("kdiga", teacher, epochs=1, method_config=config)
    model = train_model(spec, out=tmp_path / "attacked")
    assert model.card.epsilon == 0.05
    assert "robust_accuracy_0.05" in model.card.metrics
