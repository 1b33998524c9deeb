"""One climb from many points at once, with both networks' gradients or one's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fkd.attacks._relus import Ranges, no_ranges, softened
from fkd.attacks._steps import steepest
from fkd.attacks.goals import RowGoal
from fkd.core.ball import Region

#: First and last step of a climb as shares of epsilon.
_FIRST_STEP, _LAST_STEP = 1.0, 0.1
_MOMENTUM = 0.5
#: Softness of gradients at the first step, as a share of the widths seen; it shrinks to 0.
_SOFTNESS = 0.05

#: Takes visited points (M, C, H, W), both logits (M, K) there, and the examples (M,) they belong to.
Look = Callable[[Tensor, Tensor, Tensor, Tensor], None]


class Climber:
    """Climbs in one chunk of balls.

    Args:
        networks: teacher and student.
        region: N balls.
        tell: called with the share of the work that is done; it raises `Cancelled` when asked to stop.
        look: sees every point at which both networks were evaluated.

    Attributes:
        gradients: of the pair evaluated so far, a point counted as one (one network's as a half).
        ranges: what the units of either network were seen to take in each ball.
    """

    def __init__(
        self,
        networks: tuple[nn.Module, nn.Module],
        region: Region,
        *,
        tell: Callable[[float], None],
        look: Look,
    ) -> None:
        self.networks, self.region = networks, region
        self.tell, self.look = tell, look
        self.device = region.images.device
        self.gradients = 0.0
        self.ranges = no_ranges(2)
        self.share = 0.0
        self.spent = torch.zeros(len(region), dtype=torch.int64, device=self.device)

    def climb(
        self,
        start: Tensor,
        goal: RowGoal,
        examples: Tensor,
        *,
        steps: int,
        is_soft: bool = False,
        first: float = _FIRST_STEP,
        last: float = _LAST_STEP,
    ) -> tuple[Tensor, Tensor]:
        """Best values (M,) and their points (M, C, H, W) on the way up from ``start``.

        Steps are those of momentum-iterative ascent (Dong et al., 1710.06081), geometrically shorter.
        """
        region, asked = self.region[examples], _Asked(self, goal, examples, is_soft=is_soft)
        point = region.clamp(start)
        top = torch.full((len(point),), -torch.inf, dtype=point.dtype, device=self.device)
        top_point, momentum = point.clone(), torch.zeros_like(point)
        radius = region.radius.to(point.dtype)[:, None, None, None]
        for step in range(steps + 1):
            softness = _SOFTNESS * (1 - step / steps) if is_soft else 0.0
            value, gradient = asked.value(point, softness, needs_gradient=step < steps)
            is_better = value > top
            top = torch.where(is_better, value, top)
            top_point = torch.where(is_better[:, None, None, None], point, top_point)
            if step == steps:
                break
            mean = gradient.abs().mean((1, 2, 3), keepdim=True)
            tiny = torch.finfo(mean.dtype).tiny
            momentum = _MOMENTUM * momentum + gradient / mean.clamp_min(tiny)
            size = radius * first * (last / first) ** (step / max(1, steps - 1))
            point = region.clamp(point + size * steepest(momentum, point, region))
            self.tell(self.share)
        self.count(examples, steps, asked.share)
        return top, top_point

    def gradient(self, points: Tensor, goal: RowGoal, examples: Tensor) -> Tensor:
        """Of the goal at points, like them."""
        asked = _Asked(self, goal, examples, is_soft=False)
        self.count(examples, 1, asked.share)
        return asked.value(points, 0.0, needs_gradient=True)[1]

    def count(self, examples: Tensor, each: int, share: float = 1.0) -> None:
        """Note ``each`` gradients of every row, of this share of the pair."""
        self.gradients += len(examples) * each * share
        self.spent.index_add_(0, examples, torch.full_like(examples, each))


class _Asked:
    """The networks that a goal's rows ask, both of them or one."""

    def __init__(self, climber: Climber, goal: RowGoal, examples: Tensor, *, is_soft: bool) -> None:
        self._climber, self._goal, self._examples = climber, goal, examples
        self._rows = goal.rows_alone()
        self.share = 1.0 if self._rows is None else 0.5
        self._ranges: list[Ranges] | None = None
        if is_soft:
            places = self._rows or (slice(None), slice(None))
            self._ranges = [
                part[examples[rows]] for part, rows in zip(climber.ranges, places, strict=True)
            ]

    def value(
        self, points: Tensor, softness: float, *, needs_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Values (M,) and gradients like ``points`` (those themselves where none are needed)."""
        with torch.set_grad_enabled(needs_gradient):
            points = points.detach().requires_grad_(needs_gradient)
            logits = [self._logits(which, points, softness) for which in (0, 1)]
            if self._rows is not None:
                logits = self._spread(logits, len(points))
            value, rise = self._goal(*logits)
            gradient = torch.autograd.grad(rise.sum(), points)[0] if needs_gradient else points
        if self._rows is None:
            seen = (part.detach() for part in (points, *logits))
            self._climber.look(*seen, self._examples)
        return ordered(value), gradient

    def _logits(self, which: int, points: Tensor, softness: float) -> Tensor | None:
        """One network's logits in the rows that ask it; None where none do (networks may refuse 0)."""
        network = self._climber.networks[which]
        asked = points if self._rows is None else points[self._rows[which]]
        if not len(asked):
            return None
        if softness and self._ranges is not None:
            return softened(network, asked, self._ranges[which], softness)
        return network(asked)

    def _spread(self, logits: list[Tensor | None], count: int) -> list[Tensor]:
        """Both networks' logits (M, K), zero in rows that do not ask them."""
        one = next(part for part in logits if part is not None)
        none = one.new_zeros(count, one.shape[1])
        return [
            none if part is None else none.index_copy(0, rows, part)
            for part, rows in zip(logits, self._rows, strict=True)
        ]


def ordered(values: Tensor) -> Tensor:
    """Values as they are compared: what is not a number is least."""
    values = values.detach()
    return torch.where(values.isnan(), -torch.inf, values)
