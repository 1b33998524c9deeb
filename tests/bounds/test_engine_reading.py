"""Networks that are easily read wrongly: bounded soundly, or refused; never bounded as something else."""

import pytest
import torch
from torch import nn

from fkd.attacks.objectives import confidence
from fkd.bounds import certificate_config, make_certificate
from fkd.bounds._pair import Pair
from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.propagate import Propagator
from fkd.core.ball import Ball
from fkd.core.errors import UnsupportedModelError
from fkd.core.precision import double_copy
from fkd.models.base import Normalisation
from tests.support.tiny_pairs import SETTINGS, samples

CLASSES = torch.tensor([0, 1, 2, 0])


def _images(side=3):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 1, side, side, generator=generator)


def _scaled(network, factor):
    with torch.no_grad():
        for part in network.parameters():
            part.mul_(factor)
    return network.eval().requires_grad_(False)


class Strides(nn.Module):
    """A sum whose branches reach the image with different strides."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.normalisation = Normalisation([0.4], [0.3])
        self.one, self.two = nn.Conv2d(1, 2, 2, 1), nn.Conv2d(1, 2, 1, 2)
        self.last = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
        _scaled(self, 3.0)

    def forward(self, images):
        images = self.normalisation(images)
        return self.last(self.one(images) + self.two(images))


class Beyond(nn.Module):
    """A window of one cell that may lie beyond the map, above a layer with a bias."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.wide = nn.Conv2d(1, 2, 3, padding=2)
        self.narrow = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1, padding=1))
        self.last = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(50, 3))
        _scaled(self, 2.0)
        with torch.no_grad():
            self.narrow[0].bias.mul_(4.0)

    def forward(self, images):
        return self.last(self.wide(images) + self.narrow(images))


def _padded_by(kernel, seed, spread=0.0):
    """Networks of one shape whatever the kernel, so that they count as copies."""
    torch.manual_seed(seed)
    first = nn.Conv2d(1, 1, kernel, padding=(kernel + 1) // 2)
    network = nn.Sequential(
        Normalisation([0.4], [0.1]), first, nn.ReLU(), nn.Flatten(), nn.Linear(25, 3)
    )
    with torch.no_grad():
        first.weight.copy_(spread * torch.randn(first.weight.shape))
        first.weight[0, 0, kernel // 2, kernel // 2] += 1.0
        first.bias.fill_(0.2)
    return network.eval().requires_grad_(False)


def _copies_of_other_kernels():
    teacher, student = _padded_by(1, 1), _padded_by(3, 101, spread=0.3)
    student[4].load_state_dict(teacher[4].state_dict())
    return teacher, _scaled_last(student, 0.0)


def _scaled_last(network, factor):
    with torch.no_grad():
        network[4].weight.mul_(factor)
    return network


class Standardised(nn.Conv2d):
    """A layer that is a convolution by name only."""

    def forward(self, images):
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return nn.functional.conv2d(images, 3 * weight, self.bias)


def _with(first, seed, size=8):
    torch.manual_seed(seed)
    return _scaled(nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(size, 3)), 2.0)


def _hooked(seed):
    network = _with(nn.Conv2d(1, 2, 2), seed)
    network[0].register_forward_hook(lambda module, inputs, output: 3 * output + 1)
    return network


class Alias(nn.Module):
    """An in-place ReLU on another name of a value that is read afterwards."""

    def __init__(self, seed, alias):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.alias = nn.Conv2d(1, 2, 2), alias
        self.relu, self.flatten = nn.ReLU(inplace=True), nn.Flatten()
        self.one, self.two = nn.Linear(8, 3), nn.Linear(8, 3)
        _scaled(self, 3.0)

    def forward(self, images):
        values = self.first(images)
        rectified = self.relu(self.alias(values))
        return self.one(self.flatten(rectified)) + self.two(self.flatten(values))


def _huge(seed, scales=(1e13, 1e13, 1e13)):
    """Hidden units around the largest float32, logits around 1."""
    generator = torch.Generator().manual_seed(seed)
    layers, width, product = [nn.Flatten()], 9, 1.0
    for number, scale in enumerate(scales):
        layer = nn.Linear(width, 6, bias=number == 0)
        layer.weight.data = scale * torch.randn(6, width, generator=generator)
        if number == 0:
            layer.bias.data = -layer.weight.data.sum(1) * 0.5
        layers += [layer, nn.ReLU()]
        width, product = 6, product * scale
    last = nn.Linear(width, 3, bias=False)
    weight = torch.randn(3, width, generator=generator).double() * 3 / product
    last.weight.data = weight.float()
    return nn.Sequential(*layers, last).eval().requires_grad_(False)


PAIRS = {
    "different strides": lambda: (Strides(0), Strides(9)),
    "beyond the map": lambda: (Beyond(2), Beyond(12)),
    "copies of other kernels": _copies_of_other_kernels,
    "a subclass": lambda: (_with(Standardised(1, 2, 2), 0), _with(nn.Conv2d(1, 2, 2), 1)),
    "a hook": lambda: (_hooked(0), _with(nn.Conv2d(1, 2, 2), 1)),
    "an alias": lambda: (Alias(1, nn.Identity()), Alias(2, nn.Identity())),
    "another alias": lambda: (Alias(1, nn.Flatten()), Alias(2, nn.Flatten())),
    "huge numbers": lambda: (_huge(2), _huge(3)),
}


def _worst(result, networks, region):
    """By how much sampled points of the sets exceed what is claimed."""
    lower, upper = region.double_limits()
    worst = -torch.inf
    for row in range(len(region)):
        points = samples(lower[row].flatten(), upper[row].flatten(), 4000, seed=row)
        points = points.unflatten(1, region.images.shape[1:])
        if region.norm == "l2":
            points = region[row : row + 1].repeat(len(points)).clamp(points.float()).double()
        with torch.no_grad():
            logits = [network(points.clone()) for network in networks]
        classes = CLASSES[row].expand(len(points))
        gaps = confidence(logits[0], classes) - confidence(logits[1], classes)
        over = max(
            float(gaps.max() - result.gap_upper[row]), float(result.gap_lower[row] - gaps.min())
        )
        worst = max(worst, over)
        chosen = [part.argmax(1) for part in logits]
        assert not (result.agrees[row] and (chosen[0] != chosen[1]).any())
        for robust, part in zip(
            (result.teacher_robust, result.student_robust), chosen, strict=True
        ):
            assert not (robust[row] and len(part.unique()) > 1)
    return worst


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("level", ["fast", "tight"])
@pytest.mark.parametrize("name", PAIRS)
def test_what_is_bounded_is_what_the_network_computes(name, level, norm):
    networks = PAIRS[name]()
    images = _images()
    region = Ball(epsilon=0.15, norm=norm).region(images, torch.arange(4))
    config = certificate_config({"name": level, **SETTINGS.get(level, {})})
    try:
        result = make_certificate(config).bound(*networks, region, CLASSES)
    except UnsupportedModelError:
        # Neither path can: nothing is claimed.
        assert name in ("a subclass", "a hook", "an alias", "another alias")
        return
    assert _worst(result, [double_copy(network) for network in networks], region) <= 1e-12


class LeftNumber(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))

    def forward(self, images):
        return self.last(1.0 + images)


