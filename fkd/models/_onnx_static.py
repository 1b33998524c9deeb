"""ONNX graphs made fit for use: any batch size, logits at the end, static shapes in between."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from fkd.core.errors import ConfigError, UnsupportedModelError
from fkd.models._onnx_proto import drop_unused, fold_constants, lower_opset

#: Images evaluated where the batch size is free; more than one, so that mixing them would show.
_FREE_BATCH = 3

_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_SOFTMAX = ("Softmax", "LogSoftmax")


def image_input(graph: GraphProto, image_shape: Sequence[int], shown: str) -> ValueInfoProto:
    """The graph's one input, checked to take a batch of such images.

    Raises:
        UnsupportedModelError: several inputs, or one that is no float tensor with a batch dimension.
        ConfigError: it takes images of another shape.
    """
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise UnsupportedModelError(
            f"{shown} has {len(inputs)} inputs and {len(graph.output)} outputs; "
            "export a model with one input (images) and one output (logits)."
        )
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise UnsupportedModelError(
            f"{shown} takes images of type {kind}; export a model that takes float images in [0, 1]."
        )
    sizes = sample_shape(inputs[0])
    wanted = tuple(image_shape)
    is_flat = sizes == (prod(wanted),)
    # Axes of length one may stand anywhere: (H, W, 1) lies in memory as (1, H, W) does.
    is_same = [s for s in sizes if s != 1] == [s for s in wanted if s != 1]
    if not tensor.HasField("shape") or not (is_flat or is_same):
        found = "x".join(map(str, sizes)) or "nothing with a batch dimension"
        raise ConfigError(
            f"{shown} takes {found} per example, but the images are "
            f"{'x'.join(map(str, wanted))} (channels first); give the shape it was made for, or export "
            "it with channels first."
        )
    return inputs[0]


def sample_shape(value: ValueInfoProto) -> tuple[int, ...]:
    """A value's sizes after the batch dimension, 0 where unknown."""
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])


def fixed_batch(value: ValueInfoProto) -> int | None:
    """The batch size a model was exported for, None where it is free."""
    first = value.type.tensor_type.shape.dim[0]
    return first.dim_value if first.HasField("dim_value") and first.dim_value > 0 else None


