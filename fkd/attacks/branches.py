"""Attacks that climb from several starts towards several goals at once, each a branch of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fkd.attacks.base import PairAttack, Task
from fkd.attacks.best import Best
from fkd.attacks.objectives import Goal, Objective
from fkd.core.ball import Region

#: Takes visited points (N, C, H, W) and both networks' logits (N, K) there.
Visitor = Callable[[Tensor, Tensor, Tensor], None]


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


class BranchAttack(PairAttack):
    """A subclass only proposes the next points; all branches of all examples are one batch."""

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

    @property
    def rows_per_example(self) -> int:
        """Branches."""
        return 4 * self.config.restarts

    def search(self, task: Task, best: Best) -> int:
        """See `PairAttack.search`."""
        region, classes = task.region, task.classes
        device = region.images.device
        goals, restarts = _branches(self.config.restarts)
        branches = len(goals)
        goal_row = torch.tensor([int(goal) for goal in goals], device=device)
        # The network that should stay keeps the class it predicts now.
        leaves_teacher = goal_row == int(Goal.TEACHER_LEAVES)
        anchors = torch.where(
            leaves_teacher[None, :],
            task.clean[1].argmax(1)[:, None],
            task.clean[0].argmax(1)[:, None],
        )
        objective = Objective(
            goals=goal_row.repeat(len(region)),
            classes=classes.repeat_interleave(branches),
            anchors=anchors.reshape(-1),
        )
        every = self.starts(region, self.config.restarts, task.seed)
        every = every.view(len(region), self.config.restarts, *region.images.shape[1:])
        start = every[:, torch.tensor(restarts, device=device)].flatten(0, 1)
        examples = torch.arange(len(region), device=device).repeat_interleave(branches)
        visits = 0

        def visit(points: Tensor, teacher_logits: Tensor, student_logits: Tensor) -> None:
            nonlocal visits
            best.look(points, teacher_logits, student_logits, examples)
            visits += 1
            task.tell(visits / (self.config.steps + 1))

        evaluator = PairEvaluator(task.teacher, task.student)
        self.propose(evaluator, start, region.repeat(branches), objective, visit)
        return self.config.steps * branches * len(region)


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
