"""The bounds that training differentiates: sound, equal to auto_LiRPA's, with the right gradient."""

import copy
import math

import pytest
import torch
from _tiny_training import AT_THE_END, frozen, make_batch, make_method, make_mlp, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fkd.bounds.engine.intervals import BoundedNetwork, margin_rows
from fkd.bounds.engine.relaxation import Relaxation
from fkd.core.ball import Ball
from fkd.core.lirpa_compat import load_auto_lirpa
from fkd.core.precision import double_copy
from fkd.distillation import Batch
from fkd.distillation._certified import (
    GapBound,
    crown_ibp_upper_margins,
    gap_bound,
    margin_bounds,
    worst_case_cross_entropy,
)
from tests.support.networks import make_images, make_network

NETWORKS = {
    "mlp": ("mlp", {"hidden": (12, 8)}, (1, 3, 3)),
    "cnn": ("cnn_small", {"width": 3, "units": 10}, (2, 8, 8)),
    "resnet": ("resnet_small", {"width": 3}, (1, 9, 9)),
}
CLASSES = 4


def make_case(name, epsilon, seed=0, count=6):
    """Float64 network, its bounder, and boxes clipped to [0, 1]."""
    architecture, config, shape = NETWORKS[name]
    network = double_copy(
        make_network(architecture, config, image_shape=shape, num_classes=CLASSES, seed=seed)
    )
    images = make_images(count, shape, seed).double()
    lower, upper = Ball(epsilon=epsilon).limits(images)
    return network, BoundedNetwork(network), images, lower, upper


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0])
def test_nothing_in_the_box_leaves_the_bounds(name, epsilon):
    for seed in range(2):
        network, bounder, _, lower, upper = make_case(name, epsilon, seed)
        labels = torch.arange(len(lower)) % CLASSES
        rows = margin_rows(labels, CLASSES, lower)
        points = sample(lower, upper, seed=seed)
        logits = network(points.flatten(0, 1)).view(len(points), len(lower), CLASSES)
        low, high = bounder.interval_logits(lower, upper)
        assert (logits >= low - 1e-9).all() and (logits <= high + 1e-9).all()
        margins = torch.einsum("nrk,snk->snr", rows, logits)
        hidden = bounder.hidden(lower, upper)
        low, high = bounder.interval_rows(hidden, rows)
        assert (margins >= low - 1e-9).all() and (margins <= high + 1e-9).all()
        # The linear bound holds at every point, not only in its highest value.
        linear = bounder.linear_rows(hidden, rows)
        at_points = (
            torch.einsum("nrd,snd->snr", linear.coefficients.flatten(2), points.flatten(2))
            + linear.constant
        )
        assert (margins <= at_points + 1e-9).all()
        highest = linear.highest(lower, upper)
        assert (at_points <= highest + 1e-9).all()
        for mix in (0.0, 0.4, 1.0):
            upper_margins = crown_ibp_upper_margins(bounder, hidden, lower, upper, rows, mix)
            assert (margins <= upper_margins + 1e-9).all()
            torch.testing.assert_close(upper_margins, mix * highest + (1 - mix) * high)


@pytest.mark.parametrize("relaxation", ["ibp", "crown_ibp", "joint"])
@pytest.mark.parametrize("pair", [("mlp", "mlp"), ("cnn", "cnn"), ("resnet", "resnet")])
def test_no_gap_in_the_box_exceeds_the_faithful_bound(pair, relaxation):
    for epsilon in (0.005, 0.05, 0.3):
        teacher, _, images, lower, upper = make_case(pair[0], epsilon, 0)
        student = make_case(pair[1], epsilon, 1)[0]
        classes = torch.arange(len(images)) % CLASSES
        method = make_method("faithful", relaxation=relaxation)
        sides = method.gap_bounds(images, classes, CLASSES, teacher, student, epsilon)
        points = sample(lower, upper).flatten(0, 1)
        each = classes.repeat(300)[:, None]
        p, q = (n(points).softmax(1).gather(1, each).view(300, -1) for n in (teacher, student))
        assert ((p - q).amax(0) <= sides[0].gap + 1e-9).all()
        assert ((q - p).amax(0) <= sides[1].gap + 1e-9).all()
        if epsilon == 0.005:
            # Sound and useless would be a bound of 1.
            slack = sides[0].gap - (p - q).amax(0).clamp_min(0)
            assert slack.mean() < 0.3


