"""The attack inside training: in the ball, upwards, and without a trace in the network."""

import _numpy_reference as reference
import pytest
import torch
from _tiny_training import AT_THE_END, frozen, make_batch, make_method, make_mlp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fkd.bounds.joint import JointLogits
from fkd.core.ball import Ball
from fkd.distillation import Batch
from fkd.distillation._inner import (
    ascend,
    cross_entropy_objective,
    divergence_objective,
    frozen_statistics,
    gaussian_start,
    joint_divergence,
    uniform_start,
)
from tests.support.networks import make_images, make_network

EPSILON = 0.1


def make_resnet(seed=0):
    """Float32, with batch normalisation, in train mode but for one frozen layer."""
    network = make_network(
        "resnet_small", {"width": 3}, image_shape=(1, 8, 8), num_classes=4, seed=seed
    )
    network.requires_grad_(True).train()
    network.body.norm.eval()
    return network


def image_batch():
    images = make_images(8, (1, 8, 8))
    return Batch(images, torch.arange(8) % 4, torch.arange(8), seed=1, step=2)


def objectives(batch, student, teacher):
    """Network attacked and objective, by name."""
    with torch.no_grad():
        target = teacher(batch.images)
    return {
        "cross_entropy": (student, cross_entropy_objective(batch.labels)),
        "divergence": (student, divergence_objective(target)),
        "joint": (JointLogits(teacher, student), joint_divergence),
    }


@pytest.mark.parametrize("start", [uniform_start, gaussian_start])
@pytest.mark.parametrize("kind", ["cross_entropy", "divergence", "joint"])
def test_attacks_stay_in_the_ball_and_climb(kind, start):
    batch, student, teacher = image_batch(), make_resnet(0), frozen(make_resnet(1))
    network, objective = objectives(batch, student, teacher)[kind]
    first = start(batch, EPSILON)
    points = ascend(
        network, batch.images, first, objective, epsilon=EPSILON, steps=6, step_size=EPSILON / 4
    )
    lower, upper = Ball(epsilon=EPSILON).limits(batch.images)
    for found in (first, points):
        assert (found >= lower).all() and (found <= upper).all()
    assert not points.requires_grad
    assert ((points - batch.images).abs() > 0.99 * EPSILON).float().mean() > 0.2
    with frozen_statistics(network), torch.no_grad():
        clean, begun, ended = (objective(network(x)) for x in (batch.images, first, points))
    assert ended > begun
    assert ended > 1.02 * clean


@pytest.mark.parametrize("kind", ["cross_entropy", "divergence", "joint"])
def test_attacks_leave_modes_statistics_and_gradients_alone(kind):
    batch, student, teacher = image_batch(), make_resnet(0), frozen(make_resnet(1))
    network, objective = objectives(batch, student, teacher)[kind]
    before = {name: value.clone() for name, value in student.state_dict().items()}
    modes = {name: module.training for name, module in student.named_modules()}
    assert set(modes.values()) == {True, False}
    ascend(network, batch.images, batch.images, objective, epsilon=0.1, steps=2, step_size=0.05)
    assert modes == {name: module.training for name, module in student.named_modules()}
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert all(parameter.grad is None for parameter in student.parameters())


@pytest.mark.parametrize("method", ["pgd_at", "trades", "rslad", "faithful"])
def test_methods_restore_modes_and_move_statistics_by_their_own_passes_only(method):
    batch, student, teacher = image_batch(), make_resnet(0), frozen(make_resnet(1))
    modes = {name: module.training for name, module in student.named_modules()}
    more = {"attack_weight": 1.0} if method == "faithful" else {"steps": 3}
    passes = {"pgd_at": 1, "trades": 2, "rslad": 2, "faithful": 2}[method]
    make_method(method, **more).loss(batch, teacher, student, AT_THE_END)
    assert modes == {name: module.training for name, module in student.named_modules()}
    counted = student.state_dict()["body.stage1_block1.norm1.num_batches_tracked"].item()
    assert counted == passes
    assert student.state_dict()["body.norm.num_batches_tracked"].item() == 0
    assert teacher.state_dict()["body.stage1_block1.norm1.num_batches_tracked"].item() == 0


def test_modes_are_restored_after_an_error():
    network = make_resnet()
    modes = [module.training for module in network.modules()]
    with pytest.raises(RuntimeError, match="stop"), frozen_statistics(network):
        assert not any(module.training for module in network.modules())
        raise RuntimeError("stop")
    assert modes == [module.training for module in network.modules()]


