"""The set of perturbed images: an L-infinity or L2 ball around x, clipped to the image range [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from pydantic import model_validator
from torch import Tensor

from fkd.core import _euclidean
from fkd.core.config import Config
from fkd.core.errors import ConfigError

Norm = Literal["linf", "l2"]

#: The norms, the usual one first.
NORMS: tuple[Norm, ...] = get_args(Norm)


def check_epsilon(
    value: object, norm: Norm = "linf", channel_scale: Sequence[float] | None = None
) -> float:
    """``value`` as a radius: no negative number, and in L-infinity no more than the image range.

    How large an L2 radius may be depends on the number of pixels: see `Ball.check_fits`.

    Raises:
        ConfigError: it is no number, NaN, negative or above 1 (1 / smallest channel scale) in
            L-infinity.
    """
    largest = math.inf if norm == "l2" else 1.0 / min(channel_scale or (1.0,))
    limits = "be at least 0" if norm == "l2" else f"lie in [0, {largest:g}]"
    try:
        epsilon = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        where = "a number of at least 0" if norm == "l2" else f"a number in [0, {largest:g}]"
        raise ConfigError(f"epsilon must be {where}, got {value!r}.") from None
    if not math.isfinite(epsilon) or not 0.0 <= epsilon <= largest:
        hint = (
            f"; did you mean {epsilon:g}/255?"
            if largest < epsilon <= 255.0 * largest
            else "; choose one, 0.1 say."
        )
        raise ConfigError(
            f"epsilon must {limits} (images are scaled to [0, 1]), got {epsilon:g}{hint}"
        )
    # Adding 0 turns -0.0 into 0.0, which would be another key of the same ball.
    return epsilon + 0.0


def check_channel_scale(value: object) -> tuple[float, ...] | None:
    """Channel scales as they are kept: None where each is 1, which is the same ball.

    Raises:
        ConfigError: one is not a positive finite number.
    """
    if value is None:
        return None
    try:
        scale = tuple(float(v) for v in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        scale = ()
    if not scale or not all(math.isfinite(v) and v > 0 for v in scale):
        raise ConfigError(
            f"channel_scale must be one positive number a channel, got {value!r}; give the std of the "
            "model's normalisation, say, or leave it out."
        )
    return None if all(v == 1.0 for v in scale) else scale


def check_ball(values: object) -> object:
    """A configuration's raw values with ``epsilon`` and ``channel_scale`` checked for its ``norm``.

    For a pydantic validator that runs before the fields' own: what an epsilon may be depends on the
    other two.

    Raises:
        ConfigError: the ball cannot be.
    """
    if not isinstance(values, dict) or values.get("norm", "linf") not in NORMS:
        return values
    checked = dict(values)
    scale = check_channel_scale(values.get("channel_scale"))
    if "channel_scale" in values:
        checked["channel_scale"] = scale
    if "epsilon" in values:
        checked["epsilon"] = check_epsilon(values["epsilon"], values.get("norm", "linf"), scale)
    return checked


def in_norm(norm_text: str) -> str:
    """What follows a radius in a sentence, from `Ball.norm_text`; nothing for the usual ball.

    Example:
        >>> in_norm("linf"), in_norm("l2"), in_norm("linf / (0.25, 0.5, 0.1)")
        ('', ' in L2', ' times the channel scales (0.25, 0.5, 0.1)')
    """
    norm, _, scale = norm_text.partition(" / ")
    return (" in L2" if norm == "l2" else "") + (f" times the channel scales {scale}" * bool(scale))


class Ball(Config):
    """All x' within epsilon of x with every pixel in [0, 1].

    * ``linf``: ``|x'_c - x_c| <= epsilon * scale_c`` for every pixel of every channel c.
    * ``l2``: ``||(x' - x) / scale||_2 <= epsilon``.

    Without ``channel_scale`` each scale is 1 and epsilon is in pixel units.  With the std of a
    normalisation as scale, epsilon is the radius *after* that layer: see `per_channel`.

    Attacks and certificates take a `region`, which keeps the two honest about rounding: points found lie
    inside the ball of real numbers, bounds hold on all of it.  Training takes `limits`, rounded to the
    nearest float32.

    Example:
        >>> import torch
        >>> from fkd.core.ball import Ball
        >>> lower, upper = Ball(epsilon=0.1).limits(torch.tensor([0.05, 0.5]))
        >>> lower[0].item(), round(upper[1].item(), 3)
        (0.0, 0.6)
        >>> Ball.per_channel(0.1, [0.25, 0.24, 0.26]).channel_scale
        (0.25, 0.24, 0.26)
    """

    epsilon: float
    norm: Norm = "linf"
    channel_scale: tuple[float, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_ball(cls, values: object) -> object:
        return check_ball(values)

    @classmethod
    def per_channel(cls, epsilon: float, std: Sequence[float], norm: Norm = "linf") -> Ball:
        """The ball of radius ``epsilon`` in normalised units, ``(x - mean) / std`` (a model card's std).

        ``|x'_c - x_c| / std_c <= epsilon`` is what it means for the normalised images to be within
        epsilon of each other; in L2 likewise.
        """
        return cls(epsilon=epsilon, norm=norm, channel_scale=tuple(std))

    @property
    def norm_text(self) -> str:
        """The ball but for its radius, as in tables: ``linf``, ``l2``, ``linf / (0.25, 0.5, 0.1)``."""
        if self.channel_scale is None:
            return self.norm
        return f"{self.norm} / ({', '.join(f'{value:g}' for value in self.channel_scale)})"

    def describe(self) -> str:
        """The ball in a sentence: ``epsilon 0.1``, ``epsilon 1.5 in L2``."""
        return f"epsilon {self.epsilon:g}{in_norm(self.norm_text)}"

    def check_fits(self, image_shape: Sequence[int]) -> None:
        """Refuse a ball that does not fit images of shape (C, H, W).

        Raises:
            ConfigError: there is not one scale a channel, or epsilon exceeds `diameter`.
        """
        channels = int(image_shape[0])
        if self.channel_scale is not None and len(self.channel_scale) != channels:
            raise ConfigError(
                f"channel_scale has {len(self.channel_scale)} values and the images have {channels} "
                f"channel{'s' * (channels != 1)}; give one value a channel."
            )
        diameter = self.diameter(image_shape)
        if self.epsilon > diameter:
            raise ConfigError(
                f"epsilon must lie in [0, {diameter:g}] here (no two images are further apart in the "
                f"norm {self.norm}), got {self.epsilon:g}; choose a smaller one."
            )

    def diameter(self, image_shape: Sequence[int]) -> float:
        """Largest distance of two images of shape (C, H, W) in [0, 1] in this ball's norm."""
        channels, pixels = int(image_shape[0]), math.prod(int(side) for side in image_shape[1:])
        scale = self.channel_scale or (1.0,) * channels
        if self.norm == "l2":
            return math.sqrt(pixels * sum(value**-2 for value in scale))
        return 1.0 / min(scale)

    def limits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest pixel values, both shaped like ``images`` ((N, C, H, W) with scales)."""
        wide: Tensor | float = self.epsilon
        if self.channel_scale is not None:
            wide = self.epsilon * images.new_tensor(self.channel_scale)[:, None, None]
        return (images - wide).clamp(0.0, 1.0), (images + wide).clamp(0.0, 1.0)

    def region(self, images: Tensor, example_ids: Tensor) -> Region:
        """The ball around each image, as attacks and certificates take it.

        Raises:
            ConfigError: the ball does not fit these images.
        """
        radius = torch.full((len(images),), self.epsilon, dtype=torch.float64, device=images.device)
        return self.region_of(images, radius, example_ids)

    def region_of(self, images: Tensor, radius: Tensor, example_ids: Tensor) -> Region:
        """The same with a radius (N,) of its own for each image.

        Raises:
            ConfigError: the ball does not fit these images.
        """
        self.check_fits(images.shape[1:])
        scale = None
        if self.channel_scale is not None:
            scale = torch.tensor(self.channel_scale, dtype=torch.float64, device=images.device)
        return Region.around(images, radius, example_ids, norm=self.norm, scale=scale)


@dataclass(frozen=True)
class Region:
    """A batch of balls clipped to [0, 1], one an example; radii may differ from row to row.

    In L-infinity the set is the box [lower, upper]; in L2 it is the box cut by the ball.

    Attributes:
        images: centres, float32 (N, C, H, W).
        lower: lowest pixel values inside the real ball, like ``images``.
        upper: highest pixel values inside the real ball, like ``images``.
        radius: epsilon of each row, float64 (N,).
        example_ids: stable ids, int64 (N,); they choose the random starts.
        norm: of the ball.
        scale: epsilon's unit in each channel, float64 (C,), positive; None where each is 1.
    """

    images: Tensor
    lower: Tensor
    upper: Tensor
    radius: Tensor
    example_ids: Tensor
    norm: Norm = "linf"
    scale: Tensor | None = None

    @classmethod
    def around(
        cls,
        images: Tensor,
        radius: Tensor,
        example_ids: Tensor,
        *,
        norm: Norm = "linf",
        scale: Tensor | None = None,
    ) -> Region:
        """Balls of ``radius`` (N,) around ``images`` (N, C, H, W), limits rounded inwards.

        The nearest float32 to x - epsilon may lie 3e-8 outside the ball; a witness there would be none.
        """
        lower, upper = _real_limits(images, radius, scale)
        low, high = lower.to(images.dtype), upper.to(images.dtype)
        outside = torch.full_like(low, torch.inf)
        low = torch.where(low.double() < lower, torch.nextafter(low, outside), low)
        high = torch.where(high.double() > upper, torch.nextafter(high, -outside), high)
        return cls(images, low, high, radius.double(), example_ids, norm, scale)

    def double_limits(self) -> tuple[Tensor, Tensor]:
        """Limits for certificates, float64: the ball's hull up to 1e-16, and the box, whatever it is."""
        lower, upper = _real_limits(self.images, self.radius, self.scale)
        return torch.minimum(lower, self.lower.double()), torch.maximum(upper, self.upper.double())

    def pixel_scale(self) -> Tensor:
        """``scale`` as it multiplies images: float64 (C, 1, 1), or (1, 1, 1) where each is 1."""
        if self.scale is None:
            return torch.ones(1, 1, 1, dtype=torch.float64, device=self.images.device)
        return self.scale[:, None, None]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | Tensor) -> Region:
        return Region(
            self.images[rows],
            self.lower[rows],
            self.upper[rows],
            self.radius[rows],
            self.example_ids[rows],
            self.norm,
            self.scale,
        )

    def repeat(self, times: int) -> Region:
        """Every row ``times`` times in a row: row r of the result is row r // times of this one."""
        return Region(
            self.images.repeat_interleave(times, 0),
            self.lower.repeat_interleave(times, 0),
            self.upper.repeat_interleave(times, 0),
            self.radius.repeat_interleave(times, 0),
            self.example_ids.repeat_interleave(times, 0),
            self.norm,
            self.scale,
        )

    def chunks(self, size: int) -> Iterator[tuple[slice, Region]]:
        """Consecutive pieces of at most ``size`` rows, each with its place."""
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield rows, self[rows]

    def clamp(self, points: Tensor) -> Tensor:
        """The nearest points of the set, in the norm's own metric; inside the real ball in any case."""
        if self.norm == "l2":
            return _euclidean.project(
                points, self.images, self.lower, self.upper, self.radius, self.pixel_scale()
            )
        return torch.minimum(torch.maximum(points, self.lower), self.upper)

    def distance(self, points: Tensor) -> Tensor:
        """Distance of points from the centres in the ball's norm and scale, float64 (N,)."""
        moves = points.double() - self.images.double()
        if self.norm == "l2":
            return _euclidean.length(moves, self.pixel_scale())
        return (moves / self.pixel_scale()).abs().flatten(1).amax(1)


def _real_limits(images: Tensor, radius: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    centre, wide = images.double(), radius.double()[:, None, None, None]
    if scale is not None:
        wide = wide * scale[:, None, None]
    return (centre - wide).clamp(0.0, 1.0), (centre + wide).clamp(0.0, 1.0)
