"""The frame of every attack on a pair: branches, projection, best-so-far, and the final re-check.

A subclass only proposes the next points.  This module stacks all branches (goals and restarts) of all
examples into one batch, keeps every proposal inside the ball, looks at *every* point visited (each
costs a forward pass anyway) for the largest gap and for a disagreement, and measures the winners once
more in float64, so that what is reported is what the networks say at the stored witness.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fkd.attacks.objectives import Goal, Objective, best_other_margin, confidence
from fkd.core.ball import Region
from fkd.core.config import Config
from fkd.core.precision import double_copy, logits_of
from fkd.core.progress import ProgressCallback, report

#: Takes visited points (N, C, H, W) and both networks' logits (N, K) there.
Visitor = Callable[[Tensor, Tensor, Tensor], None]


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
        gradient_evaluations: forward-backward passes of the pair, per example.
    """

    gap_witness: Tensor
    teacher_conf: Tensor
    student_conf: Tensor
    gap: Tensor
    disagrees: Tensor
    disagreement_witness: Tensor
    teacher_pred: Tensor
    student_pred: Tensor
    gradient_evaluations: int


class PairEvaluator:
    """Logits of both networks and gradients of an objective, for proposals."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        self.teacher = teacher
        self.student = student

    def gradient(
        self, points: Tensor, objective: Objective
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Objective values (N,), input gradients like ``points``, and both logits (N, K), detached."""
        with torch.enable_grad():
            points = points.detach().requires_grad_(True)
            teacher_logits = self.teacher(points)
            student_logits = self.student(points)
            values = objective(teacher_logits, student_logits)
            (gradients,) = torch.autograd.grad(values.sum(), points)
        return values.detach(), gradients, teacher_logits.detach(), student_logits.detach()


class _Best:
    """The best points seen so far, per example, over all branches and steps."""

    def __init__(self, region: Region, classes: Tensor, branches: int) -> None:
        self._branches = branches
        self._classes = classes
        count = len(region)
        self.gap = torch.full((count,), -1.0, device=region.images.device)
        self.gap_point = region.images.clone()
        self.margin = torch.full((count,), -torch.inf, device=region.images.device)
        self.margin_point = region.images.clone()

    def look(self, points: Tensor, teacher_logits: Tensor, student_logits: Tensor) -> None:
        """Take note of points laid out as (examples * branches, ...)."""
        classes = self._classes.repeat_interleave(self._branches)
        gap = (confidence(teacher_logits, classes) - confidence(student_logits, classes)).abs()
        self._keep(gap, points, self.gap, self.gap_point)
        # How firmly the two predictions differ: both networks prefer their own class by this much.
        teacher_pred, student_pred = teacher_logits.argmax(1), student_logits.argmax(1)
        firmness = torch.minimum(
            -best_other_margin(teacher_logits, teacher_pred),
            -best_other_margin(student_logits, student_pred),
        )
        firmness = torch.where(teacher_pred != student_pred, firmness, -torch.inf)
        self._keep(firmness, points, self.margin, self.margin_point)

    def _keep(self, values: Tensor, points: Tensor, best: Tensor, best_points: Tensor) -> None:
        values = torch.nan_to_num(values, nan=-torch.inf).view(-1, self._branches)
        top, branch = values.max(dim=1)
        better = top > best
        rows = better.nonzero().squeeze(1)
        if len(rows):
            best[rows] = top[rows]
            best_points[rows] = points[rows * self._branches + branch[rows]]


