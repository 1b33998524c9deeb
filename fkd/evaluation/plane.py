"""A plane through an image and both networks' worst points in its ball: predictions, gap, ball's edge."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fkd.attacks.objectives import confidence
from fkd.core.ball import Region
from fkd.core.errors import ConfigError
from fkd.core.precision import double_copy, logits_of
from fkd.core.progress import ProgressCallback, report
from fkd.evaluation._one_example import one_example
from fkd.evaluation._plane_shapes import PlaneRegion, edge_of_set, margins_of, regions_of
from fkd.evaluation._worst_point import VISITS, random_points, worst_point
from fkd.evaluation.config import AnalysisConfig

#: Room around the three points, as a share of the larger of their extents.
_MARGIN = 0.1
#: A point is in line with another one where less than this share of its way leads off that line;
#: float32 pixels leave some 1e-5 even where the two are the same.
_COLLINEAR = 1e-3
#: Random points that may stand in; two of them span a plane wherever there is one.
_SPARE = 4
#: Points evaluated at once: float64 images of a colour set, and convolutions on them.
_ROWS = 256
#: A grid point may lie this far outside [0, 1] by rounding alone.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class GapPlane:
    """Both networks on a square grid of a plane; [row, column] is [place up, place across].

    The plane is ``image + across * directions[0] + up * directions[1]``; lengths are L2 lengths of the
    change, in pixel units, in either norm of the ball.

    Attributes:
        gap_class: class c whose confidences are compared.
        image: x, float64 (C, H, W) in [0, 1].
        directions: float64 (2, C, H, W), orthonormal in the pixels.
        points: float64 (3, 2), places of x, the teacher's and the student's worst point.
        drawn_at_random: how many of the two directions lead to random points of the ball, because a
            worst point is the image itself or in line with the other one.
        predictions_at_points: int64 (3, 2), the teacher's and the student's class there.
        confidences_at_points: float64 (3, 2) in [0, 1], theirs in c there.
        across: float64 (n,), the columns' places.
        up: float64 (n,), the rows' places.
        teacher_pred: int64 (n, n).
        student_pred: int64 (n, n).
        teacher_conf: float64 (n, n) in [0, 1], the teacher's confidence in c.
        student_conf: float64 (n, n) in [0, 1], the student's.
        in_ball: bool (n, n), whether the point lies within epsilon of x.
        in_range: bool (n, n), whether all its pixels lie in [0, 1].
        edge: float64 (m, 2), the closed edge of the set in which both hold, place by place.
        teacher_margins: float64 (regions - 1, n, n), logits: the zero lines bound the classes'
            regions; NaN where another of these arrays has the boundary.
        student_margins: the same of the student.
        regions: where each pair of predictions rules, the largest first.
    """

    gap_class: int
    image: np.ndarray
    directions: np.ndarray
    points: np.ndarray
    drawn_at_random: int
    predictions_at_points: np.ndarray
    confidences_at_points: np.ndarray
    across: np.ndarray
    up: np.ndarray
    teacher_pred: np.ndarray
    student_pred: np.ndarray
    teacher_conf: np.ndarray
    student_conf: np.ndarray
    in_ball: np.ndarray
    in_range: np.ndarray
    edge: np.ndarray
    teacher_margins: np.ndarray
    student_margins: np.ndarray
    regions: tuple[PlaneRegion, ...]

    @property
    def gap(self) -> np.ndarray:
        """Teacher's minus student's confidence in c, float64 (n, n) in [-1, 1]."""
        return self.teacher_conf - self.student_conf

    @property
    def gap_at_points(self) -> np.ndarray:
        """The same at x, the teacher's and the student's worst point, float64 (3,)."""
        return self.confidences_at_points[:, 0] - self.confidences_at_points[:, 1]

    @property
    def is_inside(self) -> np.ndarray:
        """Bool (n, n): points of the set that attacks search, the ball within the image range."""
        return self.in_ball & self.in_range

    @property
    def disagreement_share(self) -> float:
        """Share of the grid's points inside at which the predictions differ, in [0, 1]."""
        differs = (self.teacher_pred != self.student_pred)[self.is_inside]
        return float(differs.mean()) if differs.size else 0.0

    @property
    def has_disagreement(self) -> bool:
        """Whether the predictions differ at a point of the grid inside, or at one of the three points."""
        at_points = self.predictions_at_points[:, 0] != self.predictions_at_points[:, 1]
        return self.disagreement_share > 0 or bool(at_points.any())

    @property
    def gap_range(self) -> tuple[float, float]:
        """Least and largest gap at the grid's points inside and at the three points."""
        inside = np.concatenate([self.gap[self.is_inside], self.gap_at_points])
        return float(inside.min()), float(inside.max())


