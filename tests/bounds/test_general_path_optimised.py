"""alpha-CROWN in the general path: which release has it, and what it does where it works.

Release 0.3, the one that can be installed, has the method as well: with the version said to be 0.7 its
optimisation of ReLU layers is run for real, beside leaky ReLUs that keep the engine away.
"""

import importlib.metadata

import pytest
import torch
from torch import nn

from fkd.attacks import attack_config, make_attack
from fkd.attacks.objectives import confidence
from fkd.bounds import _alpha_crown, certificate_config, make_certificate
from fkd.bounds._alpha_crown import SlopeOptimiser
from fkd.bounds.crown import CrownConfig, JointCrown
from fkd.bounds.joint import JointBounder
from fkd.core import lirpa_compat
from fkd.core.ball import Ball
from fkd.core.precision import double_copy
from tests.support.networks import make_images

pytestmark = pytest.mark.slow

CLASSES = 3


def _dense(activations, seed, *, inputs=9, gain=2.0):
    torch.manual_seed(seed)
    layers, width = [nn.Flatten()], inputs
    for activation in activations:
        layers += [nn.Linear(width, 12), activation]
        width = 12
    return _scaled([*layers, nn.Linear(width, CLASSES)], gain)


def _convolutional(activations, seed, *, gain=1.5):
    torch.manual_seed(seed)
    first, second, third = activations
    layers = [nn.Conv2d(1, 4, 3, padding=1), first, nn.Conv2d(4, 4, 3), second, nn.Flatten()]
    return _scaled([*layers, nn.Linear(16, 10), third, nn.Linear(10, CLASSES)], gain)


def _pooled(seed):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 3, 2), nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.Flatten()]
    return _scaled([*layers, nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, CLASSES)], 2.0)


def _scaled(layers, gain):
    network = nn.Sequential(*layers).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.mul_(gain)
    return network


def _mixed(seed):
    """Leaky ReLUs first, which only auto_LiRPA reads, then ReLUs, whose slopes release 0.3 optimises."""
    return _dense([nn.LeakyReLU(0.1), nn.ReLU(), nn.ReLU()], seed)


def _question(shape, *, epsilon=0.12, norm="linf", count=6, seed=0):
    images = make_images(count, shape, seed)
    region = Ball(epsilon=epsilon, norm=norm).region(images, torch.arange(count))
    return region, torch.arange(count) % CLASSES


def _both(teacher, student, region, classes):
    plain, optimised = (
        JointCrown(CrownConfig(), is_optimised=flag).bound(teacher, student, region, classes)
        for flag in (False, True)
    )
    return plain, optimised


def _check_never_looser(plain, optimised):
    assert (optimised.gap_upper <= plain.gap_upper).all()
    assert (optimised.gap_lower >= plain.gap_lower).all()
    for name in ("agrees", "teacher_robust", "student_robust"):
        assert (getattr(optimised, name) >= getattr(plain, name)).all()


def _same(one, other):
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("gap_upper", "gap_lower", "agrees", "teacher_robust", "student_robust")
    )


@pytest.fixture
def later_release(monkeypatch):
    """auto_LiRPA says that it is 0.7; what release 0.3 cannot do of itself is mended.

    It clamps slopes in TorchScript, where nothing can be changed from outside (`_ForSlopes`), and with
    ``verbosity`` 0 it fails where nine tenths of a layer's units are open.
    """
    lirpa_compat.load_auto_lirpa()
    from auto_LiRPA.operators.activation import BoundRelu

    def mask(lower, upper, *slopes):
        active, idle = (lower >= 0).to(lower.dtype), upper <= 0
        is_open = (1.0 - active) * (1.0 - idle.to(upper.dtype))
        masked = (
            None if part is None else torch.clamp(part, min=0.0, max=1.0) * is_open + active
            for part in slopes
        )
        return *masked, idle.all()

    monkeypatch.setattr(lirpa_compat, "lirpa_version", lambda: (0, 7))
    if isinstance(BoundRelu._relu_mask_alpha, torch.jit.ScriptFunction):
        monkeypatch.setattr(BoundRelu, "_relu_mask_alpha", staticmethod(mask))
    monkeypatch.setitem(_alpha_crown._OPTIONS, "sparse_features_alpha", False)
    monkeypatch.setitem(_alpha_crown._SCHEDULE, "iteration", 8)


