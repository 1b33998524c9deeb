"""Weights of ONNX graphs altered in the file: as if they had been altered in the converted network."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx_graphs import Graph, cnn, dense

from fkd.core.errors import CheckpointError, UnsupportedModelError
from fkd.models import alter_onnx, network_from_onnx

SHAPE = (1, 8, 8)


def load(content, classes=4):
    return network_from_onnx(content, image_shape=SHAPE, num_classes=classes)


def layers_of(network):
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    return [module for module in network.modules() if isinstance(module, kinds)]


def multilayer(style, **options):
    graph = Graph()
    graph.add("Flatten")
    dense(graph, 64, 5, style)
    graph.add("Relu")
    dense(graph, 5, 4, style)
    return graph.model(("batch", *SHAPE), **options)


GRAPHS = {
    "convolutional": lambda: cnn(),
    "gemm": lambda: multilayer("gemm"),
    # Its alpha scales what is altered.
    "gemm_row": lambda: multilayer("gemm_row"),
    "matmul": lambda: multilayer("matmul"),
    "matmul_row": lambda: multilayer("matmul_row"),
}


def per_output(weights):
    """Something that tells output channels from inputs, and layers from each other."""
    return [
        weight * torch.arange(1.0, 1 + len(weight)).reshape(-1, *[1] * (weight.ndim - 1)) * (2 + n)
        for n, weight in enumerate(weights)
    ]


@pytest.mark.parametrize("name", GRAPHS)
def test_altered_in_the_file_as_in_the_network(name):
    network, content = load(GRAPHS[name]().SerializeToString())
    found, _ = load(alter_onnx(content, per_output))
    expected = layers_of(network)
    wanted = per_output([layer.weight for layer in expected])
    altered = layers_of(found)
    assert len(altered) == len(expected) >= 2
    for layer, before, weight in zip(altered, expected, wanted, strict=True):
        assert torch.allclose(layer.weight, weight, rtol=1e-6)
        assert not torch.equal(layer.weight, before.weight)
        assert torch.equal(layer.bias, before.bias)


@pytest.mark.parametrize("name", GRAPHS)
def test_weights_come_in_order_with_outputs_first_and_nothing_else(name):
    network, content = load(GRAPHS[name]().SerializeToString())
    seen = []
    again = alter_onnx(content, lambda weights: seen.extend(weights) or weights)
    assert [w.shape for w in seen] == [layer.weight.shape for layer in layers_of(network)]
    assert all(weight.dtype == torch.float32 for weight in seen)
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load(again)[0](images), network(images))
    assert alter_onnx(again, lambda weights: weights) == again


def test_a_weight_used_twice_is_altered_once():
    graph = Graph()
    graph.add("Flatten")
    dense(graph, 64, 4)
    graph.add("Relu")
    shared = graph.random(4, 4)
    graph.add("Gemm", shared, transB=1)
    graph.add("Relu")
    graph.add("Gemm", shared, transB=1)
    model = graph.model(("batch", *SHAPE))
    before = len(layers_of(load(model.SerializeToString())[0]))
    _, content = load(model.SerializeToString())
    seen = []
    alter_onnx(content, lambda weights: seen.extend(weights) or weights)
    assert (before, [tuple(weight.shape) for weight in seen]) == (3, [(4, 64), (4, 4)])


def test_double_precision_stays_in_the_file():
    graph = Graph()
    graph.add("Flatten")
    weight = graph.constant(np.random.default_rng(0).normal(size=(64, 4)), np.float64)
    graph.add("MatMul", weight)
    model = graph.model(("batch", *SHAPE), dtype=TensorProto.DOUBLE)
    altered = alter_onnx(model.SerializeToString(), lambda weights: [w * 2 for w in weights])
    network, _ = load(altered)
    wanted = 2 * torch.tensor(numpy_helper.to_array(model.graph.initializer[0])).T
    assert torch.allclose(layers_of(network)[0].weight, wanted.float(), rtol=1e-6)


def test_what_has_no_weights_or_is_no_graph_is_a_sentence():
    graph = Graph()
    graph.add("Relu")
    graph.add("Flatten")
    model = graph.model(("batch", *SHAPE), ("batch", 64))
    with pytest.raises(UnsupportedModelError, match="mine has no convolution or dense layer"):
        alter_onnx(model.SerializeToString(), lambda weights: weights, "mine")
    with pytest.raises(CheckpointError, match="ONNX"):
        alter_onnx(b"nothing", lambda weights: weights)