def gap_plane(
    config: AnalysisConfig,
    index: int,
    *,
    size: int = 61,
    progress: ProgressCallback | None = None,
) -> GapPlane:
    """`plane_of` for one example of an analysis; a second or less for small networks.

    Raises:
        ConfigError: no such example, or no plane in its ball.
        DataError: the images are not on this machine.
        Cancelled: ``progress`` asked to stop.

    Example:
        >>> from fkd.evaluation import AnalysisConfig, gap_plane
        >>> config = AnalysisConfig(
        ...     dataset="digits", teacher="digits-teacher-pgd", student="digits-kd-of-pgd", epsilon=0.1)
        >>> gap_plane(config, 0, size=21).gap.shape
        (21, 21)
    """
    one = one_example(config, index)
    return plane_of(
        one.teacher,
        one.student,
        one.region,
        one.gap_class,
        seed=config.seed,
        size=size,
        progress=progress,
    )


def plane_of(
    teacher: nn.Module,
    student: nn.Module,
    region: Region,
    gap_class: int,
    *,
    seed: int,
    size: int = 61,
    progress: ProgressCallback | None = None,
) -> GapPlane:
    """The plane through x and the points where each network alone loses most confidence.

    Points are searched in float32, as attacks do, and everything is evaluated in float64.  The grid
    is square and covers the three points with a margin; what of it lies outside the ball, or is no image,
    is evaluated too and marked.

    Args:
        teacher: images (N, C, H, W) to logits (N, K), in eval mode.
        student: the same.
        region: the ball, one row.
        gap_class: class c whose confidences are compared.
        seed: of the random starts.
        size: grid points along each side, at least 2.
        progress: told about the stages ``worst points`` and ``plane``; answering True cancels.

    Raises:
        ConfigError: images of one pixel, or a ball of radius 0: no plane goes through it.
        Cancelled: ``progress`` asked to stop.
    """
    visits = itertools.count(1)

    def tell() -> None:
        report(progress, "worst points", next(visits), 2 * VISITS)

    worst = [worst_point(network, region, seed=seed, tell=tell) for network in (teacher, student)]
    directions, corners, drawn = _span(region, worst, seed)
    marked = torch.cat([region.images, *worst]).double()
    points = _places(marked, region, directions)
    across, up = _axes(torch.cat([points, corners]), size)
    exact = double_copy(teacher), double_copy(student)
    seen = _evaluate(exact, region, directions, (across, up), progress)
    at_points = [logits_of(network, marked) for network in exact]
    teacher_pred, student_pred = (
        logits.argmax(1).reshape(size, size).numpy() for logits in seen.logits
    )
    teacher_conf, student_conf = (
        _in_class(logits, gap_class).reshape(size, size) for logits in seen.logits
    )
    inside = (seen.in_ball & seen.in_range).reshape(size, size).numpy()
    return GapPlane(
        gap_class=gap_class,
        image=marked[0].numpy(),
        directions=directions.numpy(),
        points=points.numpy(),
        drawn_at_random=drawn,
        predictions_at_points=torch.stack([z.argmax(1) for z in at_points], 1).numpy(),
        confidences_at_points=np.stack([_in_class(z, gap_class) for z in at_points], 1),
        across=across.numpy(),
        up=up.numpy(),
        teacher_pred=teacher_pred,
        student_pred=student_pred,
        teacher_conf=teacher_conf,
        student_conf=student_conf,
        in_ball=seen.in_ball.reshape(size, size).numpy(),
        in_range=seen.in_range.reshape(size, size).numpy(),
        edge=edge_of_set(region, directions, corners),
        teacher_margins=margins_of(seen.logits[0], size),
        student_margins=margins_of(seen.logits[1], size),
        regions=regions_of(teacher_pred, student_pred, inside, across.numpy(), up.numpy()),
    )


