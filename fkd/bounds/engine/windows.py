"""Backward propagation of single units of a map: each only meets the window of pixels it can see.

The coefficients of a unit at position (i, j) of a layer live, at every layer below, on the window of
height ``h`` and width ``w`` that starts at ``(i S - P, j S - P')``: stride and padding add up on the way
down.  Only the units asked for are propagated, for all examples in one flat list, so the cost is that
of the open units and their receptive fields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from fkd.bounds.engine.graph import Graph
from fkd.bounds.engine.layers import (
    Addition,
    AveragePooling,
    ChannelAffine,
    Convolution,
    Layer,
    Rectifier,
    Reshape,
)
from fkd.bounds.engine.relaxation import Relaxation

#: Largest matrix that a kernel is turned into, rows.
_WIDEST = 512


@dataclass(frozen=True)
class Window:
    """Coefficients on the windows of one layer's map.

    Attributes:
        values: (S, M, C, h, w): for upper bounds of S signs (usually + and -) times each unit.
        stride: of the window's start per position of the unit, rows and columns.
        padding: how far before position times stride the window starts.
    """

    values: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]

    def padded_to(self, padding: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """The values in a larger window that starts ``padding`` before position times stride."""
        top, left = padding[0] - self.padding[0], padding[1] - self.padding[1]
        height, width = self.values.shape[-2:]
        return functional.pad(
            self.values, (left, size[1] - width - left, top, size[0] - height - top)
        )

    def __add__(self, other: Window) -> Window:
        """Sum of two windows of the same layer: where branches of a residual block part."""
        padding = (
            max(self.padding[0], other.padding[0]),
            max(self.padding[1], other.padding[1]),
        )
        size = tuple(
            max(
                window.values.shape[3 + axis] + padding[axis] - window.padding[axis]
                for window in (self, other)
            )
            for axis in (0, 1)
        )
        return Window(
            self.padded_to(padding, size) + other.padded_to(padding, size), self.stride, padding
        )


@dataclass(frozen=True)
class Units:
    """Units of a map's layer, in a flat list over all examples; every tensor int64 (M,)."""

    example: Tensor
    channel: Tensor
    row: Tensor
    column: Tensor

    @classmethod
    def where(cls, mask: Tensor) -> Units:
        """The units marked in ``mask`` (N, C, H, W)."""
        return cls(*mask.nonzero(as_tuple=True))

    def __len__(self) -> int:
        return len(self.example)

    def __getitem__(self, rows: slice) -> Units:
        return Units(self.example[rows], self.channel[rows], self.row[rows], self.column[rows])

    def gather(self, tensor: Tensor, window: Window) -> Tensor:
        """What each unit's window sees of ``tensor`` (N, C, H, W), 0 beyond the map; (M, C, h, w)."""
        channels = tensor.shape[1]
        height, width = window.values.shape[-2:]
        rows, columns = int(self.row.max()) + 1, int(self.column.max()) + 1
        top, left = window.padding
        # Exactly the windows of positions 0 .. rows - 1 and 0 .. columns - 1; negative pads cut.
        bottom = (rows - 1) * window.stride[0] - top + height - tensor.shape[2]
        right = (columns - 1) * window.stride[1] - left + width - tensor.shape[3]
        padded = functional.pad(tensor, (left, right, top, bottom))
        seen = functional.unfold(padded, (height, width), stride=window.stride)
        # One row an example and position, next to each other in memory: picking rows is then fast.
        table = seen.transpose(1, 2).reshape(-1, channels * height * width)
        place = (self.example * rows + self.row) * columns + self.column
        return table.index_select(0, place).view(-1, channels, height, width)


