"""The set of perturbed images as bounds see it: the largest value of a linear function on it.

L-infinity: the box.  L2: the ball around the image, in pixel units over ``scale``, cut with the box, by
Lagrangian duality: for every mu >= 0 and d = x - x0

    sup a . d  <=  sum_i max_{low_i <= d_i <= high_i} (a_i d_i - mu d_i^2 / (2 s_i^2)) + mu epsilon^2 / 2,

with equality at the best mu, which a few active-set steps find; any other mu is sound.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fkd.bounds.engine.windows import Units, Window
from fkd.core.ball import Region

_ROUNDS = 8


@dataclass(frozen=True)
class InputSet:
    """N sets of images, flattened where it is cheaper; float tensors of one type.

    Attributes:
        lower: lowest pixels (N, C, H, W).
        upper: highest pixels.
        images: centres of the L2 balls; None for boxes.
        radius: of the L2 balls, (N,).
        scale: (C,) pixel units of one unit of radius.
    """

    lower: Tensor
    upper: Tensor
    images: Tensor | None = None
    radius: Tensor | None = None
    scale: Tensor | None = None

    @classmethod
    def of(cls, region: Region, dtype: torch.dtype = torch.float64) -> InputSet:
        """The set of a region; its limits cover the real ball."""
        lower, upper = (limit.to(dtype) for limit in region.double_limits())
        if region.norm == "linf":
            return cls(lower, upper)
        scale = region.scale
        if scale is None:
            scale = torch.ones(region.images.shape[1], dtype=torch.float64)
        return cls(
            lower,
            upper,
            region.images.to(dtype),
            region.radius.to(dtype),
            scale.to(region.images.device, dtype),
        )

    def __len__(self) -> int:
        return len(self.lower)

    def __getitem__(self, rows: Tensor | slice) -> InputSet:
        if self.images is None:
            return InputSet(self.lower[rows], self.upper[rows])
        return InputSet(
            self.lower[rows], self.upper[rows], self.images[rows], self.radius[rows], self.scale
        )

    def to(self, dtype: torch.dtype) -> InputSet:
        """The same set in another precision, for searches whose result is evaluated again."""
        parts = (self.lower, self.upper, self.images, self.radius, self.scale)
        return InputSet(*(None if part is None else part.to(dtype) for part in parts))

    @property
    def size(self) -> Tensor:
        """Largest absolute pixel value, like ``lower``."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    def highest(self, coefficients: Tensor) -> Tensor:
        """Largest value of each linear function.

        Args:
            coefficients: (N, R, C, H, W) or (N, R, C H W).

        Returns:
            (N, R), differentiable in the coefficients.
        """
        rows = coefficients.flatten(2)
        if self.images is None:
            centre = ((self.upper + self.lower) / 2).flatten(1).unsqueeze(2)
            reach = ((self.upper - self.lower) / 2).flatten(1).unsqueeze(2)
            return (rows @ centre + rows.abs() @ reach).squeeze(2)
        scale = self.scale[:, None, None].expand(self.lower.shape[1:]).flatten()
        centre = self.images.flatten(1)
        low, high = self.lower.flatten(1) - centre, self.upper.flatten(1) - centre
        middle = (rows @ centre.unsqueeze(2)).squeeze(2)
        return middle + _support(
            rows, low.unsqueeze(1), high.unsqueeze(1), scale, self.radius[:, None]
        )

    def attained(self, coefficients: Tensor) -> Tensor:
        """Points (M, C, H, W) where each of M linear functions (M, C H W) is large.

        Of the only set, or of M sets each of its own.
        The corner of the box; in L2 it is to be projected on the ball.
        """
        rows = coefficients.unflatten(1, self.lower.shape[1:])
        return torch.where(rows > 0, self.upper, self.lower)

    def highest_seen(self, window: Window, units: Units) -> Tensor:
        """The same for coefficients on windows (2, M, C, h, w): (2, M)."""
        rows = window.values.flatten(2)
        if self.images is None:
            centre = units.gather((self.upper + self.lower) / 2, window).flatten(1)
            reach = units.gather((self.upper - self.lower) / 2, window).flatten(1)
            middle = torch.einsum("smd,md->sm", rows, centre)
            return middle + torch.einsum("smd,md->sm", rows.abs(), reach)
        centre = units.gather(self.images, window).flatten(1)
        low = units.gather(self.lower - self.images, window).flatten(1)
        high = units.gather(self.upper - self.images, window).flatten(1)
        scale = self.scale[:, None, None].expand(window.values.shape[2:]).flatten()
        middle = torch.einsum("smd,md->sm", rows, centre)
        return middle + _support(rows, low, high, scale, self.radius[units.example])


def _support(rows: Tensor, low: Tensor, high: Tensor, scale: Tensor, radius: Tensor) -> Tensor:
    """``sup a . d`` over low <= d <= high and ||d / scale|| <= radius; last axis is summed.

    Args:
        rows: a, (..., D).
        low: broadcastable to ``rows``, <= 0.
        high: >= 0.
        scale: (D,).
        radius: broadcastable to ``rows`` without its last axis.
    """
    tiny = torch.finfo(rows.dtype).tiny
    with torch.no_grad():
        steep = (rows * scale) ** 2
        budget = radius**2
        # Without clipping mu = ||a s|| / epsilon; clipping only ever lowers it.
        mu = (steep.sum(-1) / budget.clamp_min(tiny)).sqrt()
        for _ in range(_ROUNDS):
            step = rows * scale**2 / mu.clamp_min(tiny).unsqueeze(-1)
            clipped = (step < low) | (step > high)
            used = torch.where(clipped, (step.clamp(low, high) / scale) ** 2, 0.0).sum(-1)
            free = torch.where(clipped, 0.0, steep).sum(-1)
            left = (budget - used).clamp_min(tiny)
            mu = torch.where(used < budget, (free / left).sqrt(), mu)
        step = torch.nan_to_num(rows * scale**2 / mu.clamp_min(tiny).unsqueeze(-1))
        step = torch.minimum(torch.maximum(step, low), high)
    cost = ((step / scale) ** 2).sum(-1)
    ball = (rows * step).sum(-1) + mu / 2 * (radius**2 - cost)
    # A ball of radius 0 is its centre; mu is infinite there.
    ball = torch.where(radius > 0, ball, torch.zeros_like(ball))
    # The box alone may already be the smaller set.
    box = torch.where(rows > 0, rows * high, rows * low).sum(-1)
    return torch.minimum(ball, box)
