"""How far bounds are exceeded at points of small cases: positive is a violation.

`answers` looks at certificates from outside.  The other checks look at what the engine's certificates
are made of, point by point: a linear bound has to hold at every point of a set, not only where the
answer is attained, so they see mistakes that looseness elsewhere would cover.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fkd.attacks.objectives import confidence, log_odds
from fkd.bounds._pair import Pair
from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.propagate import Propagator
from fkd.bounds.fast import Foundation
from fkd.core.errors import UnsupportedModelError
from tests.support.dense import DenseNetwork
from tests.support.tiny_pairs import (
    TinyCase,
    TinyPair,
    build_case,
    certify,
    gap_truth,
    map_case,
    samples,
    verdicts,
    wide_case,
)


@dataclass(frozen=True)
class Watched:
    """A case with points of its boxes: image, corners, samples, likely extremes; (N, P, n)."""

    case: TinyCase
    points: Tensor

    def logits(self) -> tuple[Tensor, Tensor]:
        """Both networks' logits there, (N, P, K)."""
        flat = self.points.flatten(0, 1)
        return tuple(
            network.logits(flat).unflatten(0, self.points.shape[:2])
            for network in (self.case.dense_teacher, self.case.dense_student)
        )


def _watch(case: TinyCase) -> Watched:
    rows = []
    for row in range(len(case.region)):
        image = case.region.images[row].flatten().double()[None]
        parts = [image, samples(*case.box(row), 500, seed=row), _far_corners(case, row)]
        if isinstance(case.pair, TinyPair) and case.pair.inputs <= 2:
            parts.append(torch.stack([truth.point for truth in gap_truth(case.pair, row)]))
        rows.append(torch.cat(parts))
    return Watched(case, torch.stack(rows))


def _far_corners(case: TinyCase, row: int) -> Tensor:
    """For each unit and logit of both networks the corners its gradient at the image points to."""
    lower, upper = case.box(row)
    corners = []
    for dense in (case.dense_teacher, case.dense_student):

        def units(image: Tensor, dense: DenseNetwork = dense) -> Tensor:
            return torch.cat(
                [*_before_relus(dense, image[None, None]), dense.logits(image[None])[None]], 2
            )[0, 0]

        slopes = torch.func.jacrev(units)(case.region.images[row].flatten().double())
        corners += [torch.where(side * slopes > 0, upper, lower) for side in (1, -1)]
    return torch.cat(corners)


