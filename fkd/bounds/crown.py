"""Joint CROWN on margins, with the softmax taken exactly (no softmax in the graph).

Rows propagated for a class c, with ``m^N_j = z^N_j - z^N_c`` (j != c):

* ``m^T_j``, ``m^S_j``: ranges of both log-odds (stage 1),
* ``lambda . m^N`` with lambda = softmax(m^N(x)): a second upper bound of each log-odds (F1),
* ``m^T_j - m^S_j``: by F3 ``a_P - a_Q <= max_j sup(m^Q_j - m^P_j)`` (stage 2, rho = 1),
* ``m^Q_j - lambda^j . m^P`` with ``lambda^j = softmax(m^P(x) + 4 e_j)``: by F1 and F2
  ``a_P - a_Q <= logsumexp_j [sup(m^Q_j - lambda^j . m^P) - H(lambda^j)]``; the smaller is taken.

The finish in one variable is exact (`fkd.bounds.finish.gap_upper`, stage 3).

Sources: CROWN, Zhang et al. 1811.00866; auto_LiRPA, Xu et al. 2002.12920; relative calibration,
Faithful Knowledge Distillation 2306.04431; the log-odds form is this project's own.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from fkd.bounds.base import Certificate, CertificateResult
from fkd.bounds.finish import entropy, gap_upper, odds_range
from fkd.bounds.joint import JointBounder
from fkd.bounds.registry import CERTIFICATES
from fkd.core.ball import Region
from fkd.core.progress import ProgressCallback, report

#: How far lambda^j leans towards its own j: the start recommended for the optimised form.
_LEAN = 4.0


@CERTIFICATES.register("crown")
class JointCrown(Certificate):
    """Linear relaxation of both networks to the same input (CROWN hidden bounds)."""

    method: ClassVar[str] = "CROWN"

    def bound(
        self,
        teacher: nn.Module,
        student: nn.Module,
        region: Region,
        classes: Tensor,
        *,
        progress: ProgressCallback | None = None,
    ) -> CertificateResult:
        """See `Certificate.bound`."""
        bounder = JointBounder(teacher, student, region.images[:1], method=self.method)
        size = min(self.config.rows, bounder.chunk_size())
        parts: list[CertificateResult] = []
        start = 0
        while start < len(region):
            report(progress, "certificate", start, len(region))
            rows = slice(start, min(start + size, len(region)))
            try:
                parts.append(_bound_chunk(bounder, region[rows], classes[rows]))
            except (torch.OutOfMemoryError, MemoryError):
                if size == 1:
                    raise
                size = max(1, size // 2)
                continue
            start = rows.stop
        report(progress, "certificate", len(region), len(region))
        return CertificateResult(
            *(torch.cat([getattr(part, name) for part in parts]) for name in _FIELDS)
        )


_FIELDS = ("gap_upper", "gap_lower", "agrees", "teacher_robust", "student_robust")


def _bound_chunk(bounder: JointBounder, region: Region, classes: Tensor) -> CertificateResult:
    teacher_logits, student_logits = bounder.logits(region.images)
    teacher_pred, student_pred = teacher_logits.argmax(1), student_logits.argmax(1)
    block = _Block(classes, teacher_logits, student_logits)
    rows = [block.rows]
    # Agreement is about the predicted class; where that is the compared class anyway, no row is added.
    needs_more = bool((teacher_pred != classes).any())
    if needs_more:
        rows.append(_margin_rows(teacher_pred, teacher_logits.shape[1]))
    lower, upper = bounder.bound(region, torch.cat(rows, dim=1))
    width = block.rows.shape[1]
    gap_high, gap_low = block.gap(lower[:, :width], upper[:, :width])
    predicted = slice(width, None) if needs_more else slice(0, width)
    margins = _Margins(lower[:, predicted], upper[:, predicted], teacher_logits.shape[1] - 1)
    teacher_robust, student_robust, agrees = margins.agreement()
    same = teacher_pred == student_pred
    return CertificateResult(
        gap_upper=gap_high,
        gap_lower=gap_low,
        agrees=agrees & same,
        teacher_robust=teacher_robust,
        # The student's margins are against the teacher's class: they speak only where both predict it.
        student_robust=student_robust & same,
    )


def _other_classes(classes: Tensor, count: int) -> Tensor:
    """For each row the ``count - 1`` classes other than its own, ascending; (N, K-1)."""
    places = torch.arange(count - 1, device=classes.device).expand(len(classes), -1)
    return places + (places >= classes[:, None]).long()


def _margin_rows(classes: Tensor, count: int) -> Tensor:
    """Rows of ``m^T_j``, ``m^S_j`` and ``m^T_j - m^S_j``, float64 (N, 3 (K-1), 2K)."""
    eye = torch.eye(count, dtype=torch.float64, device=classes.device)
    margins = eye[_other_classes(classes, count)] - eye[classes][:, None, :]
    nothing = torch.zeros_like(margins)
    return torch.cat(
        [
            torch.cat([margins, nothing], dim=2),
            torch.cat([nothing, margins], dim=2),
            torch.cat([margins, -margins], dim=2),
        ],
        dim=1,
    )


class _Margins:
    """Bounds of the three groups of rows of `_margin_rows`."""

    def __init__(self, lower: Tensor, upper: Tensor, others: int) -> None:
        self.teacher = lower[:, :others], upper[:, :others]
        self.student = lower[:, others : 2 * others], upper[:, others : 2 * others]
        self.difference = lower[:, 2 * others : 3 * others], upper[:, 2 * others : 3 * others]

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


class _Block:
    """All rows for one compared class a box, and what follows from their bounds."""

    def __init__(self, classes: Tensor, teacher_logits: Tensor, student_logits: Tensor) -> None:
        count = teacher_logits.shape[1]
        self._others = count - 1
        others = _other_classes(classes, count)
        margin_rows = _margin_rows(classes, count)
        self._rows_teacher = margin_rows[:, : self._others]
        self._rows_student = margin_rows[:, self._others : 2 * self._others]
        margins_teacher = _margins_at(teacher_logits, classes, others)
        margins_student = _margins_at(student_logits, classes, others)
        self._weights_teacher = torch.softmax(margins_teacher, 1)
        self._weights_student = torch.softmax(margins_student, 1)
        self._lean_teacher = _leaning_weights(margins_teacher)
        self._lean_student = _leaning_weights(margins_student)
        mixed_teacher = torch.einsum("njk,nkc->njc", self._lean_teacher, self._rows_teacher)
        mixed_student = torch.einsum("njk,nkc->njc", self._lean_student, self._rows_student)
        single_teacher = torch.einsum("nk,nkc->nc", self._weights_teacher, self._rows_teacher)
        single_student = torch.einsum("nk,nkc->nc", self._weights_student, self._rows_student)
        self.rows = torch.cat(
            [
                margin_rows,
                self._rows_student - mixed_teacher,
                self._rows_teacher - mixed_student,
                single_teacher[:, None],
                single_student[:, None],
            ],
            dim=1,
        )

    def gap(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Upper and lower bounds of p_T(c) - p_S(c) from the rows' bounds, (N,) each."""
        n = self._others
        margins = _Margins(lower, upper, n)
        amin_teacher, amax_teacher = odds_range(*margins.teacher)
        amin_student, amax_student = odds_range(*margins.student)
        single_teacher, single_student = lower[:, 5 * n], lower[:, 5 * n + 1]
        amax_teacher = torch.minimum(
            amax_teacher, -(single_teacher + entropy(self._weights_teacher))
        )
        amax_student = torch.minimum(
            amax_student, -(single_student + entropy(self._weights_student))
        )
        low, high = margins.difference
        # F3: a_T - a_S <= max_j sup(m^S_j - m^T_j), and the same with the roles changed.
        shift_teacher = (-low).amax(1)
        shift_student = high.amax(1)
        mixed_teacher = upper[:, 3 * n : 4 * n] - entropy(self._lean_teacher)
        mixed_student = upper[:, 4 * n : 5 * n] - entropy(self._lean_student)
        shift_teacher = torch.minimum(shift_teacher, torch.logsumexp(mixed_teacher, 1))
        shift_student = torch.minimum(shift_student, torch.logsumexp(mixed_student, 1))
        above = gap_upper(amin_teacher, amax_teacher, amin_student, shift_teacher)
        below = gap_upper(amin_student, amax_student, amin_teacher, shift_student)
        return above, -below


def _margins_at(logits: Tensor, classes: Tensor, others: Tensor) -> Tensor:
    """``z_j - z_c`` for every other class j, (N, K-1)."""
    return logits.gather(1, others) - logits.gather(1, classes[:, None])


def _leaning_weights(margins: Tensor) -> Tensor:
    """``softmax(m + 4 e_j)`` for every j: (N, K-1, K-1), row j leans towards j."""
    lean = _LEAN * torch.eye(margins.shape[1], dtype=margins.dtype, device=margins.device)
    return torch.softmax(margins[:, None, :] + lean, dim=2)
