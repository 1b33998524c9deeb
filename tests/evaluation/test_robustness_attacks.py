"""Attacks on one network: exact on linear networks, inside the ball, the same whatever the batch."""

import importlib.util
import subprocess
import sys

import pytest
import torch
from torch import nn

from fkd.attacks.single import (
    MEMBERS,
    Standing,
    _library,
    left_out,
    load_attacks,
    run_autoattack,
    run_pgd,
    run_square,
)
from fkd.core.ball import Ball
from fkd.core.errors import ConfigError
from fkd.core.precision import double_copy, logits_of
from tests.support.pairs import save_digits_model


def silent(*_):
    """Take a report and go on."""


def by_pgd(standing, seed=0):
    run_pgd(standing, steps=10, restarts=3, seed=seed, tell=silent)


def by_square(standing, seed=0):
    run_square(standing, queries=300, seed=seed, tell=silent)


def by_ensemble(standing, seed=0):
    run_autoattack(standing, steps=20, queries=100, seed=seed, tell=silent)


ATTACKS = {"pgd": by_pgd, "square": by_square, "autoattack": by_ensemble}


@pytest.fixture
def digits(own_folders):
    """A network that falls on some of its 40 images, with the images and labels."""
    from fkd.data import load_split

    split = load_split("digits", "test")
    network = save_digits_model("net", "teacher").network
    return network, split.images[:40], split.labels[:40]


def standing_of(case, epsilon, norm, rows=None, scale=None):
    network, images, labels = case
    ids = torch.arange(len(images)) if rows is None else torch.tensor(rows)
    ball = Ball(epsilon=epsilon, norm=norm, channel_scale=scale)
    return Standing(network, ball.region(images[ids], ids), labels[ids])


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.06), ("l2", 0.4)])
def test_what_fell_has_a_witness_in_its_ball(digits, attack, norm, epsilon):
    standing = standing_of(digits, epsilon, norm)
    ATTACKS[attack](standing)
    assert 0 < standing.fooled.sum() < len(standing.fooled)
    assert bool((standing.region.distance(standing.witness) <= epsilon).all())
    assert standing.witness.min() >= 0 and standing.witness.max() <= 1
    predicted = logits_of(double_copy(standing.network), standing.witness).argmax(1)
    assert torch.equal(predicted != standing.labels, standing.fooled)
    left = standing.left()
    assert torch.equal(standing.witness[left], standing.region.images[left])
    assert [name is not None for name in standing.fell_to] == standing.fooled.tolist()
    assert set(standing.fell_to) <= {None, "clean", "pgd", *MEMBERS}


def linear_case(classes, norm, scale=(1.0,)):
    """A linear network on images in the middle of their range, with the exact radius of each."""
    generator = torch.Generator().manual_seed(3)
    pixels = 36 * len(scale)
    layer = nn.Linear(pixels, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, pixels, generator=generator))
        layer.bias.zero_()
    network = nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)
    images = 0.4 + 0.2 * torch.rand(24, len(scale), 6, 6, generator=generator)
    logits = network(images).double()
    labels = logits.argmax(1)
    # Moves are counted in units of their channel's scale.
    weights = layer.weight.double() * torch.tensor(scale).repeat_interleave(36)
    apart = weights[labels][:, None] - weights[None]
    margins = logits.gather(1, labels[:, None]) - logits
    # |w . d| <= epsilon ||w||, in the dual norm: attained, since no pixel reaches 0 or 1.
    lengths = apart.abs().sum(2) if norm == "linf" else apart.square().sum(2).sqrt()
    ratios = margins / lengths
    ratios[torch.arange(len(labels)), labels] = torch.inf
    return (network, images, labels), ratios.min(1).values


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("scale", [None, (0.5, 0.25, 2.0)], ids=["pixels", "channels"])
def test_of_a_linear_network_all_is_found(norm, classes, scale):
    case, radius = linear_case(classes, norm, scale or (1.0,))
    epsilon = float(radius.median()) * 1.0001
    # Within a thousandth of the boundary a finite number of steps may fail.
    clear = (radius / epsilon - 1).abs() > 1e-3
    expected = radius < epsilon
    assert 0 < expected.sum() < len(expected)
    for attack in (by_pgd, by_ensemble):
        standing = standing_of(case, epsilon, norm, scale=scale)
        attack(standing)
        assert torch.equal(standing.fooled[clear], expected[clear])
    # Without gradients it finds most in somewhat larger balls, and nothing that is not there.
    standing = standing_of(case, 1.5 * epsilon, norm, scale=scale)
    run_square(standing, queries=1000, seed=0, tell=silent)
    there = radius < 1.5 * epsilon
    assert not bool((standing.fooled & ~there).any())
    # In L2 its pattern is weak on three channels of random weights, with scales as without.
    assert standing.fooled.sum() >= 0.6 * there.sum() or (norm == "l2" and scale is not None)


