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

    Attack and certificate both take their limits from `limits`, in the same float32 numbers, so they
    speak of exactly the same set.  Rounding puts a limit up to 3e-8 inside or outside of x -+ epsilon:
    where that matters (epsilon below 1e-6, say), it is the box between the limits that is meant.

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
        lower, upper = self.limits(images)
        radius = torch.full((len(images),), self.epsilon, dtype=images.dtype, device=images.device)
        return Region(images, lower, upper, radius, example_ids)


@dataclass(frozen=True)
class Region:
    """A batch of boxes, one an example; radii may differ from row to row.

    Attributes:
        images: centres, float32 (N, C, H, W).
        lower: lowest pixel values, like ``images``.
        upper: highest pixel values, like ``images``.
        radius: epsilon of each row, (N,).
        example_ids: stable ids, int64 (N,); they choose the random starts.
    """

    images: Tensor
    lower: Tensor
    upper: Tensor
    radius: Tensor
    example_ids: Tensor

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
