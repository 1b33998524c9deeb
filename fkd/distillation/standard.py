"""Plain training."""

from __future__ import annotations

from torch import nn
from torch.nn import functional

from fkd.core.config import Config
from fkd.distillation.base import METHODS, Batch, Clock, LossParts, Method


class StandardConfig(Config):
    """Nothing to set."""


@METHODS.register("standard")
class Standard(Method):
    """Cross-entropy on clean images, L = CE(p(x), y): accurate, robust to nothing."""

    title = "Standard training"
    role = "teacher"
    source = "Cross-entropy minimisation"
    Config = StandardConfig

    def loss(
        self, batch: Batch, teacher: nn.Module | None, student: nn.Module, clock: Clock
    ) -> LossParts:
        """CE of the labels, batch mean."""
        del teacher, clock
        return LossParts.weighted(
            {"clean": (1.0, functional.cross_entropy(student(batch.images), batch.labels))}
        )
