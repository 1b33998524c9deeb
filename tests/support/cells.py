"""True extremes of tiny pairs by cutting the input box into cells (two to four inputs).

Each cell is bounded by the mean value form ``f(x) <= f(c) + sum_i max|df/dx_i| r_i``, the gradient by
interval arithmetic on the dense networks (a ReLU of open sign has a slope in [0, 1]: Clarke's
gradient, for which the mean value theorem holds as well).  This shares nothing with linear relaxation:
it is first order on kinks, second order elsewhere, and collapses a cell on which f is monotone.  A
Euclidean ball is cut out of the box by dropping cells that do not meet it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tests.support.dense import DenseNetwork


class Cells(NamedTuple):
    """What is known of a function on M cells: value (M,) at the centre, bound (M,), slopes (M, n)."""

    value: Tensor
    bound: Tensor
    least_slope: Tensor
    most_slope: Tensor


@dataclass(frozen=True)
class Truth:
    """A maximum, between two ends; ``point`` (n,) attains ``low``."""

    low: float
    high: float
    point: Tensor


@dataclass(frozen=True)
class Disc:
    """``||(x - centre) / scale||_2 <= radius``; centre and scale (n,)."""

    centre: Tensor
    radius: float
    scale: Tensor

    def holds(self, points: Tensor) -> Tensor:
        """Whether points (M, n) lie inside."""
        return ((points - self.centre) / self.scale).square().sum(1) <= self.radius**2

    def meets(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Whether cells have a point inside (or nearly so)."""
        nearest = torch.minimum(torch.maximum(self.centre, lower), upper)
        away = ((nearest - self.centre) / self.scale).square().sum(1)
        return away <= self.radius**2 * (1 + 1e-9)


