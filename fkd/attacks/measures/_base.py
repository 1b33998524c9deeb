"""What a measure of difference is, and the registry of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fkd.attacks.goals import RowGoal
from fkd.core.registry import Registry

MEASURES: Registry = Registry("measure", "fkd.attacks.measures")


class Measure(ABC):
    """One way in which the outputs of teacher and student can differ at a point.

    Attributes:
        name: registry name.
        title: a few words, for charts.
        meaning: one sentence.
        unit: of its values.
        is_event: whether it either happens (a positive value) or not.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    unit: ClassVar[Literal["probability", "nats", "logits"]]
    is_event: ClassVar[bool] = False

    def classes(self, labels: Tensor, predicted: Tensor) -> Tensor:
        """The class of each example that it is about, int64 (N,); -1 where it is about all of them.

        Args:
            labels: int64 (N,).
            predicted: int64 (N,), what the teacher predicts at the images.
        """
        del predicted
        return torch.full_like(labels, -1)

    @abstractmethod
    def goal(self, classes: Tensor, count: int) -> RowGoal:
        """What a search climbs: as many rows of each example, example-major.

        Args:
            classes: int64 (N,), of `classes`.
            count: of classes, K.
        """

    @abstractmethod
    def value(self, teacher_logits: Tensor, student_logits: Tensor, classes: Tensor) -> Tensor:
        """Its value (N,) where the networks say these logits (N, K)."""

    def compared(self, teacher_logits: Tensor, student_logits: Tensor, classes: Tensor) -> Tensor:
        """The class whose confidences differ there, int64 (N,); -1 where it is about all of them."""
        del teacher_logits, student_logits
        return classes


def gaps(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """``|p_T(c) - p_S(c)|`` of every class, (N, K)."""
    return (teacher_logits.softmax(1) - student_logits.softmax(1)).abs()
