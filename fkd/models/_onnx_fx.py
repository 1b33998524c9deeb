"""From an ONNX graph to plain torch modules that auto_LiRPA can trace in float32 and float64."""

from __future__ import annotations

from collections import OrderedDict
from math import prod

import torch
from onnx import ModelProto
from torch import Tensor, fx, nn

from fkd.core.errors import UnsupportedModelError
from fkd.models.base import ChannelAffine


class BatchReshape(nn.Module):
    """Gives each example a shape, whatever the batch size."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, values: Tensor) -> Tensor:
        """(N, ...) to (N, *shape)."""
        return values.reshape(-1, *self.shape)


def to_modules(model: ModelProto, image_shape: tuple[int, int, int], shown: str) -> nn.Module:
    """A network from (N, C, H, W) images to the graph's output.

    MatMul and Add with constants become dense layers, reshapes get static sizes, and per-channel
    arithmetic at the start becomes a 1x1 convolution (auto_LiRPA bounds neither of the original forms
    in its fast mode).  A graph without branches becomes a `torch.nn.Sequential`.

    Args:
        model: prepared by `fkd.models._onnx_static.prepare`.
        image_shape: (C, H, W).
        shown: the file's name for error messages.

    Raises:
        UnsupportedModelError: onnx2torch cannot convert the graph.
    """
    from onnx2torch import convert

    try:
        module = convert(model)
    except Exception as error:  # onnx2torch raises whatever its converters meet
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UnsupportedModelError(
            f"{shown} cannot be converted to PyTorch ({reason}); export it with simpler operators."
        ) from None
    _simplify(module, image_shape[0])
    weights = {tensor.name for tensor in model.graph.initializer}
    source = next(value for value in model.graph.input if value.name not in weights)
    sizes = tuple(dim.dim_value for dim in source.type.tensor_type.shape.dim[1:])
    body = _as_sequential(module)
    if sizes == tuple(image_shape):
        return body
    first: nn.Module = nn.Flatten() if sizes == (prod(sizes),) else BatchReshape(sizes)
    if isinstance(body, nn.Sequential):
        return nn.Sequential(OrderedDict([("input", first), *body.named_children()]))
    return nn.Sequential(OrderedDict(input=first, graph=body))


def _simplify(module: fx.GraphModule, channels: int) -> None:
    """Replace onnx2torch's generic operators by plain modules, in place."""
    for node in list(module.graph.nodes):
        if node.op != "call_module":
            continue
        kind = type(module.get_submodule(node.target)).__name__
        if kind == "OnnxReshape":
            _static_reshape(module, node)
        elif kind == "OnnxMatMul":
            _dense_layer(module, node)
        elif kind == "OnnxGemm":
            _dense_gemm(module, node)
    _fold_first_arithmetic(module, channels)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.graph.lint()
    module.recompile()


def _constant(module: fx.GraphModule, argument: object) -> Tensor | None:
    """The tensor that an argument stands for, None where it depends on the images."""
    if not isinstance(argument, fx.Node) or argument.op != "get_attr":
        return None
    value: object = module
    for part in argument.target.split("."):
        value = getattr(value, part)
    return value if isinstance(value, Tensor) else None


def _replace(module: fx.GraphModule, node: fx.Node, new: nn.Module, source: fx.Node) -> None:
    """Let ``new``, applied to ``source``, take the place of ``node``."""
    setattr(module, node.target, new)
    node.args = (source,)
    node.kwargs = {}


def _static_reshape(module: fx.GraphModule, node: fx.Node) -> None:
    shape = _constant(module, node.args[1])
    if shape is None or len(shape) < 2 or int(shape[0]) != -1 or bool((shape[1:] <= 0).any()):
        return
    sizes = tuple(int(size) for size in shape[1:])
    new = nn.Flatten() if len(sizes) == 1 else BatchReshape(sizes)
    _replace(module, node, new, node.args[0])