def random_images(value: ValueInfoProto) -> np.ndarray:
    """A reproducible batch of the size the model wants, uniform in [0, 1]."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    batch = fixed_batch(value) or _FREE_BATCH
    generator = np.random.default_rng(0)
    return generator.random((batch, *sample_shape(value))).astype(kind)


def evaluate(model: ModelProto, images: np.ndarray, name: str, shown: str) -> dict[str, Any]:
    """Every value of the graph for these images, by ONNX's own reference implementation.

    Raises:
        UnsupportedModelError: it cannot be evaluated.
    """
    try:
        with np.errstate(all="ignore"):
            return ReferenceEvaluator(model).run(None, {name: images}, intermediate=True)
    except Exception as error:  # whatever an operator's implementation raises on a bad graph
        raise UnsupportedModelError(
            f"{shown} cannot be evaluated ({type(error).__name__}: "
            f"{(str(error).splitlines() or ['no reason given'])[0][:160]}); export the model again."
        ) from None


def check_operators(graph: GraphProto, opset: int, shown: str) -> None:
    """Whether onnx2torch converts every operator.

    Raises:
        UnsupportedModelError: naming those it does not.
    """
    from onnx2torch.node_converters import get_converter

    missing = set()
    for node in graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            get_converter(operation_type=node.op_type, version=opset, domain=domain)
        except NotImplementedError:
            missing.add(f"{node.domain}.{node.op_type}" if domain else node.op_type)
    if missing:
        names = ", ".join(sorted(missing))
        raise UnsupportedModelError(
            f"{shown} uses the operators {names}, which cannot be converted to PyTorch; "
            "export a model made of convolutions, dense layers, ReLU and the like."
        )


def prepare(model: ModelProto, image_shape: Sequence[int], shown: str) -> ModelProto:
    """An equivalent graph for any batch size, whose output are logits.

    A final softmax is taken off: logits before it give the very same confidences.  Reshapes, flattenings
    and averages over all pixels get static shapes, read off an evaluation.

    Raises:
        UnsupportedModelError, ConfigError: the graph cannot be used, and why.
    """
    prepared = ModelProto()
    prepared.CopyFrom(lower_opset(model, shown))
    graph = prepared.graph
    source = image_input(graph, image_shape, shown)
    fold_constants(graph)
    _strip_softmax(graph)
    drop_unused(graph)
    opset = next(o.version for o in prepared.opset_import if o.domain in ("", "ai.onnx"))
    check_operators(graph, opset, shown)
    images = random_images(source)
    values = evaluate(prepared, images, source.name, shown)
    constants = {tensor.name for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    for number, node in enumerate(graph.node):
        data = values.get(node.input[0]) if node.input else None
        if node.input and node.input[0] not in constants and data is not None:
            nodes.extend(_with_static_shape(node, number, data.shape, values, len(images), graph))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(graph)
    _free_batch(graph, source)
    return onnx.shape_inference.infer_shapes(prepared)


def _strip_softmax(graph: GraphProto) -> None:
    """Let the graph end before a final softmax over the classes."""
    output = graph.output[0]
    last = next((node for node in graph.node if output.name in node.output), None)
    if last is None or last.op_type not in _SOFTMAX:
        return
    axes = [attribute.i for attribute in last.attribute if attribute.name == "axis"]
    if len(output.type.tensor_type.shape.dim) == 2 and (not axes or axes[0] in (1, -1)):
        producer = next((node for node in graph.node if last.input[0] in node.output), None)
        if producer is None:
            return
        # The logits take over the output's name.
        logits = last.input[0]
        graph.node.remove(last)
        for node in graph.node:
            for names in (node.input, node.output):
                for position, name in enumerate(names):
                    if name == logits:
                        names[position] = output.name


def _with_static_shape(
    node: NodeProto,
    number: int,
    shape: tuple[int, ...],
    values: dict[str, Any],
    batch: int,
    graph: GraphProto,
) -> list[NodeProto]:
    """The node, or what does the same for every batch size with shapes known in advance."""
    if len(shape) < 2 or shape[0] != batch:
        return [node]
    result = np.shape(values[node.output[0]])
    keeps_batch = len(result) >= 2 and result[0] == batch
    name = node.name or f"{node.op_type}_{number}"
    if node.op_type in _RESHAPING and keeps_batch:
        wanted = np.array([-1, *result[1:]], dtype=np.int64)
        if node.op_type == "Reshape" and np.array_equal(values[node.input[1]], wanted):
            return [node]
        target = f"{name}/static_shape_{number}"
        graph.initializer.append(numpy_helper.from_array(wanted, target))
        return [onnx.helper.make_node("Reshape", [node.input[0], target], node.output, name=name)]
    if len(shape) == 4 and _averages_pixels(node, values):
        pooled = onnx.helper.make_node(
            "AveragePool",
            [node.input[0]],
            node.output,
            name=name,
            kernel_shape=shape[2:],
        )
        if len(result) == 4:
            return [pooled]
        middle = f"{name}/pooled"
        pooled.output[0] = middle
        return [
            pooled,
            onnx.helper.make_node("Flatten", [middle], node.output, name=f"{name}/flat"),
        ]
    return [node]


def _averages_pixels(node: NodeProto, values: dict[str, Any]) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean":
        return False
    axes = [list(attribute.ints) for attribute in node.attribute if attribute.name == "axes"]
    if not axes and len(node.input) > 1 and node.input[1]:
        axes = [np.asarray(values[node.input[1]]).tolist()]
    return bool(axes) and sorted(axis % 4 for axis in axes[0]) == [2, 3]


def _free_batch(graph: GraphProto, source: ValueInfoProto) -> None:
    """Declare the batch dimension free and forget shapes that were inferred for a fixed one."""
    del graph.value_info[:]
    for value in (*(v for v in graph.input if v.name == source.name), graph.output[0]):
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].Clear()
            dims[0].dim_param = "batch"
