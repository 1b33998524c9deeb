"""Exact answers about tiny pairs of ReLU networks by mixed-integer programming (HiGHS).

Both networks are encoded on the same image in a box: ``y >= h, y >= 0, y <= h - l (1 - t), y <= u t``
with binary t for every ReLU whose sign is open on [l, u].  The solver's *dual* bound is the upper end,
the networks themselves at the solver's point the lower one; HiGHS keeps constraints to 1e-6, so the
two ends meet to about 1e-5 and everything decided here keeps clear of zero by `BAND`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array
from torch import Tensor

from tests.support.dense import DenseNetwork

#: Closer to zero than this nothing is decided: ties, and the solver's tolerances.
BAND = 1e-5

#: Decisions ask for points with margins above ``-_FLOOR``: "infeasible" is found ten times as fast.
_FLOOR = 100 * BAND
#: `scipy.optimize.milp`'s status.
_INFEASIBLE = 2


@dataclass(frozen=True)
class Optimum:
    """A maximum, between ``value`` (what the networks say at ``point``, (n,)) and ``bound``."""

    value: float
    bound: float
    point: Tensor

    def sign(self) -> int:
        """1 or -1 where the maximum is clear of zero, else 0."""
        return int(self.value > BAND) - int(self.bound < -BAND)


class PairProgram:
    """Two dense networks on one box.

    Args:
        teacher: n inputs, K logits.
        student: the same.
        lower: (n,), lowest inputs.
        upper: (n,), highest inputs.
    """

    def __init__(
        self, teacher: DenseNetwork, student: DenseNetwork, lower: Tensor, upper: Tensor
    ) -> None:
        self.teacher, self.student = teacher, student
        self.classes = teacher.classes
        self._lower, self._upper = lower.double(), upper.double()
        self._low = list(self._lower.tolist())
        self._high = list(self._upper.tolist())
        self._integral = [0] * teacher.inputs
        self._rows: list[tuple[dict[int, float], float, float]] = []
        # Each logit as (coefficients of variables, constant); the teacher's first.
        self._logits = self._encode(teacher) + self._encode(student)
        # What corners and random points show need not be solved for.
        generator = torch.Generator().manual_seed(0)
        share = torch.rand(256, teacher.inputs, generator=generator, dtype=torch.float64)
        share[::2] = share[::2].round()
        self._points = self._lower + share * (self._upper - self._lower)
        self._seen = torch.cat([n.logits(self._points) for n in (teacher, student)], dim=1)

    def _variable(self, low: float, high: float, *, is_binary: bool = False) -> int:
        self._low.append(low)
        self._high.append(high)
        self._integral.append(int(is_binary))
        return len(self._low) - 1

    def _encode(self, network: DenseNetwork) -> list[tuple[dict[int, float], float]]:
        least, most = (
            side[0].tolist() for side in network.intervals(self._lower[None], self._upper[None])
        )
        weights, bias = network.weights.tolist(), network.bias.tolist()
        places = list(range(network.inputs))

        def affine(row: int) -> dict[int, float]:
            # zip stops where the known variables end: later coefficients are zero.
            return {p: w for p, w in zip(places, weights[row], strict=False) if w}

        for layer in network.layers:
            fresh = []
            for row in range(layer.start, layer.stop):
                before, constant, low, high = affine(row), bias[row], least[row], most[row]
                after = self._variable(max(0.0, low), max(0.0, high))
                fresh.append(after)
                if high <= 0:
                    continue
                minus = {place: -weight for place, weight in before.items()}
                # y - h >= 0; an equality where the unit is never off.
                self._rows.append(
                    ({after: 1.0, **minus}, constant, constant if low >= 0 else np.inf)
                )
                if low < 0:
                    on = self._variable(0.0, 1.0, is_binary=True)
                    self._rows.append(({after: 1.0, on: -low, **minus}, -np.inf, constant - low))
                    self._rows.append(({after: 1.0, on: -high}, -np.inf, 0.0))
            places += fresh
        return [(affine(network.hidden + k), bias[network.hidden + k]) for k in range(self.classes)]

    def _combine(self, row: list[float]) -> tuple[dict[int, float], float]:
        total: dict[int, float] = {}
        constant = 0.0
        for weight, (coefficients, offset) in zip(row, self._logits, strict=True):
            constant += weight * offset
            for place, value in coefficients.items():
                total[place] = total.get(place, 0.0) + weight * value
        return total, constant

    def _solve(
        self,
        objective: dict[int, float],
        constant: float,
        more: list[tuple[dict[int, float], float, float]],
        measure: Callable[[Tensor], float],
    ) -> Optimum:
        rows = self._rows + more
        triples = [(i, place, v) for i, (row, _, _) in enumerate(rows) for place, v in row.items()]
        cost = np.zeros(len(self._low))
        for place, value in objective.items():
            cost[place] = -value
        constraints = []
        if rows:
            at, columns, values = zip(*triples, strict=True)
            matrix = coo_array((values, (at, columns)), shape=(len(rows), len(cost))).tocsr()
            constraints = [LinearConstraint(matrix, [r[1] for r in rows], [r[2] for r in rows])]
        answer = milp(
            cost,
            integrality=np.array(self._integral),
            bounds=Bounds(np.array(self._low), np.array(self._high)),
            constraints=constraints,
            options={"mip_rel_gap": 0.0, "time_limit": 60.0},
        )
        if answer.status == _INFEASIBLE and more:
            return Optimum(value=-np.inf, bound=-_FLOOR, point=self._lower)
        assert answer.status == 0, f"HiGHS: {answer.message}"
        # A program without open units is linear and its optimum its own dual bound.
        dual = answer.fun if answer.mip_dual_bound is None else answer.mip_dual_bound
        inputs = self.teacher.inputs
        point = torch.tensor(answer.x[:inputs], dtype=torch.float64)
        point = torch.minimum(torch.maximum(point, self._lower), self._upper)
        value = measure(point)
        return Optimum(value=value, bound=max(constant - dual, value), point=point)

    def logits(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Both networks' logits (K,) at a point (n,)."""
        return self.teacher.logits(point[None])[0], self.student.logits(point[None])[0]

    def maximum(self, row: Tensor) -> Optimum:
        """Largest ``row . (z^T, z^S)`` on the box, row (2K,)."""

        def measure(point: Tensor) -> float:
            return float(row.double() @ torch.cat(self.logits(point)))

        return self._solve(*self._combine(row.tolist()), [], measure)

    def range(self, row: Tensor) -> tuple[float, float]:
        """Outer ends of ``row . (z^T, z^S)`` on the box."""
        return -self.maximum(-row).bound, self.maximum(row).bound

    def _differences(self, network: int, winner: int) -> list[Tensor]:
        """Rows ``z_winner - z_k`` of one network (0: teacher), k != winner."""
        eye = torch.eye(2 * self.classes, dtype=torch.float64)
        shift = network * self.classes
        return [eye[shift + winner] - eye[shift + k] for k in range(self.classes) if k != winner]

    def _firmest(self, rows: list[Tensor]) -> Optimum:
        """Largest s with ``row . z >= s`` for every row at one point, as far as its sign goes."""
        stacked = torch.stack(rows)

        def measure(point: Tensor) -> float:
            return float((stacked @ torch.cat(self.logits(point))).min())

        shown = (self._seen @ stacked.T).amin(1)
        if shown.max() > BAND:
            point = self._points[shown.argmax()]
            return Optimum(value=float(shown.max()), bound=np.inf, point=point)
        kept = len(self._low)
        firmness = self._variable(-_FLOOR, np.inf)
        constraints = []
        for row in rows:
            coefficients, constant = self._combine(row.tolist())
            constraints.append(({**coefficients, firmness: -1.0}, -constant, np.inf))
        answer = self._solve({firmness: 1.0}, 0.0, constraints, measure)
        del self._low[kept:], self._high[kept:], self._integral[kept:]
        return answer

    def disagreement(self, teacher_says: int, student_says: int) -> Optimum:
        """How firmly the two can say these classes at one point: the largest smallest margin.

        Not the largest one where it is positive: that it can be said is the answer.
        """
        return self._firmest(
            self._differences(0, teacher_says) + self._differences(1, student_says)
        )

    def agreement(self) -> int:
        """1: they agree on the whole box; -1: they disagree at a point; 0: a tie."""
        teacher, student = self._seen.split(self.classes, dim=1)
        differ = teacher.argmax(1) != student.argmax(1)
        firmness = [z.topk(2).values.diff(dim=1)[:, 0].neg() for z in (teacher, student)]
        if (differ & (torch.minimum(*firmness) > BAND)).any():
            return -1
        verdict = 1
        for i, j in itertools.permutations(range(self.classes), 2):
            sign = self.disagreement(i, j).sign()
            if sign > 0:
                return -1
            verdict = min(verdict, -sign)
        return verdict

    def robust(self, network: int, prediction: int) -> int:
        """1: this network (0: teacher) predicts the class on the whole box; -1: not; 0: a tie."""
        signs = [self._firmest([-row]).sign() for row in self._differences(network, prediction)]
        return -max(signs)


def agreement_radius(
    teacher: DenseNetwork,
    student: DenseNetwork,
    image: Tensor,
    *,
    largest: float = 0.5,
    tolerance: float = 1e-3,
) -> tuple[float, float]:
    """Between which radii (L-infinity, clipped to [0, 1]) the two stop agreeing around ``image`` (n,).

    Both ends are ``largest`` where they agree up to it.  A tie counts as no agreement.
    """

    def agrees(radius: float) -> bool:
        lower, upper = (image - radius).clamp(0, 1), (image + radius).clamp(0, 1)
        return PairProgram(teacher, student, lower, upper).agreement() == 1

    if agrees(largest):
        return largest, largest
    low, high = 0.0, largest
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if agrees(middle) else (low, middle)
    return low, high
