"""Local search with restarts that learn: short climbs from good points, shaken and climbed again.

Points that are worth starting from come first: a certificate's corners (`task.hints`), where the relaxed
networks differ most, see the whole ball where a gradient sees its own linear piece.  The best of them are
climbed in both directions of the gap, and the best point of each example is then shaken (a share of its
pixels set to random ends of their ranges) and climbed again until nothing is gained any more (iterated
local search, Lourenco, Martin and Stuetzle 2003).  Examples leave the batch one by one, so what is saved
on the easy ones is spent on the hard ones.

A climb ascends ``w_T a_T - w_S a_S`` of the log-odds, with w the logistic function's slopes at the point:
the gradient's direction is that of ``p_T - p_S`` exactly, and it does not vanish in float32 where both
confidences are saturated.  Steps are those of momentum-iterative ascent (Dong et al., 1710.06081) with a
geometric schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from fkd.attacks._steps import random_points, shaken, steepest
from fkd.attacks.base import PairAttack, PairAttackConfig, Task
from fkd.attacks.best import Best
from fkd.attacks.objectives import best_other_margin, log_odds
from fkd.attacks.registry import ATTACKS
from fkd.core.ball import Norm, Region

#: First and last step of a climb, as shares of epsilon.
_FIRST_STEP: dict[Norm, float] = {"linf": 1.0, "l2": 1.0}
_LAST_STEP = 0.03
_MOMENTUM = 0.5
#: Share of the pixels that are shaken, in turn.
_SHAKEN = (0.3, 0.15, 0.5)
#: A climb that gains less than this has gained nothing.
_GAIN = 1e-5
#: Streams of random numbers: restarts count from 1.
_GAP_STREAM, _PART_STREAM = 1000, 2000


class SearchConfig(PairAttackConfig):
    """How long is searched."""

    name: str = Field(default="search", description="Registry name of the attack.")
    steps: int = Field(default=12, ge=1, le=2000, description="Gradient steps of a climb.")
    restarts: int = Field(
        default=1, ge=0, le=50, description="Random points tried beside the image and the hints."
    )
    starts: int = Field(
        default=2, ge=1, le=50, description="Best of them that are climbed from, in each direction."
    )
    patience: int = Field(
        default=4,
        ge=1,
        le=1000,
        description="Climbs without a gain after which an example is done.",
    )
    rounds: int = Field(
        default=30, ge=0, le=10_000, description="Shaken climbs of an example at most."
    )
    seek: str = Field(
        default="both",
        pattern="^(both|gap|disagreement)$",
        description="What is searched: gap, disagreement or both.",
    )


#: Values to maximise (M,), and what to differentiate (M,), from both networks' logits.
Rise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class _Goal:
    """What some rows climb; rows belong to examples.

    Attributes:
        signs: 1 or -1, (M,): which network is to be above, or which is to stay.
        classes: int64 (M,): c, or the class that one network leaves.
        is_gap: whether the gap is climbed, or a disagreement looked for.
    """

    signs: Tensor
    classes: Tensor
    is_gap: bool

    def __getitem__(self, rows: Tensor) -> _Goal:
        return _Goal(self.signs[rows], self.classes[rows], self.is_gap)

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Values (M,), detached, and what rises with them."""
        if not self.is_gap:
            return self._parting(teacher_logits, student_logits)
        odds = [log_odds(part, self.classes) for part in (teacher_logits, student_logits)]
        fixed = [part.detach() for part in odds]
        slopes = [
            torch.nn.functional.softplus(part.abs().neg()) * -2 - part.abs() for part in fixed
        ]
        most = torch.maximum(slopes[0], slopes[1])
        weights = [torch.exp(part - most) for part in slopes]
        value = self.signs * (torch.sigmoid(fixed[0]) - torch.sigmoid(fixed[1]))
        return value, self.signs * (weights[0] * odds[0] - weights[1] * odds[1])

    def _parting(self, teacher_logits: Tensor, student_logits: Tensor) -> tuple[Tensor, Tensor]:
        """One network (the teacher, where the sign is 1) stays at the class, the other leaves it.

        Both margins have to become positive; the smaller one counts, softly.
        """
        leaves = torch.stack(
            [best_other_margin(part, self.classes) for part in (teacher_logits, student_logits)]
        )
        wanted = torch.stack([-self.signs, self.signs]) * leaves
        scale = (wanted.detach().abs().amax(0) / 4).clamp_min(1e-9)
        soft = -scale * torch.logsumexp(-wanted / scale, 0)
        return wanted.detach().amin(0), soft