def can_slide(layers: tuple[Layer, ...], graph: Graph, position: int) -> bool:
    """Whether everything from ``position`` down to the image keeps the shape of a map.

    Branches of a sum have to reach what they share with the same stride, or their windows do not move
    together.
    """
    strides = {position: (1, 1)}
    for node in range(position, 0, -1):
        if node not in strides:
            continue
        layer = layers[node]
        is_map = isinstance(layer, Convolution | ChannelAffine | Rectifier | Addition) or (
            isinstance(layer, AveragePooling) and layer.kernel is not None
        )
        is_map = is_map or (isinstance(layer, Reshape) and not layer.flatten)
        if not is_map:
            return False
        _, step = _kernel(layer)
        stride = (strides[node][0] * step[0], strides[node][1] * step[1])
        for source in graph.nodes[node].inputs:
            if strides.setdefault(source, stride) != stride:
                return False
    return True


def _kernel(layer: Layer) -> tuple[tuple[int, int], tuple[int, int]]:
    """Extent (dilation counted) and stride of a layer's kernel; ((1, 1), (1, 1)) where it has none."""
    if isinstance(layer, AveragePooling):
        return layer.kernel, layer.stride
    if isinstance(layer, Convolution):
        sides = layer.module.weight.shape[-2:]
        extent = tuple(d * (k - 1) + 1 for d, k in zip(layer.dilation, sides, strict=True))
        return extent, layer.stride
    return (1, 1), (1, 1)


def window_sizes(
    layers: tuple[Layer, ...], graph: Graph, position: int
) -> dict[int, tuple[int, int]]:
    """Height and width of the window of one unit of ``position`` at every node below it."""
    sizes = {position: (1, 1)}
    for node in range(position, 0, -1):
        if node not in sizes:
            continue
        extent, stride = _kernel(layers[node])
        below = tuple((sizes[node][k] - 1) * stride[k] + extent[k] for k in (0, 1))
        for source in graph.nodes[node].inputs:
            seen = sizes.get(source, (1, 1))
            sizes[source] = (max(seen[0], below[0]), max(seen[1], below[1]))
    return sizes


