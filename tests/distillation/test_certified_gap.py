"""Certified-gap distillation: a sound bound, the certificate's own, and a loss with its limits."""

import math

import pytest
import torch
from _tiny_training import (
    AT_THE_END,
    frozen,
    interrupted,
    is_equal,
    make_batch,
    make_method,
    make_mlp,
    sample,
    setting_of,
    tiny_spec,
    weights_of,
)
from torch import nn

from fkd.attacks import attack_config
from fkd.bounds import certificate_config, make_certificate
from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.intervals import BoundedNetwork, margin_rows
from fkd.bounds.engine.propagate import Propagator
from fkd.core.ball import Ball
from fkd.core.errors import UnsupportedModelError
from fkd.data import load_split
from fkd.distillation import Batch, Clock, _tight_bounds, check_spec, train_model
from fkd.distillation._tight_bounds import MarginForms, TrainingPass, joint_gap
from fkd.evaluation._attacked import attack_pair
from fkd.models import load_model
from tests.support.networks import make_images, make_linear, make_network

NETWORKS = {
    "mlp": ("mlp", {"hidden": (12, 8)}, (1, 3, 3)),
    "cnn": ("cnn_small", {"width": 3, "units": 10}, (2, 8, 8)),
    "resnet": ("resnet_small", {"width": 3}, (1, 9, 9)),
}
CLASSES = 4
HALF_WAY = Clock(step=5, epoch=0, total_steps=10)


def make_pair(name, seed=0, count=6):
    """Float64 teacher and student, images, and a compared class for each."""
    architecture, config, shape = NETWORKS[name]
    networks = [
        make_network(
            architecture, config, image_shape=shape, num_classes=CLASSES, seed=seed + k
        ).double()
        for k in (0, 1)
    ]
    return *networks, make_images(count, shape, seed).double(), torch.arange(count) % CLASSES


def sides_of(teacher, student, images, classes, epsilon):
    """The loss's two bounds, straight from the networks."""
    inputs = InputSet(*Ball(epsilon=epsilon).limits(images))
    count = teacher(images).shape[1]
    rows = margin_rows(classes, count, images)
    forms = [
        MarginForms.of(BoundedNetwork(network), inputs, images, rows)
        for network in (teacher, student)
    ]
    return joint_gap(*forms, inputs).gap, joint_gap(*forms[::-1], inputs).gap


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("epsilon", [0.005, 0.05, 0.3])
def test_no_gap_in_the_ball_exceeds_the_bound(name, epsilon):
    teacher, student, images, classes = make_pair(name)
    forth, back = sides_of(teacher, student, images, classes, epsilon)
    points = sample(*Ball(epsilon=epsilon).limits(images)).flatten(0, 1)
    each = classes.repeat(300)[:, None]
    p, q = (n(points).softmax(1).gather(1, each).view(300, -1) for n in (teacher, student))
    assert ((p - q).amax(0) <= forth + 1e-9).all()
    assert ((q - p).amax(0) <= back + 1e-9).all()
    if epsilon == 0.005:
        # Sound and useless would be a bound of 1.
        assert (forth - (p - q).amax(0).clamp_min(0)).mean() < 0.1


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("epsilon", [0.02, 0.1])
def test_hidden_bounds_are_those_of_the_certificate(name, epsilon):
    network, _, images, _ = make_pair(name)
    inputs = InputSet(*Ball(epsilon=epsilon).limits(images))
    ours = TrainingPass(BoundedNetwork(network), images).hidden(inputs)
    theirs = Propagator(network, images[:1]).hidden(inputs)
    bent = 0
    for place, relaxation in theirs.relaxations.items():
        mine = ours.relaxations[place]
        torch.testing.assert_close(mine.lower, relaxation.lower, atol=1e-8, rtol=0)
        torch.testing.assert_close(mine.upper, relaxation.upper, atol=1e-8, rtol=0)
        assert torch.equal(mine.default, relaxation.default)
        bent += int(mine.is_open.sum())
    assert bent > 0


