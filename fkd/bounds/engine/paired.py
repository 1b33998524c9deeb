"""Differential relaxation of two networks of the same shape (stage 6): pruned or quantised copies.

At paired ReLUs with pre-activations h, k and incoming coefficients A_T, A_S, for any theta,

    A_T relu(h) + A_S relu(k) = theta D + (A_T - theta) relu(h) + (A_S + theta) relu(k),
    D = relu(h) - relu(k),   min(0, delta) <= D <= max(0, delta),   delta = h - k in [dl, du],

and D is relaxed in delta: what both have in common cancels unit by unit, not only in the image.
theta is ``sign(A_T) min(|A_T|, |A_S|)`` where the signs differ and 0 elsewhere; for identical networks
the bound is 0.

Sources: ReluDiff, Paulsen et al. 2001.03662; NeuroDiff 2009.09943; the identity for two backward passes
is this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fkd.bounds.engine.descent import minimise
from fkd.bounds.engine.domains import Domains, Slopes, clamp_theta
from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.layers import are_same
from fkd.bounds.engine.propagate import Hidden, Propagator
from fkd.bounds.engine.reduced import Reduced, Reducer

#: Stages of at most this many units have the bounds of their differences optimised.
_SMALL = 128
#: Coefficients of rows that are held at once, of each network (several tensors of this size are).
_NUMBERS = 2**22


def same_shape(one: Propagator, other: Propagator) -> bool:
    """Whether the two networks have the same layers, so that their units pair up."""
    return (
        one.shapes == other.shapes
        and [type(layer) for layer in one.layers] == [type(layer) for layer in other.layers]
        and [node.inputs for node in one.graph.nodes] == [node.inputs for node in other.graph.nodes]
    )


def are_identical(one: Propagator, other: Propagator) -> bool:
    """Whether the two networks are the same function, layer by layer."""
    return same_shape(one, other) and all(map(are_same, one.layers, other.layers))


def reduce_together(
    propagators: tuple[Propagator, Propagator], hidden: tuple[Hidden, Hidden]
) -> tuple[Reduced, Reduced]:
    """Both networks written down for the units that are open in either: stages and units pair up."""
    keep = {
        place: part.is_open | hidden[1].relaxations[place].is_open
        for place, part in hidden[0].relaxations.items()
    }
    teacher, student = (
        Reducer(propagator, part, keep).run()
        for propagator, part in zip(propagators, hidden, strict=True)
    )
    return teacher, student


@dataclass(frozen=True)
class _Rows:
    """Rows on their way down: coefficients (E, 1, R, columns) of both networks, and constants."""

    teacher: Tensor
    student: Tensor
    constant: Tensor


class Paired:
    """Two networks whose units pair up, on E sets.

    Args:
        inputs: the sets.
        teacher: reduced.
        student: reduced for the same units.
        steps: of the search for the bounds of the differences of hidden units (of small stages).
    """

    def __init__(
        self, inputs: InputSet, teacher: Reduced, student: Reduced, *, steps: int = 0
    ) -> None:
        self._steps = steps
        self.inputs, self.networks = inputs, (teacher, student)
        self.slopes = tuple(Slopes.of(Domains.root(part)) for part in self.networks)
        # Each layer may double the coefficients that meet rounding, and D adds two terms more.
        self.slack = 3.0 * 2.0 ** len(teacher.stages) * max(teacher.slack, student.slack)
        self.delta: list[tuple[Tensor, Tensor]] = []
        for k in range(len(teacher.stages)):
            self.delta.append(self._delta(k))

    def _delta(self, k: int) -> tuple[Tensor, Tensor]:
        """Bounds (E, n) of the differences of the paired pre-activations of stage ``k``."""
        first, second = (part.stages[k] for part in self.networks)
        at_once = max(1, _NUMBERS // (first.weight.shape[2] * max(1, len(self.inputs))))
        ends: list[list[Tensor]] = [[], []]
        for start in range(0, first.units, at_once):
            units = slice(start, start + at_once)
            for end, sign in zip(ends, (1.0, -1.0), strict=True):
                rows = _Rows(
                    sign * first.weight[:, None, units],
                    -sign * second.weight[:, None, units],
                    sign * (first.bias - second.bias)[:, None, units],
                )
                theta: list[list[Tensor]] | None = None
                if self._steps and k > 0 and first.units <= _SMALL:
                    theta = self._search(rows, k, rows.constant.shape[2], self._steps, 0.1)
                with torch.no_grad():
                    end.append(sign * self._finish(rows, k, theta)[:, 0])
        slack = self.slack * (first.size + second.size)
        high, low = torch.cat(ends[0], 1) + slack, torch.cat(ends[1], 1) - slack
        # Each network's own bounds may know more.
        high = torch.minimum(high, first.upper - second.lower)
        low = torch.maximum(low, first.lower - second.upper)
        return torch.minimum(low, high), high

    def differences(self, rows: Tensor, *, steps: int = 0, rate: float = 0.1) -> Tensor:
        """Upper bounds of ``rows . z^T - rows . z^S``, float64.

        Args:
            rows: (E, R, K).
            steps: of the search for the lower slopes.
            rate: its first step.

        Returns:
            (E, R); 0 for identical networks.
        """
        first, second = self.networks
        start = _Rows(
            (rows @ first.weight)[:, None],
            -(rows @ second.weight)[:, None],
            (rows @ (first.bias - second.bias).unsqueeze(2))[:, None, :, 0],
        )
        count = len(first.stages)
        theta: list[list[Tensor]] | None = None
        if steps and count:
            theta = self._search(start, count, rows.shape[1], steps, rate)
        with torch.no_grad():
            upper = self._finish(start, count, theta)[:, 0]
        size = (rows.abs() @ (first.logit_size + second.logit_size).unsqueeze(2))[..., 0]
        return upper + self.slack * size

    def _search(
        self, start: _Rows, count: int, rows: int, steps: int, rate: float
    ) -> list[list[Tensor]]:
        theta = [
            [slopes.start(k).expand(-1, -1, rows, -1).clone() for k in range(count)]
            for slopes in self.slopes
        ]
        free = [*theta[0], *theta[1]]

        def settle() -> None:
            for parts, slopes in zip(theta, self.slopes, strict=True):
                clamp_theta(parts, slopes)

        minimise(
            free,
            [rate] * len(free),
            steps,
            lambda: self._finish(start, count, theta).sum(),
            settle,
        )
        return theta

    def _finish(self, rows: _Rows, count: int, theta: list[list[Tensor]] | None) -> Tensor:
        """Largest values (E, 1, R) of rows on the first ``count`` stages and the image."""
        for k in range(count - 1, -1, -1):
            rows = self._through(rows, k, None if theta is None else (theta[0][k], theta[1][k]))
        pixels = rows.teacher + rows.student
        return self.inputs.highest(pixels[:, 0])[:, None] + rows.constant

    def _through(self, rows: _Rows, k: int, theta: tuple[Tensor, Tensor] | None) -> _Rows:
        stages = tuple(part.stages[k] for part in self.networks)
        cut = rows.teacher.shape[3] - stages[0].units
        on_teacher, on_student = rows.teacher[..., cut:], rows.student[..., cut:]
        # What both carry with opposite signs is carried by the difference of the outputs instead.
        common = torch.minimum(on_teacher.abs(), on_student.abs()) * on_teacher.sign()
        common = torch.where(on_teacher * on_student < 0, common, 0.0)
        low, high = (part[:, None, None] for part in self.delta[k])
        below, above = low.clamp_max(0.0), high.clamp_min(0.0)
        width = (above - below).clamp_min(1e-300)
        rising, falling = above / width, -below / width
        plus, minus = common.clamp_min(0.0), common.clamp_max(0.0)
        shared = plus * rising + minus * falling
        constant = rows.constant - (plus * rising * below + minus * falling * above).sum(3)
        passed = []
        for side, own in enumerate((on_teacher - common, on_student + common)):
            slopes, chosen = self.slopes[side], None if theta is None else theta[side]
            start = slopes.start(k) if chosen is None else chosen
            lower = torch.where(slopes.is_open[k], start, slopes.fixed[k])
            positive = own.clamp_min(0.0)
            on_input = own * lower + positive * (slopes.slope[k] - lower)
            constant = constant + (positive * slopes.intercept[k]).sum(3)
            passed.append(on_input + (shared if side == 0 else -shared))
        held = []
        for side, before in enumerate((rows.teacher, rows.student)):
            held.append(before[..., :cut] + passed[side] @ stages[side].weight[:, None])
            constant = constant + (passed[side] @ stages[side].bias[:, None, :, None])[..., 0]
        return _Rows(held[0], held[1], constant)
