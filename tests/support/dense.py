"""A small ReLU network as dense matrices, found by feeding it unit vectors.

Every ReLU of the network is replaced by a free variable y, so that each pre-activation h and each logit
is an affine function of the image x and of the y before it.  Its coefficients are read off at 0 and at
the unit vectors: convolutions, batch normalisation, average pooling, residual sums, whatever is affine.
Maximum pooling is written as ``max(a, b) = a + relu(b - a)``.  Nothing of `fkd.bounds` is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fkd.core.precision import double_copy

_RELUS = {functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


@dataclass(frozen=True)
class DenseNetwork:
    """``h_i = W_i (x, y_1 .. y_{i-1}) + b_i``, ``y_i = relu(h_i)``, logits last; float64.

    Attributes:
        weights: (H + K, n + H), the rows of all pre-activations in order, then of the logits.
        bias: (H + K,).
        layers: the neurons of each ReLU call, as slices of 0 .. H.
        inputs: n.
    """

    weights: Tensor
    bias: Tensor
    layers: tuple[slice, ...]
    inputs: int

    @property
    def hidden(self) -> int:
        """Number of ReLUs, H."""
        return self.weights.shape[1] - self.inputs

    @property
    def classes(self) -> int:
        """Number of logits, K."""
        return len(self.weights) - self.hidden

    def logits(self, points: Tensor) -> Tensor:
        """Logits (N, K) at points (N, n)."""
        known = points.double()
        for layer in self.layers:
            width = known.shape[1]
            before = known @ self.weights[layer, :width].T + self.bias[layer]
            known = torch.cat([known, before.clamp_min(0.0)], dim=1)
        return known @ self.weights[self.hidden :].T + self.bias[self.hidden :]

    def intervals(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Interval bounds (N, H + K) of all pre-activations and logits on boxes (N, n)."""
        positive, negative = self.weights.clamp_min(0.0), self.weights.clamp_max(0.0)
        low, high, lows, highs = lower, upper, [], []
        for rows in (*self.layers, slice(self.hidden, None)):
            width = low.shape[1]
            up, down = positive[rows, :width].T, negative[rows, :width].T
            lows.append(low @ up + high @ down + self.bias[rows])
            highs.append(high @ up + low @ down + self.bias[rows])
            low = torch.cat([low, lows[-1].clamp_min(0.0)], dim=1)
            high = torch.cat([high, highs[-1].clamp_min(0.0)], dim=1)
        return torch.cat(lows, dim=1), torch.cat(highs, dim=1)


class _Intercept(TorchFunctionMode):
    """Hands every ReLU, and every ReLU that a maximum pooling consists of, to ``relu``."""

    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._relu = relu

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func in _RELUS:
            return self._relu(args[0])
        if func in (functional.max_pool2d, torch.max_pool2d):
            return self._pool(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _pool(
        self, images: Tensor, kernel: Any, stride: Any = None, padding: Any = 0, *_: Any, **__: Any
    ) -> Tensor:
        assert padding in (0, (0, 0)), "only pooling without padding is written as ReLUs"
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        down, right = (stride, stride) if isinstance(stride, int) else (stride or (height, width))
        windows = images.unfold(2, height, down).unfold(3, width, right).flatten(4)
        largest = windows[..., 0]
        for place in range(1, windows.shape[-1]):
            largest = largest + self._relu(windows[..., place] - largest)
        return largest


def dense_form(network: nn.Module, image_shape: tuple[int, ...]) -> DenseNetwork:
    """The matrices of a ReLU network that takes images (N, *image_shape), in float64."""
    exact = double_copy(network)
    inputs = int(torch.tensor(image_shape).prod())
    sizes: list[int] = []

    def count(before: Tensor) -> Tensor:
        sizes.append(before[0].numel())
        return before.clamp_min(0.0)

    with torch.no_grad(), _Intercept(count):
        exact(torch.zeros(1, *image_shape, dtype=torch.float64))
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
    layers = tuple(slice(a, b) for a, b in itertools.pairwise(ends))
    hidden = ends[-1]
    # Row 0 is the origin, row 1 + i the i-th unit vector of (x, y).
    probes = torch.cat(
        [
            torch.zeros(1, inputs + hidden, dtype=torch.float64),
            torch.eye(inputs + hidden, dtype=torch.float64),
        ]
    )
    seen: list[Tensor] = []

    def replace(before: Tensor) -> Tensor:
        place = layers[len(seen)]
        seen.append(before.flatten(1))
        return probes[:, inputs + place.start : inputs + place.stop].reshape(before.shape)

    with torch.no_grad(), _Intercept(replace):
        logits = exact(probes[:, :inputs].reshape(-1, *image_shape))
    values = torch.cat([*seen, logits], dim=1)
    return DenseNetwork(
        weights=(values[1:] - values[0]).T.contiguous(),
        bias=values[0],
        layers=layers,
        inputs=inputs,
    )
