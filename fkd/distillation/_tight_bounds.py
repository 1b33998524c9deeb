"""Bounds over CROWN's hidden bounds, differentiable: what level *fast* certifies, as training needs it.

That level bounds hidden units by a backward pass (CROWN, 1811.00866) wherever intervals leave
their sign open, and adds both networks' rows in the image.  `TrainingPass` runs the same code on weights
that are being trained, in their own type and without an allowance for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.intervals import BoundedNetwork
from fkd.bounds.engine.layers import (
    Addition,
    Affine,
    Convolution,
    FullyConnected,
    Layer,
    Rectifier,
)
from fkd.bounds.engine.propagate import LinearForm, Propagator
from fkd.bounds.engine.relaxation import Relaxation
from fkd.bounds.engine.windows import window_sizes
from fkd.core.errors import UnsupportedModelError
from fkd.distillation._certified import GapBound, gap_bound

#: Largest matrix (entries) that a convolution is written down as: thousands of tiny maps take ten times
#: as long to convolve as to multiply.
_LARGEST_MATRIX = 2**15
#: Coefficients that one step's bounds may hold, about 60 bytes each with what their gradient needs; a
#: layer that would take more than an eighth of them for one image keeps its intervals.
_MOST_NUMBERS = 2**26


class TrainingPass(Propagator):
    """One step's bounds of a network whose weights may get gradients.

    Args:
        network: read once a run.
        images: (N, C, H, W), the clean images: where batch normalisation trains, its statistics are
            theirs.

    Raises:
        UnsupportedModelError: the network holds a layer without a linear relaxation.
    """

    #: Nothing is proved while training.
    slack = 0.0

    def __init__(self, network: BoundedNetwork, images: Tensor) -> None:
        # Not the parent's, which reads the network anew and copies it to float64.
        self.graph = network.graph
        layers: list[Layer] = []
        clean: list[Tensor] = []
        for node in self.graph.nodes:
            if not node.inputs:
                layers.append(node.layer)
                clean.append(images)
                continue
            inside = [clean[source] for source in node.inputs]
            layer = node.layer.resolve(inside[0])
            is_known = isinstance(layer, Affine | Rectifier | Addition)
            if isinstance(layer, FullyConnected):
                is_known = inside[0].dim() == 2
            if not is_known:
                raise UnsupportedModelError(
                    f"Linear relaxation cannot pass through {type(layer).__name__}; use a network "
                    "with strides in its place, or a method that trains on intervals (faithful_ibp)."
                )
            clean.append(layer.interval(*((value, value) for value in inside))[0])
            layers.append(_multiplied(layer, inside[0].shape[1:], clean[-1].shape[1:]))
        self.layers = tuple(layers)
        self.shapes = [value.shape[1:] for value in clean]

    def cost(self, position: int) -> int:
        """Coefficients of one image's backward passes from all units at ``position``."""
        below = range(position)
        if self.window_size(position) is None:
            each = sum(self.shapes[node].numel() for node in below)
        else:
            sizes = window_sizes(self.layers, self.graph, position)
            each = sum(
                self.shapes[node][0] * height * width for node, (height, width) in sizes.items()
            )
        return 2 * self.shapes[position].numel() * each

    def images_at_once(self) -> int:
        """How many images' bounds a step can hold, at least 1."""
        reads = {
            self.graph.nodes[position].inputs[0]
            for position, layer in enumerate(self.layers)
            if isinstance(layer, Rectifier)
        }
        costs = [cost for cost in map(self.cost, reads) if self._is_worth(cost)]
        return max(1, _MOST_NUMBERS // max(1, sum(costs)))

    @staticmethod
    def _is_worth(cost: int) -> bool:
        return cost <= _MOST_NUMBERS // 8

    def _tighten(
        self,
        position: int,
        interval: tuple[Tensor, Tensor],
        size: Tensor,
        inputs: InputSet,
        relaxations: dict[int, Relaxation],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As the certificate's, but of wide layers intervals."""
        if self._is_worth(self.cost(position)):
            return super()._tighten(position, interval, size, inputs, relaxations)
        lower, upper = interval
        return lower, upper, upper > -lower


class _Product(Affine):
    """A small convolution whose transpose is a product with its matrix."""

    def __init__(self, layer: Convolution, below: torch.Size, above: torch.Size) -> None:
        self.layer = layer
        like = layer.module.weight
        rows = torch.eye(above.numel(), dtype=like.dtype, device=like.device)
        self.matrix = layer.transpose(rows.view(1, -1, *above), below)[0].flatten(1)

    def apply(self, inputs: Tensor) -> Tensor:
        """W x + b."""
        return self.layer.apply(inputs)

    def magnitude(self, radius: Tensor) -> Tensor:
        """|W| r."""
        return self.layer.magnitude(radius)

    def transpose(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """A W."""
        return (coefficients.flatten(2) @ self.matrix).unflatten(2, shape)

    def offset(self, coefficients: Tensor) -> Tensor | float:
        """A b."""
        return self.layer.offset(coefficients)


def _multiplied(layer: Layer, below: torch.Size, above: torch.Size) -> Layer:
    """The layer, in a form whose transpose is fast for many small maps."""
    if not isinstance(layer, Convolution):
        return layer
    is_small = below.numel() * above.numel() <= _LARGEST_MATRIX
    return _Product(layer, below, above) if is_small else layer


@dataclass(frozen=True)
class MarginForms:
    """Linear bounds, in the image, of one network's margins m_j = z_j - z_c (j != c) on N boxes.

    Attributes:
        up: of m, K - 1 rows.
        down: of -m, K - 1 rows.
    """

    up: LinearForm
    down: LinearForm

    @classmethod
    def of(
        cls, network: BoundedNetwork, inputs: InputSet, images: Tensor, rows: Tensor
    ) -> MarginForms:
        """Over CROWN's hidden bounds intersected with intervals.

        Args:
            network: the network.
            inputs: N boxes.
            images: (N, C, H, W), see `TrainingPass`.
            rows: m_j as rows on the logits, (N, K - 1, K).
        """
        run = TrainingPass(network, images)
        hidden = run.hidden(inputs)
        both = run.back(run.logits, torch.cat([rows, -rows], 1), hidden.relaxations)
        others = rows.shape[1]
        return cls(both.rows(slice(others)), both.rows(slice(others, None)))

    @classmethod
    def cat(cls, parts: Sequence[MarginForms]) -> MarginForms:
        """All parts' boxes, one part after the other."""

        def together(forms: list[LinearForm]) -> LinearForm:
            coefficients = torch.cat([form.coefficients for form in forms])
            return LinearForm(coefficients, torch.cat([form.constant for form in forms]))

        return cls(together([part.up for part in parts]), together([part.down for part in parts]))

    def __getitem__(self, boxes: Tensor) -> MarginForms:
        return MarginForms(self.up[boxes], self.down[boxes])

    def log_odds(self, inputs: InputSet) -> tuple[Tensor, Tensor]:
        """Bounds of a = -LSE_j(m_j), both (N,): -LSE(upper m) and -LSE(lower m)."""
        low = -torch.logsumexp(self.up.highest(inputs), 1)
        return low, -torch.logsumexp(-self.down.highest(inputs), 1)


def joint_gap(above: MarginForms, below: MarginForms, inputs: InputSet) -> GapBound:
    """Bound of p^P_c - p^Q_c, P = ``above``: both ranges and a_P - a_Q <= max_j sup(m^Q_j - m^P_j)."""
    apart = (below.up + above.down).highest(inputs).amax(1)
    return gap_bound(above.log_odds(inputs)[1], below.log_odds(inputs)[0], apart)