def test_epsilon_zero_returns_the_images():
    batch, network = make_batch(), make_mlp(0)
    for start in (uniform_start, gaussian_start):
        assert torch.equal(start(batch, 0.0), batch.images)
    points = ascend(
        network,
        batch.images,
        batch.images,
        cross_entropy_objective(batch.labels),
        epsilon=0.0,
        steps=3,
        step_size=0.1,
    )
    assert torch.equal(points, batch.images)


def test_a_linear_network_is_driven_to_the_worst_corner():
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 2)).double()
    batch = make_batch(classes=2)
    points = ascend(
        network,
        batch.images,
        batch.images,
        cross_entropy_objective(batch.labels),
        epsilon=EPSILON,
        steps=4,
        step_size=EPSILON / 2,
    )
    lower, upper = Ball(epsilon=EPSILON).limits(batch.images)
    weight = network[1].weight.detach()
    towards = (weight[1 - batch.labels] - weight[batch.labels]).view_as(batch.images)
    assert torch.equal(points, torch.where(towards > 0, upper, lower))


def test_objectives_are_sums_over_examples_of_the_published_terms():
    teacher, student, batch = frozen(make_mlp(1)), frozen(make_mlp(2)), make_batch()
    z_teacher, z_student = teacher(batch.images), student(batch.images)
    count = len(batch.images)
    # The attack computes in float32 whatever the network gives.
    assert cross_entropy_objective(batch.labels)(z_student).item() == pytest.approx(
        count * reference.cross_entropy(z_student.numpy(), batch.labels.numpy()), rel=1e-5
    )
    expected = count * reference.kl(z_teacher.numpy(), z_student.numpy())
    assert divergence_objective(z_teacher)(z_student).item() == pytest.approx(expected, rel=1e-4)
    both = JointLogits(teacher, student)(batch.images)
    assert torch.equal(both, torch.cat([z_teacher, z_student], dim=1))
    assert joint_divergence(both).item() == pytest.approx(expected, rel=1e-4)


def test_the_joint_objective_moves_the_teacher_too():
    """Its gradient differs from the one with the teacher's prediction held fixed."""
    teacher, student, batch = frozen(make_mlp(1)), frozen(make_mlp(2)), make_batch()
    images = batch.images.clone().requires_grad_(True)
    (moving,) = torch.autograd.grad(joint_divergence(JointLogits(teacher, student)(images)), images)
    fixed_target = divergence_objective(teacher(images))
    (fixed,) = torch.autograd.grad(fixed_target(student(images)), images)
    assert (moving - fixed).abs().max() > 0.01


def test_random_starts_depend_on_seed_step_stream_and_example_only():
    batch = make_batch()
    rows = torch.tensor([4, 1])
    part = Batch(batch.images[rows], batch.labels[rows], batch.example_ids[rows], 5, 3)
    assert torch.equal(batch.uniform()[rows], part.uniform())
    assert torch.equal(batch.normal(2)[rows], part.normal(2))
    different = [
        batch.uniform(),
        batch.uniform(1),
        Batch(batch.images, batch.labels, batch.example_ids, seed=6, step=3).uniform(),
        Batch(batch.images, batch.labels, batch.example_ids, seed=5, step=4).uniform(),
        Batch(batch.images, batch.labels, batch.example_ids + 50, seed=5, step=3).uniform(),
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


def test_normal_numbers_are_normal_and_finite_at_both_ends(monkeypatch):
    images = torch.zeros(4000, 1, 5, 5)
    batch = Batch(images, torch.zeros(4000, dtype=torch.long), torch.arange(4000))
    numbers = batch.normal()
    assert numbers.mean().abs() < 0.01
    assert abs(numbers.std() - 1) < 0.01
    assert (numbers.abs() < 1.96).float().mean().item() == pytest.approx(0.95, abs=0.003)
    # The smallest and the largest number that uniform_noise can give.
    ends = torch.tensor([0.0, 1.0 - 2.0**-24])
    monkeypatch.setattr(Batch, "uniform", lambda self, stream=0: ends)
    assert torch.isfinite(batch.normal()).all()
    assert (batch.normal().abs() > 5).all()


@settings(deadline=None, max_examples=30)
@given(epsilon=st.floats(0, 1), seed=st.integers(0, 1000))
def test_starts_lie_in_the_ball_whatever_its_size(epsilon, seed):
    batch = make_batch(seed=seed)
    lower, upper = Ball(epsilon=epsilon).limits(batch.images)
    for start in (uniform_start(batch, epsilon), gaussian_start(batch, epsilon)):
        assert (start >= lower).all() and (start <= upper).all()
