"""Joint CROWN on margins, with the softmax taken exactly (no softmax in the graph).

Rows propagated for a class c, with ``m^N_j = z^N_j - z^N_c`` (j != c):

* ``m^T_j``, ``m^S_j``: ranges of both log-odds (stage 1),
* ``lambda . m^N`` with lambda = softmax(m^N(x)): a second upper bound of each log-odds (F1),
* ``m^T_j - m^S_j``: by F3 ``a_P - a_Q <= max_j sup(m^Q_j - m^P_j)`` (stage 2, rho = 1),
* ``m^Q_j - lambda^j . m^P`` with ``lambda^j = softmax(m^P(x) + 4 e_j)``: by F1 and F2
  ``a_P - a_Q <= logsumexp_j [sup(m^Q_j - lambda^j . m^P) - H(lambda^j)]``; the smaller is taken.

* once more with ``rho = s'(a*) / s'(b*)`` at the maximiser of what is known so far (the tangent
  support line, stage 4's cutting plane), on the hidden bounds already computed,
* ``kappa . m^Q - rho lambda . m^P`` where ``kappa . m + constant`` bounds logsumexp on the margins' box
  by chords: one row that keeps what the margins have in common, tight as the ball shrinks.

The finish in one variable is exact for rho = 1 (`fkd.bounds.finish.gap_upper`, stage 3) and within
second order of a fine grid for both lines (`gap_upper_on_lines`).

Sources: CROWN, Zhang et al. 1811.00866; auto_LiRPA, Xu et al. 2002.12920; relative calibration,
Faithful Knowledge Distillation 2306.04431; the log-odds form is this project's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fkd.bounds._alpha_crown import SlopeOptimiser
from fkd.bounds._direction import Direction, leaning_rows, leaning_shift
from fkd.bounds._memory import in_chunks
from fkd.bounds._rows import MarginBounds, make_side, margin_rows
from fkd.bounds.base import Certificate, CertificateConfig, CertificateResult
from fkd.bounds.joint import JointBounder
from fkd.bounds.registry import CERTIFICATES
from fkd.core.ball import Region
from fkd.core.progress import ProgressCallback, report

#: Boxes that slopes are optimised for at once at most: progress is told, and stops are heard, between.
_AT_ONCE = 16


class CrownConfig(CertificateConfig):
    """`CertificateConfig` under this certificate's name."""

    name: str = Field(default="crown", description="Registry name of the certificate.")


@CERTIFICATES.register("crown")
class JointCrown(Certificate):
    """Linear relaxation of both networks to the same input (CROWN hidden bounds), by auto_LiRPA.

    Args:
        config: settings.
        is_optimised: whether slopes are optimised besides, where the installed auto_LiRPA can
            (`fkd.bounds._alpha_crown`); no bound is looser for it.
    """

    Config: ClassVar[type[CertificateConfig]] = CrownConfig
    method: ClassVar[str] = "CROWN"

    def __init__(self, config: CertificateConfig, *, is_optimised: bool = False) -> None:
        super().__init__(config)
        self.is_optimised = is_optimised

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
        optimiser = SlopeOptimiser.of(bounder) if self.is_optimised else None
        # Eight groups of a row for each other class at most, see `_Question`.
        others = bounder.logits(region.images[:1])[0].shape[1] - 1
        rows = 8 * others + 2
        size = min(self.config.rows, bounder.chunk_size(rows=rows))
        if optimiser is not None:
            size = min(size, bounder.chunk_size(_AT_ONCE, rows=rows, keeps_all=True))

        def chunk(rows: slice) -> CertificateResult:
            report(progress, "certificate", rows.start, len(region))
            return _bound_chunk(bounder, optimiser, region[rows], classes[rows])

        parts = list(in_chunks(len(region), size, chunk))
        report(progress, "certificate", len(region), len(region))
        return CertificateResult.cat(parts)


def _bound_chunk(
    bounder: JointBounder, optimiser: SlopeOptimiser | None, region: Region, classes: Tensor
) -> CertificateResult:
    question = _Question(bounder.logits(region.images), classes)
    known = bounder.bound(region, question.rows)

    def again(rows: Tensor) -> Tensor:
        return bounder.upper_again(region, rows)

    plain = question.answer(*known, again)
    better = None if optimiser is None else optimiser.tighten(region, question.rows, known)
    if optimiser is None or better is None:
        return plain

    def again_better(rows: Tensor) -> Tensor:
        return optimiser.tighten_upper(region, rows, again(rows))

    # From tighter rows the second pass touches elsewhere, where its bound might be looser.
    return _best(plain, question.answer(*better, again_better))


