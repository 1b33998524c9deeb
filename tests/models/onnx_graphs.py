"""ONNX models built by hand, as exporters of many kinds write them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper


class Graph:
    """Collects nodes and weights; random weights are reproducible."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.generator = np.random.default_rng(seed)
        self.last = "images"

    def constant(self, value: object, dtype: type = np.float32) -> str:
        """An initializer's name."""
        name = f"weight{len(self.weights)}"
        self.weights[name] = np.asarray(value, dtype=dtype)
        return name

    def random(self, *shape: int) -> str:
        """A random initializer's name, scaled so that activations keep their size."""
        fan_in = max(1, int(np.prod(shape[1:])))
        return self.constant(self.generator.normal(size=shape) / np.sqrt(fan_in))

    def add(self, kind: str, *more: str, first: str | None = None, **attributes: object) -> str:
        """Append a node that takes the last value (or ``first``) and ``more``; its output's name."""
        output = f"value{len(self.nodes)}"
        inputs = [first or self.last, *more]
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        self.last = output
        return output

    def model(
        self,
        image_shape: Sequence[int | str],
        output_shape: Sequence[int | str] = ("batch", 4),
        *,
        opset: int = 17,
        dtype: int = TensorProto.FLOAT,
        check: bool = True,
    ) -> ModelProto:
        """The finished model; its input is ``images`` of ``image_shape``, batch included."""
        graph = helper.make_graph(
            self.nodes,
            "by_hand",
            [helper.make_tensor_value_info("images", dtype, image_shape)],
            [helper.make_tensor_value_info(self.last, dtype, output_shape)],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
        )
        if check:
            checker.check_model(model)
        return model


def dense(graph: Graph, inputs: int, outputs: int, style: str = "gemm") -> None:
    """A dense layer, as Gemm or as MatMul and Add."""
    if style == "gemm":
        graph.add("Gemm", graph.random(outputs, inputs), graph.random(outputs), transB=1)
    elif style == "gemm_row":
        graph.add(
            "Gemm", graph.random(inputs, outputs), graph.random(1, outputs), alpha=0.5, beta=2.0
        )
    else:
        graph.add("MatMul", graph.random(inputs, outputs))
        graph.add(
            "Add", graph.random(1, outputs) if style == "matmul_row" else graph.random(outputs)
        )


def cnn(batch: int | str = "batch", flatten: str = "flatten", **options: object) -> ModelProto:
    """Conv, Relu, a way to flatten, two dense layers; (1, 8, 8) images, 4 classes."""
    graph = Graph()
    graph.add("Conv", graph.random(3, 1, 3, 3), graph.random(3), strides=[2, 2], pads=[1, 1, 1, 1])
    graph.add("Relu")
    features = graph.last
    if flatten == "flatten":
        graph.add("Flatten")
    elif flatten == "shape":
        # x.view(x.size(0), -1), as torch traces it.
        graph.add("Shape")
        graph.add("Gather", graph.constant(0, np.int64), axis=0)
        graph.add("Unsqueeze", graph.constant([0], np.int64))
        shape = graph.add("Concat", graph.constant([-1], np.int64), axis=0)
        graph.add("Reshape", shape, first=features)
    else:
        sizes = {"one": [1, -1], "free": [-1, 48], "both": [1, 48], "zero": [0, -1]}[flatten]
        graph.add("Reshape", graph.constant(sizes, np.int64))
    dense(graph, 48, 6)
    graph.add("Relu")
    dense(graph, 6, 4, "matmul")
    return graph.model((batch, 1, 8, 8), (batch, 4), **options)
