"""Points that a certificate met on its way: measured like an attack's, used wherever they beat it.

Branch and bound visits points inside its domains.  Where one of them shows a larger gap than the attack's
witness, or a disagreement that the attack missed, it becomes the witness, so that both ends of a bracket
move.  Nothing a certificate says of its points is believed: each is brought back into the ball and
measured in float64, and the outcome is held against the certificate as an attack's is.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from fkd.attacks import PairAttackResult
from fkd.attacks.objectives import confidence
from fkd.bounds import CertificateResult
from fkd.core.ball import Region
from fkd.core.precision import double_copy, logits_of
from fkd.models import Model


def with_points_of(
    certified: CertificateResult,
    attacked: PairAttackResult,
    teacher: Model,
    student: Model,
    region: Region,
    classes: Tensor,
) -> tuple[PairAttackResult, int]:
    """The attack's result with a certificate's points in place of weaker witnesses.

    Args:
        certified: its ``points``, one a ball (N, C, H, W) or several, P, of each (N, P, C, H, W): the
            widest gap and a disagreement may lie apart; or None.  Points that are not finite are left
            out.
        attacked: witnesses so far.
        teacher: the teacher.
        student: the student.
        region: N balls.
        classes: int64 (N,), the class whose confidences are compared.

    Returns:
        The result, and for how many examples a point replaced a witness or found a disagreement.
    """
    points = certified.points
    if points is None:
        return attacked, 0
    networks = double_copy(teacher.network), double_copy(student.network)
    several = points[:, None] if points.ndim == region.images.ndim else points
    improved = torch.zeros_like(attacked.disagrees)
    for some in several.unbind(1):
        attacked, changed = _with_points(some, attacked, networks, region, classes)
        improved |= changed
    return attacked, int(improved.sum())


def witness_arrays(attacked: PairAttackResult) -> dict[str, np.ndarray]:
    """An attack's witnesses as `Analysis.witnesses` holds them; of disagreements only what was found."""
    rows = attacked.disagrees.nonzero().squeeze(1)
    return {
        "gap_witness": attacked.gap_witness.cpu().numpy(),
        "disagreement_rows": rows.cpu().numpy(),
        "disagreement_witness": attacked.disagreement_witness[rows].cpu().numpy(),
    }


def _with_points(
    points: Tensor,
    attacked: PairAttackResult,
    networks: tuple[nn.Module, nn.Module],
    region: Region,
    classes: Tensor,
) -> tuple[PairAttackResult, Tensor]:
    """The same with one point a ball (N, C, H, W); and which examples it changed, bool (N,)."""
    images = region.images
    points = points.detach().to(images)
    known = points.isfinite().flatten(1).all(1)
    points = region.clamp(torch.where(known[:, None, None, None], points, images))

    logits = [logits_of(network, points) for network in networks]
    teacher_conf, student_conf = (confidence(z, classes) for z in logits)
    teacher_pred, student_pred = (z.argmax(1) for z in logits)
    gap = (teacher_conf - student_conf).abs()
    # A comparison with NaN is false: such a point replaces nothing.
    is_wider = gap > attacked.gap
    is_new = (teacher_pred != student_pred) & ~attacked.disagrees

    def where(condition: Tensor, new: Tensor, old: Tensor) -> Tensor:
        return torch.where(condition.view(-1, *[1] * (old.ndim - 1)), new, old)

    merged = dataclasses.replace(
        attacked,
        gap_witness=where(is_wider, points, attacked.gap_witness),
        teacher_conf=where(is_wider, teacher_conf, attacked.teacher_conf),
        student_conf=where(is_wider, student_conf, attacked.student_conf),
        gap=where(is_wider, gap, attacked.gap),
        disagrees=attacked.disagrees | is_new,
        disagreement_witness=where(is_new, points, attacked.disagreement_witness),
        teacher_pred=where(is_new, teacher_pred, attacked.teacher_pred),
        student_pred=where(is_new, student_pred, attacked.student_pred),
    )
    return merged, is_wider | is_new