@pytest.mark.parametrize("epsilon", [0.02, 0.1])
def test_a_shipped_pairs_attack_and_certificate_lie_below_the_bound(epsilon):
    teacher, student = (
        load_model(f"digits-{name}").network for name in ("teacher-ibp", "rslad-of-ibp")
    )
    split = load_split("digits", "test")
    images, labels = split.images[:16], split.labels[:16]
    bound = torch.maximum(*sides_of(teacher, student, images, labels, epsilon))
    region = Ball(epsilon=epsilon).region(images, torch.arange(16))
    attack = attack_config({"name": "pgd", "steps": 20, "restarts": 1})
    reached = attack_pair(attack, (teacher, student), region, labels, seed=0).gap
    # Float32 against float64.
    assert (reached <= bound + 1e-4).all()
    certified = make_certificate(certificate_config({"name": "fast"})).bound(
        teacher, student, region, labels
    )
    assert (certified.gap <= bound + 1e-4).all()
    # The certificate has more lines; what is trained is nearly what is certified.
    assert (bound - certified.gap).mean() < 0.02


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_that_are_too_wide_keep_their_intervals(name, monkeypatch):
    teacher, student, images, classes = make_pair(name)
    tight = torch.stack(sides_of(teacher, student, images, classes, 0.03))
    monkeypatch.setattr(_tight_bounds, "_MOST_NUMBERS", 0)
    network, limits = BoundedNetwork(student), Ball(epsilon=0.03).limits(images)
    run = TrainingPass(network, images)
    hidden, expected = run.hidden(InputSet(*limits)), network.hidden(*limits)
    for place, relaxation in hidden.relaxations.items():
        low, high = expected.intervals[run.graph.nodes[place].inputs[0]]
        torch.testing.assert_close(relaxation.lower, low)
        torch.testing.assert_close(relaxation.upper, high)
    wide = torch.stack(sides_of(teacher, student, images, classes, 0.03))
    assert wide.mean() > tight.mean()


def test_a_student_too_large_for_the_share_is_bounded_on_fewer_images(monkeypatch):
    teacher, student, batch = frozen(make_mlp(1, (9,))), make_mlp(2), make_batch()
    cost = sum(TrainingPass(BoundedNetwork(student), batch.images).cost(place) for place in (3, 5))
    # Two layers of 7 and 5 units, both signs, and all that lies below: 6 pixels thrice, then 7.
    assert cost == 2 * 7 * 18 + 2 * 5 * (18 + 7 + 7)
    monkeypatch.setattr(_tight_bounds, "_MOST_NUMBERS", 8 * cost)
    method = make_method("certified_gap", bounded_share=1.0)
    sides = method.gap_bounds(batch, teacher(batch.images), teacher, student, 0.05)
    assert len(sides[0].gap) == len(batch.images)
    monkeypatch.setattr(_tight_bounds, "_MOST_NUMBERS", 8 * (2 * 5 * 32))
    method = make_method("certified_gap", bounded_share=1.0)
    sides = method.gap_bounds(batch, teacher(batch.images), teacher, student, 0.05)
    assert len(sides[0].gap) == 8 * 320 // cost


