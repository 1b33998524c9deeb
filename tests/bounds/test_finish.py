"""The one-variable finish against brute force."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fkd.bounds.finish import entropy, gap_upper, odds_range

_ODDS = st.floats(-12, 12)


def _column(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


@settings(max_examples=300, deadline=None)
@given(_ODDS, st.floats(0, 8), _ODDS, st.floats(-6, 10))
def test_gap_upper_is_the_maximum_over_a(amin, width, amin_q, shift):
    amax = amin + width
    bound = gap_upper(_column(amin), _column(amax), _column(amin_q), _column(shift)).item()
    a = torch.linspace(amin, amax, 4001, dtype=torch.float64)
    b = torch.maximum(torch.tensor(amin_q, dtype=torch.float64), a - shift)
    brute = (torch.sigmoid(a) - torch.sigmoid(b)).max().item()
    assert bound >= brute - 1e-12
    assert bound <= brute + 1e-4


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0, 9.0])
def test_shift_alone_gives_tanh_of_a_quarter(shift):
    wide = _column(200.0)
    bound = gap_upper(-wide, wide, -wide, _column(shift)).item()
    assert bound == pytest.approx(math.tanh(shift / 4), abs=1e-12)


def test_a_bound_that_is_not_a_number_stays_one():
    assert gap_upper(_column(0.0), _column(1.0), _column(0.0), _column(math.nan)).isnan().all()
    assert gap_upper(_column(0.0), _column(math.nan), _column(0.0), _column(1.0)).isnan().all()


def test_odds_range_is_exact_where_margins_are_known():
    logits = torch.randn(50, 6, dtype=torch.float64)
    margins = logits[:, 1:] - logits[:, :1]
    low, high = odds_range(margins, margins)
    confidence = torch.softmax(logits, 1)[:, 0]
    torch.testing.assert_close(torch.sigmoid(low), confidence)
    torch.testing.assert_close(torch.sigmoid(high), confidence)


def test_entropy_bounds_logsumexp_from_below_with_equality_at_softmax():
    values = torch.randn(40, 5, dtype=torch.float64)
    weights = torch.softmax(torch.randn(40, 5, dtype=torch.float64), 1)
    assert (
        (weights * values).sum(1) + entropy(weights) <= torch.logsumexp(values, 1) + 1e-12
    ).all()
    best = torch.softmax(values, 1)
    torch.testing.assert_close((best * values).sum(1) + entropy(best), torch.logsumexp(values, 1))
    assert entropy(torch.tensor([1.0, 0.0])).item() == 0.0
