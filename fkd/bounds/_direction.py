"""One direction of the gap, ``sup p_P - p_Q``: support lines ``rho a_P - a_Q <= d`` and the finish."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fkd.bounds._rows import Side, combine
from fkd.bounds.finish import (
    chord,
    entropy,
    gap_upper,
    gap_upper_at,
    gap_upper_on_lines,
    tangent_slope,
)


def leaning_rows(above: Side, below: Side, slope: Tensor) -> Tensor:
    """``m^Q_j - rho lambda^j . m^P`` for every j, (N, K-1, 2K)."""
    return below.rows - slope[:, None, None] * (above.lean @ above.rows)


def leaning_shift(above: Side, slope: Tensor, upper: Tensor) -> Tensor:
    """``logsumexp_j [sup(m^Q_j - rho lambda^j . m^P) - rho H(lambda^j)]`` (F1 and F2), (N,)."""
    return torch.logsumexp(upper - slope[:, None] * entropy(above.lean), dim=1)


@dataclass(frozen=True)
class Direction:
    """What the first pass proves of ``p_P - p_Q``.

    Attributes:
        above: the network P whose confidence is to be larger.
        below: the network Q.
        odds_above: range of a_P, two (N,).
        odds_below: range of a_Q.
        margins_below: bounds of Q's margins, two (N, K-1).
        shift: (N,), upper bound of a_P - a_Q.
    """

    above: Side
    below: Side
    odds_above: tuple[Tensor, Tensor]
    odds_below: tuple[Tensor, Tensor]
    margins_below: tuple[Tensor, Tensor]
    shift: Tensor

    def gap(self) -> Tensor:
        """Upper bound of p_P - p_Q from the first pass alone, (N,)."""
        return gap_upper(*self.odds_above, self.odds_below[0], self.shift)

    def second_pass(self) -> SecondPass:
        """The support lines that touch where the first pass's bound is attained."""
        slope = tangent_slope(gap_upper_at(*self.odds_above, self.odds_below[0], self.shift))
        return SecondPass(self, slope, *chord(*self.margins_below, self.below.margins))


@dataclass(frozen=True)
class SecondPass:
    """Rows that touch at the maximiser, and the finish on both support lines.

    With the chords ``logsumexp(m^Q) <= kappa . m^Q + constant`` and F1 on P, for every rho >= 0:
    ``rho a_P - a_Q <= sup(kappa . m^Q - rho lambda . m^P) + constant - rho H(lambda)``: a single row,
    which keeps what the margins have in common.
    """

    first: Direction
    slope: Tensor
    chord_weights: Tensor
    chord_constant: Tensor

    @property
    def rows(self) -> Tensor:
        """Leaning rows at the slope, chord rows at the slope and at 1, and Q's chord row alone."""
        above, below = self.first.above, self.first.below
        chord_row = combine(self.chord_weights, below.rows)
        own_row = above.own_row
        return torch.cat(
            [
                leaning_rows(above, below, self.slope),
                chord_row - self.slope[:, None, None] * own_row,
                chord_row - own_row,
                chord_row,
            ],
            dim=1,
        )

    def gap(self, upper: Tensor) -> Tensor:
        """Upper bound of p_P - p_Q from the upper bounds (N, K+2) of `rows`, (N,)."""
        first = self.first
        others = first.above.rows.shape[1]
        at_slope, at_one, alone = upper[:, others:].unbind(1)
        uncertainty = entropy(first.above.weights)
        shift_at_slope = torch.minimum(
            leaning_shift(first.above, self.slope, upper[:, :others]),
            at_slope + self.chord_constant - self.slope * uncertainty,
        )
        shift_at_one = torch.minimum(first.shift, at_one + self.chord_constant - uncertainty)
        return gap_upper_on_lines(
            *first.odds_above,
            torch.maximum(first.odds_below[0], -(alone + self.chord_constant)),
            torch.stack([torch.ones_like(self.slope), self.slope], 1),
            torch.stack([shift_at_one, shift_at_slope], 1),
        )
