"""Which pixels make the gap: its gradient at the image and at the witness, and along the way between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fkd.attacks.objectives import confidence
from fkd.core.ball import Region
from fkd.core.precision import double_copy
from fkd.core.progress import ProgressCallback, report
from fkd.evaluation._one_example import one_example
from fkd.evaluation.config import AnalysisConfig
from fkd.evaluation.detail import example_detail

#: Gauss-Legendre nodes on each piece of the way.
_NODES = 4
#: Pieces at first and at most; their number doubles until the shares add up.
_PIECES = (8, 256)
_ROWS = 128


@dataclass(frozen=True)
class GapSaliency:
    """Each pixel's part in the signed gap ``p_T(c) - p_S(c)``; images (C, H, W), all float64.

    Attributes:
        gap_class: class c whose confidences are compared.
        image: x, in [0, 1].
        witness: the point of the largest gap found.
        at_image: probability: the change of the gap, to first order, if this pixel alone went from the
            darkest to the brightest value it has in the ball; seen from x.
        at_witness: the same seen from the witness.
        along: probability: this pixel's share in the gap's change on the straight way from x to the
            witness (integrated gradients).
        gap_image: signed gap at x, in [-1, 1].
        gap_witness: signed gap at the witness.
        completeness_error: what all of ``along`` adds up to, minus the gap's change, signed.
        gradient_evaluations: points at which both networks were differentiated.
    """

    gap_class: int
    image: np.ndarray
    witness: np.ndarray
    at_image: np.ndarray
    at_witness: np.ndarray
    along: np.ndarray
    gap_image: float
    gap_witness: float
    completeness_error: float
    gradient_evaluations: int


def per_pixel(saliency: np.ndarray) -> np.ndarray:
    """Channels added up, (C, H, W) to (H, W): what all channels of a pixel do together."""
    return saliency.sum(axis=0)


def gap_saliency(
    config: AnalysisConfig, index: int, *, progress: ProgressCallback | None = None
) -> GapSaliency:
    """`saliency_of` for one analysed example and its gap witness; a second or less for small networks.

    Raises:
        ConfigError: not analysed yet, no such example, or a ball of radius 0.
        DataError: the images are not on this machine.
        Cancelled: ``progress`` asked to stop.
    """
    one = one_example(config, index)
    witness = torch.from_numpy(example_detail(config, index).gap_witness)
    return saliency_of(
        one.teacher, one.student, one.region, witness[None], one.gap_class, progress=progress
    )


def saliency_of(
    teacher: nn.Module,
    student: nn.Module,
    region: Region,
    witness: Tensor,
    gap_class: int,
    *,
    tolerance: float = 1e-4,
    progress: ProgressCallback | None = None,
) -> GapSaliency:
    """The gap's gradient times each pixel's room, and integrated gradients from x to the witness.

    Integrated gradients (Sundararajan et al., 1703.01365, equation 1) of the signed gap g are
    ``(w - x)_i * integral_0^1 dg/dx_i(x + t (w - x)) dt`` and add up to ``g(w) - g(x)``.  The integral
    is taken piece by piece, on ever more pieces until the sum is right within the tolerance: between the
    kinks of ReLU networks the integrand is smooth, but where the kinks are is not known.

    Args:
        teacher: images (N, C, H, W) to logits (N, K), in eval mode.
        student: the same.
        region: the ball, one row.
        witness: (1, C, H, W), a point of the ball.
        gap_class: class c whose confidences are compared.
        tolerance: of the sum, probability; what remains after all pieces is told, never hidden.
        progress: told about the stage ``saliency``; answering True cancels.

    Raises:
        Cancelled: ``progress`` asked to stop.
    """
    exact = double_copy(teacher), double_copy(student)
    image = region.images.double()
    way = witness.double() - image
    gaps, gradients = _gap_gradients(exact, torch.cat([image, image + way]), gap_class)
    change = float(gaps[1] - gaps[0])

    evaluations, pieces = 2, _PIECES[0]
    while True:
        report(progress, "saliency", pieces, _PIECES[1])
        shares, weights = _quadrature(pieces)
        mean = torch.zeros_like(image)
        for start in range(0, len(shares), _ROWS):
            rows = slice(start, start + _ROWS)
            points = image + shares[rows, None, None, None] * way
            _, slopes = _gap_gradients(exact, points, gap_class)
            mean += torch.tensordot(weights[rows], slopes, 1)[None]
            report(progress, "saliency", pieces, _PIECES[1])
        evaluations += len(shares)
        along = way * mean
        error = float(along.sum()) - change
        if abs(error) <= tolerance or pieces >= _PIECES[1]:
            break
        pieces *= 2

    room = region.upper.double() - region.lower.double()
    return GapSaliency(
        gap_class=gap_class,
        image=image[0].numpy(),
        witness=witness.double()[0].numpy(),
        at_image=(gradients[0] * room[0]).numpy(),
        at_witness=(gradients[1] * room[0]).numpy(),
        along=along[0].numpy(),
        gap_image=float(gaps[0]),
        gap_witness=float(gaps[1]),
        completeness_error=error,
        gradient_evaluations=evaluations,
    )


def _gap_gradients(
    exact: tuple[nn.Module, nn.Module], points: Tensor, gap_class: int
) -> tuple[Tensor, Tensor]:
    """Signed gaps (N,) and their gradients, like ``points``; float64."""
    classes = torch.full((len(points),), gap_class)
    with torch.enable_grad():
        points = points.detach().requires_grad_(True)
        of_teacher, of_student = (confidence(network(points), classes) for network in exact)
        gaps = of_teacher - of_student
        (gradients,) = torch.autograd.grad(gaps.sum(), points)
    return gaps.detach(), gradients


def _quadrature(pieces: int) -> tuple[Tensor, Tensor]:
    """Nodes in (0, 1) and weights that add up to 1, of Gauss-Legendre on equal pieces of [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    starts = np.arange(pieces)[:, None]
    places = (starts + (nodes + 1.0) / 2.0) / pieces
    repeated = np.tile(weights / (2.0 * pieces), pieces)
    return torch.from_numpy(places.ravel()), torch.from_numpy(repeated)
