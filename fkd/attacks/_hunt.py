"""Iterated local search in many balls at once: what the attack ``search`` and the measures share.

Points worth starting from are evaluated first: the image, random points, hints, and the points at which a
relaxation of both networks (by what their units were seen to do in the ball: `_relus`) differs most.  The
best are climbed with softened gradients, and the best point of each example is then shaken into several
copies that are climbed again, until a round of them gains nothing (Lourenco, Martin and Stuetzle 2003).
At the end, small steps settle the pixels that lie between their ends, and single pixels are flipped.
Examples leave the batch one by one, so what is saved on easy ones is spent on hard ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fkd.attacks._climber import Climber, Look, ordered
from fkd.attacks._relus import observe, relaxed
from fkd.attacks._steps import ends, flipped, random_points, shaken, steepest
from fkd.attacks.goals import RowGoal
from fkd.attacks.objectives import log_odds
from fkd.core.ball import Norm, Region

#: The small steps at the end: first and last as shares of epsilon, and how many (in L2 the best point has
#: no corner to snap to).
_FINE: dict[Norm, tuple[float, float, int]] = {"linf": (0.1, 0.003, 20), "l2": (0.3, 0.003, 40)}
#: Random ends at which widths are seen, how much wider the relaxation takes them, and how many of the
#: likeliest other classes have a margin of their own there.
_SEEN, _WIDENING, _MARGINS = 4, 2.0, 3
#: Share of the pixels that are shaken, one copy after the other; 1 is a new random end.
_SHAKEN = (0.3, 0.15, 0.5, 1.0)
#: A climb that gains less than this has gained nothing.
_GAIN = 1e-5
#: Flips: pixels tried (those that a gradient thinks cost least), climbed from, rounds and steps.
_TRIED, _FLIPPED, _FLIP_ROUNDS, _FLIP_STEPS = 16, 2, 4, 8
#: Goals of an example that are climbed, where it has more.
_GOALS = 2
#: Streams of random numbers; restarts count from 1.
_ENDS_STREAM = 900


@dataclass(frozen=True)
class Effort:
    """How long is searched; see the fields of `fkd.attacks.search.SearchConfig`."""

    steps: int
    restarts: int
    starts: int
    copies: int
    patience: int
    budget: int


@dataclass(frozen=True)
class Looked:
    """Points (N, P, C, H, W) of N balls, with both networks' logits (N, P, K) there."""

    points: Tensor
    logits: tuple[Tensor, Tensor]

    def __getitem__(self, rows: Tensor) -> Looked:
        return Looked(self.points[rows], (self.logits[0][rows], self.logits[1][rows]))

    def and_more(self, more: Looked) -> Looked:
        """Further points of the same balls beside these."""
        return Looked(
            torch.cat([self.points, more.points], 1),
            tuple(torch.cat(parts, 1) for parts in zip(self.logits, more.logits, strict=True)),
        )


@dataclass(frozen=True)
class Found:
    """The best of each example asked: value (M,) and point (M, C, H, W)."""

    value: Tensor
    point: Tensor


