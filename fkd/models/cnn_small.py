"""The certified-training literature's small convolutional network."""

from __future__ import annotations

from pydantic import Field
from torch import nn

from fkd.core.config import Config
from fkd.models._convolutional import ConvLayer, convolutional
from fkd.models.base import ARCHITECTURES, Architecture


class CNNSmallConfig(Config):
    """Width of the small convolutional network."""

    width: int = Field(
        default=16, ge=1, le=256, description="Channels of the first convolution; 16 is usual."
    )
    units: int = Field(default=100, ge=1, le=4096, description="Units of the hidden dense layer.")


@ARCHITECTURES.register("cnn_small")
class CNNSmall(Architecture):
    """Two strided convolutions and one dense hidden layer (conv16, conv32, fc100).

    The *small* network of Wong and Kolter (1711.00851) that certified training is compared on: 4x4
    kernels, stride 2, padding 1.
    """

    title = "Small convolutional"
    Config = CNNSmallConfig

    def build(
        self, config: CNNSmallConfig, image_shape: tuple[int, int, int], num_classes: int
    ) -> nn.Module:
        """``conv1``, ``conv2``, ``fc1`` with ReLU, then ``logits``."""
        return convolutional(
            self.name,
            [ConvLayer(config.width, 4, 2), ConvLayer(2 * config.width, 4, 2)],
            [config.units],
            image_shape,
            num_classes,
        )
