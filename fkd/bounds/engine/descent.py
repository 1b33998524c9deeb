"""Adam with a decaying rate for many small problems side by side (Kingma and Ba, 1412.6980).

torch's own imports its compiler on the first step, which takes seconds; and its parameters are modules'.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_MEAN, _SQUARE, _LAST_SHARE = 0.8, 0.95, 0.1


class Adam:
    """Minimises in place.

    Args:
        tensors: what is changed.
        rates: first step of each.
        steps: how many steps there will be; the rate falls to a tenth.
    """

    def __init__(self, tensors: Sequence[Tensor], rates: Sequence[float], steps: int) -> None:
        self.tensors, self.rates, self.steps = list(tensors), list(rates), max(1, steps)
        self.means = [torch.zeros_like(part) for part in tensors]
        self.squares = [torch.zeros_like(part) for part in tensors]
        self.done = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """One step down."""
        decay = _LAST_SHARE ** (self.done / self.steps)
        self.done += 1
        correction = (1 - _SQUARE**self.done) ** 0.5 / (1 - _MEAN**self.done)
        for tensor, gradient, mean, square, rate in zip(
            self.tensors, gradients, self.means, self.squares, self.rates, strict=True
        ):
            mean.lerp_(gradient, 1 - _MEAN)
            square.mul_(_SQUARE).addcmul_(gradient, gradient, value=1 - _SQUARE)
            tensor.addcdiv_(mean, square.sqrt().add_(1e-12), value=-rate * decay * correction)