@pytest.mark.parametrize(("norm", "reach"), [("linf", 1.2), ("l2", 3.0)])
def test_square_in_units_of_channels_is_square_on_the_network_of_such_units(norm, reach):
    scale, margin = (0.5, 0.25, 2.0), 0.5
    (network, images, _), _ = linear_case(4, norm, scale)
    # One image far from the ends of the range, 24 streams of random numbers.
    images = torch.full_like(images, 0.5)
    unit = torch.tensor(scale)[:, None, None]
    with torch.no_grad():
        network[1].bias -= network(images[:1])[0] - margin * torch.eye(4)[0]
    labels = torch.zeros(len(images), dtype=torch.int64)
    weights = (network[1].weight * torch.tensor(scale).repeat_interleave(36)).detach()
    apart = weights[:1] - weights[1:]
    lengths = apart.abs().sum(1) if norm == "linf" else apart.square().sum(1).sqrt()
    epsilon = reach * margin / float(lengths.max())
    assert epsilon * max(scale) < 0.5

    class OfUnits(nn.Module):
        def forward(self, points):
            return network(0.5 + (points - 0.5) * unit.to(points.dtype))

    scaled = standing_of((network, images, labels), epsilon, norm, scale=scale)
    plain = standing_of((OfUnits().eval(), images, labels), epsilon, norm)
    for standing in (scaled, plain):
        run_square(standing, queries=300, seed=0, tell=silent)
    assert 0 < scaled.fooled.sum() < len(images)
    assert torch.equal(scaled.fooled, plain.fooled)


def test_every_member_attacks_what_is_left(digits):
    told = []
    standing = standing_of(digits, 0.06, "linf")
    run_autoattack(
        standing, steps=5, queries=20, seed=0, tell=lambda name, share: told.append((name, share))
    )
    assert list(dict.fromkeys(name for name, _ in told)) == list(MEMBERS)
    for member in MEMBERS:
        shares = [share for name, share in told if name == member]
        assert shares == sorted(shares) and (shares[0], shares[-1]) == (0.0, 1.0)


def test_too_few_classes_leave_a_member_out():
    assert left_out(4) == {}
    assert list(left_out(3)) == ["apgd-t"]
    assert left_out(2)["apgd-t"].endswith("needs at least 4 classes, and there are 2.")
    case, radius = linear_case(2, "linf")
    told = set()
    standing = standing_of(case, float(radius.median()), "linf")
    run_autoattack(standing, steps=3, queries=5, seed=0, tell=lambda name, share: told.add(name))
    assert told == {"apgd-ce", "fab-t", "square"}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", [by_pgd, by_square])
def test_an_example_falls_alike_in_any_batch(digits, attack, norm):
    epsilon = 0.06 if norm == "linf" else 0.4
    whole = standing_of(digits, epsilon, norm)
    attack(whole)
    rows = [31, 2, 17]
    few = standing_of(digits, epsilon, norm, rows)
    attack(few)
    assert torch.equal(few.fooled, whole.fooled[rows])
    torch.testing.assert_close(few.witness, whole.witness[rows], atol=1e-5, rtol=0)


def test_the_ensemble_is_reproducible_and_leaves_the_generator_alone(digits):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (standing_of(digits, 0.06, "linf") for _ in range(3))
    by_ensemble(first)
    assert torch.equal(torch.rand(3), expected)
    by_ensemble(again)
    by_ensemble(other, seed=1)
    assert torch.equal(first.witness, again.witness)
    assert not torch.equal(first.witness, other.witness)


def test_points_that_are_no_numbers_fool_nobody(digits):
    standing = standing_of(digits, 0.06, "linf")
    before = standing.fooled.clone()
    rows = standing.left()
    standing.take(rows, torch.full_like(standing.region.images[rows], torch.nan), "x")
    assert torch.equal(standing.fooled, before)


def test_without_the_library_a_sentence_says_so(monkeypatch):
    load_attacks.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^AutoAttack needs the package adv-lib, which is not"):
        load_attacks()
    monkeypatch.undo()
    # A failed search is not remembered.
    assert hasattr(load_attacks(), "apgd_targeted")
    assert _library.library_version() != "absent"


def test_the_library_is_imported_late_and_brings_no_other_framework():
    code = (
        "import sys, fkd.evaluation, fkd.cli.robust\n"
        "assert 'adv_lib' not in sys.modules\n"
        "from fkd.attacks.single import load_attacks\n"
        "load_attacks()\n"
        "assert 'adv_lib' in sys.modules\n"
        "assert not {'visdom', 'tensorflow', 'tornado', 'keras', 'mxnet'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
