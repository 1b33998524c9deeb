"""ONNX files as graphs: reading them safely, embedding their data, and folding what is constant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from fkd.core.errors import CheckpointError, UnsupportedModelError

#: The newest operator set that onnx2torch converts completely.
OPSET = 17

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)

#: Cheap operators that exporters apply to constants.
_FOLDABLE = {
    *("Add", "Cast", "Concat", "Div", "Gather", "Identity", "Mul", "Neg", "Reciprocal"),
    *("Reshape", "Slice", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
}


def read_onnx(content: bytes, shown: str, folder: Path | None) -> ModelProto:
    """A checked ONNX model with all its weights inside.

    Args:
        content: the ``.onnx`` file.
        shown: the file's name for error messages.
        folder: where weights in files of their own may lie; None refuses such models.

    Raises:
        CheckpointError: corrupt, or its data lies outside ``folder``.
    """
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise _corrupt(shown, error) from None
    if not model.graph.node:
        raise CheckpointError(
            f"{shown} is not an ONNX model (it holds no graph); export the model again."
        )
    for tensor in _tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            _embed(tensor, shown, folder)
    try:
        onnx.checker.check_model(model, full_check=True)
        # Corrupt weights show only when they are decoded.
        for tensor in _tensors(model.graph):
            numpy_helper.to_array(tensor)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        EncodeError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise _corrupt(shown, error) from None
    return model


def _corrupt(shown: str, error: Exception) -> CheckpointError:
    lines = str(error).strip().splitlines()
    reason = lines[0].rstrip(". ") if lines else type(error).__name__
    return CheckpointError(
        f"{shown} is no valid ONNX model ({reason[:200]}); export or copy the model again."
    )


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor of a graph, those of nodes and subgraphs included."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
            if attribute.type == AttributeProto.GRAPH:
                yield from _tensors(attribute.g)
            for subgraph in attribute.graphs:
                yield from _tensors(subgraph)


def _embed(tensor: TensorProto, shown: str, folder: Path | None) -> None:
    """Move a tensor's data from its own file into the model, never from outside ``folder``."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise CheckpointError(
            f"{shown} keeps weights in another file ({location!r}), which its card does not cover; "
            "import it with fkd, which puts them into one file."
        )
    parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
    is_inside = bool(location) and ".." not in parts and not PureWindowsPath(location).drive
    path = folder / location
    try:
        is_inside = is_inside and path.resolve().is_relative_to(folder.resolve())
        if not is_inside:
            raise CheckpointError(
                f"{shown} wants weights from {location!r}, outside its own folder; "
                "put that file beside the model and export it again."
            )
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", path.stat().st_size - offset))
        if offset < 0 or length < 0 or offset + length > path.stat().st_size:
            raise CheckpointError(
                f"{shown} wants bytes {offset} to {offset + length} of {location!r}, which has only "
                f"{path.stat().st_size}; copy both files again."
            )
        with path.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
    except OSError as error:
        raise CheckpointError(
            f"{shown} keeps weights in {location!r}, which cannot be read "
            f"({error.strerror or error}); put that file beside the model."
        ) from None
    except ValueError as error:
        raise _corrupt(shown, error) from None
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT


def lower_opset(model: ModelProto, shown: str) -> ModelProto:
    """The model in operator set 17 where it is in a newer one, else the model itself.

    Raises:
        UnsupportedModelError: the model needs what only the newer set has.
    """
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), OPSET)
    if version <= OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except (RuntimeError, ValueError, onnx.checker.ValidationError):
        pass
    # The converter lacks steps for some operators whose newer versions only admit more data types.
    # Declaring the older set is right exactly where the checker accepts it; `onnx_models` also
    # compares the result with the original.
    lowered = ModelProto()
    lowered.CopyFrom(model)
    for opset in lowered.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = OPSET
    try:
        onnx.checker.check_model(lowered, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        raise UnsupportedModelError(
            f"{shown} uses operator set {version}; export it with operator set {OPSET} or below."
        ) from None
    return lowered


def fold_constants(graph: GraphProto) -> None:
    """Turn constant nodes into initializers and take out what does nothing at inference, in place."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    renamed: dict[str, str] = {}
    outputs = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
        if _is_constant(node, constants):
            for name, value in zip(node.output, _evaluate(node, constants), strict=True):
                constants[name] = value
                graph.initializer.append(numpy_helper.from_array(value, name))
        elif _is_pass_through(node) and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _is_constant(node: NodeProto, constants: dict[str, np.ndarray]) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Constant":
        return node.attribute[0].name.startswith(("value", "sparse_value"))
    return (
        node.op_type in _FOLDABLE
        and bool(node.input)
        and all(name in constants for name in node.input if name)
    )


def _evaluate(node: NodeProto, constants: dict[str, np.ndarray]) -> list[np.ndarray]:
    graph = onnx.helper.make_graph(
        [node],
        "constant",
        [],
        [onnx.helper.make_empty_tensor_value_info(name) for name in node.output],
        [numpy_helper.from_array(constants[name], name) for name in {*node.input} if name],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    with np.errstate(all="ignore"):
        return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, {})]


def _is_pass_through(node: NodeProto) -> bool:
    if node.op_type in ("Identity", "Dropout"):
        return True
    # A cast between floating types would undo a conversion to float64.
    return node.op_type == "Cast" and node.attribute[0].i in _FLOATS


def drop_unused(graph: GraphProto) -> None:
    """Take out nodes and initializers that the outputs do not depend on, in place."""
    needed = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