def test_identical_networks_have_no_joint_gap_where_nothing_bends():
    """With every ReLU stable the networks are linear on the box, so their difference is exactly 0."""
    network = make_case("mlp", 0.0)[0]
    images = make_images(4, (1, 3, 3)).double()
    method = make_method("faithful", relaxation="joint")
    sides = method.gap_bounds(
        images, torch.zeros(4, dtype=torch.long), CLASSES, network, network, 1e-9
    )
    assert all((side.gap < 1e-12).all() for side in sides)
    alone = make_method("faithful", relaxation="crown_ibp")
    wide = alone.gap_bounds(
        images, torch.zeros(4, dtype=torch.long), CLASSES, network, network, 0.05
    )
    joint = method.gap_bounds(
        images, torch.zeros(4, dtype=torch.long), CLASSES, network, network, 0.05
    )
    assert joint[0].gap.mean() < wide[0].gap.mean()


def test_epsilon_zero_gives_the_clean_margins():
    for name in NETWORKS:
        network, bounder, images, *_ = make_case(name, 0.0)
        labels = torch.arange(len(images)) % CLASSES
        rows = margin_rows(labels, CLASSES, images)
        clean = torch.einsum("nrk,nk->nr", rows, network(images))
        bounds = margin_bounds(bounder, images, images, labels, CLASSES, relaxation="crown_ibp")
        torch.testing.assert_close(bounds.lower, clean)
        torch.testing.assert_close(bounds.upper, clean)


def test_margin_rows_leave_the_own_class_out_in_order():
    rows = margin_rows(torch.tensor([0, 2]), 3, torch.zeros(1, dtype=torch.float64))
    expected = [[[-1, 1, 0], [-1, 0, 1]], [[1, 0, -1], [0, 1, -1]]]
    assert torch.equal(rows, torch.tensor(expected, dtype=torch.float64))


def lirpa_bounds(network, images, lower, upper, rows, **method):
    lirpa = load_auto_lirpa()
    alone = double_copy(network)
    for module in alone.modules():
        module._non_persistent_buffers_set.clear()
    bounded = lirpa.BoundedModule(alone, images[:1], device="cpu")
    ball = lirpa.PerturbationLpNorm(norm=float("inf"), x_L=lower, x_U=upper)
    with torch.no_grad():
        return bounded.compute_bounds(x=(lirpa.BoundedTensor(images, ball),), C=rows, **method)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("epsilon", [0.01, 0.08])
