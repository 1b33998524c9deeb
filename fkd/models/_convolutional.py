"""Plain stacks of convolutions and dense layers, shared by the convolutional architectures."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from fkd.core.errors import ConfigError
from fkd.models._strided import StridedConv2d


class ConvLayer(NamedTuple):
    """One convolution with padding 1: output channels, side of the kernel, stride."""

    channels: int
    kernel: int
    stride: int


def conv_output(size: int, kernel: int, stride: int, padding: int = 1) -> int:
    """Pixels left along one axis after a convolution; below 1 where the kernel does not fit."""
    return (size + 2 * padding - kernel) // stride + 1


def convolutional(
    name: str,
    convolutions: Sequence[ConvLayer],
    dense: Sequence[int],
    image_shape: tuple[int, int, int],
    num_classes: int,
) -> nn.Sequential:
    """``conv1 .. convM, fc1 .. fcN``, each with a ReLU of its own, then ``logits``.

    Raises:
        ConfigError: the image is too small for the kernels and strides.
    """
    channels, height, width = image_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    relus = 0
    for number, layer in enumerate(convolutions, start=1):
        height = conv_output(height, layer.kernel, layer.stride)
        width = conv_output(width, layer.kernel, layer.stride)
        if min(height, width) < 1:
            raise too_small(name, image_shape)
        kind = StridedConv2d if layer.stride > 1 else nn.Conv2d
        layers[f"conv{number}"] = kind(
            channels, layer.channels, layer.kernel, layer.stride, padding=1
        )
        relus += 1
        layers[f"relu{relus}"] = nn.ReLU()
        channels = layer.channels
    layers["flatten"] = nn.Flatten()
    inputs = channels * height * width
    for number, units in enumerate(dense, start=1):
        layers[f"fc{number}"] = nn.Linear(inputs, units)
        relus += 1
        layers[f"relu{relus}"] = nn.ReLU()
        inputs = units
    layers["logits"] = nn.Linear(inputs, num_classes)
    return nn.Sequential(layers)


def too_small(name: str, image_shape: tuple[int, int, int]) -> ConfigError:
    """The error for images that a network's strides would shrink to nothing."""
    _, height, width = image_shape
    return ConfigError(
        f"Images of {height}x{width} pixels are too small for the architecture '{name}'; "
        "use images of at least 4x4 pixels or the architecture 'mlp'."
    )
