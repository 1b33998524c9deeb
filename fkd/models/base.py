"""Architectures: configuration in, network from images in [0, 1] to logits out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fkd.core.config import Config
from fkd.core.errors import ConfigError


class Normalisation(nn.Module):
    """(x - mean) / std per channel, written as a 1x1 convolution.

    It is the first layer of every network, so epsilon is always in pixel units.  As a convolution it
    stays in auto_LiRPA's fast patches mode, where a subtraction and a division do not.  Mean and std
    come from the model card, so they are no part of the weights.

    Args:
        mean: C values, each in [0, 1].
        std: C positive values.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise ConfigError(
                f"Normalisation needs one mean and one positive std per channel, got {mean} and {std}."
            )
        scale = 1.0 / torch.tensor(list(std), dtype=torch.float64)
        shift = -torch.tensor(list(mean), dtype=torch.float64) * scale
        weight = torch.diag(scale)[:, :, None, None]
        self.register_buffer("weight", weight.float(), persistent=False)
        self.register_buffer("bias", shift.float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, (N, C, H, W)."""
        return functional.conv2d(images, self.weight, self.bias)


class Architecture(ABC):
    """A family of networks; subclasses register in `fkd.models.ARCHITECTURES`.

    ``build`` returns the layers *after* normalisation; `fkd.models.build` puts `Normalisation` in front
    as module ``normalisation`` and the rest as ``body`` (so weight names start with ``body.``).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Config: ClassVar[type[Config]]

    @abstractmethod
    def build(self, config: Any, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """The network's body: normalised images (N, C, H, W) to logits (N, K), randomly initialised."""


class Network(nn.Module):
    """Normalisation followed by a body; images (N, C, H, W) in [0, 1] to logits (N, K)."""

    def __init__(self, normalisation: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.normalisation = normalisation
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        return self.body(self.normalisation(images))
