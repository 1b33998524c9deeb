"""Open domains of one tree, in tensors with slots: best-first without copying what is not touched."""

from __future__ import annotations

import torch
from torch import Tensor

_FIRST = 64


class Pool:
    """Rows of several tensors kept in slots, each with a value.

    Args:
        like: one row of each tensor is shaped like ``like[name][0]``.
        memory: most bytes ever.
    """

    def __init__(self, like: dict[str, Tensor], memory: int) -> None:
        row = sum(part[0].numel() * part.element_size() for part in like.values())
        self.capacity = max(_FIRST, memory // max(1, row))
        first = _FIRST
        self._rows = {name: part.new_empty(first, *part.shape[1:]) for name, part in like.items()}
        device = next(iter(like.values())).device
        self.values = torch.full((first,), -torch.inf, dtype=torch.float64, device=device)

    def __len__(self) -> int:
        return int((self.values > -torch.inf).sum())

    @property
    def room(self) -> int:
        """How many more rows fit."""
        return self.capacity - len(self)

    @property
    def row_numbers(self) -> int:
        """How many numbers a row holds."""
        return sum(part[0].numel() for part in self._rows.values())

    def best(self) -> float:
        """Largest value, -inf where there is none."""
        return float(self.values.max())

    def put(self, rows: dict[str, Tensor], values: Tensor) -> None:
        """Add rows (M, ...) with values (M,)."""
        empty = (self.values == -torch.inf).nonzero()[:, 0]
        while len(empty) < len(values):
            self._grow()
            empty = (self.values == -torch.inf).nonzero()[:, 0]
        slots = empty[: len(values)]
        self.values[slots] = values
        for name, part in rows.items():
            self._rows[name][slots] = part

    def take(self, count: int) -> tuple[dict[str, Tensor], Tensor]:
        """Remove the ``count`` rows of the largest values, best first."""
        values, slots = self.values.topk(min(count, len(self)))
        self.values[slots] = -torch.inf
        return {name: part[slots] for name, part in self._rows.items()}, values

    def drop_below(self, threshold: float) -> float:
        """Remove rows whose value is at most ``threshold``; the largest value removed, or -inf."""
        closed = (self.values <= threshold) & (self.values > -torch.inf)
        if not bool(closed.any()):
            return -torch.inf
        largest = float(self.values[closed].max())
        self.values[closed] = -torch.inf
        return largest

    def drop_lowest(self, count: int) -> float:
        """Remove the ``count`` rows of the smallest values; the largest value removed, or -inf."""
        count = min(count, len(self))
        if count < 1:
            return -torch.inf
        taken = (self.values > -torch.inf).nonzero()[:, 0]
        values, order = self.values[taken].topk(count, largest=False)
        self.values[taken[order]] = -torch.inf
        return float(values.max())

    def _grow(self) -> None:
        more = min(len(self.values), self.capacity - len(self.values))
        self.values = torch.cat([self.values, self.values.new_full((more,), -torch.inf)])
        for name, part in self._rows.items():
            self._rows[name] = torch.cat([part, part.new_empty(more, *part.shape[1:])])