def _span(region: Region, worst: list[Tensor], seed: int) -> tuple[Tensor, Tensor, int]:
    """Orthonormal directions (2, C, H, W), the places (3, 2) that span them, how many are random.

    Points of the ball stand in for what is missing: a direction drawn from all would leave the image
    range at once wherever pixels are black.
    """
    spare = random_points(region, _SPARE, seed)
    moves = (torch.cat([*worst, spare]).double() - region.images.double()).flatten(1)
    chosen: list[Tensor] = []
    accepted: list[int] = []
    for position, move in enumerate(moves):
        rest = move
        # Twice: once leaves rounding errors of the order of what was subtracted.
        for direction in chosen * 2:
            rest = rest - (rest @ direction) * direction
        if move.norm() > 0 and rest.norm() > _COLLINEAR * move.norm():
            chosen.append(rest / rest.norm())
            accepted.append(position)
        if len(chosen) == 2:
            break
    else:
        raise ConfigError(
            "No plane goes through this ball: its image has a single pixel, or its radius is "
            f"{float(region.radius[0]):g}; choose another image or a larger epsilon."
        )
    basis = torch.stack(chosen)
    corners = torch.cat([moves.new_zeros(1, 2), moves[accepted] @ basis.T])
    directions = basis.reshape(2, *region.images.shape[1:])
    return directions, corners, sum(position >= len(worst) for position in accepted)


def _places(points: Tensor, region: Region, directions: Tensor) -> Tensor:
    return (points - region.images.double()).flatten(1) @ directions.flatten(1).T


def _axes(places: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Equally spaced places across and up: a square around all that is marked."""
    low, high = places.amin(0), places.amax(0)
    half = float((high - low).max()) * (0.5 + _MARGIN)
    middle = (low + high) / 2
    steps = torch.linspace(-half, half, size, dtype=torch.float64)
    return middle[0] + steps, middle[1] + steps


@dataclass(frozen=True)
class _Seen:
    """What both networks say at the grid's points (N = n * n), and where these lie."""

    logits: tuple[Tensor, Tensor]
    in_ball: Tensor
    in_range: Tensor


def _evaluate(
    exact: tuple[nn.Module, nn.Module],
    region: Region,
    directions: Tensor,
    axes: tuple[Tensor, Tensor],
    progress: ProgressCallback | None,
) -> _Seen:
    across, up = axes
    places = torch.cartesian_prod(up, across).flip(1)
    parts = []
    for start in range(0, len(places), _ROWS):
        report(progress, "plane", start, len(places))
        points = region.images.double() + torch.tensordot(
            places[start : start + _ROWS], directions, 1
        )
        flat = points.flatten(1)
        parts.append(
            (
                logits_of(exact[0], points),
                logits_of(exact[1], points),
                region.distance(points) <= region.radius,
                (flat.amin(1) >= -_ROUNDING) & (flat.amax(1) <= 1.0 + _ROUNDING),
            )
        )
    report(progress, "plane", len(places), len(places))
    of_teacher, of_student, in_ball, in_range = (torch.cat(p) for p in zip(*parts, strict=True))
    return _Seen((of_teacher, of_student), in_ball, in_range)


def _in_class(logits: Tensor, gap_class: int) -> np.ndarray:
    return confidence(logits, torch.full((len(logits),), gap_class)).numpy()
