"""Bounds of imported networks hold what happens in the ball, or the network is refused in a sentence."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from onnx_graphs import Graph, dense

from fkd.bounds.joint import JointBounder
from fkd.core.ball import Ball
from fkd.core.errors import UnsupportedModelError
from fkd.models.onnx_models import network_from_onnx


def _convolution(graph: Graph, inputs: int = 3, outputs: int = 3, side: int = 3, **more) -> None:
    group = more.get("group", 1)
    more.setdefault("pads", [side // 2] * 4)
    weight = graph.random(outputs, inputs // group, side, side)
    graph.add("Conv", weight, graph.random(outputs), **more)


def _pooled(kind: str, **more) -> tuple:
    def middle(graph):
        graph.add("Relu")
        graph.add(kind, **more)
        _convolution(graph)

    return middle, 12


def _padded(mode: str, value: float | None) -> tuple:
    def middle(graph):
        pads = graph.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
        graph.add("Pad", pads, *([] if value is None else [graph.constant(value)]), mode=mode)
        _convolution(graph, pads=[0] * 4)

    return middle, 48


def _residual(graph):
    graph.add("Relu")
    shortcut = graph.last
    _convolution(graph)
    graph.add("Relu")
    _convolution(graph)
    graph.add("Add", shortcut)


def _concat(graph):
    graph.add("Relu")
    first = graph.last
    _convolution(graph)
    graph.add("Concat", first, axis=1)


def _channels_last(graph):
    graph.add("Relu")
    graph.add("Transpose", perm=[0, 2, 3, 1])
    graph.add("Flatten")
    dense(graph, 48, 48)


def _batch_norm(graph):
    facts = ([1, 0.5, -2], [0.1, 0.2, 0.3], [0, 0.1, -0.2], [1, 2, 0.5])
    graph.add("BatchNormalization", *(graph.constant(values) for values in facts))


#: What stands between the first convolution (3 channels, 4x4 pixels) and a ReLU; features after it.
BOUNDED = {
    "relu": (lambda graph: None, 48),
    "leaky_relu": (lambda graph: graph.add("LeakyRelu", alpha=0.3), 48),
    "batch_norm": (_batch_norm, 48),
    "max_pool": _pooled("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
    "average_pool": _pooled("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    "global_average": (lambda graph: graph.add("GlobalAveragePool"), 3),
    "mean_of_pixels": (lambda graph: graph.add("ReduceMean", axes=[2, 3], keepdims=1), 3),
    "residual": (_residual, 48),
    "concat": (_concat, 96),
    "grouped": (lambda graph: _convolution(graph, group=3), 48),
    "dilated": (lambda graph: _convolution(graph, side=2, pads=[0] * 4, dilations=[2, 2]), 12),
    "asymmetric": (lambda graph: _convolution(graph, pads=[0, 0, 1, 1]), 27),
    "zero_pad": _padded("constant", None),
    "transpose": (_channels_last, 48),
}

#: Imported faithfully, but auto_LiRPA 0.3 bounds them wrongly or not at all.
REFUSED = {
    "average_with_padding": _pooled(
        "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
    ),
    "max_with_overlap": _pooled("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    "pad_with_value": _padded("constant", 0.7),
    "pad_by_reflection": _padded("reflect", None),
    "pad_by_edge": _padded("edge", None),
    "sigmoid": (lambda graph: graph.add("Sigmoid"), 48),
    "softmax_inside": (lambda graph: graph.add("Softmax", axis=1), 48),
    "elu": (lambda graph: graph.add("Elu"), 48),
}


def _network(middle, features: int, seed: int = 1) -> torch.nn.Module:
    graph = Graph(seed)
    _convolution(graph, inputs=1, strides=[2, 2])
    middle(graph)
    graph.add("Relu")
    graph.add("Flatten")
    dense(graph, features, 6)
    graph.add("Relu")
    dense(graph, 6, 4)
    content = graph.model(("batch", 1, 8, 8)).SerializeToString()
    return network_from_onnx(content, image_shape=(1, 8, 8), num_classes=4)[0]


def _student() -> torch.nn.Module:
    graph = Graph(7)
    graph.add("Flatten")
    dense(graph, 64, 5)
    graph.add("Relu")
    dense(graph, 5, 4, "matmul")
    content = graph.model(("batch", 1, 8, 8)).SerializeToString()
    return network_from_onnx(content, image_shape=(1, 8, 8), num_classes=4)[0]


def _region(epsilon: float, count: int = 4):
    generator = torch.Generator().manual_seed(0)
    images = (1.3 * torch.rand(count, 1, 8, 8, generator=generator) - 0.15).clamp(0.0, 1.0)
    return Ball(epsilon=epsilon).region(images, torch.arange(count))


def _rows(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 5, 8, generator=generator, dtype=torch.float64)


def _reached(bounder: JointBounder, region, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Smallest and largest values of the rows at samples, corners and ends of ascents, (N, R)."""
    lower, upper = region.lower.double(), region.upper.double()
    generator = torch.Generator().manual_seed(2)
    share = torch.rand(200, *lower.shape, generator=generator, dtype=torch.float64)
    share[::2] = (share[::2] > 0.5).double()
    points = [lower + share * (upper - lower)]
    for row in range(rows.shape[1]):
        for sign in (1.0, -1.0):
            point = region.images.double().requires_grad_(True)
            value = (bounder.joint(point) * rows[:, row]).sum()
            (slope,) = torch.autograd.grad(sign * value, point)
            points.append(torch.where(slope > 0, upper, lower)[None])
    every = torch.cat(points)
    with torch.no_grad():
        logits = bounder.joint(every.flatten(0, 1)).view(len(every), len(region), -1)
    values = torch.einsum("snk,nrk->snr", logits, rows)
    return values.amin(0), values.amax(0)


