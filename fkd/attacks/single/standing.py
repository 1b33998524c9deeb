"""Which examples still stand: the invariant that every attack on one network works under.

Attacks only hand over points.  This module moves each into the ball, evaluates it in float64, and takes
an example out once a point of its ball is classified wrongly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fkd.core.ball import Region
from fkd.core.precision import double_copy, logits_of

#: Told the share of the work that is done, in [0, 1]; may raise `fkd.core.errors.Cancelled`.
Tell = Callable[[float], None]


class Standing:
    """Examples under attack, those that fell, and what made them fall.

    Args:
        network: images (N, C, H, W) to logits (N, K), in eval mode.
        region: the balls.
        labels: int64 (N,), the true classes.

    Attributes:
        network: as given, for attacks to search with.
        region: as given.
        labels: as given.
        fooled: bool (N,), whether a point of the ball is classified wrongly in float64.
        witness: like the images, that point; the image itself where none was found.
        fell_to: names of the attacks that found the points, None where none did.
        num_classes: K, as the network has it.
    """

    def __init__(self, network: nn.Module, region: Region, labels: Tensor) -> None:
        self.network, self.region, self.labels = network, region, labels
        self._exact = double_copy(network)
        self.witness = region.images.clone()
        self.fooled = torch.zeros_like(labels, dtype=torch.bool)
        self.fell_to: list[str | None] = [None] * len(labels)
        self.num_classes = logits_of(self._exact, region.images[:1]).shape[1]
        self.take(self.left(), region.images, "clean")

    def left(self) -> Tensor:
        """Rows of the examples that stand, int64 (M,)."""
        return (~self.fooled).nonzero()[:, 0]

    def take(self, rows: Tensor, points: Tensor, attack: str) -> None:
        """Look at one point an example, (len(rows), C, H, W), wherever it lies and whatever it holds."""
        known = points.isfinite().flatten(1).all(1)
        rows, points = rows[known], points[known]
        if not len(rows):
            return
        inside = self.region[rows].clamp(points.to(self.region.images.dtype))
        logits = logits_of(self._exact, inside)
        # Without finite logits there is no prediction that could be wrong.
        wrong = (logits.argmax(1) != self.labels[rows]) & logits.isfinite().all(1)
        new = wrong & ~self.fooled[rows]
        self.witness[rows[new]] = inside[new]
        self.fooled[rows[new]] = True
        for row in rows[new].tolist():
            self.fell_to[row] = attack