def _times(weights: Tensor, least: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """Interval product of a matrix (R, W) and slopes (M, W, n)."""
    up, down = weights.clamp_min(0.0), weights.clamp_max(0.0)
    return up @ least + down @ most, up @ most + down @ least


def _rows_on_cells(
    network: DenseNetwork, rows: Tensor, lower: Tensor, upper: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Value at the centre, bounds, and bounds of the slopes of ``rows @ logits`` on cells (M, n).

    Shapes (M, R) three times and (M, R, n) twice.
    """
    centre, reach = (lower + upper) / 2, (upper - lower) / 2
    eye = torch.eye(network.inputs, dtype=torch.float64).expand(len(lower), -1, -1)
    value, low, high, least, most = centre, lower, upper, eye, eye

    def through(weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        middle = value @ weights.T + bias
        up, down = weights.clamp_min(0.0), weights.clamp_max(0.0)
        least_slope, most_slope = _times(weights, least, most)
        away = (torch.maximum(most_slope, -least_slope) @ reach[:, :, None])[:, :, 0]
        lowest = torch.maximum(low @ up.T + high @ down.T + bias, middle - away)
        highest = torch.minimum(high @ up.T + low @ down.T + bias, middle + away)
        return middle, lowest, highest, least_slope, most_slope

    for layer in network.layers:
        width = value.shape[1]
        h, h_low, h_high, steep_low, steep_high = through(
            network.weights[layer, :width], network.bias[layer]
        )
        is_on, is_off = (h_low >= 0)[:, :, None], (h_high <= 0)[:, :, None]
        steep_low = torch.where(is_on, steep_low, steep_low.clamp_max(0.0)).masked_fill(is_off, 0.0)
        steep_high = torch.where(is_on, steep_high, steep_high.clamp_min(0.0))
        steep_high = steep_high.masked_fill(is_off, 0.0)
        value = torch.cat([value, h.clamp_min(0.0)], dim=1)
        low = torch.cat([low, h_low.clamp_min(0.0)], dim=1)
        high = torch.cat([high, h_high.clamp_min(0.0)], dim=1)
        least, most = torch.cat([least, steep_low], dim=1), torch.cat([most, steep_high], dim=1)
    last = slice(network.hidden, None)
    return through(rows @ network.weights[last], rows @ network.bias[last])


def _confidence_on_cells(
    network: DenseNetwork, label: int, lower: Tensor, upper: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Value, bounds (M,) and slopes (M, n) of the confidence in ``label``."""
    eye = torch.eye(network.classes, dtype=torch.float64)
    rows = eye[[k for k in range(network.classes) if k != label]] - eye[label]
    margins, low, high, least, most = _rows_on_cells(network, rows, lower, upper)
    odds = -torch.logsumexp(margins, 1)
    odds_low, odds_high = -torch.logsumexp(high, 1), -torch.logsumexp(low, 1)
    # softmax(m)_j = 1 / sum_k exp(m_k - m_j) falls with every other margin.
    own = torch.eye(len(rows), dtype=torch.bool)
    rest_high = high[:, None, :].expand(-1, len(rows), -1).masked_fill(own, -torch.inf)
    rest_low = low[:, None, :].expand(-1, len(rows), -1).masked_fill(own, -torch.inf)
    share_low = torch.sigmoid(low - torch.logsumexp(rest_high, 2))[:, :, None]
    share_high = torch.sigmoid(high - torch.logsumexp(rest_low, 2))[:, :, None]
    if len(rows) == 1:
        share_low = share_high = torch.ones_like(share_low)
    # The log-odds' slopes, -sum_j share_j slope_j: a mean of the margins' slopes as well.
    total_low = torch.minimum(share_low * least, share_high * least).sum(1)
    total_high = torch.maximum(share_low * most, share_high * most).sum(1)
    slope_low = -torch.minimum(total_high, most.amax(1))
    slope_high = -torch.maximum(total_low, least.amin(1))
    # p (1 - p) on the range of the odds: even in them, and falling away from zero.
    ends = torch.stack([odds_low, odds_high])
    steepness = torch.sigmoid(ends) * torch.sigmoid(-ends)
    crosses = (odds_low <= 0) & (odds_high >= 0)
    flattest = steepness.amin(0)[:, None]
    steepest = torch.where(crosses, 0.25, steepness.amax(0))[:, None]
    return (
        torch.sigmoid(odds),
        torch.sigmoid(odds_low),
        torch.sigmoid(odds_high),
        torch.minimum(flattest * slope_low, steepest * slope_low),
        torch.maximum(flattest * slope_high, steepest * slope_high),
    )


def maximum_on_cells(
    bounds: Callable[[Tensor, Tensor], Cells],
    lower: Tensor,
    upper: Tensor,
    *,
    tolerance: float,
    disc: Disc | None = None,
    most_cells: int = 200_000,
) -> Truth:
    """Largest value on the box (n,) - (n,), and in ``disc`` where one is given."""
    low, high = lower.double()[None], upper.double()[None]
    best, point = -torch.inf, lower.double()
    if disc is not None:
        point, best = disc.centre, float(bounds(disc.centre[None], disc.centre[None]).value)
    dropped = -torch.inf
    while len(low):
        cells = bounds(low, high)
        centre, reach = (low + high) / 2, (high - low) / 2
        value = (
            cells.value
            if disc is None
            else cells.value.masked_fill(~disc.holds(centre), -torch.inf)
        )
        top = int(value.argmax())
        if float(value[top]) > best:
            best, point = float(value[top]), centre[top]
        is_open = cells.bound > best + tolerance
        if not is_open.all():
            dropped = max(dropped, float(cells.bound[~is_open].max()))
        low, high, reach = low[is_open], high[is_open], reach[is_open]
        least, most = cells.least_slope[is_open], cells.most_slope[is_open]
        if len(low) > most_cells:
            dropped = max(dropped, float(cells.bound[is_open].max()))
            break
        if disc is None:
            # Where the function is monotone along an axis its maximum is on that face of the cell.
            low = torch.where(least >= 0, high, low)
            high = torch.where((most <= 0) & (least < 0), low, high)
        share = torch.maximum(most, -least) * (high - low)
        # A collapsed cell (share 0) is looked at once more as it is.
        axis = torch.nn.functional.one_hot(share.argmax(1), low.shape[1]).bool()
        middle = (low + high) / 2
        low, high = (
            torch.cat([low, torch.where(axis, middle, low)]),
            torch.cat([torch.where(axis, middle, high), high]),
        )
        single = (torch.cat([share.amax(1)] * 2) == 0) & (torch.arange(len(low)) >= len(low) // 2)
        low, high = low[~single], high[~single]
        if disc is not None:
            meets = disc.meets(low, high)
            low, high = low[meets], high[meets]
    return Truth(low=best, high=max(best, dropped), point=point)


def largest_gap(
    above: DenseNetwork,
    below: DenseNetwork,
    lower: Tensor,
    upper: Tensor,
    label: int,
    *,
    tolerance: float = 1e-4,
    disc: Disc | None = None,
) -> Truth:
    """``max p_above(label) - p_below(label)`` on a box (n,) - (n,)."""

    def bounds(low: Tensor, high: Tensor) -> Cells:
        p, _p_low, p_high, p_least, p_most = _confidence_on_cells(above, label, low, high)
        q, q_low, _q_high, q_least, q_most = _confidence_on_cells(below, label, low, high)
        least, most = p_least - q_most, p_most - q_least
        away = (torch.maximum(most, -least) * (high - low) / 2).sum(1)
        return Cells(p - q, torch.minimum(p_high - q_low, p - q + away), least, most)

    return maximum_on_cells(bounds, lower, upper, tolerance=tolerance, disc=disc)


def firmest_disagreement(
    teacher: DenseNetwork,
    student: DenseNetwork,
    lower: Tensor,
    upper: Tensor,
    *,
    tolerance: float = 1e-3,
    disc: Disc | None = None,
) -> Truth:
    """Largest smallest margin with which the two predict different classes: > 0 is a disagreement."""
    count = teacher.classes
    eye = torch.eye(count, dtype=torch.float64)
    pairs = [(i, k) for i in range(count) for k in range(count) if i != k]
    rows = torch.stack([eye[i] - eye[k] for i, k in pairs])
    same = torch.eye(count, dtype=torch.bool)

    def firmness(teacher_rows: Tensor, student_rows: Tensor) -> Tensor:
        own = [
            side.unflatten(1, (count, count - 1)).amin(2) for side in (teacher_rows, student_rows)
        ]
        both = torch.minimum(own[0][:, :, None], own[1][:, None, :])
        return both.masked_fill(same, -torch.inf).flatten(1).amax(1)

    def bounds(low: Tensor, high: Tensor) -> Cells:
        value_t, _, top_t, least_t, most_t = _rows_on_cells(teacher, rows, low, high)
        value_s, _, top_s, least_s, most_s = _rows_on_cells(student, rows, low, high)
        # A maximum of minima of rows: its slopes lie within all the rows' slopes.
        least = torch.minimum(least_t.amin(1), least_s.amin(1))
        most = torch.maximum(most_t.amax(1), most_s.amax(1))
        return Cells(firmness(value_t, value_s), firmness(top_t, top_s), least, most)

    return maximum_on_cells(bounds, lower, upper, tolerance=tolerance, disc=disc)