class Slide:
    """One backward pass of a flat list of units.

    Args:
        layers: resolved layers of the network.
        graph: its graph.
        sizes: height and width of every node's map.
        relaxations: of every ReLU below, by position.
    """

    def __init__(
        self,
        layers: tuple[Layer, ...],
        graph: Graph,
        shapes: list[torch.Size],
        relaxations: dict[int, Relaxation],
    ) -> None:
        self.layers, self.graph, self.shapes = layers, graph, shapes
        self.relaxations = relaxations

    def run(
        self,
        position: int,
        units: Units,
        like: Tensor,
        *,
        signs: tuple[float, ...] = (1.0, -1.0),
        capture: Callable[[int, Window], None] | None = None,
    ) -> tuple[Window, Tensor]:
        """Upper bounds, linear in the image, of ``sign`` times each unit; constants (S, M).

        Args:
            position: node of the units.
            units: M units.
            like: a tensor of the type and device to use.
            signs: S signs.
            capture: told the coefficients that reach each ReLU's output, before they pass.
        """
        channels = self.shapes[position][0]
        values = like.new_zeros(len(signs), len(units), channels, 1, 1)
        every = torch.arange(len(units), device=like.device)
        for row, sign in enumerate(signs):
            values[row, every, units.channel] = sign
        waiting = {position: Window(values, (1, 1), (0, 0))}
        constant = like.new_zeros(len(signs), len(units))
        for node in range(position, 0, -1):
            if node not in waiting:
                continue
            window = waiting.pop(node)
            if capture is not None and isinstance(self.layers[node], Rectifier):
                capture(node, window)
            window, extra = self._through(node, window, units)
            constant = constant + extra
            for source in self.graph.nodes[node].inputs:
                waiting[source] = waiting[source] + window if source in waiting else window
        return waiting[0], constant

    def _through(self, node: int, window: Window, units: Units) -> tuple[Window, Tensor | float]:
        layer = self.layers[node]
        if isinstance(layer, Rectifier):
            return self._through_relu(self.relaxations[node], window, units)
        if isinstance(layer, Addition | Reshape):
            return window, 0.0
        # The window may reach beyond the map, where there is no unit, nor a bias.
        values = window.values
        if values.shape[-2:] != (1, 1) or window.padding != (0, 0):
            values = values * self._inside(node, window, units)
        if isinstance(layer, ChannelAffine):
            extra = values.flatten(3).sum(3) @ layer.shift
            return replace(window, values=values * layer.scale[:, None, None]), extra
        return self._through_kernel(node, replace(window, values=values))

    def _inside(self, node: int, window: Window, units: Units) -> Tensor:
        """1 where the window lies on the map, 0 beyond; (M, 1, h, w)."""
        inside = []
        for axis, positions in ((0, units.row), (1, units.column)):
            size = window.values.shape[3 + axis]
            start = positions * window.stride[axis] - window.padding[axis]
            places = start[:, None] + torch.arange(size, device=start.device)
            inside.append((places >= 0) & (places < self.shapes[node][1 + axis]))
        both = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return both.to(window.values.dtype)

    def _through_kernel(self, node: int, window: Window) -> tuple[Window, Tensor | float]:
        values, layer = window.values, self.layers[node]
        extra: Tensor | float = 0.0
        if isinstance(layer, Convolution) and layer.module.bias is not None:
            extra = values.flatten(3).sum(3) @ layer.module.bias
        stride = layer.stride
        padding = layer.padding if isinstance(layer, Convolution) else (0, 0)
        return Window(
            self._transposed(node, values),
            (window.stride[0] * stride[0], window.stride[1] * stride[1]),
            (
                window.padding[0] * stride[0] + padding[0],
                window.padding[1] * stride[1] + padding[1],
            ),
        ), extra

    def _transposed(self, node: int, values: Tensor) -> Tensor:
        """The transposed kernel on (2, M, C, h, w); as a matrix where that is small enough."""
        flat = values.flatten(0, 1)
        shape = flat.shape[1:]
        (height, width), stride = _kernel(self.layers[node])
        below = (
            self.shapes[self.graph.nodes[node].inputs[0]][0],
            (shape[1] - 1) * stride[0] + height,
            (shape[2] - 1) * stride[1] + width,
        )
        rows = shape.numel()
        # Many small maps are slow to convolve; one matrix product beats it until it grows too wide.
        if rows <= _WIDEST and rows <= 2 * len(flat):
            identity = torch.eye(rows, dtype=flat.dtype, device=flat.device)
            matrix = self._convolved(node, identity.unflatten(1, shape)).flatten(1)
            back = (flat.flatten(1) @ matrix).unflatten(1, below)
        else:
            back = self._convolved(node, flat)
        return back.unflatten(0, values.shape[:2])

    def _convolved(self, node: int, flat: Tensor) -> Tensor:
        layer = self.layers[node]
        if isinstance(layer, AveragePooling):
            channels, kernel = flat.shape[1], layer.kernel
            weight = flat.new_full((channels, 1, *kernel), 1.0 / (kernel[0] * kernel[1]))
            return functional.conv_transpose2d(flat, weight, None, layer.stride, groups=channels)
        return functional.conv_transpose2d(
            flat,
            layer.module.weight,
            None,
            layer.stride,
            groups=layer.groups,
            dilation=layer.dilation,
        )

    def _through_relu(
        self, relaxation: Relaxation, window: Window, units: Units
    ) -> tuple[Window, Tensor]:
        positive = window.values.clamp_min(0.0)
        lower = units.gather(relaxation.default, window)
        rise = units.gather(relaxation.slope - relaxation.default, window)
        intercept = units.gather(relaxation.intercept, window)
        constant = torch.einsum("smchw,mchw->sm", positive, intercept)
        passed = window.values * lower
        return replace(window, values=passed.addcmul_(positive, rise)), constant