def _dense_layer(module: fx.GraphModule, node: fx.Node) -> None:
    """x W, and x W + b where an addition of a vector follows, as one ``nn.Linear``."""
    weight = _constant(module, node.args[1])
    if weight is None or weight.dim() != 2:
        return
    layer = nn.Linear(*weight.shape, bias=False, dtype=weight.dtype)
    layer.weight.data = weight.T.contiguous()
    _replace(module, node, layer, node.args[0])
    users = list(node.users)
    if len(users) != 1 or _operation(module, users[0]) is not torch.add:
        return
    other = next((arg for arg in users[0].args if arg is not node), None)
    bias = _constant(module, other)
    if bias is None or bias.numel() != weight.shape[1] or bias.shape[-1] != weight.shape[1]:
        return
    if bias.dim() > 2:
        return
    layer.bias = nn.Parameter(bias.reshape(-1).clone())
    users[0].replace_all_uses_with(node)
    module.graph.erase_node(users[0])


def _dense_gemm(module: fx.GraphModule, node: fx.Node) -> None:
    """alpha x W + beta c with a constant row c, which onnx2torch leaves as arithmetic."""
    gemm = module.get_submodule(node.target)
    weight = _constant(module, node.args[1])
    row = _constant(module, node.args[2]) if len(node.args) > 2 else None
    if gemm.trans_a or weight is None or row is None:
        return
    weight = (weight if gemm.trans_b else weight.T) * gemm.alpha
    outputs, inputs = weight.shape
    if row.numel() not in (1, outputs) or tuple(row.shape) not in (
        (),
        (1,),
        (outputs,),
        (1, outputs),
        (1, 1),
    ):
        return
    layer = nn.Linear(inputs, outputs, dtype=weight.dtype)
    layer.weight.data = weight.contiguous()
    layer.bias.data = (row.reshape(-1) * gemm.beta).expand(outputs).clone()
    _replace(module, node, layer, node.args[0])


def _operation(module: fx.GraphModule, node: fx.Node) -> object:
    """The torch function behind onnx2torch's elementwise arithmetic, None for other nodes."""
    if node.op != "call_module":
        return None
    return getattr(module.get_submodule(node.target), "math_op_function", None)


def _fold_first_arithmetic(module: fx.GraphModule, channels: int) -> None:
    """Per-channel +, -, *, / with constants right after the input, as one 1x1 convolution."""
    start = next(node for node in module.graph.nodes if node.op == "placeholder")
    scale = torch.ones(channels, dtype=torch.float64)
    shift = torch.zeros(channels, dtype=torch.float64)
    node, last = start, None
    while len(node.users) == 1:
        follower = next(iter(node.users))
        step = _channel_step(module, follower, node, channels)
        if step is None:
            break
        scale, shift = scale * step[0], shift * step[0] + step[1]
        node = last = follower
    if last is not None:
        _replace(module, last, ChannelAffine(scale, shift), start)


def _channel_step(
    module: fx.GraphModule, node: fx.Node, source: fx.Node, channels: int
) -> tuple[Tensor, Tensor] | None:
    """(a, b) with node = a source + b per channel, float64; None where it is nothing of the kind."""
    operation = _operation(module, node)
    name = getattr(operation, "__name__", "")
    if name not in ("add", "sub", "mul", "_onnx_div") or len(node.args) != 2:
        return None
    is_first = node.args[0] is source
    constant = _constant(module, node.args[1] if is_first else node.args[0])
    if constant is None:
        return None
    # Only (C, 1, 1), (1, C, 1, 1) and single numbers act per channel.
    shape = (1,) * (4 - constant.dim()) + tuple(constant.shape)
    if len(shape) != 4 or shape[0] != 1 or shape[2:] != (1, 1) or shape[1] not in (1, channels):
        return None
    value = constant.double().reshape(-1).expand(channels)
    one, zero = torch.ones_like(value), torch.zeros_like(value)
    if name == "add":
        return one, value
    if name == "mul":
        return value, zero
    if name == "sub":
        return (one, -value) if is_first else (-one, value)
    return (1.0 / value, zero) if is_first and bool((value != 0).all()) else None


def _as_sequential(module: fx.GraphModule) -> nn.Module:
    """The graph as ``nn.Sequential`` where each step takes the one before, else as it is."""
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    previous: fx.Node | None = None
    for node in module.graph.nodes:
        if node.op == "placeholder":
            previous = node
        elif node.op == "output":
            if node.args != (previous,):
                return module
        elif node.op != "call_module" or node.args != (previous,) or node.kwargs:
            return module
        else:
            part = module.get_submodule(node.target)
            steps[f"{type(part).__name__.lower()}{len(steps) + 1}"] = part
            previous = node
    return nn.Sequential(steps)
