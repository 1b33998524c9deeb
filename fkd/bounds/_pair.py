"""Both networks of a pair, ready for the engine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fkd.bounds._passes import Passes
from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.paired import are_identical, same_shape
from fkd.bounds.engine.propagate import Hidden, Propagator
from fkd.core.ball import Region

_BYTES = 8
#: Tensors of one row's coefficients that a backward pass holds at once, and rows of the largest pass;
#: how much more paired passes hold (measured on the largest shipped pairs: 56 and 200 MiB an example).
_ALIVE, _ROWS, _PAIRED = 9, 256, 4


class Pair:
    """Teacher and student as propagators.

    Args:
        teacher: maps images (N, C, H, W) to logits (N, K).
        student: the same.
        example: one image (1, C, H, W).

    Raises:
        UnsupportedModelError: the engine cannot pass through one of them.
    """

    def __init__(self, teacher: nn.Module, student: nn.Module, example: Tensor) -> None:
        self.teacher = Propagator(teacher, example)
        self.student = Propagator(student, example)
        widest = max(
            shape.numel() for part in (self.teacher, self.student) for shape in part.shapes
        )
        #: Whether the networks' units pair up (copies: pruned, quantised, fine-tuned).
        self.is_copy = same_shape(self.teacher, self.student)
        #: Whether they are one and the same function: then nothing ever differs, not even by rounding.
        self.is_identical = are_identical(self.teacher, self.student)
        #: Rough memory of one example in the dearest pass.
        self.bytes_per_example = _BYTES * _ALIVE * _ROWS * widest * (_PAIRED if self.is_copy else 1)

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Both networks' float64 logits (N, K)."""
        with torch.no_grad():
            images = images.double()
            return self.teacher.network(images), self.student.network(images)

    def hidden(self, region: Region) -> tuple[Hidden, Hidden]:
        """Both networks' hidden bounds on every set."""
        inputs = InputSet.of(region)
        with torch.no_grad():
            return self.teacher.hidden(inputs), self.student.hidden(inputs)

    def passes(
        self,
        hidden: tuple[Hidden, Hidden],
        logits: tuple[Tensor, Tensor],
        classes: Tensor,
        rows: Tensor | slice = slice(None),
    ) -> list[tuple[Passes, Passes]]:
        """Both networks' passes about ``classes`` on the sets ``rows``, one pair a choice of slopes.

        CROWN's lower slopes come first; where intervals tightened a unit so that the other slope leaves
        less area, a second pair takes those.  Each alone is sound, and neither is always tighter.
        """
        both = tuple(
            self._of_network(propagator, part[rows], values[rows], classes[rows])
            for propagator, part, values in zip(
                (self.teacher, self.student), hidden, logits, strict=True
            )
        )
        most = max(len(of_network) for of_network in both)
        return [
            (both[0][min(k, len(both[0]) - 1)], both[1][min(k, len(both[1]) - 1)])
            for k in range(most)
        ]

    def _of_network(
        self, propagator: Propagator, hidden: Hidden, logits: Tensor, classes: Tensor
    ) -> list[Passes]:
        with torch.no_grad():
            first = Passes.run(propagator, hidden, logits, classes)
            other = hidden.least_area()
            if other is None:
                return [first]
            second = Passes.run(propagator, other, logits, classes)
        return [first.with_margins(second), second.with_margins(first)]
