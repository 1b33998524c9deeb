"""Differentiable bounds of a network on a box: intervals, and linear relaxation over them.

IBP (Gowal et al., 1810.12715): intervals layer by layer, with the rows of interest merged into the last
linear layer, which is never looser than intervals of the logits themselves.  CROWN-IBP (Zhang et al.,
1906.06316): one backward pass of linear coefficients over interval bounds of the hidden layers, with the
adaptive lower slope 1[u > -l] of CROWN (1811.00866).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fkd.bounds.engine.graph import Graph, trace
from fkd.bounds.engine.layers import Addition, Affine, FullyConnected, Layer, Rectifier
from fkd.bounds.engine.relaxation import Relaxation
from fkd.core.errors import UnsupportedModelError


@dataclass(frozen=True)
class LinearBound:
    """Rows r(x) <= coefficients . x + constant on a box.

    Attributes:
        coefficients: (N, R, C, H, W).
        constant: (N, R).
    """

    coefficients: Tensor
    constant: Tensor

    def __add__(self, other: LinearBound) -> LinearBound:
        """Bound of the sum; coefficients meet before their absolute value is taken."""
        return LinearBound(self.coefficients + other.coefficients, self.constant + other.constant)

    def highest(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Largest value on the box [lower, upper] (N, C, H, W), shape (N, R)."""
        centre, radius = ((upper + lower) / 2).flatten(1), ((upper - lower) / 2).flatten(1)
        rows = self.coefficients.flatten(2)
        middle = torch.einsum("nrd,nd->nr", rows, centre)
        return middle + torch.einsum("nrd,nd->nr", rows.abs(), radius) + self.constant


@dataclass(frozen=True)
class HiddenBounds:
    """One interval pass: the layers used and the interval after each (index as in the graph)."""

    layers: tuple[Layer, ...]
    intervals: tuple[tuple[Tensor, Tensor], ...]


class BoundedNetwork:
    """A network prepared for bounds; parameters are shared, so bounds follow training.

    Args:
        network: maps images (N, C, H, W) in [0, 1] to logits (N, K).

    Raises:
        UnsupportedModelError: it holds an operation that bounds cannot pass through.
    """

    def __init__(self, network: nn.Module) -> None:
        self.graph: Graph = trace(network)

    def hidden(self, lower: Tensor, upper: Tensor, centre: Tensor | None = None) -> HiddenBounds:
        """Intervals after every layer for inputs in [lower, upper].

        Args:
            lower: lowest pixels (N, C, H, W).
            upper: highest pixels, same shape.
            centre: clean images; where batch normalisation trains, its statistics are theirs.
        """
        used: list[Layer] = []
        intervals: list[tuple[Tensor, Tensor]] = []
        clean: list[Tensor | None] = []
        for node in self.graph.nodes:
            if not node.inputs:
                used.append(node.layer)
                intervals.append((lower, upper))
                clean.append(centre)
                continue
            inside = [clean[position] for position in node.inputs]
            layer = node.layer.resolve(inside[0])
            used.append(layer)
            intervals.append(layer.interval(*(intervals[position] for position in node.inputs)))
            # The clean value is an interval of width 0.
            clean.append(None if centre is None else layer.interval(*((x, x) for x in inside))[0])
        return HiddenBounds(tuple(used), tuple(intervals))

    def interval_logits(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Element-wise bounds of the logits, both (N, K)."""
        return self.hidden(lower, upper).intervals[-1]

    def interval_rows(self, hidden: HiddenBounds, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Interval bounds of ``rows`` (N, R, K) times logits, both (N, R)."""
        last = self.graph.nodes[-1]
        layer = hidden.layers[-1]
        constant: Tensor | float = 0.0
        lower, upper = hidden.intervals[-1]
        if isinstance(layer, FullyConnected):
            lower, upper = hidden.intervals[last.inputs[0]]
            constant = layer.offset(rows)
            rows = layer.transpose(rows, lower.shape[1:])
        centre, radius = (upper + lower) / 2, (upper - lower) / 2
        middle = torch.einsum("nrd,nd->nr", rows, centre) + constant
        reach = torch.einsum("nrd,nd->nr", rows.abs(), radius)
        return middle - reach, middle + reach

    def linear_rows(self, hidden: HiddenBounds, rows: Tensor) -> LinearBound:
        """Linear upper bound in the image of ``rows`` (N, R, K) times logits.

        Raises:
            UnsupportedModelError: the network holds a layer without a linear relaxation.
        """
        waiting: dict[int, Tensor] = {len(self.graph.nodes) - 1: rows}
        constant = rows.new_zeros(rows.shape[:2])
        for position in range(len(self.graph.nodes) - 1, 0, -1):
            if position not in waiting:
                continue
            coefficients = waiting.pop(position)
            inputs = self.graph.nodes[position].inputs
            layer = hidden.layers[position]
            before = hidden.intervals[inputs[0]]
            if isinstance(layer, Affine):
                constant = constant + layer.offset(coefficients)
                coefficients = layer.transpose(coefficients, before[0].shape[1:])
            elif isinstance(layer, Rectifier):
                coefficients, extra = Relaxation.of(*before).back(coefficients, None)
                constant = constant + extra
            elif not isinstance(layer, Addition):
                raise UnsupportedModelError(
                    f"Linear relaxation cannot pass through {type(layer).__name__}; "
                    "use interval bounds (ibp) for this network."
                )
            for source in inputs:
                seen = waiting.get(source)
                waiting[source] = coefficients if seen is None else seen + coefficients
        return LinearBound(waiting[0], constant)


def other_classes(classes: Tensor, count: int) -> Tensor:
    """For each row the ``count - 1`` classes other than its own, ascending; (N, K-1)."""
    places = torch.arange(count - 1, device=classes.device).expand(len(classes), -1)
    return places + (places >= classes[:, None]).long()


def margin_rows(classes: Tensor, num_classes: int, like: Tensor) -> Tensor:
    """Rows e_j - e_c for j != c in order of j, shape (N, K - 1, K).

    Args:
        classes: int64 (N,), the class c of each example.
        num_classes: K.
        like: a tensor whose dtype the rows get.
    """
    identity = torch.eye(num_classes, dtype=like.dtype, device=classes.device)
    return identity[other_classes(classes, num_classes)] - identity[classes][:, None, :]
