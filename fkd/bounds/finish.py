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
    return -torch.logsumexp(margin_upper, -1), -torch.logsumexp(margin_lower, -1)


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
    return torch.stack([value(corner), value(peak), value(amax_p)]).amax(0).clamp(-1.0, 1.0)
