"""The linear relaxation of ReLU on an interval, for every unit of a layer at once.

On [l, u] with l < 0 < u: ``alpha h <= relu(h) <= u / (u - l) (h - l)`` for every alpha in [0, 1]
(CROWN, 1811.00866; the free lower slope: alpha-CROWN, 2011.13824).  A unit of one sign is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def may_have_either_sign(lower: Tensor, upper: Tensor) -> Tensor:
    """Which units are open; bounds that are NaN (an overflow) prove no sign."""
    return ~((lower >= 0) | (upper <= 0))


@dataclass(frozen=True)
class Relaxation:
    """Slopes of one ReLU layer; every tensor (N, *shape of the layer).

    Attributes:
        lower: proved lower bounds of the pre-activations.
        upper: proved upper bounds.
        slope: of the upper line; 1 or 0 for units of one sign.
        intercept: of the upper line, >= 0.
        default: of the lower line where none is chosen, 0 or 1 at open units.
        is_open: whether the unit's sign is not known.
    """

    lower: Tensor
    upper: Tensor
    slope: Tensor
    intercept: Tensor
    default: Tensor
    is_open: Tensor

    @classmethod
    def of(cls, lower: Tensor, upper: Tensor, rising: Tensor | None = None) -> Relaxation:
        """The relaxation on [lower, upper].

        Args:
            lower: (N, *shape).
            upper: the same.
            rising: where the lower line's default slope is 1; ``upper > -lower`` if not given.
        """
        is_open = may_have_either_sign(lower, upper)
        fixed = (upper > 0).to(lower.dtype)
        width = torch.where(is_open, upper - lower, torch.ones_like(lower))
        slope = torch.where(is_open, upper / width, fixed)
        intercept = torch.where(is_open, -slope * lower, torch.zeros_like(lower))
        if rising is None:
            rising = upper > -lower
        default = torch.where(is_open, rising.to(lower.dtype), fixed)
        return cls(lower, upper, slope, intercept, default, is_open)

    def least_area(self) -> Relaxation:
        """The same bounds with the lower slope that leaves the smaller triangle, ``1[u > -l]``."""
        return Relaxation.of(self.lower, self.upper)

    def settled(self, kept: Tensor) -> Relaxation:
        """Only the units that are not ``kept``, all of one sign, exactly; kept ones pass nothing."""
        fixed = ((self.lower >= 0) & ~kept).to(self.lower.dtype)
        nothing = torch.zeros_like(fixed)
        return Relaxation(
            self.lower, self.upper, fixed, nothing, fixed, torch.zeros_like(self.is_open)
        )

    def lower_slope(self, alpha: Tensor | None) -> Tensor:
        """Slope of the lower line for rows (N, 1 or R, *shape): ``alpha`` at open units."""
        default = self.default.unsqueeze(1)
        if alpha is None:
            return default
        return torch.where(self.is_open.unsqueeze(1), alpha, default)

    def back(self, coefficients: Tensor, alpha: Tensor | None) -> tuple[Tensor, Tensor]:
        """Coefficients on h, and constants, of an upper bound of ``coefficients . relu(h)``.

        Args:
            coefficients: (N, R, *shape).
            alpha: lower slopes in [0, 1], (N, R or 1, *shape), or None for the default.

        Returns:
            (N, R, *shape) and (N, R).
        """
        if alpha is None and torch.is_grad_enabled() and self.slope.requires_grad:
            return _Trained.apply(coefficients, self.slope, self.default, self.intercept)
        positive = coefficients.clamp_min(0.0)
        lower_slope = self.lower_slope(alpha)
        passed = coefficients * lower_slope + positive * (self.slope.unsqueeze(1) - lower_slope)
        constant = positive.flatten(2) @ self.intercept.flatten(1).unsqueeze(2)
        return passed, constant.squeeze(2)

    def __getitem__(self, rows: Tensor | slice) -> Relaxation:
        return Relaxation(
            self.lower[rows],
            self.upper[rows],
            self.slope[rows],
            self.intercept[rows],
            self.default[rows],
            self.is_open[rows],
        )


class _Trained(torch.autograd.Function):
    """`Relaxation.back` where the bounds are trained on: half of the passes over memory.

    The lower slopes are steps, which have no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, coefficients: Tensor, slope: Tensor, lower_slope: Tensor, intercept: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(coefficients, slope, lower_slope, intercept)
        positive = coefficients.clamp_min(0.0)
        rise = (slope - lower_slope).unsqueeze(1)
        passed = torch.addcmul(coefficients * lower_slope.unsqueeze(1), positive, rise)
        constant = positive.flatten(2) @ intercept.flatten(1).unsqueeze(2)
        return passed, constant.squeeze(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_passed: Tensor, of_constant: Tensor) -> tuple[Tensor | None, ...]:
        coefficients, slope, lower_slope, intercept = ctx.saved_tensors
        positive = coefficients.clamp_min(0.0)
        each = of_constant.reshape(*of_constant.shape, *(1,) * (coefficients.dim() - 2))
        of_positive = torch.addcmul(
            of_passed * (slope - lower_slope).unsqueeze(1), each, intercept.unsqueeze(1)
        )
        of_coefficients = torch.addcmul(
            of_positive.mul_(coefficients >= 0), of_passed, lower_slope.unsqueeze(1)
        )
        of_slope = (of_passed * positive).sum(1)
        of_intercept = of_constant.unsqueeze(1) @ positive.flatten(2)
        return of_coefficients, of_slope, None, of_intercept.squeeze(1).view_as(intercept)
