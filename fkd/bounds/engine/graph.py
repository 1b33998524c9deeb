"""Reads a network into the layers that bounds can pass through, whatever its module structure."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from fkd.bounds.engine import layers
from fkd.core.errors import UnsupportedModelError
from fkd.models._strided import StridedConv2d
from fkd.models.base import ChannelAffine

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_LEAVES = (
    ChannelAffine,
    StridedConv2d,
    nn.Conv2d,
    nn.Linear,
    nn.ReLU,
    nn.Flatten,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.MaxPool2d,
    nn.Identity,
    nn.Dropout,
    *_BATCH_NORMS,
)
_RELUS = (torch.relu, torch.nn.functional.relu, "relu", "relu_")
_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_FLATTENS = (torch.flatten, "flatten")
_MEANS = (torch.mean, "mean")
#: Operations that overwrite what they read.
_IN_PLACE = ("relu_", "add_", operator.iadd)


@dataclass(frozen=True)
class Node:
    """A layer and the positions of the nodes it reads."""

    layer: layers.Layer
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A network as a list in order of computation; node 0 is the image, the last one the logits."""

    nodes: tuple[Node, ...]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # Modules of other packages (onnx2torch's) are opaque too: they are named in the error.
        return _leaf(m) is not None or super().is_leaf_module(m, module_qualified_name)


def _leaf(module: nn.Module) -> type[nn.Module] | None:
    """The kind of layer a module is: a subclass that computes something else is none."""
    for kind in _LEAVES:
        # Parametrised modules are subclasses that keep their forward pass.
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return kind
    return None


def _unsupported(what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Bounds cannot pass through {what}; use a network of convolutions, linear "
        "layers, ReLU, batch normalisation, pooling and sums."
    )


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _average_pool(module: nn.AvgPool2d) -> layers.Layer:
    if _pair(module.padding) != (0, 0) or module.ceil_mode or module.divisor_override:
        raise _unsupported("average pooling with padding, ceil_mode or its own divisor")
    return layers.AveragePooling(_pair(module.kernel_size), _pair(module.stride))


def _module_layer(module: nn.Module) -> layers.Layer:
    """The layer of one leaf module."""
    if _leaf(module) is None:
        raise _unsupported(f"the module {type(module).__name__}")
    if isinstance(module, nn.Conv2d) and (
        module.padding_mode != "zeros" or isinstance(module.padding, str)
    ):
        raise _unsupported(f"a convolution padded by '{module.padding_mode}'/{module.padding!r}")
    if isinstance(module, nn.AdaptiveAvgPool2d):
        if module.output_size not in (1, (1, 1)):
            raise _unsupported(f"adaptive pooling to {module.output_size}")
        return layers.AveragePooling(None)
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
        raise _unsupported(f"a flattening of axes {module.start_dim} to {module.end_dim}")
    if isinstance(module, nn.Dropout) and module.p > 0:
        raise _unsupported("dropout")
    builders: list[tuple[Any, Callable[[Any], layers.Layer]]] = [
        (ChannelAffine, layers.ChannelScaling),
        (nn.Conv2d, layers.Convolution),
        (nn.Linear, layers.FullyConnected),
        (nn.ReLU, lambda _: layers.Rectifier()),
        (nn.Flatten, lambda _: layers.Reshape(flatten=True)),
        (nn.AvgPool2d, _average_pool),
        (nn.MaxPool2d, layers.MaximumPooling),
        ((nn.Identity, nn.Dropout), lambda _: layers.Reshape(flatten=False)),
        (_BATCH_NORMS, layers.BatchNormalisation),
    ]
    for kinds, build in builders:
        if isinstance(module, kinds):
            return build(module)
    raise _unsupported(f"the module {type(module).__name__}")