@pytest.fixture
def failures(monkeypatch):
    """Every reason for which an optimiser gave up, in order, None where it did not."""
    seen = []
    attempt = SlopeOptimiser._attempt

    def recorded(self, *rest):
        result = attempt(self, *rest)
        seen.append(self.failure)
        return result

    monkeypatch.setattr(SlopeOptimiser, "_attempt", recorded)
    return seen


# --- The version in use


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("0.3", (0, 3)),
        ("0.7.1", (0, 7, 1)),
        ("0.7rc1", (0, 7)),
        ("v0.7+cu126", (0, 7)),
        ("0.10.dev3", (0, 10)),
        ("1!1.2.post4", (1, 2)),
        ("2026.1", (2026, 1)),
        ("unknown", ()),
        ("", ()),
        (None, ()),
    ],
)
def test_any_version_text_is_read(monkeypatch, text, release):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: text)
    assert lirpa_compat.lirpa_version() == release
    assert lirpa_compat.has_alpha_crown() == (release >= (0, 7))


def test_an_absent_auto_lirpa_has_no_version(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert lirpa_compat.lirpa_version() == () and not lirpa_compat.has_alpha_crown()


def test_the_installed_release_is_used_as_far_as_it_goes(failures):
    """Below 0.7: off, and the levels give plain CROWN's numbers.  From 0.7 on: on."""
    installed = tuple(int(part) for part in importlib.metadata.version("auto_LiRPA").split(".")[:2])
    assert lirpa_compat.lirpa_version()[:2] == installed
    # The options that both generations of the API share are there under these names.
    module = JointBounder(_mixed(0), _mixed(1), torch.rand(1, 1, 3, 3)).build()
    schedule = module.bound_opts["optimize_bound_args"]
    assert {"iteration", "lr_alpha", "early_stop_patience"} <= schedule.keys()
    is_renamed = "fix_interm_bounds" in schedule
    assert is_renamed == (installed >= (0, 4))
    region, classes = _question((1, 3, 3))
    plain, optimised = _both(_mixed(0), _mixed(1), region, classes)
    if installed < (0, 7):
        assert not failures
        assert _same(plain, optimised)
    else:
        assert failures and failures[-1] is None
        _check_never_looser(plain, optimised)
        assert optimised.gap.mean() < plain.gap.mean()


@pytest.mark.parametrize(("level", "is_used"), [("fast", False), ("tight", True), ("exact", True)])
def test_levels_above_fast_optimise_where_the_engine_cannot_read(
    later_release, failures, level, is_used
):
    region, classes = _question((1, 3, 3), count=2)
    certificate = make_certificate(certificate_config({"name": level}))
    found = certificate.bound(_mixed(0), _mixed(1), region, classes)
    assert bool(failures) == is_used
    plain, optimised = _both(_mixed(0), _mixed(1), region, classes)
    assert _same(found, optimised if is_used else plain)
    assert _same(plain, optimised) is False


# --- Where it works


@pytest.mark.parametrize(
    ("kind", "norm", "epsilon"),
    [
        ("dense", "linf", 0.05),
        ("dense", "linf", 0.15),
        ("dense", "l2", 0.3),
        ("convolutional", "linf", 0.15),
        ("convolutional", "l2", 0.3),
    ],
)
def test_optimised_bounds_are_sound_never_looser_and_tighter_on_average(
    later_release, failures, norm, epsilon, kind
):
    shape, make = ((1, 3, 3), _mixed) if kind == "dense" else ((1, 4, 4), _mixed_convolutional)
    narrower = []
    for seed in range(2):
        teacher, student = make(2 * seed), make(2 * seed + 1)
        region, classes = _question(shape, epsilon=epsilon, norm=norm, seed=seed)
        plain, optimised = _both(teacher, student, region, classes)
        assert failures and failures[-1] is None
        _check_never_looser(plain, optimised)
        narrower.append((plain.gap - optimised.gap).mean())
        _check_sound(teacher, student, region, classes, optimised)
    assert torch.stack(narrower).mean() > 1e-4


def _mixed_convolutional(seed):
    return _convolutional([nn.LeakyReLU(0.1), nn.ReLU(), nn.ReLU()], seed)


def _check_sound(teacher, student, region, classes, result, count=2000):
    generator = torch.Generator().manual_seed(0)
    many = region.repeat(count)
    share = torch.rand(many.images.shape, generator=generator)
    share = torch.where(torch.arange(len(many))[:, None, None, None] % 2 == 0, share, share.round())
    points = many.clamp(many.lower + share * (many.upper - many.lower)).double()
    each = classes.repeat_interleave(count)
    z_teacher, z_student = double_copy(teacher)(points), double_copy(student)(points)
    gap = (confidence(z_teacher, each) - confidence(z_student, each)).view(-1, count)
    assert (gap.amax(1) <= result.gap_upper).all()
    assert (gap.amin(1) >= result.gap_lower).all()
    differ = (z_teacher.argmax(1) != z_student.argmax(1)).view(-1, count).any(1)
    assert not (differ & result.agrees).any()
    attacked = make_attack(attack_config({"name": "pgd", "steps": 20})).run(
        teacher, student, region, classes, seed=0
    )
    assert (attacked.gap <= result.gap).all()
    assert not (attacked.disagrees & result.agrees).any()


def test_rows_are_never_looser_and_hold_the_values_of_a_dense_grid(later_release):
    teacher, student = (
        _dense([nn.LeakyReLU(0.1), nn.ReLU(), nn.ReLU()], seed, inputs=2) for seed in (3, 4)
    )
    region, _ = _question((1, 1, 2), epsilon=0.3, count=1)
    bounder = JointBounder(teacher, student, region.images)
    rows = torch.randn(1, 7, 2 * CLASSES, generator=torch.Generator().manual_seed(0)).double()
    known = bounder.bound(region, rows)
    optimiser = SlopeOptimiser.of(bounder)
    lower, upper = optimiser.tighten(region, rows, known)
    assert (lower >= known[0]).all() and (upper <= known[1]).all()
    assert (upper - lower).mean() < (known[1] - known[0]).mean() - 1e-4
    # The rows of a second pass, upper bounds alone, come out as in the first.
    again = optimiser.tighten_upper(region, rows, bounder.upper_again(region, rows))
    torch.testing.assert_close(again, upper, atol=1e-9, rtol=0)
    axes = [torch.linspace(0, 1, 301).double() for _ in range(2)]
    low, high = (end.double().flatten() for end in (region.lower, region.upper))
    grid = low + torch.cartesian_prod(*axes) * (high - low)
    logits = torch.cat(bounder.logits(grid.view(-1, 1, 1, 2)), dim=1)
    values = logits @ rows[0].T
    assert (values.amax(0) <= upper[0]).all() and (values.amin(0) >= lower[0]).all()


def test_a_chunk_at_a_time_gives_the_same_bounds(later_release):
    region, classes = _question((1, 3, 3), count=5)
    whole, parts = (
        JointCrown(CrownConfig(rows=rows), is_optimised=True).bound(
            _mixed(0), _mixed(1), region, classes
        )
        for rows in (64, 2)
    )
    # How long is optimised depends on the whole chunk, so not to the last digit.
    torch.testing.assert_close(whole.gap_upper, parts.gap_upper, atol=1e-3, rtol=0)
    torch.testing.assert_close(whole.gap_lower, parts.gap_lower, atol=1e-3, rtol=0)


# --- Where it does not


@pytest.mark.parametrize("case", ["pooled", "convolutional"])
def test_plain_crown_stands_where_auto_lirpa_fails(later_release, failures, monkeypatch, case):
    """Max pooling fails of itself in 0.3; convolutions of leaky ReLUs do in its faster mode."""
    if case == "pooled":
        shape, networks = (1, 3, 3), [_pooled(seed) for seed in (0, 1)]
    else:
        leaky = [nn.LeakyReLU(0.1)] * 3
        shape, networks = (1, 4, 4), [_convolutional(leaky, seed) for seed in (0, 1)]
        monkeypatch.setitem(_alpha_crown._OPTIONS, "conv_mode", "patches")
    region, classes = _question(shape, epsilon=0.05)
    builds = []
    build = JointBounder.build
    monkeypatch.setattr(
        JointBounder, "build", lambda self, **rest: builds.append(rest) or build(self, **rest)
    )
    # Three chunks of two examples: once it has failed it is not tried again.
    config = CrownConfig(rows=2)
    plain = JointCrown(config).bound(*networks, region, classes)
    builds.clear()
    optimised = JointCrown(config, is_optimised=True).bound(*networks, region, classes)
    assert _same(plain, optimised)
    assert len(failures) == 3 and len(set(map(id, failures))) == 1 and failures[0] is not None
    assert sum("optimize_bound_args" in options for options in builds) == 1


@pytest.mark.parametrize("wrong", ["beyond", "contradiction", "shape", "rounded", "nan"])
def test_what_comes_back_is_not_trusted(later_release, failures, monkeypatch, wrong):
    """Wrong bounds are refused; what was rounded to float32 is widened; NaN changes nothing."""
    compute = SlopeOptimiser._compute

    def tampered(self, region, specification, *, bound_lower):
        lower, upper = compute(self, region, specification, bound_lower=bound_lower)
        if wrong == "beyond":
            upper = upper.clone()
            upper[0, 0] -= 100.0
        elif wrong == "contradiction" and lower is not None:
            lower = lower + 100.0
        elif wrong == "shape":
            upper = upper[:, :1]
        elif wrong == "nan":
            upper = torch.full_like(upper, torch.nan)
            lower = None if lower is None else torch.full_like(lower, torch.nan)
        elif wrong == "rounded":
            upper = _alpha_crown._in_double(upper.float(), 1.0)
            lower = None if lower is None else _alpha_crown._in_double(lower.float(), -1.0)
        return lower, upper

    region, classes = _question((1, 3, 3), count=3)
    networks = _mixed(0), _mixed(1)
    plain, honest = _both(*networks, region, classes)
    monkeypatch.setattr(SlopeOptimiser, "_compute", tampered)
    found = JointCrown(CrownConfig(), is_optimised=True).bound(*networks, region, classes)
    if wrong == "rounded":
        assert failures[-1] is None
        assert (found.gap_upper >= honest.gap_upper).all()
        torch.testing.assert_close(found.gap_upper, honest.gap_upper, atol=1e-5, rtol=0)
    else:
        assert _same(found, plain)
    if wrong in ("beyond", "contradiction", "shape"):
        assert isinstance(failures[-1], ArithmeticError)


def test_bounds_in_float32_are_moved_a_step_outwards():
    exact = 1.0 + torch.rand(1000, generator=torch.Generator().manual_seed(0)).double()
    assert (_alpha_crown._in_double(exact.float(), 1.0) >= exact).all()
    assert (_alpha_crown._in_double(exact.float(), -1.0) <= exact).all()
    assert torch.equal(_alpha_crown._in_double(exact, 1.0), exact)


def test_short_memory_halves_the_chunk_and_then_gives_up(later_release, failures, monkeypatch):
    sizes = []

    def short(self, region, specification, *, bound_lower):
        sizes.append(len(region))
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(SlopeOptimiser, "_compute", short)
    region, classes = _question((1, 3, 3), count=4)
    plain, optimised = (
        JointCrown(CrownConfig(rows=4), is_optimised=flag).bound(
            _mixed(0), _mixed(1), region, classes
        )
        for flag in (False, True)
    )
    torch.testing.assert_close(plain.gap_upper, optimised.gap_upper, atol=1e-9, rtol=0)
    # Two halvings, then a single example, and no further attempt.
    assert sizes == [4, 2, 1]


def test_slopes_move_from_the_ends_where_they_start():
    """Since torch 2.14 a clamp has no gradient there, and alpha-CROWN would optimise nothing."""
    for clamp in (
        lambda part: torch.clamp(part, min=0.0, max=1.0),
        lambda part: torch.clamp(part, 0.0, 1.0),
        lambda part: part.clamp(0, 1),
    ):
        part = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0], requires_grad=True)
        with _alpha_crown._ForSlopes():
            value = clamp(part)
        value.sum().backward()
        assert torch.equal(value.detach(), part.detach().clamp(0.0, 1.0))
        assert part.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
