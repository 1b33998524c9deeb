"""A small residual network with batch normalisation."""

from __future__ import annotations

from collections import OrderedDict

from pydantic import Field
from torch import Tensor, nn

from fkd.core.config import Config
from fkd.models._convolutional import conv_output, too_small
from fkd.models.base import ARCHITECTURES, Architecture

#: Side in pixels from which the first convolution halves the image.
_STRIDED_FROM = 16


class ResNetSmallConfig(Config):
    """Width and depth of the residual network."""

    width: int = Field(
        default=16, ge=1, le=256, description="Channels of the first of the two stages."
    )
    blocks: int = Field(
        default=1, ge=1, le=9, description="Residual blocks per stage; depth is 4 blocks + 2."
    )


class ResidualBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv x)))) + shortcut(x)), two 3x3 convolutions.

    The shortcut is a strided 1x1 convolution with batch normalisation where the shape changes, and
    nothing elsewhere.  The two ReLUs are separate modules, so that each keeps its own bounds.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                    norm=nn.BatchNorm2d(outputs),
                )
            )

    def forward(self, features: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        residual = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(features)))))
        return self.relu2(residual + self.shortcut(features))


@ARCHITECTURES.register("resnet_small")
class ResNetSmall(Architecture):
    """Residual network of two stages with batch normalisation.

    Blocks as in He et al. (1512.03385): stages of ``width`` and 2 ``width`` channels, the second
    starting with stride 2; projections where the shape changes (their option B); average over all
    pixels; one dense layer.  Images of 16 pixels and more are halved by the first convolution and there
    is no third stage, both our choice: backward bounds cost the square of the number of neurons.
    """

    title = "Small residual"
    Config = ResNetSmallConfig

    def build(
        self, config: ResNetSmallConfig, image_shape: tuple[int, int, int], num_classes: int
    ) -> nn.Module:
        """``conv``, ``norm``, ``relu``, ``stage<i>_block<j>``, ``pool``, ``flatten``, ``logits``."""
        channels, height, width = image_shape
        if min(height, width) < 4:
            raise too_small(self.name, image_shape)
        stride = 2 if min(height, width) >= _STRIDED_FROM else 1
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(channels, config.width, 3, stride, padding=1, bias=False),
            norm=nn.BatchNorm2d(config.width),
            relu=nn.ReLU(),
        )
        height, width = conv_output(height, 3, stride), conv_output(width, 3, stride)
        inputs = config.width
        for stage in (1, 2):
            outputs = config.width * stage
            for block in range(1, config.blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                layers[f"stage{stage}_block{block}"] = ResidualBlock(inputs, outputs, stride)
                height, width = conv_output(height, 3, stride), conv_output(width, 3, stride)
                inputs = outputs
        # A fixed window, not nn.AdaptiveAvgPool2d: auto_LiRPA 0.3 bounds only the former.
        layers["pool"] = nn.AvgPool2d((height, width))
        layers["flatten"] = nn.Flatten()
        layers["logits"] = nn.Linear(inputs, num_classes)
        return nn.Sequential(layers)
