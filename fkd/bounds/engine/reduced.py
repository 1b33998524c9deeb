"""A network on a small set, written down for its open units only.

On a given set most ReLUs have one sign and are linear there.  What is left is, exactly,

    h_k = W_k [x; y_1; ...; y_{k-1}] + b_k,   y_k = relu(h_k),   z = W [x; y_1; ...; y_L] + b

with one stage k for each ReLU layer that has open units.  A backward pass then costs a few products with
small matrices, whatever the layers were: that makes thousands of them affordable in optimising and
branching.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fkd.bounds.engine.propagate import WINDOW_VALUES, Hidden, Propagator
from fkd.bounds.engine.relaxation import Relaxation
from fkd.bounds.engine.windows import Slide, Units, Window


@dataclass(frozen=True)
class Stage:
    """The open units of one ReLU layer on N sets, padded to the same number n.

    Attributes:
        weight: (N, n, D + units of all stages before); rows of padding are 0.
        bias: (N, n).
        lower: proved lower bounds of h, (N, n); 0 for padding.
        upper: proved upper bounds.
        size: magnitude M of h (see `Propagator.hidden`), (N, n).
        is_real: False for padding, bool (N, n).
    """

    weight: Tensor
    bias: Tensor
    lower: Tensor
    upper: Tensor
    size: Tensor
    is_real: Tensor

    @property
    def units(self) -> int:
        """n."""
        return self.bias.shape[1]

    def to(self, dtype: torch.dtype) -> Stage:
        """In another precision, for searches."""
        numbers = (self.weight, self.bias, self.lower, self.upper, self.size)
        return Stage(*(part.to(dtype) for part in numbers), self.is_real)

    def __getitem__(self, rows: Tensor | slice) -> Stage:
        numbers = (self.weight, self.bias, self.lower, self.upper, self.size, self.is_real)
        return Stage(*(part[rows] for part in numbers))


@dataclass(frozen=True)
class Reduced:
    """One network on N sets.

    Attributes:
        stages: in order of computation.
        weight: of the logits, (N, K, D + units of all stages).
        bias: (N, K).
        slack: relative rounding error of a pass, see `Propagator.slack`.
        logit_size: magnitude of the logits, (N, K).
    """

    stages: tuple[Stage, ...]
    weight: Tensor
    bias: Tensor
    slack: float
    logit_size: Tensor

    def to(self, dtype: torch.dtype) -> Reduced:
        """In another precision, for searches."""
        stages = tuple(stage.to(dtype) for stage in self.stages)
        return Reduced(
            stages,
            self.weight.to(dtype),
            self.bias.to(dtype),
            self.slack,
            self.logit_size.to(dtype),
        )

    def __getitem__(self, rows: Tensor | slice) -> Reduced:
        stages = tuple(stage[rows] for stage in self.stages)
        return Reduced(
            stages, self.weight[rows], self.bias[rows], self.slack, self.logit_size[rows]
        )

    def trimmed(self) -> Reduced:
        """Without padding; of a single problem."""
        columns = [torch.arange(self.weight.shape[2] - sum(self.units), device=self.bias.device)]
        first, stages = len(columns[0]), []
        for stage in self.stages:
            real = stage.is_real[0].nonzero()[:, 0]
            seen = torch.cat(columns)
            part = Stage(
                *(
                    tensor[:, real]
                    for tensor in (
                        stage.weight[:, :, seen],
                        stage.bias,
                        stage.lower,
                        stage.upper,
                        stage.size,
                        stage.is_real,
                    )
                )
            )
            columns.append(first + real)
            first += stage.units
            if part.units:
                stages.append(part)
        weight = self.weight[:, :, torch.cat(columns)]
        return Reduced(tuple(stages), weight, self.bias, self.slack, self.logit_size)

    @property
    def units(self) -> tuple[int, ...]:
        """Number of (padded) open units of each stage."""
        return tuple(stage.units for stage in self.stages)


class Reducer:
    """Writes a network down for its open units.

    Args:
        propagator: the network.
        hidden: its hidden bounds on N sets.
        keep: by position, units to write down although their sign is known, bool (N, *shape); open
            units have to be among them.  None keeps the open ones.
    """

    def __init__(
        self, propagator: Propagator, hidden: Hidden, keep: dict[int, Tensor] | None = None
    ) -> None:
        self.propagator, self.hidden = propagator, hidden
        self.keep = keep or {k: part.is_open for k, part in hidden.relaxations.items()}
        self.count = len(hidden.inputs)
        self.pixels = hidden.inputs.lower[0].numel()
        self.settled = {k: part.settled(self.keep[k]) for k, part in hidden.relaxations.items()}
        #: Columns of each open unit among its stage, by position: (N, n) ids of units, and which count.
        self.places: dict[int, tuple[Tensor, Tensor]] = {}
        self.first_column: dict[int, int] = {}

    def run(self) -> Reduced:
        """The reduced network, in float64."""
        columns = self.pixels
        stages: list[Stage] = []
        with torch.no_grad():
            for position, relaxation in self.hidden.relaxations.items():
                is_open = self.keep[position].flatten(1)
                most = int(is_open.sum(1).max())
                if most == 0:
                    continue
                order = is_open.to(torch.int8).argsort(dim=1, descending=True, stable=True)
                places = order[:, :most]
                is_real = is_open.gather(1, places)
                stages.append(self._stage(position, relaxation, places, is_real, columns))
                self.places[position] = places, is_real
                self.first_column[position] = columns
                columns += most
            eye = torch.eye(
                self.hidden.logit_size.shape[1],
                dtype=self.hidden.logit_size.dtype,
                device=self.hidden.logit_size.device,
            )
            weight, bias = self._dense(
                self.propagator.logits, eye.expand(self.count, -1, -1), columns
            )
        return Reduced(tuple(stages), weight, bias, self.propagator.slack, self.hidden.logit_size)

    def _stage(
        self,
        position: int,
        relaxation: Relaxation,
        places: Tensor,
        is_real: Tensor,
        columns: int,
    ) -> Stage:
        source = self.propagator.graph.nodes[position].inputs[0]
        shape = self.propagator.shapes[source]
        if self.propagator.window_size(source) is not None:
            weight, bias = self._slide(source, places, is_real, columns)
        else:
            rows = torch.zeros(
                self.count,
                places.shape[1],
                shape.numel(),
                dtype=torch.float64,
                device=places.device,
            )
            rows.scatter_(2, places.unsqueeze(2), is_real.unsqueeze(2).double())
            weight, bias = self._dense(source, rows.unflatten(2, shape), columns)

        def pick(tensor: Tensor) -> Tensor:
            return torch.where(is_real, tensor.flatten(1).gather(1, places), 0.0)

        return Stage(
            weight,
            bias,
            pick(relaxation.lower),
            pick(relaxation.upper),
            pick(self.hidden.sizes[position]),
            is_real,
        )

    def _dense(self, position: int, rows: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        """Coefficients (N, R, columns) and constants (N, R) of rows at a node."""
        weight = rows.new_zeros(*rows.shape[:2], columns)

        def capture(node: int, coefficients: Tensor) -> None:
            if node not in self.places:
                return
            places, is_real = self.places[node]
            flat = coefficients.flatten(2)
            index = places.unsqueeze(1).expand(-1, flat.shape[1], -1)
            first = self.first_column[node]
            weight[:, :, first : first + places.shape[1]] = flat.gather(2, index) * is_real[:, None]

        form = self.propagator.back(position, rows, self.settled, capture=capture)
        weight[:, :, : self.pixels] = form.coefficients
        return weight, form.constant

    def _slide(
        self, position: int, places: Tensor, is_real: Tensor, columns: int
    ) -> tuple[Tensor, Tensor]:
        """The same for units of a map, through their windows."""
        shape = self.propagator.shapes[position]
        example, slot = is_real.nonzero(as_tuple=True)
        flat = places[example, slot]
        area = shape[1] * shape[2]
        every = Units(example, flat // area, flat % area // shape[2], flat % shape[2])
        weight = torch.zeros(*places.shape, columns, dtype=torch.float64, device=places.device)
        bias = weight.new_zeros(places.shape)
        slide = Slide(
            self.propagator.layers, self.propagator.graph, self.propagator.shapes, self.settled
        )
        size = max(1, WINDOW_VALUES // (self.propagator.window_size(position) or 1))
        for start in range(0, len(every), size):
            units = every[start : start + size]
            at = example[start : start + size], slot[start : start + size]
            target = weight.new_zeros(len(units), columns + 1)

            def capture(
                node: int, window: Window, units: Units = units, to: Tensor = target
            ) -> None:
                if node in self.places:
                    _scatter(to, self._columns_of(node), window, units)

            window, constant = slide.run(position, units, weight, signs=(1.0,), capture=capture)
            _scatter(target, self._pixel_columns(), window, units)
            weight[at] = target[:, 1:]
            bias[at] = constant[0]
        return weight, bias

    def _columns_of(self, node: int) -> Tensor:
        """1 + the column of each open unit of a ReLU layer, 0 for the others; (N, *shape)."""
        places, is_real = self.places[node]
        shape = self.propagator.shapes[node]
        columns = torch.zeros(self.count, shape.numel(), dtype=torch.float64, device=places.device)
        number = torch.arange(places.shape[1], device=places.device) + 1 + self.first_column[node]
        columns.scatter_(1, places, is_real * number.double())
        return columns.unflatten(1, shape)

    def _pixel_columns(self) -> Tensor:
        lower = self.hidden.inputs.lower
        number = torch.arange(1, self.pixels + 1, dtype=torch.float64, device=lower.device)
        return number.view(1, *lower.shape[1:]).expand(self.count, -1, -1, -1)


def _scatter(target: Tensor, columns: Tensor, window: Window, units: Units) -> None:
    """Put a window's coefficients into the columns that ``columns`` names; column 0 is for nothing."""
    index = units.gather(columns, window).flatten(1).long()
    target.scatter_(1, index, window.values[0].flatten(1))
