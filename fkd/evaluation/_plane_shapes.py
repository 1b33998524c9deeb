"""Shapes in a plane: the edge of the ball, lines between decision regions, where labels have room."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fkd.attacks.objectives import best_other_margin
from fkd.core.ball import Region

#: Rays on which the edge is found, besides those to the corners.
_RAYS = 360
#: A pixel that moves less than this along a ray of length 1 does not move: rounding of the directions.
_STILL = 1e-12


@dataclass(frozen=True)
class PlaneRegion:
    """The points of the grid at which teacher and student predict these two classes.

    Attributes:
        teacher_pred: the teacher's class.
        student_pred: the student's.
        share: of the whole grid, in [0, 1].
        share_inside: of the grid's points in the ball and the image range, in [0, 1].
        across: place of the point furthest from the region's edge.
        up: likewise.
    """

    teacher_pred: int
    student_pred: int
    share: float
    share_inside: float
    across: float
    up: float


def edge_of_set(region: Region, directions: Tensor, corners: Tensor) -> np.ndarray:
    """The edge of ball and image range in the plane, a closed line of places (m, 2).

    The set is convex and holds the corners, so each ray from their middle meets its edge once: in the
    box where the first pixel meets its limit, and in L2 at the larger root of
    ``||(c + t d - x) / s||^2 = radius^2`` if that comes first.  Rays lead to the corners too, which
    often are vertices.

    Args:
        region: the ball, one row.
        directions: float64 (2, C, H, W), orthonormal.
        corners: float64 (3, 2), places of points of the set, not in line.
    """
    middle = corners.mean(0)
    towards = corners - middle
    angles = torch.cat(
        [
            torch.arange(_RAYS, dtype=torch.float64) * (2 * math.pi / _RAYS),
            torch.atan2(towards[:, 1], towards[:, 0]) % (2 * math.pi),
        ]
    ).sort()[0]
    rays = torch.stack([angles.cos(), angles.sin()], 1)
    basis = directions.flatten(1)
    centre = region.images.double().flatten(1) + middle @ basis
    pixels = rays @ basis
    room = torch.where(pixels > 0, region.upper.double().flatten(1) - centre, 0.0)
    room = torch.where(pixels < 0, centre - region.lower.double().flatten(1), room)
    reach = torch.where(pixels.abs() > _STILL, room / pixels.abs(), torch.inf).amin(1)
    if region.norm == "l2":
        scale = region.pixel_scale().expand(directions.shape[1:]).flatten()
        start = (centre - region.images.double().flatten(1)) / scale
        ray = pixels / scale
        square, half = ray.square().sum(1), (ray * start).sum(1)
        left = (region.radius.square() - start.square().sum(1)).clamp(min=0.0)
        root = ((half.square() + square * left).sqrt() - half) / square
        reach = torch.minimum(reach, root)
    edge = middle + reach.clamp(min=0.0)[:, None] * rays
    return torch.cat([edge, edge[:1]]).numpy()


def margins_of(logits: Tensor, size: int) -> np.ndarray:
    """For each predicted class but the last ``z_k - max_{j != k} z_j`` on the grid: 0 at its edge.

    A boundary belongs to two classes.  It is kept for the first of them alone, the more frequent one,
    so that it is drawn once.

    Args:
        logits: float64 (n * n, K).
        size: n.

    Returns:
        float64 (classes predicted - 1, n, n); NaN in the regions of classes that come before.
    """
    predicted = logits.argmax(1)
    classes, counts = predicted.unique(return_counts=True)
    ordered = classes[counts.argsort(descending=True, stable=True)]
    margins = []
    is_before = torch.zeros_like(predicted, dtype=torch.bool)
    for chosen in ordered[:-1]:
        margin = -best_other_margin(logits, chosen.expand(len(logits)))
        margins.append(margin.masked_fill(is_before, torch.nan))
        is_before = is_before | (predicted == chosen)
    if not margins:
        return np.empty((0, size, size))
    return torch.stack(margins).reshape(-1, size, size).numpy()


def regions_of(
    teacher_pred: np.ndarray,
    student_pred: np.ndarray,
    inside: np.ndarray,
    across: np.ndarray,
    up: np.ndarray,
) -> tuple[PlaneRegion, ...]:
    """Where each pair of predictions rules, the largest region first.

    Args:
        teacher_pred: int64 (n, n).
        student_pred: int64 (n, n).
        inside: bool (n, n), points in the ball and the image range.
        across: float64 (n,), places of the columns.
        up: float64 (n,), places of the rows.
    """
    found = []
    pairs = np.stack([teacher_pred.ravel(), student_pred.ravel()], 1)
    for teacher_class, student_class in np.unique(pairs, axis=0):
        here = (teacher_pred == teacher_class) & (student_pred == student_class)
        row, column = _innermost(here)
        found.append(
            PlaneRegion(
                teacher_pred=int(teacher_class),
                student_pred=int(student_class),
                share=float(here.mean()),
                share_inside=float((here & inside).sum() / max(1, inside.sum())),
                across=float(across[column]),
                up=float(up[row]),
            )
        )
    return tuple(sorted(found, key=lambda region: -region.share))


def _innermost(mask: np.ndarray) -> tuple[int, int]:
    """A point left by peeling a mask layer by layer, the picture's edge included."""
    left = mask
    while True:
        padded = np.pad(left, 1)
        # Diagonal neighbours too would wear thin slanting regions away at once.
        peeled = left & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        if not peeled.any():
            break
        left = peeled
    rows, columns = left.nonzero()
    middle = len(rows) // 2
    return int(rows[middle]), int(columns[middle])
