"""How near attacks come to the exact worst case, where branch and bound knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.benchmarks.measure import Problem, certificate, spread

#: A bracket as narrow as this is closed.
CLOSED = 1e-3
#: What counts as near the exact maximum.
NEAR = (0.01, 0.001)
#: By how much a gap found may exceed its bound: the baseline's are float32.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class WorstCases:
    """The largest gaps of some examples, where they are known.

    Attributes:
        rows: int64 (M,), the examples whose bracket closed.
        gap: float64 (M,), the best of all that was found there, by any attack or by branch and bound;
            the true maximum is at most 1e-3 above it.
        tried: how many examples were branched on.
        contradictions: on how many of them something found exceeds the bound: a bug if there is one.
    """

    rows: Tensor
    gap: Tensor
    tried: int
    contradictions: int

    def shortfalls(self, found: Tensor) -> Tensor:
        """By how much gaps (N,) of all examples stay below the worst cases, (M,), at least 0."""
        return self.gap - found.to(self.gap)[self.rows]


def worst_cases(
    problem: Problem, found: Mapping[str, Tensor], *, seconds: float, count: int
) -> WorstCases:
    """Branch on some examples and keep those whose bracket closes.

    Args:
        problem: the pair, N balls and classes.
        found: by each attack, largest gaps (N,).
        seconds: of branching on an example, at most.
        count: how many examples, spread over all.
    """
    few = spread(count, len(problem.classes))
    part = problem[few]
    bounded = part.run(certificate({"name": "exact", "seconds": seconds, "tolerance": CLOSED}))
    reached = torch.stack([gap.double()[few] for gap in found.values()]).amax(0)
    if bounded.points is not None:
        for points in bounded.points.unbind(1):
            reached = torch.maximum(reached, part.reached(points).gap)
    is_closed = bounded.gap - reached <= CLOSED
    return WorstCases(
        few[is_closed],
        reached[is_closed],
        len(few),
        int((reached > bounded.gap + _ROUNDING).sum()),
    )


def shares(shortfalls: Tensor) -> str:
    """Shares of shortfalls (M,) within each of `NEAR`, and the largest, as text of one width."""
    if not len(shortfalls):
        return " ".join(f"{'-':>9}" for _ in (*NEAR, None))
    parts = [float((shortfalls <= near).double().mean()) for near in NEAR]
    return " ".join(f"{value:9.3f}" for value in (*parts, float(shortfalls.max())))
