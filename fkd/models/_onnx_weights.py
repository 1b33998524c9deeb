"""The weights of an ONNX graph's layers: taken out, altered, put back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper
from torch import Tensor

from fkd.core.errors import UnsupportedModelError
from fkd.models._onnx_proto import read_onnx


def alter_onnx(
    content: bytes, alter: Callable[[list[Tensor]], list[Tensor]], shown: str = "The ONNX file"
) -> bytes:
    """The graph with other weights in its convolutions and dense layers; all else is as it was.

    Args:
        content: an ``.onnx`` file with its weights inside, as `fkd.models.import_model` stores them.
        alter: gets the weights in the order of the graph, float32, output channels first, and returns
            as many of the same shapes.
        shown: the file's name for error messages.

    Raises:
        CheckpointError: it is corrupt.
        UnsupportedModelError: no layer has a constant weight.
    """
    model: ModelProto = read_onnx(content, shown, None)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = _weights(model.graph, set(constants))
    if not found:
        raise UnsupportedModelError(
            f"{shown} has no convolution or dense layer with constant weights; choose another model."
        )
    arrays = {name: numpy_helper.to_array(constants[name]) for name in found}
    weights = [
        torch.from_numpy(
            np.array(arrays[name].T if is_transposed else arrays[name], dtype=np.float32, order="C")
        )
        for name, is_transposed in found.items()
    ]
    for (name, is_transposed), weight in zip(found.items(), alter(weights), strict=True):
        value = weight.numpy().T if is_transposed else weight.numpy()
        value = np.ascontiguousarray(value.astype(arrays[name].dtype))
        constants[name].CopyFrom(numpy_helper.from_array(value, name))
    return model.SerializeToString(deterministic=True)


def _weights(graph: GraphProto, constants: set[str]) -> dict[str, bool]:
    """Names of the layers' weights, and whether their outputs come second; each weight once."""
    found: dict[str, bool] = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in constants:
            found.setdefault(node.input[1], _is_transposed(node))
    return found


def _is_transposed(node: NodeProto) -> bool:
    if node.op_type == "Gemm":
        return not any(entry.name == "transB" and entry.i for entry in node.attribute)
    return node.op_type == "MatMul"