class Broadcast(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 3)
        self.last = nn.Sequential(nn.Flatten(), nn.Linear(18, 3))

    def forward(self, images):
        return self.last(self.one(images) + self.two(images))


@pytest.mark.parametrize(
    "network",
    [
        LeftNumber(),
        Broadcast(),
        nn.Sequential(nn.Linear(3, 3), nn.Flatten(), nn.Linear(9, 3)),
        _with(Standardised(1, 2, 2), 0),
        _hooked(0),
        Alias(1, nn.Flatten()),
    ],
    ids=["left number", "broadcast", "linear on a map", "subclass", "hook", "alias"],
)
def test_the_engine_refuses_what_it_cannot_read(network):
    network = network.eval().requires_grad_(False)
    with pytest.raises(UnsupportedModelError, match=r"cannot pass through"):
        Pair(network, network, _images()[:1])


class Parametrised(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_parametrised_layers_are_read():
    network = _with(nn.Conv2d(1, 2, 2), 0)
    nn.utils.parametrize.register_parametrization(network[0], "weight", Parametrised())
    network = network.eval().requires_grad_(False)
    assert Pair(network, network, _images()[:1]).is_identical


def test_a_network_and_itself_have_no_gap_at_all():
    networks = _padded_by(3, 5), _padded_by(3, 5)
    region = Ball(epsilon=0.3).region(_images(), torch.arange(4))
    for level in ("fast", "tight"):
        config = certificate_config({"name": level, **SETTINGS.get(level, {})})
        result = make_certificate(config).bound(*networks, region, CLASSES)
        assert (result.gap == 0).all()
        assert result.agrees.all()
    # One weight apart by one rounding: a bound, and no longer exactly 0.
    with torch.no_grad():
        weight = networks[1][1].weight
        weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], torch.tensor(9.0))
    other = make_certificate(certificate_config({"name": "fast"})).bound(*networks, region, CLASSES)
    assert (other.gap > 0).all()


@pytest.mark.parametrize("mean", [1e3, 1e9, 1e12])
def test_batch_norms_whose_shift_cancels_keep_their_slack(mean):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(1)
    with torch.no_grad():
        norm.running_mean.fill_(mean)
        norm.running_var.fill_(0.37)
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        norm.bias.copy_(norm.running_mean.double() * scale)
    propagator = Propagator(_with(norm, 1, size=9), _images()[:1])
    region = Ball(epsilon=0.0).region(_images(), torch.arange(4))
    hidden = propagator.hidden(InputSet.of(region))
    (size,) = hidden.sizes.values()
    # What float64 rounds away in mean times scale.
    assert (propagator.slack * size >= mean * 2.0**-53 * scale.item()).all()
