"""Open domains of one tree, in tensors with slots: best-first without copying what is not touched."""

from __future__ import annotations

import torch
from torch import Tensor


class Pool:
    """Rows of several tensors kept in slots, each with a value.

    Args:
        like: one row of each tensor is shaped like ``like[name][0]``.
        capacity: most slots ever (memory).
    """

    def __init__(self, like: dict[str, Tensor], capacity: int) -> None:
        self.capacity = capacity
        first = min(64, capacity)
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

    def _grow(self) -> None:
        more = len(self.values)
        self.values = torch.cat([self.values, torch.full_like(self.values, -torch.inf)])
        for name, part in self._rows.items():
            self._rows[name] = torch.cat([part, part.new_empty(more, *part.shape[1:])])
