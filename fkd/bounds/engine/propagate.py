"""Bounds of one network on a batch of input sets: hidden layers first, then rows of its logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fkd.bounds.engine.graph import Graph, trace
from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.layers import Addition, Affine, FullyConnected, Layer, Rectifier
from fkd.bounds.engine.relaxation import Relaxation, may_have_either_sign
from fkd.bounds.engine.windows import Slide, Units, can_slide, window_sizes
from fkd.core.errors import UnsupportedModelError
from fkd.core.precision import double_copy

#: Unit roundoff of float64.
_ROUNDOFF = 2.0**-53
#: Coefficients of windows that are held at once (some tensors of this size are).
WINDOW_VALUES = 2**20


def _points(example: Tensor) -> Tensor:
    """An image and three random ones, (4, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(3, *example.shape[1:], dtype=example.dtype, generator=generator)
    return torch.cat([example, noise.to(example.device)])


@dataclass(frozen=True)
class LinearForm:
    """Rows r(x) <= coefficients . x + constant on each set.

    Attributes:
        coefficients: (N, R, D) with D = C H W.
        constant: (N, R).
    """

    coefficients: Tensor
    constant: Tensor

    def __add__(self, other: LinearForm) -> LinearForm:
        """Bound of the sum; coefficients meet before their absolute value is taken."""
        return LinearForm(self.coefficients + other.coefficients, self.constant + other.constant)

    def scaled(self, factor: Tensor) -> LinearForm:
        """Bound of ``factor`` >= 0 times each row, (N,) or (N, R)."""
        factor = factor if factor.dim() == 2 else factor[:, None]
        return LinearForm(self.coefficients * factor[:, :, None], self.constant * factor)

    def rows(self, which: slice) -> LinearForm:
        """Some of the rows."""
        return LinearForm(self.coefficients[:, which], self.constant[:, which])

    def __getitem__(self, sets: Tensor | slice) -> LinearForm:
        return LinearForm(self.coefficients[sets], self.constant[sets])

    def highest(self, inputs: InputSet) -> Tensor:
        """Largest value on each set, (N, R)."""
        return inputs.highest(self.coefficients) + self.constant


@dataclass(frozen=True)
class Hidden:
    """What is proved of the hidden layers on N input sets.

    Attributes:
        inputs: the sets.
        relaxations: of every ReLU layer, by its position in the graph.
        sizes: magnitudes M of each ReLU layer's pre-activations, see `Propagator.hidden`.
        logit_size: of the logits, (N, K).
    """

    inputs: InputSet
    relaxations: dict[int, Relaxation]
    sizes: dict[int, Tensor]
    logit_size: Tensor

    @property
    def open_units(self) -> Tensor:
        """How many units of each set's ReLU layers may have either sign, (N, layers)."""
        counts = [part.is_open.flatten(1).sum(1) for part in self.relaxations.values()]
        if not counts:
            return torch.zeros(len(self.inputs), 1, device=self.inputs.lower.device)
        return torch.stack(counts, 1)

    def least_area(self) -> Hidden | None:
        """The same bounds with least-area lower slopes; None where that changes no slope."""
        other = {place: part.least_area() for place, part in self.relaxations.items()}
        changed = any(
            bool((part.default != self.relaxations[place].default).any())
            for place, part in other.items()
        )
        return replace(self, relaxations=other) if changed else None

    def __getitem__(self, rows: Tensor | slice) -> Hidden:
        return Hidden(
            self.inputs[rows],
            {place: part[rows] for place, part in self.relaxations.items()},
            {place: part[rows] for place, part in self.sizes.items()},
            self.logit_size[rows],
        )


class Propagator:
    """Bound propagation through one network, in float64.

    Args:
        network: maps images (N, C, H, W) to logits (N, K).
        example: one image (1, C, H, W).

    Raises:
        UnsupportedModelError: it holds an operation that has no linear relaxation here.
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        self.network = double_copy(network)
        self.graph: Graph = trace(self.network)
        self.layers: tuple[Layer, ...] = tuple(
            node.layer.resolve(None) for node in self.graph.nodes
        )
        for layer in self.layers:
            if not isinstance(layer, Affine | Rectifier | Addition):
                raise UnsupportedModelError(
                    f"The fast bounds cannot pass through {type(layer).__name__}; use the "
                    "certificate 'crown', which goes through auto_LiRPA."
                )
        try:
            values, sizes = self._values(_points(example.double()))
        except (RuntimeError, ValueError) as error:
            raise UnsupportedModelError(
                f"The fast bounds cannot pass through a layer of this network ({error}); use the "
                "certificate 'crown', which goes through auto_LiRPA."
            ) from None
        self.shapes = [value.shape[1:] for value in values]
        self.roundings = sum(2 * shape.numel() + 16 for shape in self.shapes)
        self._check_value(values, sizes[-1])

    @property
    def logits(self) -> int:
        """Position of the logits."""
        return len(self.layers) - 1

    @property
    def slack(self) -> float:
        """``gamma_n = n u / (1 - n u)``: rounding of a chain of n float64 operations (Higham, 3.1)."""
        return self.roundings * _ROUNDOFF / (1.0 - self.roundings * _ROUNDOFF)

    def _values(self, points: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What every node computes at some images, and the magnitudes M there (see `hidden`).

        Raises:
            ValueError: a layer reads a shape that its bounds are not written for.
        """
        values, sizes = [points], [points.abs()]
        with torch.no_grad():
            for node, layer in zip(self.graph.nodes[1:], self.layers[1:], strict=True):
                read = [values[source] for source in node.inputs]
                if isinstance(layer, FullyConnected) and read[0].dim() != 2:
                    raise ValueError("a linear layer on a map that was not flattened")
                if isinstance(layer, Addition) and read[0].shape != read[1].shape:
                    raise ValueError("a sum of different shapes")
                values.append(layer.interval(*((value, value) for value in read))[0])
                sizes.append(self._size(layer, [sizes[source] for source in node.inputs]))
        return values, sizes

    def _size(self, layer: Layer, read: list[Tensor]) -> Tensor:
        """Magnitudes M after a layer that is no ReLU's relaxation."""
        if isinstance(layer, Addition):
            return read[0] + read[1]
        if isinstance(layer, Affine):
            return layer.magnitude(read[0]) + layer.constant_size(read[0][:1])
        return read[0]

    def _check_value(self, values: list[Tensor], size: Tensor) -> None:
        """Refuse a network that computes something else than the layers read from it.

        Raises:
            UnsupportedModelError: it does.
        """
        with torch.no_grad():
            said = self.network(values[0])
        apart = (said - values[-1]).abs()
        # Two float64 evaluations of the same sums; where they overflow nothing can be compared.
        if not bool((apart <= 1e-9 * size).logical_or(~said.isfinite()).all()):
            raise UnsupportedModelError(
                "The fast bounds cannot pass through this network, whose forward pass computes something "
                "else than its layers say; use the certificate 'crown', which goes through auto_LiRPA."
            )

    def hidden(self, inputs: InputSet) -> Hidden:
        """Bounds of all hidden layers.

        Intervals come first, from the bounds already proved below; only units whose sign they leave open
        are bounded by a backward pass (CROWN), and both are intersected.  Every bound is widened by
        ``gamma_n M``, M being the same pass on absolute values: the coefficients of a backward pass are
        dominated by products of absolute weights, so M is a forward pass of absolute values.
        """
        intervals = [(inputs.lower, inputs.upper)]
        sizes = [inputs.size]
        relaxations: dict[int, Relaxation] = {}
        for position, node in enumerate(self.graph.nodes[1:], start=1):
            layer = self.layers[position]
            read = [intervals[source] for source in node.inputs]
            if isinstance(layer, Rectifier):
                source = node.inputs[0]
                lower, upper, rising = self._tighten(
                    source, read[0], sizes[source], inputs, relaxations
                )
                relaxation = Relaxation.of(lower, upper, rising)
                relaxations[position] = relaxation
                intervals.append((lower.clamp_min(0.0), upper.clamp_min(0.0)))
                sizes.append(sizes[source] * (upper > 0) + relaxation.intercept)
                continue
            size = self._size(layer, [sizes[source] for source in node.inputs])
            lower, upper = layer.interval(*read)
            intervals.append((lower - self.slack * size, upper + self.slack * size))
            sizes.append(size)
        read_by = {place: sizes[self.graph.nodes[place].inputs[0]] for place in relaxations}
        return Hidden(inputs, relaxations, read_by, sizes[-1])

    def _tighten(
        self,
        position: int,
        interval: tuple[Tensor, Tensor],
        size: Tensor,
        inputs: InputSet,
        relaxations: dict[int, Relaxation],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Bounds of the pre-activations at ``position``, and where CROWN's lower slope is 1.

        The slope is chosen by CROWN's own bounds although intervals may be tighter: a tighter triangle
        with the same slope is never looser in the end, one with the other slope may be.
        """
        lower, upper = interval
        is_open = may_have_either_sign(lower, upper)
        # Intervals of a linear function of a box are exact.
        is_exact = inputs.images is None and not relaxations and not self._has_sums(position)
        if is_exact or not bool(is_open.any()):
            return lower, upper, upper > -lower
        if self.window_size(position) is not None:
            high, low = self._slide(position, is_open, inputs, relaxations)
        else:
            high, low = self._dense(position, is_open, inputs, relaxations)
        slack = self.slack * size[is_open]
        rising = upper > -lower
        rising[is_open] = high > -low
        new_lower, new_upper = lower.clone(), upper.clone()
        new_lower[is_open] = torch.fmax(lower[is_open], low - slack)
        new_upper[is_open] = torch.fmin(upper[is_open], high + slack)
        return new_lower, new_upper, rising

    def _has_sums(self, position: int) -> bool:
        """Whether a sum lies below: two branches' intervals forget that they share their input."""
        return any(isinstance(layer, Addition) for layer in self.layers[: position + 1])

    def _slide(
        self,
        position: int,
        is_open: Tensor,
        inputs: InputSet,
        relaxations: dict[int, Relaxation],
    ) -> tuple[Tensor, Tensor]:
        """Upper and lower bounds of the open units of a map, each (M,) in order of the mask."""
        every = Units.where(is_open)
        slide = Slide(self.layers, self.graph, self.shapes, relaxations)
        parts: list[Tensor] = []
        size = max(1, WINDOW_VALUES // (self.window_size(position) or 1))
        for start in range(0, len(every), size):
            units = every[start : start + size]
            window, constant = slide.run(position, units, inputs.lower)
            parts.append(inputs.highest_seen(window, units) + constant)
        high, low = torch.cat(parts, dim=1)
        return high, -low

    def window_size(self, position: int) -> int | None:
        """Most values of a unit's window at any layer below, None where whole layers are cheaper."""
        if not can_slide(self.layers, self.graph, position):
            return None
        sizes = window_sizes(self.layers, self.graph, position)
        height, width = sizes[0]
        _, full_height, full_width = self.shapes[0]
        if height * width > full_height * full_width:
            return None
        return max(self.shapes[node][0] * h * w for node, (h, w) in sizes.items())

    def _dense(
        self,
        position: int,
        is_open: Tensor,
        inputs: InputSet,
        relaxations: dict[int, Relaxation],
    ) -> tuple[Tensor, Tensor]:
        """The same by whole layers: for each example a row for each of its open units."""
        shape = is_open.shape[1:]
        flat = is_open.flatten(1)
        most = int(flat.sum(1).max())
        order = flat.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        high = torch.zeros_like(flat, dtype=inputs.lower.dtype)
        low = torch.zeros_like(high)
        for start in range(0, most, 128):
            places = order[:, start : start + 128]
            rows = torch.zeros(*places.shape, flat.shape[1], dtype=high.dtype, device=high.device)
            rows.scatter_(2, places.unsqueeze(2), 1.0)
            rows = rows.unflatten(2, shape)
            both = self.back(position, torch.cat([rows, -rows], 1), relaxations).highest(inputs)
            count = places.shape[1]
            high.scatter_(1, places, both[:, :count])
            low.scatter_(1, places, -both[:, count:])
        # The order of ``tensor[mask]`` is the order of the flattened tensor.
        return high[flat], low[flat]

    def back(
        self,
        position: int,
        coefficients: Tensor,
        relaxations: dict[int, Relaxation],
        alpha: dict[int, Tensor] | None = None,
        capture: Callable[[int, Tensor], None] | None = None,
    ) -> LinearForm:
        """Linear upper bounds, in the image, of ``coefficients`` times the values at ``position``.

        Args:
            position: a node of the graph.
            coefficients: (N, R, *shape of the node).
            relaxations: of every ReLU below.
            alpha: lower slopes by position; None takes the defaults.
            capture: told the coefficients that reach each ReLU's output, before they pass.
        """
        waiting = {position: coefficients}
        constant = coefficients.new_zeros(coefficients.shape[:2])
        for node in range(position, 0, -1):
            if node not in waiting:
                continue
            rows = waiting.pop(node)
            layer, inputs = self.layers[node], self.graph.nodes[node].inputs
            if isinstance(layer, Rectifier):
                if capture is not None:
                    capture(node, rows)
                chosen = None if alpha is None else alpha.get(node)
                rows, extra = relaxations[node].back(rows, chosen)
                constant = constant + extra
            elif isinstance(layer, Affine):
                constant = constant + layer.offset(rows)
                rows = layer.transpose(rows, self.shapes[inputs[0]])
            for source in inputs:
                waiting[source] = waiting[source] + rows if source in waiting else rows
        return LinearForm(waiting[0].flatten(2), constant)