def one_pixel(slopes, offsets):
    """z = slope x + offset on a single pixel, float64."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, len(slopes))).double()
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor(slopes)[:, None])
        network[1].bias.copy_(torch.tensor(offsets))
    return network


def test_two_linear_networks_on_one_pixel_by_hand():
    # About class 0 at x = 0.5 -+ 0.1: m^T = 2 x - 1 in [-0.2, 0.2], m^S = x - 0.5 in [-0.1, 0.1].
    teacher, student = one_pixel([0.0, 2.0], [0.0, -1.0]), one_pixel([0.0, 1.0], [0.0, -0.5])
    image = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    forth, back = sides_of(teacher, student, image, torch.tensor([0]), 0.1)
    # a_T - a_S = 0.5 - x <= 0.1 alone bounds the gap by tanh(0.1 / 4); both ranges would give
    # sigmoid(0.2) - sigmoid(-0.1) = 0.075.
    assert forth.item() == pytest.approx(math.tanh(0.025), rel=1e-12)
    assert back.item() == pytest.approx(math.tanh(0.025), rel=1e-12)
    reached = 1 / (1 + math.exp(-0.2)) - 1 / (1 + math.exp(-0.1))
    assert 0.99 * forth.item() < reached <= forth.item()


def test_identical_linear_networks_have_no_gap_at_all():
    network = make_linear((1, 3, 3), CLASSES, 0).double()
    images = make_images(5, (1, 3, 3), 0).double()
    for side in sides_of(network, network, images, torch.arange(5) % CLASSES, 0.5):
        assert torch.equal(side, torch.zeros(5, dtype=torch.float64))


def certified(method, batch, teacher, student, clock=AT_THE_END):
    return method.loss(batch, teacher, student, clock)["certified_gap"]


def test_the_loss_is_the_weighted_mean_of_the_larger_side():
    teacher, student, batch = frozen(make_mlp(1, (9,))), make_mlp(2), make_batch()
    ramp = {"epsilon": 0.1, "warm_up": 0.2, "ramp": 0.6, "ramp_shape": "linear"}
    method = make_method("certified_gap", kappa=1.7, bounded_share=0.6, **ramp)
    parts = method.loss(batch, teacher, student, HALF_WAY)
    classes = teacher(batch.images).argmax(1)
    # Half way up the ramp, and 4 of 6 examples.
    sides = torch.stack(sides_of(teacher, student, batch.images[:4], classes[:4], 0.05))
    # Which side is larger differs from image to image.
    assert sides.mean(1).max() < sides.amax(0).mean()
    assert parts["certified_gap"].item() == pytest.approx(0.85 * sides.amax(0).mean().item())
    assert float(parts.observed["delta"]) == pytest.approx(sides.amax(0).mean().item())
    assert set(parts) == {"distillation", "certified_gap", "attacked", "total"}
    by_label = make_method("certified_gap", kappa=1.7, gap_class="label", bounded_share=1.0)
    sides = sides_of(teacher, student, batch.images, batch.labels, 0.1)
    found = certified(by_label, batch, teacher, student).item()
    assert found == pytest.approx(1.7 * torch.maximum(*sides).mean().item())


def test_the_certificate_comes_when_the_attack_has_done_its_part():
    teacher, student, batch = frozen(make_mlp(1)), make_mlp(2), make_batch()
    method = make_method("certified_gap", ramp=0.2, certified_from=0.4)
    weights = []
    for step in range(30, 61, 5):
        parts = method.loss(batch, teacher, student, Clock(step=step, epoch=0, total_steps=100))
        assert parts["attacked"] > 0
        weights.append(
            parts["certified_gap"].item() / float(parts.observed["delta"]) / method.config.kappa
            if "certified_gap" in parts
            else 0.0
        )
    assert weights == pytest.approx([0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0])
    # Never further than the ball has grown, and not at all where it begins with the end.
    slow = make_method(
        "certified_gap", warm_up=0.0, ramp=1.0, ramp_shape="linear", certified_from=0
    )
    assert slow.config.certified(HALF_WAY) == pytest.approx(0.5)
    never = make_method("certified_gap", certified_from=1.0).config
    assert never.certified(Clock(step=99, epoch=0, total_steps=100)) == 0.0


def test_a_student_that_equals_its_teacher_costs_nothing():
    """Bent units are relaxed in each network by itself, so that the bounds alone would not see it."""
    teacher, student, batch = frozen(make_mlp(1, (9,))), make_mlp(1, (9,)), make_batch()
    method = make_method("certified_gap", epsilon=0.3, coarse_rest=True)
    assert torch.stack(sides_of(teacher, student, batch.images, batch.labels, 0.3)).min() > 0.01
    parts = method.loss(batch, teacher, student, AT_THE_END)
    assert (parts["certified_gap"].item(), float(parts.observed["delta"])) == (0.0, 0.0)
    assert parts["total"].item() == pytest.approx(0.0, abs=1e-6)
    # The first difference in a weight is seen.
    with torch.no_grad():
        next(student.parameters())[0] += 1e-3
    assert certified(method, batch, teacher, student) > 0.01


@pytest.mark.parametrize("step", [0, 5, 10])
def test_without_bound_and_attack_it_is_kd(step):
    teacher, student, batch = frozen(make_mlp(1)), make_mlp(2), make_batch()
    clock = Clock(step=step, epoch=0, total_steps=10)
    bare = make_method("certified_gap", kappa=0.0, attack_weight=0.0, temperature=3.0)
    losses = [
        method.loss(batch, teacher, student, clock)
        for method in (bare, make_method("kd", temperature=3.0))
    ]
    assert dict(losses[0]) == dict(losses[1])


def test_batch_normalisation_has_the_whole_batchs_statistics():
    teacher, student, images, labels = make_pair("resnet")
    student.requires_grad_(True).train()
    # In a ball of no size the bound is the gap of the network that the step itself evaluates.
    method = make_method("certified_gap", epsilon=1e-9, kappa=2.0, bounded_share=0.5)
    found = certified(method, Batch(images, labels, labels), teacher, student).item()
    with torch.no_grad():
        p, q = (n(images).softmax(1) for n in (teacher, student))
    chosen = p.argmax(1, keepdim=True)
    gap = (p - q).gather(1, chosen).abs()[:3]
    assert found == pytest.approx(2.0 * gap.mean().item(), rel=1e-5)
    assert gap.mean() > 0.01


def test_the_certified_gap_gives_the_teacher_no_gradient():
    # Frozen by nobody.
    teacher, student, batch = make_mlp(1).eval(), make_mlp(2), make_batch()
    certified(make_method("certified_gap"), batch, teacher, student).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    weights = [p for p in student.parameters() if p.dim() > 1]
    assert all(float(p.grad.abs().sum()) > 0 for p in weights)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_gradient_of_the_certified_gap_by_finite_differences(name):
    teacher, student, images, classes = make_pair(name)
    parameters = list(student.requires_grad_(True).parameters())

    def value():
        return torch.stack(sides_of(teacher, student, images, classes, 0.03)).mean()

    gradients = torch.autograd.grad(value(), parameters)
    generator = torch.Generator().manual_seed(0)
    ways = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    by_autograd = sum((g * way).sum() for g, way in zip(gradients, ways, strict=True)).item()
    ends = []
    with torch.no_grad():
        for step in (1e-7, -2e-7):
            for parameter, way in zip(parameters, ways, strict=True):
                parameter.add_(way, alpha=step)
            ends.append(value().item())
    assert by_autograd == pytest.approx((ends[0] - ends[1]) / 2e-7, rel=1e-4)
    assert abs(by_autograd) > 1e-3


@pytest.fixture
def remembering(teacher):
    """A plan of a tiny run whose method has seen its setting, its student, and a batch of it."""
    plan = check_spec(tiny_spec("certified_gap", teacher, method_config={"bounded_share": 1.0}))
    student = make_network(
        "mlp", {"hidden": (8,)}, image_shape=(1, 8, 8), num_classes=10, seed=3
    ).requires_grad_(True)
    setting = setting_of(plan, student)
    ids = torch.tensor([17, 3, 88])
    return plan, student, Batch(setting.images[ids], setting.labels[ids], ids)


def test_the_teachers_remembered_bounds_are_those_of_the_step(remembering):
    plan, student, batch = remembering
    teacher, fresh = plan.teacher.network, make_method("certified_gap", bounded_share=1.0)
    looked_up, computed = (
        certified(method, batch, teacher, student) for method in (plan.method, fresh)
    )
    assert plan.method._remembered is not None
    torch.testing.assert_close(looked_up, computed, atol=1e-6, rtol=1e-5)
    # Below the full radius the remembered lines are steeper than they need be, but never wrong.
    clock = Clock(step=3, epoch=0, total_steps=10)
    pairs = [
        torch.stack([s.gap for s in m.gap_bounds(batch, z, teacher, student, 0.04)])
        for m in (plan.method, fresh)
        for z in [teacher(batch.images)]
    ]
    assert (pairs[0].mean() >= pairs[1].mean() - 1e-6).all()
    assert certified(plan.method, batch, teacher, student, clock).isfinite()


def test_augmented_and_other_images_are_bounded_afresh(remembering):
    plan, student, batch = remembering
    teacher = plan.teacher.network
    # The run trains on the first 90 alone.
    images, labels = load_split("digits", "train").take(ids := torch.tensor([95, 4]))
    other = Batch(images, labels, ids)
    assert plan.method._remember(teacher, 10).look_up(other, 2) is None
    assert plan.method._remember(teacher, 10).look_up(batch, 2) is not None
    moved = Batch(batch.images.roll(1, 3), batch.labels, batch.example_ids)
    found = certified(plan.method, moved, teacher, student)
    fresh = make_method("certified_gap", bounded_share=1.0)
    assert found.item() == certified(fresh, moved, teacher, student).item()
    assert found.item() != certified(plan.method, batch, teacher, student).item()


def test_a_resumed_run_is_the_same_to_the_bit(teacher, tmp_path):
    spec = tiny_spec("certified_gap", teacher)
    whole = train_model(spec, out=tmp_path / "whole")
    interrupted(spec, tmp_path / "parts")
    resumed = train_model(spec, out=tmp_path / "parts")
    assert is_equal(weights_of(whole), weights_of(resumed))


def test_a_network_without_a_linear_relaxation_is_refused():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 4))
    with pytest.raises(UnsupportedModelError, match="cannot pass through MaximumPooling; use a"):
        TrainingPass(BoundedNetwork(network), torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_rest_of_the_batch_is_pressed_by_the_students_own_width(name):
    teacher, student, images, classes = make_pair(name)
    labels = (classes + 1) % CLASSES
    batch = Batch(images, labels, torch.arange(len(images)))
    ramp = {"epsilon": 0.03, "warm_up": 0.0, "ramp": 0.0, "certified_from": 0.0}
    settings = {"kappa": 2.0, "bounded_share": 0.5, "gap_class": "label", **ramp}
    bare = make_method("certified_gap", **settings)
    rested = make_method("certified_gap", coarse_rest=True, **settings)
    parts = [method.loss(batch, teacher, student, AT_THE_END) for method in (bare, rested)]
    # Half of both sides as the method `faithful` bounds them, without the teacher's own width.
    faithful = make_method("faithful", epsilon=0.03)
    sides = faithful.gap_bounds(images, labels, CLASSES, teacher, student, 0.03)
    high, low = sides[1].above.sigmoid(), sides[0].below.sigmoid()
    widths = (high - low) / 2
    assert (widths > 0.01).all()
    expected = (parts[0]["certified_gap"] + 2.0 * widths[3:].mean()) / 2
    assert parts[1]["certified_gap"].item() == pytest.approx(expected.item(), rel=1e-9)
    assert parts[1].observed["delta"] == parts[0].observed["delta"]
    whole = {**settings, "bounded_share": 1.0}
    both = [
        make_method("certified_gap", coarse_rest=coarse, **whole).loss(
            batch, teacher, student, AT_THE_END
        )
        for coarse in (False, True)
    ]
    assert torch.equal(both[0]["certified_gap"], both[1]["certified_gap"])
