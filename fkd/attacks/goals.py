"""What a search climbs: goals, one a row, of both networks' logits.

Each tells its value and something that rises with it, whose gradient does not vanish where confidences
are saturated.  A confidence of a set A of classes is ``p(A) = sigmoid(a(A))`` with the log-odds
``a(A) = logsumexp_A z - logsumexp_{not A} z``, so the gradient of ``p_T(A) - p_S(A)`` has the direction
of ``w_T a_T - w_S a_S`` with w the logistic function's slopes, of which only the ratio matters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import torch
from torch import Tensor

from fkd.attacks.objectives import best_other_margin, log_odds

#: A gap this near to its largest value cannot grow.
_FULL = 1.0 - 1e-6


@dataclass(frozen=True)
class RowGoal(ABC):
    """One goal a row; the fields of subclasses are tensors of M rows.

    Attributes:
        polishes: whether a value is worth the small steps at a search's end.
    """

    polishes: ClassVar[bool] = True

    def __getitem__(self, rows: Tensor) -> Self:
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    def rows_alone(self) -> tuple[Tensor, Tensor] | None:
        """Rows that ask the teacher alone and the student alone; None where rows ask both."""
        return None

    @abstractmethod
    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Values (M,), detached, and what is differentiated in their place, (M,); logits (M, K)."""

    def is_open(self, values: Tensor) -> Tensor:
        """Whether more is worth looking for, bool (M,)."""
        return values < _FULL


@dataclass(frozen=True)
class ConfidenceGap(RowGoal):
    """``sign (p_T(c) - p_S(c))``.

    Attributes:
        signs: 1 or -1, (M,).
        classes: int64 (M,), c.
    """

    signs: Tensor
    classes: Tensor

    @classmethod
    def both_ways(cls, classes: Tensor) -> Self:
        """Two rows for each of ``classes``, int64 (M,): the teacher above, then the student."""
        return cls(both_signs(classes), classes.repeat_interleave(2))

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `RowGoal`."""
        odds = [log_odds(part, self.classes) for part in (teacher_logits, student_logits)]
        value, rise = _between(*odds)
        return self.signs * value, self.signs * rise


@dataclass(frozen=True)
class TotalVariation(RowGoal):
    """``1/2 sum_k |p_T(k) - p_S(k)|``: the gap of that set of classes of which the teacher is surer.

    Attributes:
        rows: anything (M,); it only says how many rows there are.
    """

    rows: Tensor

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `RowGoal`."""
        with torch.no_grad():
            surer = teacher_logits.log_softmax(1) > student_logits.log_softmax(1)
            # Of no class or of all of them there is no gap; then any one will do.
            is_whole = surer.all(1) | ~surer.any(1)
            surer[:, 0] ^= is_whole
        return _between(*(_set_odds(part, surer) for part in (teacher_logits, student_logits)))


@dataclass(frozen=True)
class Divergence(RowGoal):
    """``KL(p_T || p_S)`` in nats.

    Attributes:
        rows: anything (M,); it only says how many rows there are.
    """

    rows: Tensor

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `RowGoal`."""
        logs = teacher_logits.log_softmax(1), student_logits.log_softmax(1)
        # 0 log 0 is 0.
        apart = torch.where(logs[0] == -torch.inf, 0.0, logs[0] - logs[1])
        value = (logs[0].exp() * apart).sum(1)
        return value.detach(), value

    def is_open(self, values: Tensor) -> Tensor:
        """Always: it has no largest value."""
        return values < torch.inf


@dataclass(frozen=True)
class Parting(RowGoal):
    """One network stays at a class and the other leaves it: the smaller of both margins.

    Attributes:
        signs: 1 where the teacher stays, -1 where the student does, (M,).
        classes: int64 (M,).
    """

    signs: Tensor
    classes: Tensor

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `RowGoal`; what rises is a soft minimum, since both margins have to become positive."""
        leaves = torch.stack(
            [best_other_margin(part, self.classes) for part in (teacher_logits, student_logits)]
        )
        wanted = torch.stack([-self.signs, self.signs]) * leaves
        scale = (wanted.detach().abs().amax(0) / 4).clamp_min(1e-9)
        soft = -scale * torch.logsumexp(-wanted / scale, 0)
        return wanted.detach().amin(0), soft

    def is_open(self, values: Tensor) -> Tensor:
        """Until it is reached."""
        return values <= 0


@dataclass(frozen=True)
class Leaving(RowGoal):
    """One network leaves a class, whatever the other does: on the way there, the two part.

    Attributes:
        of_teacher: bool (M,), whose margin it is.
        classes: int64 (M,), what both predict at the image.
    """

    polishes: ClassVar[bool] = False

    of_teacher: Tensor
    classes: Tensor

    def rows_alone(self) -> tuple[Tensor, Tensor]:
        """See `RowGoal`."""
        return self.of_teacher.nonzero()[:, 0], (~self.of_teacher).nonzero()[:, 0]

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `RowGoal`."""
        margin = torch.where(
            self.of_teacher,
            best_other_margin(teacher_logits, self.classes),
            best_other_margin(student_logits, self.classes),
        )
        return margin.detach(), margin

    def is_open(self, values: Tensor) -> Tensor:
        """Until it has left."""
        return values <= 0


def both_signs(rows: Tensor) -> Tensor:
    """1 and -1 in turn, two for each of the rows: float32 (2 M,)."""
    return torch.tensor([1.0, -1.0], device=rows.device).repeat(len(rows))


def _set_odds(logits: Tensor, members: Tensor) -> Tensor:
    """Log-odds (M,) of the set of classes ``members``, bool (M, K)."""
    inside = logits.masked_fill(~members, -torch.inf).logsumexp(1)
    return inside - logits.masked_fill(members, -torch.inf).logsumexp(1)


def _between(teacher_odds: Tensor, student_odds: Tensor) -> tuple[Tensor, Tensor]:
    """``sigmoid(a_T) - sigmoid(a_S)``, detached, and what has its gradient's direction."""
    odds = teacher_odds, student_odds
    fixed = [part.detach() for part in odds]
    # log of the slope: log sigmoid(a) + log sigmoid(-a)
    slopes = [torch.nn.functional.softplus(part.abs().neg()) * -2 - part.abs() for part in fixed]
    most = torch.maximum(slopes[0], slopes[1])
    weights = [torch.exp(part - most) for part in slopes]
    value = torch.sigmoid(fixed[0]) - torch.sigmoid(fixed[1])
    return value, weights[0] * odds[0] - weights[1] * odds[1]
