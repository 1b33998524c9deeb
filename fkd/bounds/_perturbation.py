"""What auto_LiRPA is told about a region: the box, and in L2 the ball as well.

auto_LiRPA's own L2 perturbation knows neither clipping nor a radius or scale of each example's and
channel's own.  Here every linear function that is concretised, hidden ones too, gets the better of two
bounds, each over a superset of the set: the box, and the ball by duality
(``sup_{||d / s|| <= r} A d = r ||s A||_2``).
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from fkd.core.ball import Region
from fkd.core.lirpa_compat import load_auto_lirpa

#: Stands in for a squared norm of 0; its root, 1e-150, only widens.
_TINY = 1e-300


def perturbation(region: Region) -> Any:
    """A `PerturbationLpNorm` for a region; to auto_LiRPA it is the box in L-infinity."""
    lower, upper = region.double_limits()
    if region.norm == "linf":
        return load_auto_lirpa().PerturbationLpNorm(norm=float("inf"), x_L=lower, x_U=upper)
    return _ball_class()(lower, upper, region.radius, region.pixel_scale())


@functools.cache
def _ball_class() -> type:
    class BallInBox(load_auto_lirpa().PerturbationLpNorm):
        def __init__(self, lower: Tensor, upper: Tensor, radius: Tensor, scale: Tensor) -> None:
            super().__init__(norm=float("inf"), x_L=lower, x_U=upper)
            self._radius = radius
            self._scale = scale

        def concretize(self, x: Tensor, A: Any, sign: int = -1, *more: Any, **rest: Any) -> Any:  # noqa: N803
            by_box = super().concretize(x, A, sign, *more, **rest)
            by_ball = self._by_ball(x, A, sign)
            if by_box is None or by_ball is None:
                return by_box
            by_ball = by_ball.view_as(by_box)
            return torch.minimum(by_box, by_ball) if sign == 1 else torch.maximum(by_box, by_ball)

        def _by_ball(self, x: Tensor, functions: Any, sign: int) -> Tensor | None:
            """Bounds by duality, examples first; None where the functions are the pixels themselves."""
            squared_scale = self._scale.square().expand(x.shape)
            if isinstance(functions, Tensor):
                rows = functions.flatten(2)
                middle = rows.matmul(x.flatten(1)[:, :, None]).squeeze(-1)
                squared = rows.square().matmul(squared_scale.flatten(1)[:, :, None]).squeeze(-1)
            elif hasattr(functions, "patches") and not functions.identity:
                middle = functions.matmul(x)
                # Padding is left out, as it is of the box's bound: a dense matrix would not fit.
                squares = functions.create_similar(functions.patches.square())
                squared = squares.matmul(squared_scale)
            else:
                return None
            radius = self._radius.view(-1, *(1,) * (middle.ndim - 1))
            # The square root has no gradient at 0, where alpha-CROWN may ask for one.
            return middle + sign * radius * squared.clamp(min=_TINY).sqrt()

    return BallInBox