def test_equal_to_auto_lirpas_ibp_and_crown_ibp(name, epsilon):
    network, bounder, images, lower, upper = make_case(name, epsilon)
    labels = torch.arange(len(images)) % CLASSES
    rows = margin_rows(labels, CLASSES, images)
    hidden = bounder.hidden(lower, upper)
    expected = lirpa_bounds(network, images, lower, upper, rows, method="IBP")
    for ours, theirs in zip(bounder.interval_rows(hidden, rows), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    expected = lirpa_bounds(network, images, lower, upper, rows, IBP=True, method="backward")
    ours = bounder.linear_rows(hidden, rows).highest(lower, upper)
    torch.testing.assert_close(ours, expected[1], atol=1e-4, rtol=1e-4)
    ours = -bounder.linear_rows(hidden, -rows).highest(lower, upper)
    torch.testing.assert_close(ours, expected[0], atol=1e-4, rtol=1e-4)


def test_batch_normalisation_in_training_uses_the_clean_batchs_statistics():
    architecture, config, shape = NETWORKS["resnet"]
    network = make_network(architecture, config, image_shape=shape, num_classes=CLASSES, seed=0)
    images = make_images(6, shape)
    bounder = BoundedNetwork(network)
    in_eval = network(images)
    network.train()
    hidden = bounder.hidden(images, images, images)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    bounder.hidden(images - 0.1, images + 0.1, images)
    # Bounding moved no running statistics; the forward pass does.
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    in_train = network(images)
    assert not torch.equal(
        network.state_dict()["body.norm.running_mean"], before["body.norm.running_mean"]
    )
    torch.testing.assert_close(hidden.intervals[-1][0], in_train, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(in_train, in_eval, atol=1e-2)


def with_statistics_of(network, images):
    """A copy in eval mode whose batch normalisations hold the statistics of these images' batch."""
    fixed = copy.deepcopy(network)
    norms = [module for module in fixed.modules() if isinstance(module, nn.BatchNorm2d)]

    def keep(module, inputs, _):
        axes = (0, 2, 3)
        module.running_mean.copy_(inputs[0].mean(axes))
        module.running_var.copy_(inputs[0].var(axes, unbiased=False))

    for module in norms:
        module.register_forward_hook(keep)
    with torch.no_grad():
        fixed.train()(images)
    for module in norms:
        module._forward_hooks.clear()
    return frozen(fixed)


@pytest.mark.parametrize("name", ["ibp", "crown_ibp", "faithful"])
def test_methods_bound_the_network_with_the_clean_batchs_statistics(name):
    teacher, student = (make_case("resnet", 0.0, seed)[0] for seed in (0, 1))
    student.requires_grad_(True).train()
    images = make_case("resnet", 0.0)[2]
    batch = Batch(images, torch.arange(6) % CLASSES, torch.arange(6))
    fixed = with_statistics_of(student, images)
    torch.testing.assert_close(student(images), fixed(images))
    more = {"crown_ibp": {"final_mix": 0.5}, "faithful": {"penalty": "log"}}.get(name, {})
    method = make_method(name, epsilon=0.002, **more)
    part = "certified_gap" if name == "faithful" else "worst"
    found, expected = (
        method.loss(batch, teacher, network, AT_THE_END)[part] for network in (student, fixed)
    )
    torch.testing.assert_close(found, expected)


def test_mtl_ibp_bounds_the_network_with_the_attacked_batchs_statistics():
    student = make_case("resnet", 0.0)[0]
    student.requires_grad_(True).train()
    images = make_case("resnet", 0.0)[2]
    batch = Batch(images, torch.arange(6) % CLASSES, torch.arange(6))
    ball = {"epsilon": 0.002}
    method = make_method("mtl_ibp", alpha=0.5, attack_share=4.0, **ball)
    ibp = make_method("ibp", clean_weight=0.5, **ball)
    attacked = method._attacked(batch, student, 0.002)
    found, expected, of_clean = (
        m.loss(batch, None, network, AT_THE_END)["worst"]
        for m, network in (
            (method, student),
            (ibp, with_statistics_of(student, attacked)),
            (ibp, with_statistics_of(student, images)),
        )
    )
    torch.testing.assert_close(found, expected)
    assert (found - of_clean).abs() > 1e-4


def test_interval_and_linear_bounds_follow_the_weights():
    network, bounder, images, lower, upper = make_case("mlp", 0.05)
    rows = margin_rows(torch.zeros(len(images), dtype=torch.long), CLASSES, images)
    before = bounder.interval_rows(bounder.hidden(lower, upper), rows)[1]
    with torch.no_grad():
        network.body.logits.bias[1] += 3.0
    after = bounder.interval_rows(bounder.hidden(lower, upper), rows)[1]
    torch.testing.assert_close(after - before, torch.tensor([3.0, 0, 0]).double().expand(6, 3))


def directional_derivatives(parameters, value, step=1e-7):
    """Autograd's and central differences' derivative along three random directions."""
    gradients = torch.autograd.grad(value(), parameters)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        directions = [
            torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters
        ]
        by_autograd = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(parameters, directions, strict=True):
                    p.add_(d, alpha=sign * step)
                ends.append(value())
                for p, d in zip(parameters, directions, strict=True):
                    p.sub_(d, alpha=sign * step)
        yield by_autograd.item(), ((ends[0] - ends[1]) / (2 * step)).item()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mix", [0.0, 0.7])
def test_gradient_of_the_worst_case_loss_by_finite_differences(name, mix):
    network, bounder, _, lower, upper = make_case(name, 0.04)
    parameters = list(network.requires_grad_(True).parameters())
    rows = margin_rows(torch.arange(6) % CLASSES, CLASSES, lower)

    def value():
        hidden = bounder.hidden(lower, upper)
        margins = crown_ibp_upper_margins(bounder, hidden, lower, upper, rows, mix)
        return worst_case_cross_entropy(margins)

    for by_autograd, by_differences in directional_derivatives(parameters, value):
        assert by_autograd == pytest.approx(by_differences, rel=1e-4, abs=1e-6)
        assert abs(by_autograd) > 1e-3


@pytest.mark.parametrize("relaxation", ["ibp", "crown_ibp", "joint"])
@pytest.mark.parametrize("penalty", ["gap", "log_penalty"])
def test_gradient_of_the_certified_gap_by_finite_differences(relaxation, penalty):
    teacher, student, batch = frozen(make_mlp(1, (9,))), make_mlp(2), make_batch()
    method = make_method("faithful", relaxation=relaxation)
    classes = teacher(batch.images).argmax(1)

    def value():
        sides = method.gap_bounds(batch.images, classes, 4, teacher, student, 0.05)
        return torch.stack([getattr(side, penalty) for side in sides]).mean()

    for by_autograd, by_differences in directional_derivatives(list(student.parameters()), value):
        assert by_autograd == pytest.approx(by_differences, rel=1e-4, abs=1e-7)
        assert abs(by_autograd) > 1e-4


odds = st.floats(-12, 12)


@settings(deadline=None, max_examples=300)
@given(highest=odds, lowest=odds, difference=st.none() | odds)
def test_gap_bound_is_the_brute_force_maximum(highest, lowest, difference):
    bound = gap_bound(
        *(torch.tensor([v], dtype=torch.float64) for v in (highest, lowest)),
        None if difference is None else torch.tensor([difference], dtype=torch.float64),
    )
    a = torch.linspace(-30, highest, 30001, dtype=torch.float64)
    above = torch.full_like(a, lowest) if difference is None else (a - difference).clamp_min(lowest)
    best = (torch.sigmoid(a) - torch.sigmoid(above)).amax().clamp_min(0).item()
    assert bound.gap.item() >= best - 1e-12
    # Grid points are 0.0014 apart and the slope is at most 1/2.
    assert bound.gap.item() <= best + 1e-3


@settings(deadline=None, max_examples=100)
@given(above=st.floats(-30, 30), below=st.floats(-30, 30))
def test_log_penalty_is_minus_log_of_one_minus_the_gap(above, below):
    bound = GapBound(*(torch.tensor([v], dtype=torch.float64) for v in (above, below)))
    rest = 1 / (1 + math.exp(above)) + 1 / (1 + math.exp(-below))
    assert bound.log_penalty.item() == pytest.approx(max(0.0, -math.log(rest)), rel=1e-9, abs=1e-12)
    if bound.gap.item() < 0.999:
        naive = -math.log1p(-bound.gap.item())
        assert bound.log_penalty.item() == pytest.approx(naive, rel=1e-6, abs=1e-12)


def test_log_penalty_still_has_a_gradient_where_the_gap_is_one():
    above = torch.tensor([40.0], requires_grad=True)
    bound = GapBound(above, torch.tensor([-80.0]))
    assert bound.gap.item() == 1.0
    (gradient,) = torch.autograd.grad(bound.log_penalty.sum(), above)
    assert gradient.item() == pytest.approx(1.0)


def test_the_trained_relaxation_is_the_certificates_with_its_gradients():
    """The way through a ReLU made for training against the same expression left to autograd."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows, middle = draw(3, 5, 2, 4, 4), draw(3, 2, 4, 4)
    leaves = [rows, middle - draw(3, 2, 4, 4).abs(), middle + draw(3, 2, 4, 4).abs()]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    outer, weights = draw(3, 5, 2, 4, 4), draw(3, 5)

    def plain(rows, relaxation):
        positive, negative = rows.clamp_min(0), rows.clamp_max(0)
        slope, lower = relaxation.slope.unsqueeze(1), relaxation.default.unsqueeze(1)
        constant = (positive * relaxation.intercept.unsqueeze(1)).flatten(2).sum(2)
        return positive * slope + negative * lower, constant

    relaxation = Relaxation.of(*leaves[1:])
    assert relaxation.is_open.any() and not relaxation.is_open.all()
    quick = relaxation.back(rows, None)
    assert quick[0].grad_fn.name() == "_TrainedBackward"
    gradients = []
    for passed, constant in (quick, plain(rows, relaxation)):
        loss = (passed * outer).sum() + (constant * weights).sum()
        gradients.append(torch.autograd.grad(loss, leaves, retain_graph=True))
    torch.testing.assert_close(quick, plain(rows, relaxation))
    torch.testing.assert_close(*gradients)
    # Certificates, which train nothing, keep to the expression that their stored results came from.
    with torch.no_grad():
        assert Relaxation.of(*leaves[1:]).back(rows, None)[0].grad_fn is None
    kept = Relaxation.of(*(leaf.detach() for leaf in leaves[1:])).back(rows, None)
    assert kept[0].grad_fn.name() != "_TrainedBackward"
