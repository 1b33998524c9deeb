"""Gradients that see beyond one linear piece: ReLU's derivative softened by what it meets in a ball.

A gradient knows the linear piece that it is taken on; a step of epsilon leaves that piece at once.  Where
a unit's input changes its sign within the ball, its derivative 0 or 1 becomes ``sigmoid(z / (k w))`` with
w the width of the inputs seen in that ball (as linear back-propagation does without widths: Guo, Li
and Chen, 2012.03528), or by the slopes of CROWN's relaxation (Zhang et al., 1811.00866), as if what was
seen were bounds.  Values are the network's own; nothing is claimed of these gradients but that following
them finds more.  Calls of ReLU are told apart by their order; what is not one keeps its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_RELUS = {torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, nn.functional.relu}
_IN_PLACE = {torch.relu_, Tensor.relu_}

#: What becomes of the input of the call of this number.
_Handle = Callable[[int, Tensor], Tensor]


class _Intercepted(TorchFunctionMode):
    """Calls of ReLU go to ``handle``."""

    def __init__(self, handle: _Handle) -> None:
        super().__init__()
        self._handle, self._number = handle, -1

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in _RELUS:
            return func(*args, **kwargs)
        values = args[0] if args else kwargs["input"]
        self._number += 1
        result = self._handle(self._number, values)
        is_in_place = func in _IN_PLACE or kwargs.get("inplace", False) or args[1:2] == (True,)
        return values.copy_(result) if is_in_place else result


class _Softened(torch.autograd.Function):
    """ReLU with another derivative."""

    @staticmethod
    def forward(ctx, values: Tensor, derivative: Tensor) -> Tensor:
        ctx.save_for_backward(derivative)
        return values.clamp_min(0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.saved_tensors[0], None


class _Relaxed(torch.autograd.Function):
    """ReLU between two lines: the upper one where more is wanted, the lower where less is."""

    @staticmethod
    def forward(ctx, values: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
        ctx.save_for_backward(upper, lower)
        return values.clamp_min(0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        upper, lower = ctx.saved_tensors
        return gradient * torch.where(gradient > 0, upper, lower), None, None


@dataclass
class Ranges:
    """The least and the largest input of each call of ReLU seen, (M, ...) each, for M rows.

    Attributes:
        low: one tensor a call, in order.
        high: the same.
    """

    low: list[Tensor]
    high: list[Tensor]

    def __getitem__(self, rows: Tensor) -> Ranges:
        return Ranges([part[rows] for part in self.low], [part[rows] for part in self.high])

    def take(self, number: int, low: Tensor, high: Tensor) -> None:
        """Widen the ranges of a call; a call that was never seen adds its own."""
        if number == len(self.low):
            self.low.append(low)
            self.high.append(high)
        elif number < len(self.low) and self.low[number].shape == low.shape:
            self.low[number] = torch.minimum(self.low[number], low)
            self.high[number] = torch.maximum(self.high[number], high)

    def of(self, number: int, values: Tensor) -> tuple[Tensor, Tensor] | None:
        """Those of a call on ``values``; None where another network was seen than is asked."""
        if number < len(self.low) and self.low[number].shape == values.shape:
            return self.low[number], self.high[number]
        return None


def observe(network: nn.Module, points: Tensor, ranges: Ranges) -> Tensor:
    """Logits (N, P, K) at points (N, P, C, H, W), with N rows of ``ranges`` widened by what is seen."""
    count, each = points.shape[:2]

    def handle(number: int, values: Tensor) -> Tensor:
        if len(values) == count * each:
            seen = values.unflatten(0, (count, each))
            ranges.take(number, seen.amin(1), seen.amax(1))
        return torch.relu(values)

    with torch.no_grad(), _Intercepted(handle):
        return network(points.flatten(0, 1)).unflatten(0, (count, each))


def softened(network: nn.Module, points: Tensor, ranges: Ranges, softness: float) -> Tensor:
    """Logits (M, K) at points (M, C, H, W), with derivatives softened over this share of each width."""

    def handle(number: int, values: Tensor) -> Tensor:
        seen = ranges.of(number, values)
        if seen is None:
            return torch.relu(values)
        width = softness * (seen[1] - seen[0])
        tiny = torch.finfo(values.dtype).tiny
        return _Softened.apply(values, torch.sigmoid(values.detach() / width.clamp_min(tiny)))

    with _Intercepted(handle):
        return network(points)


def relaxed(network: nn.Module, points: Tensor, ranges: Ranges, widening: float) -> Tensor:
    """The same with CROWN's slopes for the ranges seen, ``widening`` times as wide."""

    def handle(number: int, values: Tensor) -> Tensor:
        seen = ranges.of(number, values)
        if seen is None:
            return torch.relu(values)
        middle, half = 0.5 * (seen[0] + seen[1]), 0.5 * widening * (seen[1] - seen[0])
        low, high = middle - half, middle + half
        is_on = (low >= 0).to(values.dtype)
        is_open = (low < 0) & (high > 0)
        upper = torch.where(is_open, high / (high - low), is_on)
        lower = torch.where(is_open, (high > -low).to(values.dtype), is_on)
        return _Relaxed.apply(values, upper, lower)

    with _Intercepted(handle):
        return network(points)


def no_ranges(count: int) -> Sequence[Ranges]:
    """Of ``count`` networks nothing has been seen."""
    return tuple(Ranges([], []) for _ in range(count))
