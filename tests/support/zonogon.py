"""The exact gap of two linear networks with two classes: (a_P, a_Q) of a box is a zonogon."""

from __future__ import annotations

import torch
from torch import Tensor


def zonogon(slopes: Tensor, lower: Tensor, upper: Tensor, constant: Tensor) -> Tensor:
    """Vertices (2 n, 2), counter-clockwise, of ``{slopes @ x + constant: lower <= x <= upper}``.

    Args:
        slopes: (2, n).
        lower: (n,).
        upper: (n,).
        constant: (2,).
    """
    edges = (slopes * (upper - lower)).T
    # Point every edge upwards; the lowest vertex takes the other end of those turned round.
    downwards = (edges[:, 1] < 0) | ((edges[:, 1] == 0) & (edges[:, 0] < 0))
    start = slopes @ torch.where(downwards, upper, lower) + constant
    edges = torch.where(downwards[:, None], -edges, edges)
    order = torch.atan2(edges[:, 1], edges[:, 0]).argsort()
    around = torch.cat([edges[order], -edges[order]])
    return start + torch.cat([torch.zeros(1, 2, dtype=edges.dtype), around[:-1]]).cumsum(0)


def gap_on_polygon(vertices: Tensor, *, steps: int = 4000) -> tuple[float, float]:
    """Both ends of ``max s(a) - s(b)`` over a convex polygon (V, 2) of points (a, b).

    The function grows with a and falls with b, so its maximum is on the boundary, where along a piece
    of an edge it is at most ``s(largest a) - s(smallest b)``.
    """
    ends = torch.stack([vertices, vertices.roll(-1, 0)])
    shares = torch.linspace(0, 1, steps + 1, dtype=vertices.dtype)[:, None, None]
    points = ends[0] + shares * (ends[1] - ends[0])
    value = torch.sigmoid(points[..., 0]) - torch.sigmoid(points[..., 1])
    piece = torch.stack([points[:-1], points[1:]])
    most, least = piece[..., 0].amax(0), piece[..., 1].amin(0)
    bound = torch.sigmoid(most) - torch.sigmoid(least)
    return float(value.max()), float(bound.max())
