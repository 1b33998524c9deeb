"""The certified-training literature's medium convolutional network."""

from __future__ import annotations

from pydantic import Field
from torch import nn

from fkd.core.config import Config
from fkd.models._convolutional import ConvLayer, convolutional
from fkd.models.base import ARCHITECTURES, Architecture


class CNNMediumConfig(Config):
    """Width of the medium convolutional network."""

    width: int = Field(
        default=32, ge=1, le=256, description="Channels of the first convolution; 32 is usual."
    )
    units: int = Field(
        default=512, ge=1, le=4096, description="Units of each of the two hidden dense layers."
    )


@ARCHITECTURES.register("cnn_medium")
class CNNMedium(Architecture):
    """Four convolutions and two dense hidden layers (conv32, 32, 64, 64, fc512, fc512).

    Wong et al. (1805.12514), Gowal et al. (1810.12715): 3x3 kernels with stride 1 and 4x4 kernels with
    stride 2 in turn, padding 1.
    """

    title = "Medium convolutional"
    Config = CNNMediumConfig

    def build(
        self, config: CNNMediumConfig, image_shape: tuple[int, int, int], num_classes: int
    ) -> nn.Module:
        """``conv1`` to ``conv4``, ``fc1``, ``fc2`` with ReLU, then ``logits``."""
        width = config.width
        return convolutional(
            self.name,
            [
                ConvLayer(width, 3, 1),
                ConvLayer(width, 4, 2),
                ConvLayer(2 * width, 3, 1),
                ConvLayer(2 * width, 4, 2),
            ],
            [config.units, config.units],
            image_shape,
            num_classes,
        )