@pytest.mark.parametrize("method", ["CROWN", "CROWN-IBP"])
@pytest.mark.parametrize("family", sorted(BOUNDED))
def test_nothing_in_the_ball_leaves_the_bounds(family, method):
    teacher, student = _network(*BOUNDED[family]), _student()
    for epsilon in (0.02, 0.15):
        region = _region(epsilon)
        rows = _rows(len(region))
        bounder = JointBounder(teacher, student, region.images[:1], method=method)
        lower, upper = bounder.bound(region, rows)
        low, high = _reached(bounder, region, rows)
        assert (low >= lower).all()
        assert (high <= upper).all()
        assert (high <= bounder.upper_again(region, rows)).all()
        if method == "CROWN":
            # Infinite bounds would be sound as well.
            assert ((upper - lower) / (high - low)).median() < 6


@pytest.mark.parametrize("method", ["CROWN", "CROWN-IBP"])
@pytest.mark.parametrize("family", sorted(REFUSED))
def test_what_cannot_be_bounded_is_refused_in_one_sentence(family, method, capfd):
    teacher, student = _network(*REFUSED[family]), _student()
    region = _region(0.02)
    with pytest.raises(UnsupportedModelError, match="auto_LiRPA cannot bound") as caught:
        JointBounder(teacher, student, region.images[:1], method=method).bound(
            region, _rows(len(region))
        )
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))
    assert capfd.readouterr().out == ""


def test_a_dearly_wrong_bound_never_leaves_the_bounder(monkeypatch):
    """Whatever auto_LiRPA gets wrong at the image itself is noticed, not passed on."""
    network = _student()
    region = _region(0.02)
    rows = _rows(len(region))
    bounder = JointBounder(network, network, region.images[:1])
    bounder.bound(region, rows)
    compute = JointBounder._compute

    def shifted(self, *arguments):
        lower, upper = compute(self, *arguments)
        return lower + 10.0, upper + 10.0

    monkeypatch.setattr(JointBounder, "_compute", shifted)
    with pytest.raises(UnsupportedModelError, match="do not hold the value at the image itself"):
        bounder.bound(region, rows)


def test_float64_by_default_holds_in_the_bounds_only():
    JointBounder(_network(*BOUNDED["average_pool"]), _student(), torch.rand(1, 1, 8, 8)).bound(
        _region(0.1), _rows(4)
    )
    assert torch.zeros(1).dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32
