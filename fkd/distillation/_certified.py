"""Certified quantities a method trains on: worst-case margins, confidences and the gap of two networks.

Notation of a class c, margins m_j = z_j - z_c (j != c) and log-odds a = -log sum_j exp(m_j): the softmax
confidence in c is exactly sigmoid(a).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fkd.bounds.engine.intervals import (
    BoundedNetwork,
    HiddenBounds,
    LinearBound,
    margin_rows,
)

Relaxation = Literal["ibp", "crown_ibp", "joint"]


@dataclass(frozen=True)
class MarginBounds:
    """Bounds of all margins of one network on the ball.

    Attributes:
        lower: (N, K - 1).
        upper: (N, K - 1).
        lowest_row: linear bound of -m (None for intervals).
        highest_row: linear bound of m (None for intervals).
    """

    lower: Tensor
    upper: Tensor
    lowest_row: LinearBound | None = None
    highest_row: LinearBound | None = None

    @property
    def log_odds(self) -> tuple[Tensor, Tensor]:
        """Bounds of a = -LSE_j(m_j), both (N,): -LSE(upper m) and -LSE(lower m)."""
        return -torch.logsumexp(self.upper, dim=1), -torch.logsumexp(self.lower, dim=1)


def margin_bounds(
    network: BoundedNetwork,
    lower: Tensor,
    upper: Tensor,
    classes: Tensor,
    num_classes: int,
    *,
    relaxation: Relaxation,
    centre: Tensor | None = None,
) -> MarginBounds:
    """Bounds of z_j - z_c on the box [lower, upper].

    Args:
        network: the network.
        lower: lowest pixels (N, C, H, W).
        upper: highest pixels.
        classes: int64 (N,), the class c of each example.
        num_classes: K.
        relaxation: ``"ibp"`` for intervals alone, else the better of intervals and linear bounds.
        centre: clean images, for batch normalisation in train mode.
    """
    hidden = network.hidden(lower, upper, centre)
    rows = margin_rows(classes, num_classes, lower)
    low, high = network.interval_rows(hidden, rows)
    if relaxation == "ibp":
        return MarginBounds(low, high)
    # Both signs in one backward pass.
    both = network.linear_rows(hidden, torch.cat([rows, -rows], dim=1))
    count = num_classes - 1
    highest = LinearBound(both.coefficients[:, :count], both.constant[:, :count])
    lowest = LinearBound(both.coefficients[:, count:], both.constant[:, count:])
    return MarginBounds(
        torch.maximum(low, -lowest.highest(lower, upper)),
        torch.minimum(high, highest.highest(lower, upper)),
        lowest,
        highest,
    )


def worst_case_cross_entropy(upper_margins: Tensor) -> Tensor:
    """CE of the logits (0 for c, upper margins elsewhere): log(1 + sum_j exp m_j), batch mean."""
    return functional.softplus(torch.logsumexp(upper_margins, dim=1)).mean()


def crown_ibp_upper_margins(
    network: BoundedNetwork,
    hidden: HiddenBounds,
    lower: Tensor,
    upper: Tensor,
    rows: Tensor,
    mix: float,
) -> Tensor:
    """mix * (linear relaxation) + (1 - mix) * (intervals), both upper bounds of the rows (N, R)."""
    _, high = network.interval_rows(hidden, rows)
    if mix == 0.0:
        return high
    linear = network.linear_rows(hidden, rows).highest(lower, upper)
    return mix * linear + (1.0 - mix) * high


@dataclass(frozen=True)
class GapBound:
    """Certified upper bound of p^P_c - p^Q_c on the ball, attained at log-odds (``above``, ``below``).

    Attributes:
        above: log-odds of P at which the bound is attained (N,).
        below: lowest log-odds of Q that goes with it (N,).
    """

    above: Tensor
    below: Tensor

    @property
    def gap(self) -> Tensor:
        """sigmoid(above) - sigmoid(below), never negative, (N,)."""
        return (torch.sigmoid(self.above) - torch.sigmoid(self.below)).clamp_min(0.0)

    @property
    def log_penalty(self) -> Tensor:
        """-log(1 - gap), without cancellation: 1 - gap = sigmoid(-above) + sigmoid(below), (N,)."""
        rest = torch.logaddexp(
            functional.logsigmoid(-self.above), functional.logsigmoid(self.below)
        )
        return (-rest).clamp_min(0.0)


def gap_bound(highest: Tensor, lowest: Tensor, difference: Tensor | None = None) -> GapBound:
    """Upper bound of sigmoid(a_P) - sigmoid(a_Q) from bounds of the log-odds.

    Known: a_P <= ``highest``, a_Q >= ``lowest`` and, where given, a_P - a_Q <= ``difference`` = d.
    Then the gap is at most max over a <= highest of sigmoid(a) - sigmoid(max(lowest, a - d)).  Up to
    a = lowest + d this rises with a; beyond it is sigmoid(a) - sigmoid(a - d), which is largest at
    a = d / 2.  So the maximiser is min(highest, max(lowest + d, d / 2)).

    Args:
        highest: (N,) upper bound of P's log-odds.
        lowest: (N,) lower bound of Q's log-odds.
        difference: (N,) upper bound of a_P - a_Q, or None.
    """
    if difference is None:
        return GapBound(highest, lowest)
    above = torch.minimum(highest, torch.maximum(lowest + difference, difference / 2))
    return GapBound(above, torch.maximum(lowest, above - difference))


def are_equal(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks are built alike of layers with equal settings and weights."""
    if repr(one) != repr(other):
        return False
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(
        value.shape == theirs[name].shape and torch.equal(value, theirs[name])
        for name, value in mine.items()
    )
