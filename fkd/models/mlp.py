"""Fully connected ReLU networks."""

from __future__ import annotations

from collections import OrderedDict
from math import prod
from typing import Annotated

from pydantic import Field
from torch import nn

from fkd.core.config import Config
from fkd.models.base import ARCHITECTURES, Architecture

Units = Annotated[int, Field(ge=1, le=8192)]


class MLPConfig(Config):
    """Sizes of the hidden layers."""

    hidden: tuple[Units, ...] = Field(
        default=(256, 128),
        min_length=1,
        max_length=8,
        description="Units of each hidden layer, from the image to the logits.",
    )


@ARCHITECTURES.register("mlp")
class MLP(Architecture):
    """Fully connected layers with ReLU between them; fits every image shape."""

    title = "Fully connected"
    Config = MLPConfig

    def build(
        self, config: MLPConfig, image_shape: tuple[int, int, int], num_classes: int
    ) -> nn.Module:
        """Flatten, then ``fc1``, ``fc2`` ... with ReLU, then ``logits``."""
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        inputs = prod(image_shape)
        for number, units in enumerate(config.hidden, start=1):
            layers[f"fc{number}"] = nn.Linear(inputs, units)
            layers[f"relu{number}"] = nn.ReLU()
            inputs = units
        layers["logits"] = nn.Linear(inputs, num_classes)
        return nn.Sequential(layers)
