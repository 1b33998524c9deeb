"""Adam with a decaying rate for many small problems side by side (Kingma and Ba, 1412.6980).

torch's own imports its compiler on the first step, which takes seconds; and its parameters are modules'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def minimise(
    tensors: Sequence[Tensor],
    rates: Sequence[float],
    steps: int,
    total: Callable[[], Tensor],
    settle: Callable[[], None],
) -> None:
    """Change ``tensors`` in place so that ``total`` of them falls.

    Args:
        tensors: what is changed.
        rates: first step of each.
        steps: how many.
        total: the sum to minimise, from the tensors as they are.
        settle: brings the tensors back to where they are sound, after each step.
    """
    descent = Adam(tensors, rates, steps)
    for _ in range(steps):
        for part in tensors:
            part.requires_grad_(True)
        gradients = torch.autograd.grad(total(), tensors, allow_unused=True)
        for part in tensors:
            part.requires_grad_(False)
        descent.step(
            [
                torch.zeros_like(part) if gradient is None else gradient
                for part, gradient in zip(tensors, gradients, strict=True)
            ]
        )
        settle()
