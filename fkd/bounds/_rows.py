"""Specification rows on ``cat(z^T, z^S)``: margins of each network, their differences, agreement."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fkd.bounds.engine import intervals
from fkd.bounds.finish import entropy, odds_range

#: How far lambda^j leans towards its own j: the start recommended for the optimised form.
_LEAN = 4.0


def margin_rows(classes: Tensor, count: int) -> Tensor:
    """Rows of ``m^T_j``, ``m^S_j`` and ``m^T_j - m^S_j``, float64 (N, 3 (K-1), 2K)."""
    margins = intervals.margin_rows(classes, count, torch.empty(0, dtype=torch.float64))
    nothing = torch.zeros_like(margins)
    return torch.cat(
        [
            torch.cat([margins, nothing], dim=2),
            torch.cat([nothing, margins], dim=2),
            torch.cat([margins, -margins], dim=2),
        ],
        dim=1,
    )


class MarginBounds:
    """Bounds of the three groups of rows of `margin_rows`, as (lower, upper) pairs of (N, K-1)."""

    def __init__(self, lower: Tensor, upper: Tensor, others: int) -> None:
        self.teacher = lower[:, :others], upper[:, :others]
        self.student = lower[:, others : 2 * others], upper[:, others : 2 * others]
        self.difference = lower[:, 2 * others : 3 * others], upper[:, 2 * others : 3 * others]

    @classmethod
    def of(cls, *groups: tuple[Tensor, Tensor]) -> MarginBounds:
        """From the teacher's, the student's and the differences' (lower, upper)."""
        lower, upper = (torch.cat(ends, dim=1) for ends in zip(*groups, strict=True))
        return cls(lower, upper, groups[0][0].shape[1])

    def agreement(self) -> tuple[Tensor, Tensor, Tensor]:
        """Teacher robust, student robust, and both predictions equal on the box; bool (N,).

        For the class t that both predict at the image: the teacher can say i only if m^T_i >= 0
        somewhere, the student j only if m^S_j >= 0.  "Teacher i, student t" at one point needs
        m^T_i >= 0 >= m^S_i, so it is impossible where sup(m^T_i - m^S_i) < 0, and "teacher t,
        student j" where inf(m^T_j - m^S_j) > 0.  Every comparison is false for NaN.
        """
        teacher_never = self.teacher[1] < 0
        student_never = self.student[1] < 0
        teacher_alone = teacher_never | (self.difference[1] < 0)
        student_alone = student_never | (self.difference[0] > 0)
        # Pairs (i, j), i != j, neither of them t: ruled out by either network alone.
        impossible = teacher_never[:, :, None] | student_never[:, None, :]
        same = torch.eye(impossible.shape[1], dtype=torch.bool, device=impossible.device)
        pairs = (impossible | same).flatten(1).all(1)
        agrees = teacher_alone.all(1) & student_alone.all(1) & pairs
        return teacher_never.all(1), student_never.all(1), agrees


@dataclass(frozen=True)
class Side:
    """One network of the pair: its margin rows and what is known of it at the image.

    Attributes:
        rows: float64 (N, K-1, 2K), ``m_j = z_j - z_c`` of this network.
        margins: (N, K-1), their values at the image.
        weights: (N, K-1), softmax(margins): the simplex weights for which Gibbs (F1) is tight there.
        lean: (N, K-1, K-1), ``softmax(margins + 4 e_j)``; row j leans towards j.
    """

    rows: Tensor
    margins: Tensor
    weights: Tensor
    lean: Tensor

    def __getitem__(self, sets: Tensor | slice) -> Side:
        return Side(self.rows[sets], self.margins[sets], self.weights[sets], self.lean[sets])

    @property
    def own_row(self) -> Tensor:
        """``weights . m`` as a row, (N, 1, 2K)."""
        return combine(self.weights, self.rows)

    def odds(self, margins: tuple[Tensor, Tensor], own_lower: Tensor) -> tuple[Tensor, Tensor]:
        """Range of the log-odds from the margins' bounds and the lower bound of `own_row` (F1)."""
        amin, amax = odds_range(*margins)
        return amin, torch.minimum(amax, -(own_lower + entropy(self.weights)))


def make_side(rows: Tensor, logits: Tensor, classes: Tensor) -> Side:
    """A `Side` from its margin rows (N, K-1, 2K) and its logits (N, K) at the image."""
    others = intervals.other_classes(classes, logits.shape[1])
    margins = logits.gather(1, others) - logits.gather(1, classes[:, None])
    lean = _LEAN * torch.eye(margins.shape[1], dtype=margins.dtype, device=margins.device)
    return Side(
        rows=rows,
        margins=margins,
        weights=torch.softmax(margins, 1),
        lean=torch.softmax(margins[:, None, :] + lean, 2),
    )


def combine(weights: Tensor, rows: Tensor) -> Tensor:
    """One row ``weights . rows`` a box: (N, R) and (N, R, 2K) to (N, 1, 2K)."""
    return weights[:, None, :] @ rows
