"""The frame of every attack on a pair: chunks of balls, best-so-far, and the final re-check.

A subclass searches chunks of balls and looks at *every* point it visits (each costs a forward pass
anyway) for the largest gap and for a disagreement.  This module measures the winners once more in
float64, so that what is reported is what the networks say at the stored witness.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fkd.attacks.best import Best
from fkd.attacks.objectives import confidence
from fkd.core.ball import Region
from fkd.core.config import Config
from fkd.core.precision import double_copy, logits_of
from fkd.core.progress import ProgressCallback, report

#: Points at once on a CPU: 1024 of MNIST leave its caches and take 1.7 times as long as twice 512.
_CPU_ROWS = 512


class PairAttackConfig(Config):
    """Settings shared by all attacks on a pair."""

    name: str = Field(default="pgd", description="Registry name of the attack.")
    steps: int = Field(default=40, ge=1, le=2000, description="Gradient steps in each branch.")
    restarts: int = Field(
        default=2,
        ge=1,
        le=50,
        description="Starts for each goal: the first from the image itself, the others at random.",
    )
    rows: int = Field(
        default=1024, ge=1, le=1_000_000, description="Points attacked at once (memory only)."
    )


@dataclass(frozen=True)
class PairAttackResult:
    """What an attack found, one entry an example (float64 figures, measured at the witnesses).

    Attributes:
        gap_witness: float32 (N, C, H, W), the point of the largest gap found (maybe the image).
        teacher_conf: (N,), teacher's confidence in the class there.
        student_conf: (N,), student's confidence there.
        gap: (N,) in [0, 1], ``|teacher_conf - student_conf|``.
        disagrees: bool (N,), whether a point with different predictions was found.
        disagreement_witness: float32 (N, C, H, W), that point; the image itself where none was found.
        teacher_pred: int64 (N,), teacher's prediction at the disagreement witness.
        student_pred: int64 (N,), student's prediction there.
        gradient_evaluations: forward-backward passes of the pair, the mean over examples.
    """

    gap_witness: Tensor
    teacher_conf: Tensor
    student_conf: Tensor
    gap: Tensor
    disagrees: Tensor
    disagreement_witness: Tensor
    teacher_pred: Tensor
    student_pred: Tensor
    gradient_evaluations: float


@dataclass(frozen=True)
class Task:
    """What is searched at once.

    Attributes:
        teacher: images (N, C, H, W) to logits (N, K), in eval mode.
        student: the same.
        doubles: both in float64, see `fkd.core.precision.double_copy`.
        region: N balls.
        classes: int64 (N,), the class whose confidences are compared.
        clean: both networks' logits at the images, (N, K) each.
        hints: points (N, P, C, H, W) of each ball that are worth starting from, or None.
        seed: chooses everything random, together with the example ids.
        tell: called with the share of the work that is done, at least once a step; it raises `Cancelled`
            when asked to stop.
    """

    teacher: nn.Module
    student: nn.Module
    doubles: tuple[nn.Module, nn.Module]
    region: Region
    classes: Tensor
    clean: tuple[Tensor, Tensor]
    hints: Tensor | None
    seed: int
    tell: Callable[[float], None]


class PairAttack(ABC):
    """Searches the balls for the largest confidence gap and for a disagreement.

    Attributes:
        takes_hints: whether it makes use of points that are worth starting from.
    """

    name: ClassVar[str]
    Config: ClassVar[type[PairAttackConfig]] = PairAttackConfig
    takes_hints: ClassVar[bool] = False

    def __init__(self, config: PairAttackConfig) -> None:
        self.config = config

    @property
    def wants_corners(self) -> bool:
        """Whether hints from a certificate (`fkd.bounds.corners`) are to be made for it."""
        return False

    @abstractmethod
    def search(self, task: Task, best: Best) -> float:
        """Look at points of some balls, all of them through ``best``.

        Returns:
            How many gradients of the pair were evaluated, a point of one example counted as one (and one
            network's gradient as a half).
        """

    @property
    @abstractmethod
    def rows_per_example(self) -> int:
        """How many points of an example are evaluated at once."""

    def run(
        self,
        teacher: nn.Module,
        student: nn.Module,
        region: Region,
        classes: Tensor,
        *,
        seed: int,
        hints: Tensor | None = None,
        progress: ProgressCallback | None = None,
    ) -> PairAttackResult:
        """Attack every example of ``region``.

        Args:
            teacher: images (N, C, H, W) to logits (N, K), in eval mode.
            student: the same.
            region: the balls.
            classes: int64 (N,), the class whose confidences are compared.
            seed: chooses the random starts, together with the example ids.
            hints: points (N, P, C, H, W) that are worth starting from (of a certificate, of another
                pair); brought into the balls first.  Attacks that take none leave them out.
            progress: told after each step of each chunk of examples; answering True cancels.

        Returns:
            Witnesses and what the networks say there; an example's result does not depend on which
            others are in the batch (up to floating-point summation order).
        """
        doubles = double_copy(teacher), double_copy(student)
        per_chunk = max(1, rows_at_once(self.config.rows, region) // self.rows_per_example)
        gap_points, margin_points, gradients = [], [], 0.0
        for rows, part in region.chunks(per_chunk):
            report(progress, "attack", rows.start, len(region))
            with torch.no_grad():
                clean = teacher(part.images), student(part.images)
            best = Best(part, classes[rows])
            every = torch.arange(len(part), device=part.images.device)
            best.look(part.images, *clean, every)
            task = Task(
                teacher,
                student,
                doubles,
                part,
                classes[rows],
                clean,
                _inside(hints, rows, part) if self.takes_hints else None,
                seed,
                within(progress, rows.start, len(part), len(region)),
            )
            gradients += self.search(task, best)
            gap_points.append(best.gap_point)
            margin_points.append(best.margin_point)
        report(progress, "attack", len(region), len(region))
        return _measure(
            doubles,
            region,
            classes,
            torch.cat(gap_points),
            torch.cat(margin_points),
            gradient_evaluations=round(gradients / max(1, len(region)), 1),
        )


def rows_at_once(rows: int, region: Region) -> int:
    """How many points are attacked at once where ``rows`` are allowed."""
    return min(rows, _CPU_ROWS) if region.images.device.type == "cpu" else rows


def within(
    progress: ProgressCallback | None, start: int, size: int, total: int
) -> Callable[[float], None]:
    """A chunk's share of work counts as a share of its examples."""

    def tell(share: float) -> None:
        report(progress, "attack", start + int(min(1.0, share) * size), total)

    return tell


def _inside(hints: Tensor | None, rows: slice, region: Region) -> Tensor | None:
    """A chunk's hints, in its balls; the image in place of those that are not finite."""
    if hints is None:
        return None
    points = hints[rows].to(region.images)
    images = region.images[:, None].expand_as(points)
    points = torch.where(
        points.isfinite().flatten(2).all(2)[:, :, None, None, None], points, images
    )
    count = points.shape[1]
    return region.repeat(count).clamp(points.flatten(0, 1)).unflatten(0, (len(region), count))


def _measure(
    doubles: tuple[nn.Module, nn.Module],
    region: Region,
    classes: Tensor,
    gap_points: Tensor,
    margin_points: Tensor,
    *,
    gradient_evaluations: float,
) -> PairAttackResult:
    """Re-evaluate the winners in float64; the clean image wins where float32 was misled."""

    def confidences(points: Tensor) -> list[Tensor]:
        return [confidence(logits_of(network, points), classes) for network in doubles]

    clean, found = confidences(region.images), confidences(gap_points)
    gaps = [(part[0] - part[1]).abs() for part in (clean, found)]
    use_found = (gaps[1] >= gaps[0]) | (gaps[0].isnan() & ~gaps[1].isnan())
    teacher_conf = torch.where(use_found, found[0], clean[0])
    student_conf = torch.where(use_found, found[1], clean[1])
    gap_witness = torch.where(use_found[:, None, None, None], gap_points, region.images)

    def predictions(points: Tensor) -> list[Tensor]:
        return [logits_of(network, points).argmax(1) for network in doubles]

    teacher_pred, student_pred = predictions(margin_points)
    moved = (margin_points != region.images).flatten(1).any(1)
    misled = moved & (teacher_pred == student_pred)
    if bool(misled.any()):
        # What float32 took for a disagreement may be a tie; the image itself may still be one.
        margin_points = torch.where(misled[:, None, None, None], region.images, margin_points)
        teacher_pred, student_pred = predictions(margin_points)
    disagrees = teacher_pred != student_pred
    return PairAttackResult(
        gap_witness=gap_witness,
        teacher_conf=teacher_conf,
        student_conf=student_conf,
        gap=(teacher_conf - student_conf).abs(),
        disagrees=disagrees,
        disagreement_witness=margin_points,
        teacher_pred=teacher_pred,
        student_pred=student_pred,
        gradient_evaluations=gradient_evaluations,
    )