class PairAttack(ABC):
    """Searches the balls for the largest confidence gap and for a disagreement."""

    name: ClassVar[str]
    Config: ClassVar[type[PairAttackConfig]] = PairAttackConfig

    def __init__(self, config: PairAttackConfig) -> None:
        self.config = config

    @abstractmethod
    def propose(
        self,
        evaluator: PairEvaluator,
        start: Tensor,
        region: Region,
        objective: Objective,
        visit: Visitor,
    ) -> None:
        """Search from ``start``; hand every visited point and its logits to ``visit``.

        Points must pass through ``region.clamp`` before they are evaluated.
        """

    @abstractmethod
    def starts(self, region: Region, restarts: int, seed: int) -> Tensor:
        """Start points (len(region) * restarts, C, H, W), example-major."""

    def run(
        self,
        teacher: nn.Module,
        student: nn.Module,
        region: Region,
        classes: Tensor,
        *,
        seed: int,
        progress: ProgressCallback | None = None,
    ) -> PairAttackResult:
        """Attack every example of ``region``.

        Args:
            teacher: images (N, C, H, W) to logits (N, K), in eval mode.
            student: the same.
            region: the balls.
            classes: int64 (N,), the class whose confidences are compared.
            seed: chooses the random starts, together with the example ids.
            progress: told after each step of each chunk of examples; answering True cancels.

        Returns:
            Witnesses and what the networks say there; an example's result does not depend on which
            others are in the batch (up to floating-point summation order).
        """
        goals, restarts = _branches(self.config.restarts)
        per_chunk = max(1, self.config.rows // len(goals))
        gap_points, margin_points = [], []
        for rows, part in region.chunks(per_chunk):
            report(progress, "attack", rows.start, len(region))
            tell = self._within(progress, rows.start, len(part), len(region))
            best = self._attack_chunk(
                teacher, student, part, classes[rows], goals, restarts, seed, tell
            )
            gap_points.append(best.gap_point)
            margin_points.append(best.margin_point)
        report(progress, "attack", len(region), len(region))
        return _measure(
            teacher,
            student,
            region,
            classes,
            torch.cat(gap_points),
            torch.cat(margin_points),
            gradient_evaluations=len(goals) * self.config.steps,
        )

    def _attack_chunk(
        self,
        teacher: nn.Module,
        student: nn.Module,
        region: Region,
        classes: Tensor,
        goals: list[Goal],
        restarts: list[int],
        seed: int,
        tell: Callable[[], None],
    ) -> _Best:
        device = region.images.device
        with torch.no_grad():
            clean_teacher, clean_student = teacher(region.images), student(region.images)
        first = _Best(region, classes, branches=1)
        first.look(region.images, clean_teacher, clean_student)

        branches = len(goals)
        best = _Best(region, classes, branches)
        best.gap, best.margin = first.gap, first.margin
        goal_row = torch.tensor([int(goal) for goal in goals], device=device)
        # The network that should stay keeps the class it predicts now.
        leaves_teacher = goal_row == int(Goal.TEACHER_LEAVES)
        anchors = torch.where(
            leaves_teacher[None, :],
            clean_student.argmax(1)[:, None],
            clean_teacher.argmax(1)[:, None],
        )
        objective = Objective(
            goals=goal_row.repeat(len(region)),
            classes=classes.repeat_interleave(branches),
            anchors=anchors.reshape(-1),
        )
        every = self.starts(region, self.config.restarts, seed)
        every = every.view(len(region), self.config.restarts, *region.images.shape[1:])
        start = every[:, torch.tensor(restarts, device=device)].flatten(0, 1)

        def visit(points: Tensor, teacher_logits: Tensor, student_logits: Tensor) -> None:
            best.look(points, teacher_logits, student_logits)
            tell()

        self.propose(
            PairEvaluator(teacher, student), start, region.repeat(branches), objective, visit
        )
        return best

    def _within(
        self, progress: ProgressCallback | None, start: int, size: int, total: int
    ) -> Callable[[], None]:
        """To be called at each visit: a chunk's steps count as shares of its examples."""
        visits = itertools.count(1)

        def tell() -> None:
            share = min(1.0, next(visits) / (self.config.steps + 1))
            report(progress, "attack", start + int(share * size), total)

        return tell


def _branches(restarts: int) -> tuple[list[Goal], list[int]]:
    """Goals with the restart each begins from: odds and confidences take turns."""
    goals: list[Goal] = []
    starts: list[int] = []
    for restart in range(restarts):
        use_odds = restart % 2 == 0
        goals += [
            Goal.ODDS_TEACHER_ABOVE if use_odds else Goal.GAP_TEACHER_ABOVE,
            Goal.ODDS_STUDENT_ABOVE if use_odds else Goal.GAP_STUDENT_ABOVE,
            Goal.STUDENT_LEAVES,
            Goal.TEACHER_LEAVES,
        ]
        starts += [restart] * 4
    return goals, starts


def _measure(
    teacher: nn.Module,
    student: nn.Module,
    region: Region,
    classes: Tensor,
    gap_points: Tensor,
    margin_points: Tensor,
    *,
    gradient_evaluations: int,
) -> PairAttackResult:
    """Re-evaluate the winners in float64; the clean image wins where float32 was misled."""
    exact_teacher, exact_student = double_copy(teacher), double_copy(student)

    def confidences(points: Tensor) -> tuple[Tensor, Tensor]:
        return (
            confidence(logits_of(exact_teacher, points), classes),
            confidence(logits_of(exact_student, points), classes),
        )

    clean, found = confidences(region.images), confidences(gap_points)
    use_found = (found[0] - found[1]).abs() >= (clean[0] - clean[1]).abs()
    teacher_conf = torch.where(use_found, found[0], clean[0])
    student_conf = torch.where(use_found, found[1], clean[1])
    gap_witness = torch.where(use_found[:, None, None, None], gap_points, region.images)

    def predictions(points: Tensor) -> tuple[Tensor, Tensor]:
        return (
            logits_of(exact_teacher, points).argmax(1),
            logits_of(exact_student, points).argmax(1),
        )

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
