"""Points tried on the way: branch and bound moves the lower end of the bracket too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fkd.core.ball import Region


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
        """Follow the gradient of the difference of log-odds from points, both ways up."""
        points = self._inside(points)
        sign = torch.ones(2 * len(points), device=points.device)
        sign[len(points) :] = -1.0
        here = torch.cat([points, points])
        span = (self.region.upper - self.region.lower).amax()
        for step in range(steps):
            here = here.detach().requires_grad_(True)
            odds = [_log_odds(logits, self.label) for logits in self._logits(here)]
            (gradient,) = torch.autograd.grad((sign * (odds[0] - odds[1])).sum(), here)
            size = 0.5 * span * (1.0 - step / steps)
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
