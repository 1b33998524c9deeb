"""What attacks maximise, from the two networks' logits alone.

``a_N(c) = z_c - logsumexp_{j != c} z_j`` is network N's log-odds of class c; its confidence is
``p_N(c) = sigmoid(a_N(c))`` exactly.  Near 0 and 1 the confidence's gradient vanishes and the
log-odds' does not, so each is tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """Log-odds a(c) of one class a row.

    Args:
        logits: (N, K), K >= 2.
        classes: int64 (N,).

    Returns:
        (N,), any real number.
    """
    own = logits.gather(1, classes[:, None]).squeeze(1)
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return own - torch.logsumexp(others, dim=1)


def confidence(logits: Tensor, classes: Tensor) -> Tensor:
    """Softmax probability of one class a row, (N,) in [0, 1]."""
    return torch.sigmoid(log_odds(logits, classes))


def best_other_margin(logits: Tensor, classes: Tensor) -> Tensor:
    """``max_{j != c} z_j - z_c``: positive where class c is not the prediction; (N,)."""
    own = logits.gather(1, classes[:, None]).squeeze(1)
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return others.max(dim=1).values - own


class Goal(IntEnum):
    """One thing to maximise; `Objective` holds one a row."""

    #: p_T(c) - p_S(c)
    GAP_TEACHER_ABOVE = 0
    #: p_S(c) - p_T(c)
    GAP_STUDENT_ABOVE = 1
    #: a_T(c) - a_S(c)
    ODDS_TEACHER_ABOVE = 2
    #: a_S(c) - a_T(c)
    ODDS_STUDENT_ABOVE = 3
    #: the student leaves class i while the teacher stays: min(z^T_i - z^T_k, max_j z^S_j - z^S_i)
    STUDENT_LEAVES = 4
    #: the teacher leaves class i while the student stays
    TEACHER_LEAVES = 5


@dataclass(frozen=True)
class Objective:
    """A batch of goals.

    Attributes:
        goals: int64 (N,), values of `Goal`.
        classes: int64 (N,), the class whose confidences are compared.
        anchors: int64 (N,), the class that one network leaves and the other keeps.
    """

    goals: Tensor
    classes: Tensor
    anchors: Tensor

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        """Values to maximise, (N,), differentiable in both logits (N, K)."""
        odds_teacher = log_odds(teacher_logits, self.classes)
        odds_student = log_odds(student_logits, self.classes)
        gap = torch.sigmoid(odds_teacher) - torch.sigmoid(odds_student)
        odds = odds_teacher - odds_student
        leave_teacher = best_other_margin(teacher_logits, self.anchors)
        leave_student = best_other_margin(student_logits, self.anchors)
        choices = torch.stack(
            [
                gap,
                -gap,
                odds,
                -odds,
                torch.minimum(-leave_teacher, leave_student),
                torch.minimum(leave_teacher, -leave_student),
            ],
            dim=1,
        )
        return choices.gather(1, self.goals[:, None]).squeeze(1)
