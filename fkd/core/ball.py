"""The set of perturbed images: an L-infinity ball around x, clipped to the image range [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import field_validator
from torch import Tensor

from fkd.core.config import Config
from fkd.core.errors import ConfigError

Norm = Literal["linf"]


def check_epsilon(value: object) -> float:
    """``value`` as a float in [0, 1].

    Raises:
        ConfigError: it is no number, NaN, negative or above 1.
    """
    try:
        epsilon = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ConfigError(f"epsilon must be a number in [0, 1], got {value!r}.") from None
    if not math.isfinite(epsilon) or not 0.0 <= epsilon <= 1.0:
        hint = (
            f"; did you mean {epsilon:g}/255?"
            if 1.0 < epsilon <= 255.0
            else "; choose one, 0.1 say."
        )
        raise ConfigError(
            f"epsilon must lie in [0, 1] (images are scaled to [0, 1]), got {epsilon:g}{hint}"
        )
    # Adding 0 turns -0.0 into 0.0, which would be another key of the same ball.
    return epsilon + 0.0


class Ball(Config):
    """All x' with ||x' - x||_inf <= epsilon and every pixel in [0, 1].

    Attacks and certificates take a `region`, which keeps the two honest about rounding: points found lie
    inside the ball of real numbers, bounds hold on all of it.  Training takes `limits`, rounded to the
    nearest float32.

    Example:
        >>> import torch
        >>> from fkd.core.ball import Ball
        >>> lower, upper = Ball(epsilon=0.1).limits(torch.tensor([0.05, 0.5]))
        >>> lower[0].item(), round(upper[1].item(), 3)
        (0.0, 0.6)
    """

    epsilon: float
    norm: Norm = "linf"

    @field_validator("epsilon", mode="before")
    @classmethod
    def _epsilon_in_range(cls, value: object) -> float:
        return check_epsilon(value)

    def limits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest pixel values, both shaped like ``images``."""
        lower = (images - self.epsilon).clamp(0.0, 1.0)
        upper = (images + self.epsilon).clamp(0.0, 1.0)
        return lower, upper

    def region(self, images: Tensor, example_ids: Tensor) -> Region:
        """The ball around each image, as attacks and certificates take it."""
        radius = torch.full((len(images),), self.epsilon, dtype=torch.float64, device=images.device)
        return Region.around(images, radius, example_ids)


@dataclass(frozen=True)
class Region:
    """A batch of boxes, one an example; radii may differ from row to row.

    Attributes:
        images: centres, float32 (N, C, H, W).
        lower: lowest pixel values inside the real ball, like ``images``.
        upper: highest pixel values inside the real ball, like ``images``.
        radius: epsilon of each row, float64 (N,).
        example_ids: stable ids, int64 (N,); they choose the random starts.
    """

    images: Tensor
    lower: Tensor
    upper: Tensor
    radius: Tensor
    example_ids: Tensor

    @classmethod
    def around(cls, images: Tensor, radius: Tensor, example_ids: Tensor) -> Region:
        """Balls of ``radius`` (N,) around ``images`` (N, C, H, W), limits rounded inwards.

        The nearest float32 to x - epsilon may lie 3e-8 outside the ball; a witness there would be none.
        """
        lower, upper = _real_limits(images, radius)
        low, high = lower.to(images.dtype), upper.to(images.dtype)
        outside = torch.full_like(low, torch.inf)
        low = torch.where(low.double() < lower, torch.nextafter(low, outside), low)
        high = torch.where(high.double() > upper, torch.nextafter(high, -outside), high)
        return cls(images, low, high, radius.double(), example_ids)

    def double_limits(self) -> tuple[Tensor, Tensor]:
        """Limits for certificates, float64: the real ball up to 1e-16, and the box, whatever it is."""
        lower, upper = _real_limits(self.images, self.radius)
        return torch.minimum(lower, self.lower.double()), torch.maximum(upper, self.upper.double())

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | Tensor) -> Region:
        return Region(
            self.images[rows],
            self.lower[rows],
            self.upper[rows],
            self.radius[rows],
            self.example_ids[rows],
        )

    def repeat(self, times: int) -> Region:
        """Every row ``times`` times in a row: row r of the result is row r // times of this one."""
        return Region(
            self.images.repeat_interleave(times, 0),
            self.lower.repeat_interleave(times, 0),
            self.upper.repeat_interleave(times, 0),
            self.radius.repeat_interleave(times, 0),
            self.example_ids.repeat_interleave(times, 0),
        )

    def chunks(self, size: int) -> Iterator[tuple[slice, Region]]:
        """Consecutive pieces of at most ``size`` rows, each with its place."""
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield rows, self[rows]

    def clamp(self, points: Tensor) -> Tensor:
        """The nearest points of the boxes."""
        return torch.minimum(torch.maximum(points, self.lower), self.upper)


def _real_limits(images: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    centre, wide = images.double(), radius.double()[:, None, None, None]
    return (centre - wide).clamp(0.0, 1.0), (centre + wide).clamp(0.0, 1.0)