@functools.cache
def watched_cases() -> tuple[Watched, ...]:
    """Pairs of every relation and size, some of a unit or none, and two of each kind of map."""
    maps = [map_case(number) for number in range(10)] + [wide_case(number) for number in range(8)]
    relations = ("independent", "tuned", "pruned", "rounded")
    pairs = [
        TinyPair(
            inputs=1 + number % 3,
            teacher=((1,), (2,), (4,), (4, 3))[number % 4],
            student=((), (1,), (3,), (3, 3))[(number // 4) % 4],
            classes=2 + number % 3,
            scale=(1.0, 2.0, 4.0)[(number // 3) % 3],
            relation=relations[number % 2 * (number // 2) % 4],
            is_residual=number % 7 == 6,
            epsilons=(0.04, 0.15, 0.4),
            seed=number,
        )
        for number in range(20)
    ]
    cases = [build_case(pair) for pair in pairs] + maps
    return tuple(_watch(case) for case in cases)


def answers(name: str, watched: Watched) -> float:
    """A certificate against points and exact verdicts; a wrong proof counts as 1."""
    case = watched.case
    result = certify(name, case.teacher, case.student, case.region, case.labels)
    each = case.labels[:, None].expand(watched.points.shape[:2]).flatten()
    p, q = (confidence(z.flatten(0, 1), each).view(len(case.region), -1) for z in watched.logits())
    gap = p - q
    worst = torch.stack(
        [(gap.amax(1) - result.gap_upper).max(), (result.gap_lower - gap.amin(1)).max()]
    )
    if not bool(torch.isfinite(worst).all()):
        return float("inf")
    for row in range(len(case.region) if case.pair is not None else 0):
        verdict = verdicts(case.pair, row)
        for claimed, true in (
            (result.agrees, verdict.agrees),
            (result.teacher_robust, verdict.teacher_robust),
            (result.student_robust, verdict.student_robust),
        ):
            if bool(claimed[row]) and true < 0:
                return 1.0
    return float(worst.max())


def _both(watched: Watched) -> list[tuple[Propagator, DenseNetwork]]:
    case = watched.case
    return [
        (Propagator(network, case.region.images[:1]), dense)
        for network, dense in (
            (case.teacher, case.dense_teacher),
            (case.student, case.dense_student),
        )
    ]


def _before_relus(dense: DenseNetwork, points: Tensor) -> list[Tensor]:
    """Pre-activations (N, P, units) of each ReLU layer."""
    known, found = points, []
    for layer in dense.layers:
        width = known.shape[2]
        found.append(known @ dense.weights[layer, :width].T + dense.bias[layer])
        known = torch.cat([known, found[-1].clamp_min(0.0)], dim=2)
    return found


def hidden_bounds(watched: Watched) -> float:
    """Pre-activations against their bounds, and ReLU's two lines at the pre-activations seen."""
    worst = [torch.tensor(-torch.inf)]
    inputs = InputSet.of(watched.case.region)
    for propagator, dense in _both(watched):
        relaxations = propagator.hidden(inputs).relaxations.values()
        for relaxation, seen in zip(relaxations, _before_relus(dense, watched.points), strict=True):
            lower, upper, slope, intercept, default = (
                part.flatten(1)[:, None]
                for part in (
                    relaxation.lower,
                    relaxation.upper,
                    relaxation.slope,
                    relaxation.intercept,
                    relaxation.default,
                )
            )
            after = seen.clamp_min(0.0)
            worst += [
                (lower - seen).max(),
                (seen - upper).max(),
                (after - slope * seen - intercept).max(),
                (default * seen - after).max(),
            ]
    return float(torch.stack(worst).max())


def linear_forms(watched: Watched) -> float:
    """Random rows of the logits against their linear bounds, at every point."""
    generator = torch.Generator().manual_seed(0)
    worst = [torch.tensor(-torch.inf)]
    inputs = InputSet.of(watched.case.region)
    for (propagator, _), logits in zip(_both(watched), watched.logits(), strict=True):
        hidden = propagator.hidden(inputs)
        rows = torch.randn(len(inputs), 6, logits.shape[2], generator=generator).double()
        form = propagator.back(propagator.logits, rows, hidden.relaxations)
        value = watched.points @ form.coefficients.mT + form.constant[:, None]
        exact = logits @ rows.mT
        worst += [(exact - value).max(), (exact.amax(1) - form.highest(inputs)).max()]
    return float(torch.stack(worst).max())


def support_lines(watched: Watched) -> float:
    """Margins' odds, ranges of the log-odds and support lines, at every point."""
    case = watched.case
    pair = Pair(case.teacher, case.student, case.region.images[:1])
    foundation = Foundation(pair, case.region, case.labels)
    labels = case.labels[:, None].expand(watched.points.shape[:2]).flatten()
    odds = [log_odds(z.flatten(0, 1), labels).view(len(z), -1) for z in watched.logits()]
    worst = []
    for lines, a, b in ((foundation.forth, *odds), (foundation.back, *reversed(odds))):
        excess = lines.slopes[:, :, None] * a[:, None] - b[:, None] - lines.shifts[:, :, None]
        worst += [
            (a - lines.amax_p[:, None]).max(),
            (lines.amin_p[:, None] - a).max(),
            (lines.amin_q[:, None] - b).max(),
            excess.max(),
        ]
    for sides in foundation.passes:
        for passes, a in zip(sides, odds, strict=True):
            low, high = passes.odds()
            worst += [(low[:, None] - a).max(), (a - high[:, None]).max()]
    return float(torch.stack(worst).max())


#: The engine's parts, by name; `answers` needs a certificate.
PARTS: dict[str, Callable[[Watched], float]] = {
    "hidden_bounds": hidden_bounds,
    "linear_forms": linear_forms,
    "support_lines": support_lines,
}


def worst_violation(
    check: Callable[[Watched], float], *, stop_at: float = 1e-6, pairs_only: bool = False
) -> float:
    """The largest violation over the watched cases; stops at the first clear one.

    NaN counts as a violation.  Cases that the engine does not take (maximum pooling) are left out, and
    maps if ``pairs_only``.
    """
    worst = -float("inf")
    for watched in watched_cases():
        if pairs_only and not isinstance(watched.case.pair, TinyPair):
            continue
        try:
            value = check(watched)
        except UnsupportedModelError:
            continue
        worst = max(worst, value if value == value else float("inf"))
        if worst > stop_at:
            break
    return worst