@ATTACKS.register("search")
class LocalSearch(PairAttack):
    """Short climbs from a certificate's corners, shaken and climbed again while that pays."""

    Config = SearchConfig
    config: SearchConfig
    takes_hints = True

    @property
    def rows_per_example(self) -> int:
        """Climbs at once."""
        return 2 * self.config.starts

    def search(self, task: Task, best: Best) -> int:
        """See `PairAttack.search`."""
        hunt = _Hunt(task, best, self.config)
        points = hunt.candidates()
        if self.config.seek != "disagreement":
            hunt.widen(points)
        if self.config.seek != "gap":
            hunt.part(points)
        return hunt.gradients


class _Hunt:
    """One chunk of balls.

    Attributes:
        gradients: evaluated so far, a point counted as one.
    """

    def __init__(self, task: Task, best: Best, config: SearchConfig) -> None:
        self.task, self.best, self.config = task, best, config
        self.region: Region = task.region
        self.device = task.region.images.device
        self.gradients = 0
        self.done = 0.0

    def candidates(self) -> Tensor:
        """The image, hints and random points, (N, P, C, H, W)."""
        points = [self.region.images]
        points += [
            random_points(self.region, self.task.seed, restart)
            for restart in range(1, self.config.restarts + 1)
        ]
        every = torch.stack(points, 1)
        if self.task.hints is not None:
            every = torch.cat([every, self.task.hints], 1)
        return every

    def widen(self, points: Tensor) -> None:
        """Both directions of the gap, then the better one."""
        signs = torch.tensor([1.0, -1.0], device=self.device).repeat(len(self.region))
        goal = _Goal(signs, self.task.classes.repeat_interleave(2), is_gap=True)
        self._run(points, goal, _GAP_STREAM, lambda value: value < torch.inf, self.config.patience)

    def part(self, points: Tensor) -> None:
        """A disagreement of the examples that have shown none, with either network staying."""
        predicted = self.task.clean[0].argmax(1)
        wanted = (self.best.margin == -torch.inf).nonzero()[:, 0]
        if not len(wanted):
            return
        signs = torch.tensor([1.0, -1.0], device=self.device).repeat(len(wanted))
        goal = _Goal(signs, predicted[wanted].repeat_interleave(2), is_gap=False)
        # What differs most in confidence is often near to what differs in the prediction.
        points = torch.cat([points[wanted], self.best.gap_point[wanted, None]], 1)
        # Most examples have none to be found: half of the patience.
        patience = -(-self.config.patience // 2)
        self._run(points, goal, _PART_STREAM, lambda value: value <= 0, patience, wanted)

    def _run(
        self,
        points: Tensor,
        goal: _Goal,
        stream: int,
        is_open: Callable[[Tensor], Tensor],
        patience: int,
        wanted: Tensor | None = None,
    ) -> None:
        """Climb from the best of ``points`` towards two goals an example, then shake the better one.

        Args:
            points: (M, P, C, H, W) of the examples ``wanted``.
            goal: of 2 M rows.
            stream: of random numbers.
            is_open: which values are worth going on for.
            patience: climbs without a gain after which an example is done.
            wanted: int64 (M,), examples; None are all.
        """
        examples = torch.arange(len(self.region), device=self.device) if wanted is None else wanted
        values, here, rows = self._from_the_best(points, goal, examples)
        top, which = values.max(1)
        every = torch.arange(len(examples), device=self.device)
        point, goal = here[every, which], goal[rows[every, which]]
        fails = torch.zeros_like(every)
        left = is_open(top).nonzero()[:, 0]
        for number in range(self.config.rounds):
            if not len(left):
                break
            region = self.region[examples[left]]
            share = _SHAKEN[number % len(_SHAKEN)]
            start = shaken(point[left], region, share, self.task.seed, stream + number)
            found, reached = self._climb(start, region, goal[left], examples[left])
            gain = found - top[left]
            is_better = gain > 0
            point[left[is_better]] = reached[is_better]
            top[left] = torch.maximum(top[left], found)
            fails[left] = torch.where(gain > _GAIN, 0, fails[left] + 1)
            left = left[(fails[left] < patience) & is_open(top[left])]

    def _from_the_best(
        self, points: Tensor, goal: _Goal, examples: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values (M, 2 S), points (M, 2 S, C, H, W) and rows of the goal of climbs from S points each."""
        count, tried = points.shape[:2]
        most = min(self.config.starts, tried)
        flat = points.flatten(0, 1)
        with torch.no_grad():
            logits = self.task.teacher(flat), self.task.student(flat)
        self.best.look(flat, *logits, examples.repeat_interleave(tried))
        own = torch.arange(2 * count, device=self.device).view(count, 2)
        rows = own[:, None].expand(-1, tried, -1)
        # Every point under both goals: rows of points, then the two goals.
        twice = [part.unflatten(0, (count, tried)) for part in logits]
        values = torch.stack(
            [
                goal[rows[:, :, side].flatten()](*(part.flatten(0, 1) for part in twice))[0]
                for side in (0, 1)
            ],
            1,
        ).unflatten(0, (count, tried))
        chosen = values.topk(most, dim=1).indices.transpose(1, 2).flatten(1)
        start = points[torch.arange(count, device=self.device)[:, None], chosen].flatten(0, 1)
        goals = own[:, :, None].expand(-1, -1, most).flatten(1)
        whose = examples.repeat_interleave(2 * most)
        found, reached = self._climb(start, self.region[whose], goal[goals.flatten()], whose)
        shape = (count, 2 * most)
        return found.view(shape), reached.unflatten(0, shape), goals

    def _climb(
        self, start: Tensor, region: Region, goal: _Goal, examples: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Best values (M,) and their points on the way up from ``start``."""
        point = region.clamp(start)
        top = torch.full((len(point),), -torch.inf, dtype=point.dtype, device=self.device)
        top_point = point.clone()
        momentum = torch.zeros_like(point)
        radius = region.radius.to(point.dtype)[:, None, None, None]
        steps = self.config.steps
        for step in range(steps + 1):
            is_last = step == steps
            value, gradient = self._look(point, goal, examples, needs_gradient=not is_last)
            is_better = value > top
            top = torch.where(is_better, value, top)
            top_point = torch.where(is_better[:, None, None, None], point, top_point)
            if is_last:
                break
            mean = gradient.abs().mean((1, 2, 3), keepdim=True)
            momentum = _MOMENTUM * momentum + gradient / mean.clamp_min(
                torch.finfo(mean.dtype).tiny
            )
            share = _LAST_STEP ** (step / max(1, steps - 1))
            size = radius * (_FIRST_STEP[region.norm] * share)
            point = region.clamp(point + size * steepest(momentum, point, region))
        return top, top_point

    def _look(
        self, points: Tensor, goal: _Goal, examples: Tensor, *, needs_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Values and gradients at points, which are looked at."""
        with torch.set_grad_enabled(needs_gradient):
            points = points.detach().requires_grad_(needs_gradient)
            logits = self.task.teacher(points), self.task.student(points)
            value, rise = goal(*logits)
            gradient = torch.autograd.grad(rise.sum(), points)[0] if needs_gradient else points
        self.gradients += len(points) if needs_gradient else 0
        self.best.look(points.detach(), *(part.detach() for part in logits), examples)
        self.done += 1.0
        rounds = self.config.rounds + 2
        self.task.tell(self.done / (2 * rounds * (self.config.steps + 1)))
        value = value.detach()
        return torch.where(value.isnan(), -torch.inf, value), gradient
