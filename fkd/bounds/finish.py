"""From bounds on margins to a bound on the confidence gap: exact one-variable mathematics, float64.

Notation: network N has margins ``m_j = z_j - z_c`` (j != c), log-odds ``a_N = -logsumexp_j m_j`` and
confidence ``p_N = sigmoid(a_N)``, exactly.  Entropy is ``H``.  Three facts carry everything:

* F1 (Gibbs): ``logsumexp(m) >= lambda . m + H(lambda)`` for every lambda in the simplex.
* F2: ``sup_x logsumexp_j f_j(x) <= logsumexp_j sup_x f_j(x)``.
* F3: ``v_j <= w_j + t`` for all j implies ``logsumexp(v) <= logsumexp(w) + t``.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: What rounding may do to logsumexp, entropies and chords of up to a thousand classes, relative to
#: 1 + the value (1024 units of roundoff), and to a difference of logistic functions (16).
_ROUNDING, _LAST_ROUNDING = 2.0**-43, 2.0**-49


def raised(value: Tensor) -> Tensor:
    """An upper bound computed in float64 as one in real arithmetic (a lower one: ``-raised(-low)``)."""
    return value + _ROUNDING * (1.0 + value.abs())


def entropy(weights: Tensor) -> Tensor:
    """Shannon entropy (nats) along the last axis; 0 log 0 = 0."""
    return torch.special.entr(weights).sum(-1)


def odds_range(margin_lower: Tensor, margin_upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of the log-odds ``a = -logsumexp(m)`` from bounds of the margins (stage 1).

    Args:
        margin_lower: (N, K-1).
        margin_upper: (N, K-1).

    Returns:
        ``amin, amax``, each (N,): logsumexp grows in every argument.
    """
    low, high = torch.logsumexp(margin_lower, -1), torch.logsumexp(margin_upper, -1)
    return -raised(high), raised(-low)