def _best(one: CertificateResult, other: CertificateResult) -> CertificateResult:
    """What either proves."""
    return CertificateResult(
        gap_upper=torch.fmin(one.gap_upper, other.gap_upper),
        gap_lower=torch.fmax(one.gap_lower, other.gap_lower),
        agrees=one.agrees | other.agrees,
        teacher_robust=one.teacher_robust | other.teacher_robust,
        student_robust=one.student_robust | other.student_robust,
    )


class _Question:
    """What is asked of a chunk's boxes, and the answer that bounds of its rows give.

    Args:
        logits: both networks' float64 logits (N, K) at the images.
        classes: int64 (N,), the compared class.

    Attributes:
        rows: float64 (N, R, 2K), the rows to be bounded first.
    """

    def __init__(self, logits: tuple[Tensor, Tensor], classes: Tensor) -> None:
        teacher_logits, student_logits = logits
        self._predicted = teacher_logits.argmax(1)
        self._same = self._predicted == student_logits.argmax(1)
        count = teacher_logits.shape[1]
        self._others = others = count - 1
        margins = margin_rows(classes, count)
        self._teacher = make_side(margins[:, :others], teacher_logits, classes)
        self._student = make_side(margins[:, others : 2 * others], student_logits, classes)
        self._one = torch.ones(len(classes), dtype=torch.float64, device=classes.device)
        rows = [
            margins,
            leaning_rows(self._teacher, self._student, self._one),
            leaning_rows(self._student, self._teacher, self._one),
            self._teacher.own_row,
            self._student.own_row,
        ]
        # Agreement is about the predicted class; where that is the compared class anyway, no row is
        # added.
        self._needs_more = bool((self._predicted != classes).any())
        if self._needs_more:
            rows.append(margin_rows(self._predicted, count))
        self.rows = torch.cat(rows, dim=1)

    def answer(
        self, lower: Tensor, upper: Tensor, again: Callable[[Tensor], Tensor]
    ) -> CertificateResult:
        """What bounds (N, R) of `rows` prove, with ``again`` giving upper bounds of further rows."""
        teacher, student, others, one = self._teacher, self._student, self._others, self._one
        known = MarginBounds(lower, upper, others)
        odds_teacher = teacher.odds(known.teacher, lower[:, 5 * others])
        odds_student = student.odds(known.student, lower[:, 5 * others + 1])
        low, high = known.difference
        # F3: a_T - a_S <= max_j sup(m^S_j - m^T_j), and the same with the roles changed.
        shift_teacher = torch.minimum(
            (-low).amax(1), leaning_shift(teacher, one, upper[:, 3 * others : 4 * others])
        )
        shift_student = torch.minimum(
            high.amax(1), leaning_shift(student, one, upper[:, 4 * others : 5 * others])
        )
        gap_high = _direction_gap(
            again,
            Direction(teacher, student, odds_teacher, odds_student, known.student, shift_teacher),
            Direction(student, teacher, odds_student, odds_teacher, known.teacher, shift_student),
        )
        predicted = slice(5 * others + 2, None) if self._needs_more else slice(0, None)
        about_prediction = MarginBounds(lower[:, predicted], upper[:, predicted], others)
        teacher_robust, student_robust, agrees = about_prediction.agreement()
        return CertificateResult(
            gap_upper=gap_high[0],
            gap_lower=-gap_high[1],
            agrees=agrees & self._same,
            teacher_robust=teacher_robust,
            # The student's margins are against the teacher's class: they speak only where both predict
            # it.
            student_robust=student_robust & self._same,
        )


def _direction_gap(
    again: Callable[[Tensor], Tensor], forth: Direction, back: Direction
) -> tuple[Tensor, Tensor]:
    """Upper bounds of p_T - p_S and p_S - p_T; both second passes share the hidden bounds."""
    second_forth, second_back = forth.second_pass(), back.second_pass()
    rows_forth = second_forth.rows
    rows = torch.cat([rows_forth, second_back.rows], dim=1)
    upper = again(rows)
    width = rows_forth.shape[1]
    # fmin: where a chord overflowed, what the first pass proved still holds.
    return (
        torch.fmin(forth.gap(), second_forth.gap(upper[:, :width])),
        torch.fmin(back.gap(), second_back.gap(upper[:, width:])),
    )