def _function_layer(node: fx.Node) -> layers.Layer:
    """The layer of a function or method call."""
    target, rest, named = node.target, node.args[1:], dict(node.kwargs)
    if target in _RELUS and not rest and named.keys() <= {"inplace"}:
        return layers.Rectifier()
    are_nodes = all(isinstance(value, fx.Node) for value in node.args)
    if target in _SUMS and len(rest) == 1 and are_nodes and not named:
        return layers.Addition()
    if target in _FLATTENS:
        ends = dict(zip(("start_dim", "end_dim"), rest, strict=False)) | named
        if (ends.get("start_dim", 0), ends.get("end_dim", -1)) == (1, -1):
            return layers.Reshape(flatten=True)
    if target in _MEANS:
        over = dict(zip(("dim", "keepdim"), rest, strict=False)) | named
        axes = over.pop("dim", ())
        keep = over.pop("keepdim", False)
        if axes in ((2, 3), [2, 3], (-2, -1), [-2, -1], (3, 2), [3, 2]) and not over:
            return layers.AveragePooling(None, keep_dimensions=bool(keep))
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    raise _unsupported(f"the operation '{name}'")


def _overwrites(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node writes its result where its first input was."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    return node.target in _IN_PLACE or bool(node.kwargs.get("inplace", False))


def _is_alias(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node's result lies in the memory of its first input."""
    if _overwrites(node, modules) or node.target in _FLATTENS:
        return True
    kinds = (nn.Flatten, nn.Identity, nn.Dropout)
    return node.op == "call_module" and isinstance(modules[str(node.target)], kinds)


def _is_read_elsewhere(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether another node reads what ``node`` overwrites, under this name or another."""
    first = node.all_input_nodes[0]
    while _is_alias(first, modules) and first.all_input_nodes:
        first = first.all_input_nodes[0]
    waiting = [first]
    while waiting:
        name = waiting.pop()
        for user in name.users:
            if user is node:
                continue
            names_it = _is_alias(user, modules) and user.all_input_nodes[0] is name
            if not names_it or user.args.count(name) > 1:
                return True
            waiting.append(user)
    return False


def _check_reading(node: fx.Node, modules: dict[str, nn.Module]) -> None:
    """Refuse values read by keyword, and values overwritten although another node reads them.

    Both would be followed wrongly without a word: bounds know arguments by position, and never
    overwrite.

    Raises:
        UnsupportedModelError: the node is such a one.
    """
    if any(isinstance(value, fx.Node) for value in (*node.args[2:], *node.kwargs.values())):
        raise _unsupported(f"the keyword arguments of '{node.name}'")
    if _overwrites(node, modules) and _is_read_elsewhere(node, modules):
        raise _unsupported(f"'{node.name}', which overwrites a value that is read elsewhere")


def trace(network: nn.Module) -> Graph:
    """The network's layers in order of computation, sharing its parameters.

    Raises:
        UnsupportedModelError: the network holds an operation that bounds cannot pass through.
    """
    for module in network.modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise _unsupported(f"the forward hooks of {type(module).__name__}")
    try:
        graph = _Tracer().trace(network)
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise _unsupported(f"a forward pass that cannot be read ({error})") from None
    positions: dict[fx.Node, int] = {}
    nodes: list[Node] = []
    modules = dict(network.named_modules())
    for node in graph.nodes:
        if node.op == "output":
            (result,) = node.args
            if not isinstance(result, fx.Node) or positions[result] != len(nodes) - 1:
                raise _unsupported("several outputs")
            break
        if node.op == "placeholder":
            layer: layers.Layer = layers.Reshape(flatten=False)
        elif node.op == "call_module":
            layer = _module_layer(modules[str(node.target)])
        elif node.op in ("call_function", "call_method"):
            layer = _function_layer(node)
        else:
            raise _unsupported(f"the constant '{node.target}'")
        if node.op != "placeholder":
            _check_reading(node, modules)
        positions[node] = len(nodes)
        read = [value for value in node.args[:2] if isinstance(value, fx.Node)]
        nodes.append(Node(layer, tuple(positions[value] for value in read)))
    return Graph(tuple(nodes))