def chord(lower: Tensor, upper: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """A linear upper bound of logsumexp on a box: ``logsumexp(m) <= weights . m + constant``.

    exp is convex, so ``exp(m_j) <= chord_j(m_j)`` on [l_j, u_j]; the logarithm is concave, so
    ``log t <= log t0 + t / t0 - 1`` for every t0 > 0.  With t0 the chords' sum at ``at`` the bound is
    tight as the box shrinks, where bounding each m_j alone (F2) is not: its single row keeps what the
    margins have in common.

    Args:
        lower: (N, K-1), lower bounds of m.
        upper: (N, K-1), upper bounds.
        at: (N, K-1), the point of the box where the bound should be tight.

    Returns:
        ``weights`` (N, K-1), non-negative, and ``constant`` (N,).
    """
    # Everything relative to the largest margin, so that nothing overflows.
    top = upper.amax(-1, keepdim=True)
    low, high = lower - top, upper - top
    width = high - low
    exact = (torch.exp(high) - torch.exp(low)) / width
    # On a (nearly) single point the steepest slope of exp on the box is as good and never 0 / 0.
    slope = torch.where(width > 1e-9, exact, torch.exp(high))
    offset = torch.exp(low) - slope * low
    base = (slope * (at - top).clamp(low, high) + offset).sum(-1, keepdim=True)
    weights = slope / base
    constant = top + torch.log(base) - 1 + offset.sum(-1, keepdim=True) / base
    return weights, (constant - (weights * top).sum(-1, keepdim=True)).squeeze(-1)


def gap_upper(amin_p: Tensor, amax_p: Tensor, amin_q: Tensor, shift: Tensor) -> Tensor:
    """Largest ``sigmoid(a) - sigmoid(b)`` given what is known of ``a = a_P`` and ``b = a_Q``.

    Known: ``amin_p <= a <= amax_p``, ``b >= amin_q`` and ``a - b <= shift`` (stage 2 at rho = 1).
    So the gap is at most the maximum over a of ``f(a) = sigmoid(a) - sigmoid(max(amin_q, a - shift))``,
    solved in closed form.  Left of ``corner = amin_q + shift`` the second term is constant and f
    grows.  Right of it ``f'(a) = s'(a) - s'(a - shift)`` (s' is even and falls away from 0): for
    shift >= 0, f rises up to ``a = shift / 2`` and falls after; for shift < 0 it is the other way
    round, so an end of the interval is the maximum.  With shift alone the result is ``tanh(shift/4)``.

    Args:
        amin_p: (N,), lower bound of P's log-odds.
        amax_p: (N,), upper bound.
        amin_q: (N,), lower bound of Q's log-odds.
        shift: (N,), upper bound of a_P - a_Q.

    Returns:
        (N,), an upper bound of p_P - p_Q in [-1, 1]; NaN wherever an input is NaN.
    """
    amax_p = torch.maximum(amax_p, amin_p)

    def value(a: Tensor) -> Tensor:
        return torch.sigmoid(a) - torch.sigmoid(torch.maximum(amin_q, a - shift))

    corner = (amin_q + shift).clamp(amin_p, amax_p)
    peak = torch.maximum(torch.minimum(shift / 2, amax_p), corner)
    found = torch.stack([value(corner), value(peak), value(amax_p)]).amax(0)
    return (found + _LAST_ROUNDING).clamp(-1.0, 1.0)


def gap_upper_at(
    amin_p: Tensor, amax_p: Tensor, amin_q: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Where `gap_upper` takes its maximum: the two log-odds ``a*`` and ``b*``, (N,) each."""
    amax_p = torch.maximum(amax_p, amin_p)
    corner = (amin_q + shift).clamp(amin_p, amax_p)
    peak = torch.maximum(torch.minimum(shift / 2, amax_p), corner)
    candidates = torch.stack([corner, peak, amax_p])
    others = torch.maximum(amin_q, candidates - shift)
    best = (torch.sigmoid(candidates) - torch.sigmoid(others)).argmax(0, keepdim=True)
    return candidates.gather(0, best).squeeze(0), others.gather(0, best).squeeze(0)


def tangent_slope(odds: tuple[Tensor, Tensor], *, largest: float = 8.0) -> Tensor:
    """The slope ``rho = s'(a) / s'(b)`` of the line along which ``s(a) - s(b)`` does not change.

    Any rho >= 0 is sound; this one is the cutting plane at ``odds`` = (a, b), clamped to
    [1 / largest, largest].
    """

    # log s'(a) = -|a| - 2 log(1 + exp(-|a|)), which does not underflow.
    def log_slope(odds: Tensor) -> Tensor:
        return -odds.abs() - 2 * torch.log1p(torch.exp(-odds.abs()))

    a, b = odds
    return torch.exp(log_slope(a) - log_slope(b)).clamp(1.0 / largest, largest)


def gap_upper_on_lines(
    amin_p: Tensor,
    amax_p: Tensor,
    amin_q: Tensor,
    slopes: Tensor,
    shifts: Tensor,
    *,
    cells: int = 1024,
) -> Tensor:
    """Largest ``s(a) - s(b)`` where ``b >= amin_q`` and ``b >= slopes_k a - shifts_k`` for every k.

    The range of a is cut into cells.  On a cell ``[l, r]`` and for one line ``b = rho a - d``,
    ``f(a) = s(a) - s(b)`` has ``f' = s'(a) - rho s'(b)``, which lies in an interval [g, G] found from
    the ranges of s' on the cell; so ``f <= f(middle) + max(-g, G) (r - l) / 2``.  The least over the
    lines bounds the cell, the greatest over the cells bounds the gap.  Sound for any number of cells,
    and loose only in second order at an inner maximum.  A line of slope 1 alone gives ``tanh(d / 4)``.

    Args:
        amin_p: (N,), range of P's log-odds from below.
        amax_p: (N,), from above.
        amin_q: (N,), lower bound of Q's log-odds.
        slopes: (N, L), each >= 0.
        shifts: (N, L), with ``rho a_P - a_Q <= shift`` on the box.
        cells: number of cells.

    Returns:
        (N,), an upper bound of p_P - p_Q in [-1, 1]; NaN wherever an input is NaN.
    """
    amax_p = torch.maximum(amax_p, amin_p)
    # Beyond +-40 the logistic function is 0 or 1 to float64: cells there would be wasted.  Widening
    # the first and last cell to the true ends keeps the cover complete; no cell leaves the range.
    low = torch.minimum(amin_p.clamp(min=-40.0), amax_p)
    high = torch.maximum(amax_p.clamp(max=40.0), amin_p)
    steps = torch.linspace(0.0, 1.0, cells + 1, dtype=amin_p.dtype, device=amin_p.device)
    edges = low[:, None] + (high - low)[:, None] * steps
    left, right = edges[:, :-1].clone(), edges[:, 1:].clone()
    left[:, 0], right[:, -1] = amin_p, amax_p
    bound = torch.full_like(left, torch.inf)
    slopes = torch.cat([slopes, torch.zeros_like(slopes[:, :1])], dim=1)
    shifts = torch.cat([shifts, -amin_q[:, None]], dim=1)
    for line in range(slopes.shape[1]):
        slope, shift = slopes[:, line, None], shifts[:, line, None]
        bound = torch.minimum(bound, _cell_bound(left, right, slope, shift))
    found = bound.amax(1)
    shift = torch.where(slopes == 1.0, shifts, torch.inf).amin(1)
    found = torch.where(shift >= 0, torch.minimum(found, torch.tanh(shift / 4)), found)
    # Only what was never rounded is exactly 0: both networks are the same.
    found = torch.where((shift == 0) & (found == 0), found, found + _LAST_ROUNDING)
    return found.clamp(-1.0, 1.0)


def _cell_bound(left: Tensor, right: Tensor, slope: Tensor, shift: Tensor) -> Tensor:
    """Bound of ``s(a) - s(slope a - shift)`` for a in each cell."""
    other_left, other_right = slope * left - shift, slope * right - shift
    monotone = torch.sigmoid(right) - torch.sigmoid(other_left)
    least_own, most_own = _slope_range(left, right)
    least_other, most_other = _slope_range(other_left, other_right)
    steepest = torch.maximum(most_own - slope * least_other, slope * most_other - least_own)
    middle = (left + right) / 2
    value = torch.sigmoid(middle) - torch.sigmoid(slope * middle - shift)
    return torch.minimum(monotone, value + steepest * (right - left) / 2)


def _slope_range(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest value of ``s'`` on [left, right]: it is even and falls away from 0."""

    def slope(odds: Tensor) -> Tensor:
        return torch.sigmoid(odds) * torch.sigmoid(-odds)

    at_left, at_right = slope(left), slope(right)
    crosses = (left <= 0) & (right >= 0)
    most = torch.where(crosses, torch.full_like(at_left, 0.25), torch.maximum(at_left, at_right))
    return torch.minimum(at_left, at_right), most
