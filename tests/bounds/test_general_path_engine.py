"""The general path beside the engine: equal where both apply; operations bounded wrongly are refused."""

import pytest
import torch
from torch import nn

from fkd.bounds import certificate_config, make_certificate
from fkd.bounds.crown import CrownConfig, JointCrown
from fkd.bounds.joint import _refuse_wrong
from fkd.core import lirpa_compat
from fkd.core.ball import Ball
from fkd.core.errors import UnsupportedModelError
from tests.support.networks import PAIRS, make_images, make_network

CLASSES = 3


def _dense(activation, seed):
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(9, 12), activation, nn.Linear(12, 12), nn.ReLU()]
    return _scaled([*layers, nn.Linear(12, CLASSES)])


def _scaled(layers):
    network = nn.Sequential(*layers).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.mul_(2.0)
    return network


def _question(count=2):
    images = make_images(count, (1, 3, 3))
    region = Ball(epsilon=0.12).region(images, torch.arange(count))
    return region, torch.arange(count) % CLASSES


@pytest.mark.parametrize(("slope", "is_refused"), [(0.1, False), (-0.5, True), (4.0, True)])
def test_slopes_that_a_later_release_misreads_are_refused(monkeypatch, slope, is_refused):
    """There the slope is ``leaky_alpha`` and ``alpha`` what is optimised; below 0 it is ignored."""

    class BoundLeakyRelu(nn.Module):
        def __init__(self):
            super().__init__()
            self.leaky_alpha, self.alpha = slope, {}

    module = nn.Sequential(BoundLeakyRelu())
    if is_refused:
        with pytest.raises(UnsupportedModelError, match=f"slope {slope:g} cannot be bounded"):
            _refuse_wrong(module)
    else:
        _refuse_wrong(module)


@pytest.mark.parametrize("certificate", ["crown", "crown_ibp", "fast"])
@pytest.mark.parametrize("slope", [-0.1, -1.0])
def test_falling_slopes_are_refused(certificate, slope):
    """Release 0.3's intervals of them are wrong, and values on the box may be beyond their bounds.

    Seen with ``crown_ibp`` on a third of random pairs of two such layers, and with ``crown`` where a ReLU
    follows; the value at the image was mostly within the bounds.
    """
    networks = [_dense(nn.LeakyReLU(slope), seed) for seed in (0, 1)]
    region, classes = _question()
    with pytest.raises(UnsupportedModelError, match=r"use a slope in \[0, 1\]"):
        make_certificate(certificate_config({"name": certificate})).bound(
            *networks, region, classes
        )


@pytest.mark.skipif(lirpa_compat.has_alpha_crown(), reason="wrong in release 0.3")
def test_square_roots_are_refused():
    """Their tangents have the derivative of 1 / sqrt: random pairs exceeded what they proved."""

    class Root(nn.Module):
        def forward(self, features):
            return torch.sqrt(torch.relu(features) + 0.1)

    networks = [_dense(Root(), seed) for seed in (0, 1)]
    region, classes = _question()
    with pytest.raises(UnsupportedModelError, match="square root cannot be bounded"):
        JointCrown(CrownConfig()).bound(*networks, region, classes)


# --- The general path and the engine

AGREEING = {
    name: (teacher, student, shape, count)
    for name, (teacher, student, shape, count) in PAIRS.items()
    if name in ("mlp", "convolutional", "residual")
}


def _average_pooled(seed, kind):
    torch.manual_seed(seed)
    pool = nn.AvgPool2d(2) if kind == "window" else nn.AdaptiveAvgPool2d(1)
    units = 16 if kind == "window" else 4
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), pool, nn.Flatten()]
    network = _scaled([*layers, nn.Linear(units, 8), nn.ReLU(), nn.Linear(8, CLASSES)])
    network[1].running_mean.copy_(0.3 * torch.randn(4))
    network[1].running_var.copy_(0.5 + torch.rand(4))
    return network


def _agreeing_pair(name):
    if name in AGREEING:
        teacher, student, shape, count = AGREEING[name]
        networks = [
            make_network(*part, image_shape=shape, num_classes=count, seed=seed)
            for seed, part in enumerate((teacher, student))
        ]
        return *networks, shape, count
    kind = name.removeprefix("pool_")
    return _average_pooled(0, kind), _average_pooled(1, kind), (1, 4, 4), CLASSES


@pytest.mark.parametrize("name", [*sorted(AGREEING), "pool_window", "pool_global"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_general_path_and_the_engine_agree_where_both_apply(monkeypatch, name, norm):
    teacher, student, shape, count = _agreeing_pair(name)
    images = make_images(8, shape)
    classes = torch.arange(8) % count
    region = Ball(epsilon=0.03 if norm == "linf" else 0.1, norm=norm).region(images, classes)
    general = JointCrown(CrownConfig()).bound(teacher, student, region, classes)

    def forbidden(self, *rest, **more):
        raise AssertionError("the engine was to read this pair")

    monkeypatch.setattr(JointCrown, "bound", forbidden)
    own = make_certificate(certificate_config({"name": "fast"})).bound(
        teacher, student, region, classes
    )
    # Both intervals hold the truth, so they overlap; neither may call a proved agreement wrong.
    assert (own.gap_lower <= general.gap_upper).all()
    assert (general.gap_lower <= own.gap_upper).all()
    # The engine chooses between slopes and intersects hidden bounds with intervals: narrower, not wider
    # by more than a hundredth on any example, and within a tenth on average.
    assert (own.gap <= general.gap + 0.01).all()
    assert (general.gap - own.gap).mean() <= 0.1
    assert (own.agrees >= general.agrees).all()
