"""No sample, corner or attack may exceed a certificate; where the truth is known, it is met."""

import pytest
import torch

from fkd.attacks import attack_config, make_attack
from fkd.attacks.objectives import confidence
from fkd.bounds import CERTIFICATES, certificate_config, make_certificate
from fkd.bounds._rows import MarginBounds
from fkd.bounds.engine.intervals import other_classes
from fkd.bounds.joint import JointBounder
from fkd.core.ball import Ball
from fkd.core.errors import ConfigError, UnsupportedModelError
from fkd.core.lirpa_compat import load_auto_lirpa
from fkd.core.precision import double_copy
from tests.support.networks import PAIRS, make_images, make_linear, make_network, make_pair

pytestmark = pytest.mark.slow


def _certify(teacher, student, region, classes, name="crown"):
    # Of levels that split: a wrong bound shows after the first domains.
    settings = {"tight": {"domains": 6}, "exact": {"domains": 12, "seconds": 0.0}}.get(name, {})
    return make_certificate(certificate_config({"name": name, **settings})).bound(
        teacher, student, region, classes
    )


def _samples(region, count, seed):
    """Uniform points and corners of every box, float64 (count, N, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    lower, upper = region.lower.double(), region.upper.double()
    shape = (count, *lower.shape)
    share = torch.rand(shape, generator=generator, dtype=torch.float64)
    corners = (torch.rand(shape, generator=generator) > 0.5).double()
    share = torch.where(torch.arange(count)[:, None, None, None, None] % 2 == 0, share, corners)
    return lower + share * (upper - lower)


def _check_sampling(teacher, student, region, classes, result, count=400, seed=0):
    exact_teacher, exact_student = double_copy(teacher), double_copy(student)
    points = _samples(region, count, seed).flatten(0, 1)
    z_teacher, z_student = exact_teacher(points), exact_student(points)
    each = classes.repeat(count)
    gap = (confidence(z_teacher, each) - confidence(z_student, each)).view(count, -1)
    assert (gap <= result.gap_upper + 1e-12).all()
    assert (gap >= result.gap_lower - 1e-12).all()
    differ = (z_teacher.argmax(1) != z_student.argmax(1)).view(count, -1).any(0)
    assert not (differ & result.agrees).any()
    for logits, robust in ((z_teacher, result.teacher_robust), (z_student, result.student_robust)):
        predictions = logits.argmax(1).view(count, -1)
        assert not ((predictions != predictions[0]).any(0) & robust).any()
    return gap


@pytest.mark.parametrize("certificate", sorted(CERTIFICATES))
@pytest.mark.parametrize("pair", sorted(PAIRS))
@pytest.mark.parametrize("epsilon", [0.01, 0.08])
def test_nothing_in_the_ball_exceeds_the_certificate(pair, certificate, epsilon):
    for seed in range(2):
        teacher, student, shape, classes = make_pair(pair, seed)
        images = make_images(12, shape, seed)
        region = Ball(epsilon=epsilon).region(images, torch.arange(12))
        labels = torch.arange(12) % classes
        result = _certify(teacher, student, region, labels, certificate)
        _check_sampling(teacher, student, region, labels, result, seed=seed)
        attacked = make_attack(attack_config({"name": "pgd", "steps": 15})).run(
            teacher, student, region, labels, seed=seed
        )
        assert (attacked.gap <= result.gap + 1e-12).all()
        assert not (attacked.disagrees & result.agrees).any()


def test_dense_grid_on_two_pixels_is_bounded_and_nearly_met():
    teacher = make_network("mlp", {"hidden": (10,)}, image_shape=(1, 1, 2), num_classes=3, seed=4)
    student = make_network("mlp", {"hidden": (5,)}, image_shape=(1, 1, 2), num_classes=3, seed=5)
    image = torch.tensor([[[[0.5, 0.45]]]])
    region = Ball(epsilon=0.1).region(image, torch.arange(1))
    label = torch.tensor([1])
    result = _certify(teacher, student, region, label)
    axis = [
        torch.linspace(region.lower[0, 0, 0, i], region.upper[0, 0, 0, i], 401).double()
        for i in range(2)
    ]
    grid = torch.cartesian_prod(*axis).view(-1, 1, 1, 2)
    each = label.expand(len(grid))
    gap = confidence(double_copy(teacher)(grid), each) - confidence(
        double_copy(student)(grid), each
    )
    assert gap.max() <= result.gap_upper.item()
    assert gap.min() >= result.gap_lower.item()
    # A bound of 1 would be sound as well: this one has to say something.
    assert result.gap_upper.item() - gap.max() < 0.1
    assert gap.min() - result.gap_lower.item() < 0.1


@pytest.mark.parametrize("pair", sorted(PAIRS))
def test_a_ball_of_radius_zero_gives_the_clean_gap(pair):
    teacher, student, shape, classes = make_pair(pair)
    images = make_images(8, shape)
    labels = torch.arange(8) % classes
    region = Ball(epsilon=0.0).region(images, torch.arange(8))
    result = _certify(teacher, student, region, labels)
    z_teacher, z_student = (double_copy(n)(images.double()) for n in (teacher, student))
    clean = confidence(z_teacher, labels) - confidence(z_student, labels)
    torch.testing.assert_close(result.gap_upper, clean, atol=1e-7, rtol=0)
    torch.testing.assert_close(result.gap_lower, clean, atol=1e-7, rtol=0)
    same = z_teacher.argmax(1) == z_student.argmax(1)
    assert torch.equal(result.agrees, same)


def test_identical_linear_networks_have_no_gap():
    network = make_linear((1, 3, 3), 4, seed=1)
    images = make_images(6, (1, 3, 3))
    region = Ball(epsilon=0.3).region(images, torch.arange(6))
    result = _certify(network, network, region, torch.zeros(6, dtype=torch.long))
    assert result.gap.max() < 1e-7


def test_the_difference_of_two_linear_networks_is_tighter_than_each_alone():
    teacher = make_linear((1, 3, 3), 4, seed=1)
    student = make_linear((1, 3, 3), 4, seed=1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.02)
    images = make_images(6, (1, 3, 3))
    labels = torch.zeros(6, dtype=torch.long)
    region = Ball(epsilon=0.3).region(images, torch.arange(6))
    joint = _certify(teacher, student, region, labels)
    alone = [_certify(n, n, region, labels) for n in (teacher, student)]
    assert (joint.gap < 0.2).all()
    assert max(part.gap.max() for part in alone) < 1e-7
    gap = _check_sampling(teacher, student, region, labels, joint)
    assert (joint.gap_upper - gap.amax(0)).max() < 0.1


def test_swapping_teacher_and_student_mirrors_the_interval():
    teacher, student, shape, classes = make_pair("mlp")
    images = make_images(8, shape)
    labels = torch.arange(8) % classes
    region = Ball(epsilon=0.05).region(images, torch.arange(8))
    forth, back = (
        _certify(teacher, student, region, labels),
        _certify(student, teacher, region, labels),
    )
    torch.testing.assert_close(forth.gap_upper, -back.gap_lower, atol=1e-9, rtol=0)
    torch.testing.assert_close(forth.gap_lower, -back.gap_upper, atol=1e-9, rtol=0)
    assert torch.equal(forth.agrees, back.agrees)


def test_shifted_logits_and_permuted_classes_change_nothing():
    teacher, student, shape, classes = make_pair("mlp")
    images = make_images(8, shape)
    labels = torch.arange(8) % classes
    region = Ball(epsilon=0.05).region(images, torch.arange(8))
    before = _certify(teacher, student, region, labels)
    order = torch.tensor([2, 0, 3, 1])
    place = torch.argsort(order)
    with torch.no_grad():
        for network in (teacher, student):
            last = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]
            last.bias.add_(3.0)
            last.weight.copy_(last.weight[order].clone())
            last.bias.copy_(last.bias[order].clone())
    after = _certify(teacher, student, region, place[labels])
    torch.testing.assert_close(before.gap_upper, after.gap_upper, atol=1e-6, rtol=0)
    torch.testing.assert_close(before.gap_lower, after.gap_lower, atol=1e-6, rtol=0)
    assert torch.equal(before.agrees, after.agrees)


def test_rows_equal_auto_lirpas_crown_on_each_network():
    teacher, student, shape, classes = make_pair("convolutional")
    images = make_images(5, shape)
    region = Ball(epsilon=0.05).region(images, torch.arange(5))
    rows = torch.randn(5, 4, 2 * classes, dtype=torch.float64)
    rows[:, :2, classes:] = 0
    lower, upper = JointBounder(teacher, student, images[:1]).bound(region, rows)
    lirpa = load_auto_lirpa()
    alone = double_copy(teacher)
    for module in alone.modules():
        module._non_persistent_buffers_set.clear()
    bounded = lirpa.BoundedModule(alone, images[:1].double(), device="cpu")
    ball = lirpa.PerturbationLpNorm(
        norm=float("inf"), x_L=region.lower.double(), x_U=region.upper.double()
    )
    expected = bounded.compute_bounds(
        x=(lirpa.BoundedTensor(images.double(), ball),), C=rows[:, :2, :classes], method="CROWN"
    )
    torch.testing.assert_close(lower[:, :2], expected[0].detach(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(upper[:, :2], expected[1].detach(), atol=1e-6, rtol=1e-6)


def test_batches_and_single_examples_give_the_same_bounds():
    teacher, student, shape, classes = make_pair("convolutional")
    images = make_images(7, shape)
    labels = torch.arange(7) % classes
    region = Ball(epsilon=0.05).region(images, torch.arange(7))
    whole = _certify(teacher, student, region, labels)
    parts = make_certificate(certificate_config({"name": "crown", "rows": 2})).bound(
        teacher, student, region, labels
    )
    torch.testing.assert_close(whole.gap_upper, parts.gap_upper, atol=1e-9, rtol=0)
    assert torch.equal(whole.agrees, parts.agrees)


def test_agreement_logic_against_random_points_of_the_intervals():
    generator = torch.Generator().manual_seed(0)
    others, count = 3, 4000
    centre = torch.randn(count, 2 * others, generator=generator) - 1.0
    radius = torch.rand(count, 2 * others, generator=generator)
    draws = centre + radius * (2 * torch.rand(200, count, 2 * others, generator=generator) - 1)
    difference = draws[..., :others] - draws[..., others:]
    lower = torch.cat([centre - radius, difference.amin(0)], dim=1)
    upper = torch.cat([centre + radius, difference.amax(0)], dim=1)
    _, _, agrees = MarginBounds(lower, upper, others).agreement()
    nothing = torch.zeros(200, count, 1)
    teacher = torch.cat([nothing, draws[..., :others]], dim=2).argmax(2)
    student = torch.cat([nothing, draws[..., others:]], dim=2).argmax(2)
    assert not ((teacher != student).any(0) & agrees).any()
    assert 0.05 < agrees.float().mean() < 0.95


def test_other_classes_lists_every_class_but_the_own():
    expected = torch.tensor([[1, 2, 3], [0, 2, 3], [0, 1, 2]])
    assert torch.equal(other_classes(torch.tensor([0, 1, 3]), 4), expected)


def test_unknown_certificate_and_setting_are_named():
    with pytest.raises(ConfigError, match="no certificate called 'crwn'; did you mean 'crown'"):
        certificate_config({"name": "crwn"})
    with pytest.raises(ConfigError, match="no setting called 'depth'"):
        certificate_config({"depth": 3})


def test_an_operation_that_cannot_be_bounded_is_one_sentence():
    class Strange(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(4, 2)

        def forward(self, images):
            return self.last(torch.fft.fft(images.flatten(1)).real)

    plain = make_network("mlp", {"hidden": (3,)}, image_shape=(1, 2, 2), num_classes=2, seed=0)
    region = Ball(epsilon=0.1).region(make_images(2, (1, 2, 2)), torch.arange(2))
    with pytest.raises(UnsupportedModelError, match="cannot bound this pair") as caught:
        _certify(Strange().eval(), plain, region, torch.zeros(2, dtype=torch.long))
    assert "\n" not in str(caught.value)


class _HalfHidden(torch.nn.Module):
    """(leaky(2x - 0.9) + relu(bx') - relu(bx'), 0) with x' = 2x - 1: looseness at x' = 0 alone."""

    def __init__(self, slope, loose):
        super().__init__()
        self.leaky, self.relu = torch.nn.LeakyReLU(slope), torch.nn.ReLU()
        self.one, self.two = torch.nn.Linear(1, 1), torch.nn.Linear(1, 2)
        self.sum = torch.nn.Linear(2, 2)
        with torch.no_grad():
            self.one.weight.fill_(2.0), self.one.bias.fill_(-0.9)
            self.two.weight.fill_(2.0 * loose), self.two.bias.fill_(-loose)
            self.sum.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
            self.sum.bias.zero_()

    def forward(self, images):
        pixel = images.flatten(1)
        first = self.leaky(self.one(pixel))
        return torch.cat([first, 0.0 * first], dim=1) + self.sum(self.relu(self.two(pixel)))


@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0])
def test_leaky_slopes_up_to_one_are_bounded(slope):
    network = _HalfHidden(slope, 1.0).eval().requires_grad_(False)
    flat = make_linear((1, 1, 1), 2, seed=0)
    region = Ball(epsilon=0.5).region(torch.full((1, 1, 1, 1), 0.5), torch.arange(1))
    label = torch.zeros(1, dtype=torch.long)
    _check_sampling(network, flat, region, label, _certify(network, flat, region, label))


def test_leaky_slopes_above_one_are_refused_although_nothing_is_wrong_at_the_image():
    # The bound would be -0.21 where -0.47 is reached, and holds the value at the image.
    network = _HalfHidden(4.0, 1.0).eval().requires_grad_(False)
    flat = make_linear((1, 1, 1), 2, seed=0)
    region = Ball(epsilon=0.5).region(torch.full((1, 1, 1, 1), 0.5), torch.arange(1))
    with pytest.raises(UnsupportedModelError, match="slope 4 cannot be bounded"):
        _certify(network, flat, region, torch.zeros(1, dtype=torch.long))


def test_many_classes_are_bounded_a_few_images_at_a_time(monkeypatch):
    import types

    memory = types.SimpleNamespace(available=8 * 2**30)
    monkeypatch.setattr("fkd.bounds.joint.psutil.virtual_memory", lambda: memory)
    teacher, student = (
        make_network("mlp", {"hidden": (8,)}, image_shape=(1, 2, 2), num_classes=1000, seed=seed)
        for seed in (0, 1)
    )
    bounder = JointBounder(teacher, student, make_images(1, (1, 2, 2)))
    # Seen: 0.3 GiB an image.
    assert 1 <= bounder.chunk_size(rows=8 * 999 + 2) <= 2**3
