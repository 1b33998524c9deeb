"""Points tried on the way: branch and bound moves the lower end of the bracket too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fkd.core.ball import Region

#: The last step of a search in shares of the first one.
_LAST_STEP = 0.02


class Witness:
    """The best points seen in one ball.

    Attributes:
        gap: largest |p_T(c) - p_S(c)| seen.
        point: where, (1, C, H, W), in the ball.
        disagreement: a point where the predictions differ, or None.

    Args:
        teacher: images to logits.
        student: the same.
        region: one ball.
        label: c.
    """

    def __init__(self, teacher: nn.Module, student: nn.Module, region: Region, label: int) -> None:
        self.teacher, self.student, self.region, self.label = teacher, student, region, label
        self.gap, self.point = -1.0, region.images
        self.disagreement: Tensor | None = None
        self.look(region.images)

    def _logits(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return _in_own_type(self.teacher, points), _in_own_type(self.student, points)

    def look(self, points: Tensor) -> None:
        """Try points (M, C, H, W); they are brought into the ball first."""
        points = self._inside(points)
        with torch.no_grad():
            teacher, student = self._logits(points)
        gaps = torch.softmax(teacher, 1) - torch.softmax(student, 1)
        gaps = gaps[:, self.label].abs()
        best = int(gaps.argmax())
        if float(gaps[best]) > self.gap:
            self.gap, self.point = float(gaps[best]), points[best : best + 1]
        differ = (teacher.argmax(1) != student.argmax(1)).nonzero()[:, 0]
        if self.disagreement is None and len(differ):
            self.disagreement = points[differ[:1]]

    def climb(self, points: Tensor, *, steps: int = 12) -> None:
        """Follow gradients up from points, in both directions of the gap.

        First of the difference of log-odds, which does not saturate, then of the gap itself.
        """
        sign = torch.ones(2 * len(points), dtype=torch.float64, device=points.device)
        sign[len(points) :] = -1.0

        def difference(logits: tuple[Tensor, Tensor], step: int) -> Tensor:
            odds = [_log_odds(part, self.label) for part in logits]
            if 2 * step >= steps:
                odds = [torch.sigmoid(part) for part in odds]
            return sign * (odds[0] - odds[1])

        self._follow(torch.cat([points, points]), difference, steps)

    def part(self, points: Tensor, predicted: int, *, steps: int = 24) -> None:
        """Follow gradients from points to where one network still predicts a class and the other not.

        Args:
            points: (M, C, H, W).
            predicted: the class.
            steps: how many.
        """
        stays = torch.ones(2 * len(points), dtype=torch.float64, device=points.device)
        stays[len(points) :] = -1.0

        def lesser(logits: tuple[Tensor, Tensor], step: int) -> Tensor:
            margins = torch.stack([_margin(part, predicted) for part in logits])
            wanted = torch.stack([stays * margins[0], -stays * margins[1]])
            # The smaller one counts, softly: both have to become positive.
            scale = wanted.detach().abs().amax(0).clamp_min(1e-9) / 4
            return -scale * torch.logsumexp(-wanted / scale, 0)

        self._follow(torch.cat([points, points]), lesser, steps)

    def _follow(
        self,
        points: Tensor,
        objective: Callable[[tuple[Tensor, Tensor], int], Tensor],
        steps: int,
    ) -> None:
        """Signed steps up, each smaller than the one before; every point on the way is looked at."""
        if not len(points):
            return
        here = self._inside(points)
        span = (self.region.upper - self.region.lower).amax()
        for step in range(steps):
            here = here.detach().requires_grad_(True)
            value = objective(self._logits(here), step).sum()
            (gradient,) = torch.autograd.grad(value, here)
            size = 0.5 * span * _LAST_STEP ** (step / max(1, steps - 1))
            here = self._inside(here.detach() + size * gradient.sign())
            self.look(here)

    def _inside(self, points: Tensor) -> Tensor:
        points = points.to(self.region.images.dtype)
        count = len(points)
        return self.region.repeat(count).clamp(points) if count else points


def _in_own_type(network: nn.Module, points: Tensor) -> Tensor:
    dtype = next((part.dtype for part in network.parameters()), points.dtype)
    return network(points.to(dtype)).double()


def _log_odds(logits: Tensor, label: int) -> Tensor:
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], 1)
    return logits[:, label] - torch.logsumexp(others, 1)


def _margin(logits: Tensor, label: int) -> Tensor:
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], 1)
    return logits[:, label] - others.amax(1)
