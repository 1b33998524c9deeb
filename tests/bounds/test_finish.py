"""The one-variable finish against brute force."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fkd.bounds.finish import (
    chord,
    entropy,
    gap_upper,
    gap_upper_at,
    gap_upper_on_lines,
    odds_range,
    tangent_slope,
)

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


@settings(max_examples=300, deadline=None)
@given(_ODDS, st.floats(0, 8), _ODDS, st.floats(-6, 10), st.floats(0.125, 8), st.floats(-6, 10))
def test_two_lines_are_the_maximum_over_a(amin, width, amin_q, shift, slope, second):
    amax = amin + width
    slopes = torch.tensor([[1.0, slope]], dtype=torch.float64)
    shifts = torch.tensor([[shift, second]], dtype=torch.float64)
    bound = gap_upper_on_lines(_column(amin), _column(amax), _column(amin_q), slopes, shifts).item()
    a = torch.linspace(amin, amax, 4001, dtype=torch.float64)
    b = torch.stack([a - shift, slope * a - second, torch.full_like(a, amin_q)]).amax(0)
    brute = (torch.sigmoid(a) - torch.sigmoid(b)).max().item()
    assert bound >= brute - 1e-12
    assert bound <= brute + 2e-3


@pytest.mark.parametrize(("amin", "amax"), [(60.0, 80.0), (60.0, 60.0), (41.0, 1e6)])
def test_saturated_odds_are_not_bounded_outside_their_range(amin, amax):
    # At a = 40, where the logistic function is 1 already, b may be -10; on the range it is 10 at least.
    slopes, shifts = torch.ones(1, 1).double(), torch.full((1, 1), amin - 10.0).double()
    bound = gap_upper_on_lines(_column(amin), _column(amax), _column(-100.0), slopes, shifts)
    assert bound.item() == pytest.approx(1 / (1 + math.exp(10)), rel=1e-9)
    mirrored = gap_upper_on_lines(
        _column(-amax), _column(-amin), _column(-500.0), slopes, torch.full((1, 1), 10.0).double()
    )
    # What rounding is given, and no more.
    assert 0.0 <= mirrored.item() < 1e-14


def test_a_coarse_grid_is_still_a_bound():
    slopes, shifts = torch.ones(1, 1).double(), torch.full((1, 1), 2.0).double()
    arguments = (_column(-9.0), _column(9.0), _column(-50.0), slopes, shifts)
    coarse = gap_upper_on_lines(*arguments, cells=3).item()
    fine = gap_upper_on_lines(*arguments, cells=4096).item()
    assert coarse >= fine >= math.tanh(0.5) - 1e-12
    assert fine == pytest.approx(math.tanh(0.5), abs=1e-4)


@settings(max_examples=100, deadline=None)
@given(_ODDS, st.floats(0, 8), _ODDS, st.floats(-6, 10))
def test_the_maximiser_attains_the_bound(amin, width, amin_q, shift):
    known = _column(amin), _column(amin + width), _column(amin_q), _column(shift)
    a, b = gap_upper_at(*known)
    torch.testing.assert_close(torch.sigmoid(a) - torch.sigmoid(b), gap_upper(*known))


def test_tangent_slope_is_the_ratio_of_derivatives():
    a = torch.tensor([0.0, 1.5, -2.0, 30.0], dtype=torch.float64)
    b = torch.tensor([0.0, -0.5, 1.0, 0.0], dtype=torch.float64)
    expected = (torch.sigmoid(a) * torch.sigmoid(-a)) / (torch.sigmoid(b) * torch.sigmoid(-b))
    torch.testing.assert_close(tangent_slope((a, b)), expected.clamp(1 / 8, 8))


def test_chords_bound_logsumexp_on_the_box_and_touch_as_it_shrinks():
    generator = torch.Generator().manual_seed(0)
    centre = 4 * torch.randn(200, 5, dtype=torch.float64, generator=generator)
    for width in (0.0, 1e-12, 1e-3, 0.5, 6.0):
        lower, upper = centre - width, centre + width
        weights, constant = chord(lower, upper, centre)
        assert (weights >= 0).all()
        share = torch.rand(300, 200, 5, dtype=torch.float64, generator=generator)
        share[::2] = share[::2].round()
        points = lower + share * (upper - lower)
        assert ((weights * points).sum(-1) + constant >= torch.logsumexp(points, -1) - 1e-12).all()
        slack = (weights * centre).sum(-1) + constant - torch.logsumexp(centre, -1)
        assert (slack <= width**2 + 1e-9).all()
    far = torch.tensor([[700.0, 900.0]], dtype=torch.float64)
    assert chord(far - 5, far + 5, far)[1].isfinite().all()
