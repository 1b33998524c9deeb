"""ONNX in: every operator family equals ONNX's reference; everything else is one sentence."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_graphs import Graph, cnn, dense
from test_onnx_bounds import BOUNDED, REFUSED, _convolution

from fkd.core.errors import CheckpointError, ConfigError, FkdError, UnsupportedModelError
from fkd.models.onnx_models import network_from_onnx

SHAPE = (1, 8, 8)


def _load(model, shape=SHAPE, classes=4, **more):
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return network_from_onnx(content, image_shape=shape, num_classes=classes, **more)


def _refusal(model, error=UnsupportedModelError, **more) -> str:
    with pytest.raises(error) as caught:
        _load(model, shown="m.onnx", **more)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("m.onnx ")
    return text


def _check_same(model, network, shape=SHAPE, batch=5, softmax=False) -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(batch, *shape, generator=generator)
    sizes = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    fixed = sizes[0] or batch
    evaluator = ReferenceEvaluator(model)
    expected = np.concatenate(
        [
            evaluator.run(None, {"images": part.reshape(-1, *sizes[1:])})[0]
            for part in np.split(images.numpy(), batch // fixed)
        ]
    )
    found = network(images)
    found = found.softmax(1) if softmax else found
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5, rtol=1e-4)


def _with_middle(middle, features: int):
    graph = Graph(1)
    _convolution(graph, inputs=1, strides=[2, 2])
    middle(graph)
    graph.add("Flatten")
    dense(graph, features, 4)
    return graph.model(("batch", *SHAPE))


ELEMENTWISE = {
    kind: (lambda graph, kind=kind: graph.add(kind), 48)
    for kind in ("Relu", "Sigmoid", "Tanh", "Softplus", "Abs", "Neg", "Exp", "Erf", "HardSigmoid")
}
FAMILIES = {
    **BOUNDED,
    **REFUSED,
    **ELEMENTWISE,
    "Clip": (lambda g: g.add("Clip", g.constant(0.0), g.constant(0.5)), 48),
    "PRelu": (lambda g: g.add("PRelu", g.constant(np.full((3, 1, 1), 0.2))), 48),
    "Mul": (lambda g: g.add("Mul", g.constant(np.arange(3.0).reshape(3, 1, 1))), 48),
    "Div": (lambda g: g.add("Div", g.constant(-2.0)), 48),
    "Slice": (
        lambda g: g.add("Slice", *(g.constant(x, np.int64) for x in ([0, 1], [3, 4], [2, 3]))),
        27,
    ),
    "ConvTranspose": (lambda g: g.add("ConvTranspose", g.random(3, 2, 2, 2), strides=[2, 2]), 128),
}


# onnx2torch's Slice still indexes with a list.
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_each_operator_family_equals_the_reference(family):
    model = _with_middle(*FAMILIES[family])
    network, _ = _load(model)
    _check_same(model, network)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("style", ["gemm", "gemm_row", "matmul", "matmul_row"])
def test_every_way_to_write_a_dense_layer(style):
    graph = Graph(2)
    graph.add("Flatten")
    dense(graph, 64, 6, style)
    graph.add("Relu")
    dense(graph, 6, 4, style)
    model = graph.model(("batch", *SHAPE))
    network, _ = _load(model)
    _check_same(model, network)
    assert sum(isinstance(m, torch.nn.Linear) for m in network.modules()) == 2


@pytest.mark.parametrize(
    ("batch", "flatten"),
    [("batch", way) for way in ("flatten", "shape", "free", "zero")]
    + [(1, way) for way in ("flatten", "shape", "one", "free", "both", "zero")],
)
def test_batches_of_every_size_whatever_the_export(batch, flatten):
    model = cnn(batch, flatten)
    network, content = _load(model)
    _check_same(model, network)
    assert network(torch.rand(7, *SHAPE)).shape == (7, 4)
    # What is stored loads again and computes the same.
    again, same = _load(content)
    images = torch.rand(3, *SHAPE)
    assert torch.equal(again(images), network(images))
    assert same == content


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
def test_operator_sets_old_and_new(opset):
    model = cnn(opset=opset)
    _check_same(model, _load(model)[0])


@pytest.mark.parametrize("order", ["sub_div", "mul_add", "reversed_sub"])
def test_arithmetic_on_the_images_becomes_one_convolution(order):
    graph, shape = Graph(), (3, 8, 8)
    mean, std = (
        graph.constant(np.array(v).reshape(1, 3, 1, 1)) for v in ([0.1, 0.2, 0.3], [0.5, 1, 2])
    )
    if order == "sub_div":
        graph.add("Sub", mean)
        graph.add("Div", std)
    elif order == "mul_add":
        graph.add("Mul", std)
        graph.add("Add", mean)
    else:
        graph.add("Sub", graph.last, first=mean)
    graph.add("Flatten")
    dense(graph, 192, 4)
    model = graph.model(("batch", *shape))
    network, _ = _load(model, shape)
    _check_same(model, network, shape)
    assert type(next(network.body.children())).__name__ == "ChannelAffine"


@pytest.mark.parametrize("sizes", [(64,), (8, 8), (8, 8, 1), (1, 8, 8)])
def test_images_laid_out_otherwise(sizes):
    graph = Graph()
    graph.add("Flatten")
    dense(graph, 64, 4)
    model = graph.model(("batch", *sizes))
    _check_same(model, _load(model)[0])


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_a_final_softmax_is_taken_off(kind):
    graph = Graph()
    graph.add("Flatten")
    dense(graph, 64, 4)
    graph.add(kind, axis=1)
    model = graph.model(("batch", *SHAPE))
    network, content = _load(model)
    assert kind not in {node.op_type for node in onnx.load_from_string(content).graph.node}
    if kind == "Softmax":
        _check_same(model, network, softmax=True)
    assert (network(torch.rand(3, *SHAPE)).sum(1) - 1).abs().max() > 0.01


def test_a_given_normalisation_comes_first():
    model = cnn()
    plain, normal = _load(model)[0], _load(model, mean=(0.3,), std=(0.5,))[0]
    images = torch.rand(4, *SHAPE)
    torch.testing.assert_close(normal(images), plain((images - 0.3) / 0.5))


def test_double_precision_becomes_float32():
    graph = Graph()
    graph.add("Flatten")
    graph.add("MatMul", graph.constant(graph.generator.normal(size=(64, 4)), np.float64))
    network, _ = _load(graph.model(("batch", *SHAPE), dtype=TensorProto.DOUBLE))
    assert network(torch.rand(2, *SHAPE)).dtype == torch.float32


# --- refused ------------------------------------------------------------------------------------


def test_no_onnx_at_all():
    for content in (b"", b"\x80\x04garbage", b"x" * 1000, b"\x00" * 50):
        _refusal(content, CheckpointError)


def test_damage_gives_no_other_error():
    content = cnn().SerializeToString()
    generator = np.random.default_rng(0)
    refused = 0
    for number in range(60):
        damaged = bytearray(content)
        if number % 3 == 0:
            damaged = damaged[: generator.integers(1, len(content))]
        else:
            damaged[generator.integers(len(content))] ^= generator.integers(1, 256)
        try:
            _load(bytes(damaged))
        except FkdError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


def _external(location: str):
    model = cnn()
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return model


def test_external_data_beside_the_model_is_taken_in(tmp_path):
    plain = cnn()
    (tmp_path / "data.bin").write_bytes(plain.graph.initializer[0].raw_data)
    network, content = _load(_external("data.bin"), folder=tmp_path)
    _check_same(plain, network)
    assert b"data.bin" not in content
    assert "which its card does not cover" in _refusal(_external("data.bin"), CheckpointError)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "sub/../../secret", "link", ""])
def test_external_data_elsewhere_is_never_read(tmp_path, location):
    (tmp_path / "secret").write_bytes(b"\0" * 10_000)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    text = _refusal(_external(location), CheckpointError, folder=folder)
    assert "outside its own folder" in text


def test_external_data_that_is_absent_or_too_short(tmp_path):
    assert "cannot be read" in _refusal(_external("gone"), CheckpointError, folder=tmp_path)
    (tmp_path / "short").write_bytes(b"\0" * 3)
    _refusal(_external("short"), CheckpointError, folder=tmp_path)
    model = _external("short")
    model.graph.initializer[0].external_data.add(key="length", value="999")
    assert "wants bytes 0 to 999" in _refusal(model, CheckpointError, folder=tmp_path)


@pytest.mark.parametrize("kind", ["Hardmax", "Shrink", "Mish"])
def test_unsupported_operators_are_named(kind):
    graph = Graph()
    graph.add(kind)
    graph.add("Flatten")
    dense(graph, 64, 4)
    text = _refusal(
        graph.model(("batch", *SHAPE), opset=18 if kind == "Mish" else 17, check=False), FkdError
    )
    assert kind in text or "operator set" in text


def test_operators_of_another_domain_are_named():
    model = cnn()
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    assert "com.example.Relu" in _refusal(model)


def test_several_inputs_or_outputs():
    model = cnn()
    extra = helper.make_tensor_value_info(
        model.graph.node[0].output[0], TensorProto.FLOAT, ("batch", 3, 4, 4)
    )
    model.graph.output.append(extra)
    assert "has 1 inputs and 2 outputs" in _refusal(model)
    model = cnn()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, (1,)))
    assert "has 2 inputs and 1 outputs" in _refusal(model)


def test_shapes_and_classes_that_do_not_fit():
    text = _refusal(cnn(), ConfigError, shape=(3, 8, 8))
    assert "takes 1x8x8 per example, but the images are 3x8x8" in text
    assert "tells 4 classes apart, not 10" in _refusal(cnn(), ConfigError, classes=10)
    graph = Graph()
    graph.add("Conv", graph.random(4, 1, 1, 1))
    assert "gives an output of shape" in _refusal(
        graph.model(("batch", *SHAPE), ("batch", 4, 8, 8))
    )


def test_images_of_whole_numbers():
    model = cnn()
    model.graph.node.insert(
        0, helper.make_node("Cast", ["bytes"], ["images"], to=TensorProto.FLOAT)
    )
    model.graph.input[0].name = "bytes"
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    assert "takes images of type uint8" in _refusal(model)


def test_values_that_are_not_finite():
    model = cnn()
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight.flat[0] = np.nan
    name = model.graph.initializer[0].name
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, name))
    assert "NaN or infinite values in the weight" in _refusal(model, CheckpointError)


def test_images_that_change_each_other():
    graph = Graph()
    graph.add("Flatten")
    dense(graph, 64, 4)
    graph.add("Sub", graph.add("ReduceMean", axes=[0], keepdims=1), first="value1")
    assert "in a batch than alone" in _refusal(graph.model(("batch", *SHAPE)))
