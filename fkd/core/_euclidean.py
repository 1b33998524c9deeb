"""Projection onto a Euclidean ball cut by a box, and its rounding, for `fkd.core.ball`.

Everything is written in ``d = y - x``, the move away from the centre, measured as ``d / scale``.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Sums of a million float64 squares err by less than this share, so what is at most
#: ``radius * (1 - _SLACK)`` as computed lies in the real ball.
_SLACK = 1e-12

#: Each round of water-filling fixes at least one more pixel and all it needs were a handful in every
#: measurement; stopping early leaves a point inside the set that is not quite the nearest.
_ROUNDS = 100


def length(moves: Tensor, scale: Tensor | float) -> Tensor:
    """``||d / scale||_2`` of moves (N, C, H, W), float64 (N,)."""
    return (moves.double() / scale).flatten(1).square().sum(1).sqrt()


def project(
    points: Tensor,
    images: Tensor,
    lower: Tensor,
    upper: Tensor,
    radius: Tensor,
    scale: Tensor | float,
) -> Tensor:
    """The nearest points, in the metric ``||. / scale||_2``, of ball and box.

    The solution has the form ``d_i = clip(t (p_i - x_i))`` with one t in [0, 1] an example: the largest
    with ``||d / scale|| <= radius`` (from the Lagrangian; the multiplier is 1 / t - 1).  With S the
    pixels clipped at t, ``sum_S b^2 + t^2 sum_notS a^2`` bounds ``||d||^2`` from above for every larger
    t, so solving it for radius^2 gives a larger t that is still inside.  Repeating ends at the solution,
    since S only grows, and every t on the way is feasible.

    Args:
        points: (N, C, H, W).
        images: the centres x, each inside its box.
        lower: lowest pixel values.
        upper: highest pixel values.
        radius: float64 (N,).
        scale: float64, what broadcasts to (C, 1, 1), positive.

    Returns:
        Like ``points``: inside the box, and inside the ball of real numbers.
    """
    boxed = torch.minimum(torch.maximum(points, lower), upper)
    far = length(boxed.double() - images.double(), scale) > radius * (1 - _SLACK)
    rows = far.nonzero().squeeze(1)
    if len(rows) == 0:
        return boxed
    low, high = lower[rows], upper[rows]
    centre, target = images[rows].double(), radius[rows] * (1 - 2 * _SLACK)
    move = points[rows].double() - centre
    room = torch.where(move > 0, high.double() - centre, centre - low.double()) / scale
    wanted = move.abs() / scale
    share = _water_fill(wanted.flatten(1), room.flatten(1), target)
    kept = torch.minimum(share[:, None, None, None] * wanted, room)
    # Where all was right up to rounding this factor is 1 up to rounding.
    kept = kept * (target / length(kept, 1.0).clamp(min=1e-300)).clamp(max=1.0)[:, None, None, None]
    result = round_inwards(centre, kept * scale * move.sign(), images.dtype)
    boxed[rows] = torch.minimum(torch.maximum(result, low), high)
    return boxed


def round_inwards(centre: Tensor, moves: Tensor, dtype: torch.dtype) -> Tensor:
    """``centre + moves`` in ``dtype``, no pixel further from its centre than ``moves`` says."""
    rounded = (centre + moves).to(dtype)
    # The difference of two floats is exact up to one rounding of itself, however small it is.
    beyond = (rounded.double() - centre).abs() > moves.abs()
    return torch.where(beyond, torch.nextafter(rounded, centre.to(dtype)), rounded)


def _water_fill(wanted: Tensor, room: Tensor, target: Tensor) -> Tensor:
    """The largest t in [0, 1] with ``||min(t wanted, room)|| <= target``, (N,)."""
    squares, room_squares = wanted.square(), room.square()
    share = (target / squares.sum(1).sqrt().clamp(min=1e-300)).clamp(max=1.0)
    for _ in range(_ROUNDS):
        is_full = share[:, None] * wanted >= room
        left = (target.square() - torch.where(is_full, room_squares, 0.0).sum(1)).clamp(min=0.0)
        free = torch.where(is_full, 0.0, squares).sum(1)
        larger = (left / free.clamp(min=1e-300)).sqrt().clamp(max=1.0)
        if not bool((larger > share).any()):
            break
        share = torch.maximum(share, larger)
    return share
