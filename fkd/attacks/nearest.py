"""The nearest disagreement: the smallest perturbation at which two networks predict differently.

Where both predict class c at the image, no disagreement is nearer than the nearer of the two networks'
own decision boundaries: up to there both say c, and on any way to a point at which one has left c, the
first to leave parts from the other.  So each network is asked alone, which takes half a pair's
gradients, and every point at which either has left is drawn back along its way to where the first did.
Only where both leave at one and the same point for the same class is nothing found on that way: networks
that share a boundary, as a copy with another output bias does, may differ beyond it alone, which these
walks do not look for (the attack `search` does).

The walk is that of the fast minimum-norm attack (Pintor et al., 2102.12827): an example's radius shrinks
when its point has left and grows when it has not; before the first has left, the radius is the distance
of the linearised boundary.  Steps are steepest ascent with momentum, also in L-infinity.  Restarts aim
at one class after the other, the nearest by linearisation at the image first (targets as in FAB: Croce
and Hein, 1907.02044), from random points of what is left of the ball; the last begin at the best point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fkd.attacks._steps import random_points, steepest
from fkd.attacks.best import keep_largest
from fkd.attacks.objectives import best_other_margin
from fkd.core.ball import Region
from fkd.core.precision import double_copy, logits_of
from fkd.core.progress import ProgressCallback, report

#: Examples walked at once: on a CPU more leave its caches.
_ROWS = 512
#: Gradient steps of a walk.
_STEPS = 40
#: First and last step as shares of the radius; of a last walk, which begins at the best point.
_FIRST_STEP, _POLISH_STEP, _LAST_STEP = 1.0, 0.2, 0.02
_MOMENTUM = 0.5
#: By how much a radius shrinks or grows at first, and at last.
_CHANGE, _LAST_CHANGE = 0.1, 1e-3
#: A linearised boundary is overshot by this share.
_OVERSHOOT = 0.02
#: Halvings of the way to the image, and how near it has to be known where predictions differ there.
_PULLS, _PULLED = 26, 1e-5
#: Any class but the one predicted.
_ANY = -1


@dataclass(frozen=True)
class NearestResult:
    """The nearest disagreements found, one entry an example.

    Attributes:
        points: like the images: where predictions differ in float64; the image where none was found.
        distance: float64 (N,), of the point from its image in the ball's norm; infinite where none.
        gradient_evaluations: as of a pair (one network's count half), the mean over examples.
    """

    points: Tensor
    distance: Tensor
    gradient_evaluations: float


def nearest_disagreements(
    teacher: nn.Module,
    student: nn.Module,
    region: Region,
    *,
    seed: int,
    starts: int = 6,
    progress: ProgressCallback | None = None,
) -> NearestResult:
    """Search each ball for the disagreement nearest to its centre.

    Args:
        teacher: images (N, C, H, W) to logits (N, K), in eval mode.
        student: the same.
        region: N balls, as large as disagreements are looked for.
        seed: chooses the random starts, together with the example ids.
        starts: walks of each network, at least 1: the first from the image, the last from the best point.
        progress: told after each walk; answering True cancels.

    Returns:
        Points and their distances; 0 and the image itself where predictions differ there.  An example's
        result does not depend on which others are in the batch (up to floating-point summation order).
    """
    networks = teacher, student
    doubles = double_copy(teacher), double_copy(student)
    points, distances, gradients = [], [], 0
    for rows, part in region.chunks(_ROWS):
        hunt = _Hunt(networks, doubles, part, seed)
        for number in range(starts):
            report(progress, "nearest", rows.start + len(part) * number // starts, len(region))
            hunt.walk_from(number, is_last=number == starts - 1 and number > 0)
        hunt.pull()
        points.append(hunt.point)
        distances.append(hunt.distance)
        gradients += hunt.gradients
    report(progress, "nearest", len(region), len(region))
    return NearestResult(
        torch.cat(points), torch.cat(distances), round(gradients / 2 / max(1, len(region)), 1)
    )


def pulled(
    doubles: Sequence[nn.Module], region: Region, classes: Tensor, points: Tensor
) -> tuple[Tensor, Tensor]:
    """The nearest disagreement seen while points are drawn towards their images.

    Between the image, where both networks predict ``classes``, and a point at which one does not, the way
    is halved until the place is known where the first of them leaves.

    Args:
        doubles: both networks in float64.
        region: N balls; only their centres, norm and scale are used.
        classes: int64 (N,), what both predict at the images.
        points: (N, C, H, W).

    Returns:
        Points (N, C, H, W) and distances, float64 (N,), infinite where predictions never differed.
    """
    nearest = points.clone()
    far = region.distance(points)
    near = torch.zeros_like(far)
    differ, left = _state(doubles, points, classes)
    distance = torch.where(differ, far, torch.inf)
    rows = left.nonzero()[:, 0]
    for _ in range(_PULLS):
        known = distance[rows] <= far[rows] * (1 + _PULLED)
        rows = rows[~(known & (far[rows] - near[rows] <= _PULLED * far[rows]))]
        if not len(rows):
            break
        middle = 0.5 * (near[rows] + far[rows])
        drawn = _resized(region[rows], middle).clamp(points[rows])
        differ, left = _state(doubles, drawn, classes[rows])
        length = torch.where(differ, region[rows].distance(drawn), torch.inf)
        is_nearer = length < distance[rows]
        distance[rows[is_nearer]] = length[is_nearer]
        nearest[rows[is_nearer]] = drawn[is_nearer]
        far[rows] = torch.where(left, middle, far[rows])
        near[rows] = torch.where(left, near[rows], middle)
    return nearest, distance


def _state(doubles: Sequence[nn.Module], points: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Whether predictions differ, and whether one of them is not ``classes``; bool (N,)."""
    teacher, student = (logits_of(network, points).argmax(1) for network in doubles)
    return teacher != student, (teacher != classes) | (student != classes)


def _gradient(values: Tensor, points: Tensor, *, keeps: bool = False) -> Tensor:
    """Of values (M,) at points, like them; zero where a network does not depend on its input."""
    if not values.requires_grad:
        return torch.zeros_like(points)
    return torch.autograd.grad(values.sum(), points, retain_graph=keeps)[0]


def _resized(region: Region, radius: Tensor) -> Region:
    """The balls with other radii."""
    return Region.around(
        region.images, radius, region.example_ids, norm=region.norm, scale=region.scale
    )


class _Hunt:
    """One chunk of balls.

    Attributes:
        point: nearest disagreement.
        distance: its own, float64 (N,).
        limit: no walk goes further, float64 (N,): the nearest point known at which predictions differ.
        gradients: of one network, evaluated so far.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        doubles: Sequence[nn.Module],
        region: Region,
        seed: int,
    ) -> None:
        self.networks, self.doubles, self.region, self.seed = networks, doubles, region, seed
        teacher, student = (logits_of(network, region.images).argmax(1) for network in doubles)
        self.classes = teacher
        self.point = region.images.clone()
        self.distance = torch.where(teacher == student, torch.inf, 0.0).double()
        self.limit = region.radius.clone()
        self.gradients = 0
        #: Where a network left, with the example: not yet drawn back.
        self.reached: list[tuple[Tensor, Tensor]] = []
        self.order: list[Tensor | None] = [None, None]

    def walk_from(self, number: int, *, is_last: bool) -> None:
        """Walk of both networks: the image first, then aimed from random points, last from the best."""
        if is_last:
            self.pull()
        for side, network in enumerate(self.networks):
            rows = (self.distance > 0).nonzero()[:, 0]
            if not len(rows):
                return
            region = _resized(self.region[rows], self.limit[rows])
            targets = torch.full_like(rows, _ANY)
            start, first = region.images, _FIRST_STEP
            if is_last:
                start, first = region.clamp(self.point[rows]), _POLISH_STEP
            elif number:
                start = random_points(region, self.seed, 2 * number + side)
                order = self._order(side)
                targets = order[rows, (number - 1) % order.shape[1]]
            self._walk(network, region, rows, start, targets, first)

    def pull(self) -> None:
        """Draw all that was reached towards the images, and keep the nearest disagreements."""
        if not self.reached:
            return
        rows, points = (torch.cat(parts) for parts in zip(*self.reached, strict=True))
        self.reached = []
        drawn, distance = pulled(self.doubles, self.region[rows], self.classes[rows], points)
        nearness = -self.distance
        keep_largest(-distance, drawn, rows, nearness, self.point)
        self.distance = -nearness
        self.limit = torch.minimum(self.limit, self.distance)

    def _order(self, side: int) -> Tensor:
        """Classes (N, K - 1) that a network may leave for, by the distance of linearised boundaries."""
        order = self.order[side]
        if order is not None:
            return order
        images = self.region.images.detach().requires_grad_(True)
        logits = self.networks[side](images)
        margins = logits - logits.gather(1, self.classes[:, None])
        distances = []
        for other in range(logits.shape[1]):
            gradient = _gradient(margins[:, other], images, keeps=True)
            self.gradients += len(images)
            distances.append(-margins[:, other].detach() / self._slope(gradient, self.region))
        every = torch.stack(distances, 1)
        every = every.scatter(1, self.classes[:, None], torch.inf)
        order = every.argsort(dim=1, stable=True)[:, :-1]
        self.order[side] = order
        return order

    def _walk(
        self,
        network: nn.Module,
        region: Region,
        rows: Tensor,
        start: Tensor,
        targets: Tensor,
        first: float,
    ) -> None:
        """Walk towards where a network leaves its class; ``region`` and the others are of ``rows``."""
        classes, limit = self.classes[rows], self.limit[rows]
        best, best_point = torch.full_like(limit, torch.inf), start.clone()
        point, momentum, radius = start, torch.zeros_like(start), limit
        for step in range(_STEPS):
            margin, left, gradient = self._look(network, point, classes, targets)
            distance = region.distance(point)
            is_nearer = left & (distance < best)
            best = torch.where(is_nearer, distance, best)
            best_point[is_nearer] = point[is_nearer]
            change = _LAST_CHANGE + _CHANGE * 0.5 * (1 + math.cos(math.pi * step / _STEPS))
            ahead = distance - margin.double() / self._slope(gradient, region).double()
            wider = torch.where(best.isfinite(), radius * (1 + change), ahead * (1 + _OVERSHOOT))
            radius = torch.where(left, torch.minimum(radius, best) * (1 - change), wider)
            radius = torch.minimum(radius, torch.minimum(limit, best)).clamp_min(0.0)
            ball = _resized(region, radius)
            size = gradient.abs().mean((1, 2, 3), keepdim=True)
            tiny = torch.finfo(size.dtype).tiny
            momentum = _MOMENTUM * momentum + gradient / size.clamp_min(tiny)
            share = first * (_LAST_STEP / first) ** (step / (_STEPS - 1))
            stride = (radius * share).to(point.dtype)[:, None, None, None]
            point = ball.clamp(point + stride * steepest(momentum, point, ball))
        found = best.isfinite()
        rows, best, best_point = rows[found], best[found], best_point[found]
        if not len(rows):
            return
        self.reached.append((rows, best_point))
        # Where the other has left as well, for the same class, nothing is found yet.
        differ, _ = _state(self.doubles, best_point, self.classes[rows])
        best = torch.where(differ, best, torch.inf)
        self.limit[rows] = torch.minimum(self.limit[rows], best)

    def _look(
        self, network: nn.Module, points: Tensor, classes: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Margin (M,) of what is aimed at, whether the class was left, and the margin's gradient."""
        points = points.detach().requires_grad_(True)
        logits = network(points)
        most = best_other_margin(logits, classes)
        named = logits.gather(1, targets.clamp_min(0)[:, None])
        named = (named - logits.gather(1, classes[:, None]))[:, 0]
        margin = torch.where(targets == _ANY, most, named)
        gradient = _gradient(margin, points)
        self.gradients += len(points)
        return margin.detach(), most.detach() > 0, gradient

    def _slope(self, gradient: Tensor, region: Region) -> Tensor:
        """How much a linear function grows within a distance of 1; positive, (M,)."""
        scaled = (gradient * region.pixel_scale().to(gradient.dtype)).flatten(1)
        size = scaled.abs().sum(1) if region.norm == "linf" else scaled.norm(dim=1)
        return size.clamp_min(torch.finfo(size.dtype).tiny)