class Hunt(Climber):
    """One chunk of balls.

    Args:
        networks: teacher and student.
        region: N balls.
        seed: chooses everything random, together with the example ids.
        effort: how long is searched.
        tell: see `Climber`.
        look: the same.
    """

    def __init__(
        self,
        networks: tuple[nn.Module, nn.Module],
        region: Region,
        *,
        seed: int,
        effort: Effort,
        tell: Callable[[float], None],
        look: Look,
    ) -> None:
        super().__init__(networks, region, tell=tell, look=look)
        self.seed, self.effort = seed, effort
        self._goal_share = 1.0

    # ------------------------------------------------------------ points worth starting from

    def candidates(self, classes: Tensor, hints: Tensor | None) -> Looked:
        """The image, random points, hints (N, P, C, H, W), and where relaxed networks differ most.

        Args:
            classes: int64 (N,), whose margins are relaxed.
            hints: further points of the balls.
        """
        region = self.region
        points = [region.images]
        points += [
            random_points(region, self.seed, restart)
            for restart in range(1, self.effort.restarts + 1)
        ]
        points += [ends(region, self.seed, _ENDS_STREAM + number) for number in range(_SEEN)]
        every = torch.stack(points, 1)
        if hints is not None:
            every = torch.cat([every, hints], 1)
        seen = self.observe(every)
        return seen.and_more(self.observe(self._where_relaxed_differ(classes, seen)))

    def observe(self, points: Tensor) -> Looked:
        """Evaluate points (N, P, C, H, W) of all balls a few at a time, as many rows as a climb has."""
        at_once = max(1, 2 * max(self.effort.copies, 2 * self.effort.starts))
        logits = [
            [observe(network, part, ranges) for part in points.split(at_once, 1)]
            for network, ranges in zip(self.networks, self.ranges, strict=True)
        ]
        both = torch.cat(logits[0], 1), torch.cat(logits[1], 1)
        examples = torch.arange(len(points), device=self.device)
        flat = [part.flatten(0, 1) for part in (points, *both)]
        self.look(*flat, examples.repeat_interleave(points.shape[1]))
        self.tell(self.share)
        return Looked(points, both)

    def _where_relaxed_differ(self, classes: Tensor, seen: Looked) -> Tensor:
        """The ends (L2: the ball's border) at which relaxed networks differ, or one is most led astray.

        Rows are the differences of margins to the likeliest other classes and of log-odds, in both
        directions, and what makes the teacher alone or the student alone unsure of the class.
        """
        likely = torch.maximum(seen.logits[0][:, 0], seen.logits[1][:, 0])
        likely = likely.scatter(1, classes[:, None], -torch.inf)
        margins = min(_MARGINS, likely.shape[1] - 1)
        others = likely.topk(margins, 1).indices
        rows = 2 * (margins + 1) + 2
        examples = torch.arange(len(self.region), device=self.device).repeat_interleave(rows)
        region = self.region[examples]
        with torch.enable_grad():
            points = region.images.detach().requires_grad_(True)
            logits = [
                relaxed(network, points, ranges[examples], _WIDENING)
                for network, ranges in zip(self.networks, self.ranges, strict=True)
            ]
            own = classes[examples]
            between = logits[0] - logits[1]
            apart = between.gather(1, own[:, None]) - between.gather(1, others[examples])
            odds = torch.stack([log_odds(part, own) for part in logits], 1)
            apart = torch.cat([apart, odds[:, :1] - odds[:, 1:]], 1)
            every = torch.cat([apart, -apart, -odds], 1)
            number = torch.arange(rows, device=self.device).repeat(len(self.region))
            wanted = every.gather(1, number[:, None])[:, 0]
            (gradient,) = torch.autograd.grad(wanted.sum(), points)
        self.count(examples, 1)
        radius = region.radius.to(points.dtype)[:, None, None, None]
        # From the image to the end; twice as far, since clipping may have moved the middle.
        moved = region.images + 2 * radius * steepest(gradient, region.images, region)
        return region.clamp(moved).unflatten(0, (-1, rows))

    # ------------------------------------------------------------ the search

    def run(
        self,
        goal: RowGoal,
        seen: Looked,
        *,
        stream: int,
        examples: Tensor | None = None,
        effort: Effort | None = None,
        until: float = 1.0,
    ) -> Found:
        """Climb from the best points towards the likeliest goals of each example, then shake the best.

        Args:
            goal: G rows of each example asked, example-major.
            seen: points of the examples asked.
            stream: of random numbers, no two within 10,000 of each other.
            examples: int64 (M,), those asked; None are all.
            effort: another than the hunt's.
            until: the share of all work that is done when this is.
        """
        if examples is None:
            examples = torch.arange(len(self.region), device=self.device)
        effort = effort or self.effort
        begun, self._goal_share = self.share, until - self.share
        self.spent.zero_()
        rows, start = self._likeliest(goal, seen, effort.starts)
        each = rows.shape[1]
        flat = rows.flatten()
        whose = examples.repeat_interleave(each)
        found, reached = self.climb(
            start.flatten(0, 1), goal[flat], whose, steps=effort.steps, is_soft=True
        )
        value, which = found.view(-1, each).max(1)
        every = torch.arange(len(examples), device=self.device)
        point = reached.unflatten(0, (-1, each))[every, which].clone()
        best = goal[rows[every, which]]
        self._shake(best, value, point, examples, effort, stream)
        self._finish(best, value, point, examples)
        self.share = begun + self._goal_share
        return Found(value, point)

    def _likeliest(self, goal: RowGoal, seen: Looked, starts: int) -> tuple[Tensor, Tensor]:
        """Rows of the goal (M, R) and starts (M, R, C, H, W): the best points of the best goals."""
        count, tried = seen.points.shape[:2]
        total = len(next(iter(vars(goal).values())))
        goals = total // count
        rows = torch.arange(total, device=self.device).view(count, goals)
        flat = [part.flatten(0, 1) for part in seen.logits]
        # One goal after the other: all of them at once would hold their number times the logits.
        values = torch.stack(
            [
                ordered(goal[one.repeat_interleave(tried)](*flat)[0]).view(count, tried)
                for one in rows.unbind(1)
            ],
            1,
        )
        top = values.amax(2).topk(min(_GOALS, goals), 1).indices
        starts = min(starts, tried)
        values = values.gather(1, top[:, :, None].expand(-1, -1, tried))
        chosen = values.topk(starts, 2).indices.flatten(1)
        rows = rows.gather(1, top)[:, :, None].expand(-1, -1, starts).flatten(1)
        every = torch.arange(count, device=self.device)[:, None]
        return rows, seen.points[every, chosen]

    def _shake(
        self,
        goal: RowGoal,
        value: Tensor,
        point: Tensor,
        examples: Tensor,
        effort: Effort,
        stream: int,
    ) -> None:
        """Climb from shaken copies until ``patience`` rounds gain nothing; in place."""
        fails = torch.zeros_like(examples)
        begun = self.share
        left = goal.is_open(value).nonzero()[:, 0]
        number = 0
        while True:
            cost = effort.copies * effort.steps
            left = left[self.spent[examples[left]] + cost <= effort.budget]
            self.share = begun + 0.8 * self._goal_share * (1 - len(left) / max(1, len(examples)))
            if not len(left):
                return
            region = self.region[examples[left]]
            copies = [
                shaken(
                    point[left],
                    region,
                    _SHAKEN[(number + copy) % len(_SHAKEN)],
                    self.seed,
                    stream + number + copy,
                )
                for copy in range(effort.copies)
            ]
            number += effort.copies
            start = torch.stack(copies, 1).flatten(0, 1)
            climb = {"steps": effort.steps, "is_soft": True}
            gain = self._try(start, effort.copies, goal, value, point, examples, left, **climb)
            fails[left] = torch.where(gain > _GAIN, 0, fails[left] + 1)
            left = left[(fails[left] < effort.patience) & goal.is_open(value[left])]

    def _finish(self, goal: RowGoal, value: Tensor, point: Tensor, examples: Tensor) -> None:
        """Settle the pixels between their ends with small steps, and flip single ones; in place."""
        left = goal.is_open(value).nonzero()[:, 0]
        if not len(left) or not goal.polishes:
            return
        first, last, steps = _FINE[self.region.norm]
        fine = {"steps": steps, "first": first, "last": last}
        self._try(point[left], 1, goal, value, point, examples, left, **fine)
        if self.region.norm == "l2":
            return
        for _ in range(_FLIP_ROUNDS):
            left = left[goal.is_open(value[left])]
            if not len(left):
                return
            start = self._flips(goal[left], point[left], examples[left])
            flips = start.shape[1]
            few = {**fine, "steps": _FLIP_STEPS}
            gain = self._try(start.flatten(0, 1), flips, goal, value, point, examples, left, **few)
            left = left[gain > _GAIN]

    def _flips(self, goal: RowGoal, points: Tensor, examples: Tensor) -> Tensor:
        """The best of single flips of the pixels that a gradient thinks cost least, (M, F, C, H, W)."""
        region = self.region[examples]
        gradient = self.gradient(points, goal, examples)
        every = flipped(points, gradient, region, _TRIED)
        tried = every.shape[1]
        rows = torch.arange(len(points), device=self.device).repeat_interleave(tried)
        with torch.no_grad():
            flat = every.flatten(0, 1)
            logits = tuple(network(flat) for network in self.networks)
        self.look(flat, *logits, examples[rows])
        values = ordered(goal[rows](*logits)[0]).view(-1, tried)
        chosen = values.topk(min(_FLIPPED, tried), 1).indices
        return every[torch.arange(len(points), device=self.device)[:, None], chosen]

    def _try(
        self,
        start: Tensor,
        copies: int,
        goal: RowGoal,
        value: Tensor,
        point: Tensor,
        examples: Tensor,
        left: Tensor,
        **climb: float | bool,
    ) -> Tensor:
        """Climb from ``copies`` starts of each row ``left`` and keep what is better; the gains."""
        rows = left.repeat_interleave(copies)
        found, reached = self.climb(start, goal[rows], examples[rows], **climb)
        best, which = found.view(-1, copies).max(1)
        every = torch.arange(len(left), device=self.device)
        gain = best - value[left]
        better = gain > 0
        point[left[better]] = reached.unflatten(0, (-1, copies))[every, which][better]
        value[left] = torch.maximum(value[left], best)
        return gain
