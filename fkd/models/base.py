"""Architectures: configuration in, network from images in [0, 1] to logits out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fkd.core.config import Config
from fkd.core.errors import ConfigError
from fkd.core.registry import Registry
from fkd.core.seeding import check_seed

#: Far above any data set, low enough that no size of a layer overflows.
_MAX_VALUES = 2**30
_MAX_CLASSES = 2**20


class ChannelAffine(nn.Module):
    """a x + b per channel.

    Traced, it is a 1x1 convolution, which stays in auto_LiRPA's fast patches mode where a product and a
    sum do not.  Run, it is one fused product and sum: the same numbers, and as a convolution it took a
    third of a small network's forward and backward pass.  The buffers are no part of the weights.

    Args:
        scale: float64 (C,), a.
        shift: float64 (C,), b.
    """

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        # Not torch.diag: on the meta device, where shapes are looked up, that and all arithmetic would
        # import torch's compiler, which takes seconds.
        weight = torch.zeros(len(scale), len(scale), dtype=scale.dtype)
        weight.diagonal().copy_(scale)
        self.register_buffer("weight", weight[:, :, None, None].float(), persistent=False)
        self.register_buffer("bias", shift.float(), persistent=False)

    @property
    def scale(self) -> Tensor:
        """a, (C,), in the type and on the device that the module has by now."""
        return self.weight.flatten(1).diagonal()

    def forward(self, images: Tensor) -> Tensor:
        """Scaled and shifted images, (N, C, H, W)."""
        if torch.jit.is_tracing():
            return functional.conv2d(images, self.weight, self.bias)
        return torch.addcmul(self.bias[:, None, None], images, self.scale[:, None, None])


class Normalisation(ChannelAffine):
    """(x - mean) / std per channel.

    It is the first layer of every network, so epsilon is always in pixel units.  Mean and std come from
    the model card.

    Args:
        mean: C values, each in [0, 1].
        std: C positive values.

    Raises:
        ConfigError: lengths differ, a value is not finite, or a std is not positive.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != len(std) or not all(
            isfinite(m) and isfinite(s) and s > 0 for m, s in zip(mean, std, strict=True)
        ):
            raise ConfigError(
                f"Normalisation needs one mean and one positive std per channel, "
                f"got {list(mean)} and {list(std)}; give finite numbers."
            )
        # Plain numbers, no tensor arithmetic: see ChannelAffine.
        scale = [1.0 / value for value in std]
        shift = [-value * factor for value, factor in zip(mean, scale, strict=True)]
        super().__init__(
            torch.tensor(scale, dtype=torch.float64), torch.tensor(shift, dtype=torch.float64)
        )


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


ARCHITECTURES: Registry[type[Architecture]] = Registry("architecture", "fkd.models")


def build(
    architecture: str,
    config: Config | Mapping[str, Any] | None = None,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    seed: int | None = None,
) -> Network:
    """A randomly initialised network, in train mode on the CPU in float32.

    Args:
        architecture: name in `ARCHITECTURES`.
        config: its settings; None takes the defaults.
        image_shape: (C, H, W).
        num_classes: K, at least 2.
        mean: C values taken off first; None or empty for networks that take images as they are.
        std: C positive divisors, or None like ``mean``.
        seed: makes the weights reproducible and leaves torch's global generator untouched; None
            draws from the global generator.

    Raises:
        ConfigError: an unknown architecture, a setting out of range, or images it does not fit.

    Example:
        >>> from fkd.models import build
        >>> network = build(
        ...     "mlp", {"hidden": (8,)}, image_shape=(1, 8, 8), num_classes=10, mean=[0.3], std=[0.4]
        ... )
        >>> sorted(network.state_dict())[0]
        'body.fc1.bias'
    """
    entry = ARCHITECTURES.get(architecture)
    if isinstance(config, Config):
        if not isinstance(config, entry.Config):
            raise ConfigError(
                f"The architecture '{architecture}' takes a {entry.Config.__name__}, "
                f"got a {type(config).__name__}; give its own settings."
            )
        settings: Config = config
    else:
        settings = entry.Config.parse(dict(config or {}))
    shape = _check_shape(image_shape, num_classes)
    first = normalisation(tuple(mean or ()), tuple(std or ()), shape[0])
    if seed is None:
        return Network(first, entry().build(settings, shape, num_classes))
    check_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(first, entry().build(settings, shape, num_classes))


def _check_shape(image_shape: Sequence[int], num_classes: int) -> tuple[int, int, int]:
    if len(image_shape) != 3 or any(int(side) < 1 for side in image_shape):
        raise ConfigError(
            f"image_shape must be three positive numbers (C, H, W), got {tuple(image_shape)}."
        )
    if num_classes < 2:
        raise ConfigError(f"A classifier needs at least 2 classes, got {num_classes}.")
    channels, height, width = (int(side) for side in image_shape)
    if channels * height * width > _MAX_VALUES or num_classes > _MAX_CLASSES:
        raise ConfigError(
            f"Images of {channels}x{height}x{width} and {num_classes} classes are more than any network "
            f"takes; give at most {_MAX_VALUES} values an image and {_MAX_CLASSES} classes."
        )
    return channels, height, width


def normalisation(mean: Sequence[float], std: Sequence[float], channels: int) -> nn.Module:
    """The first layer for these values; without any, images pass as they are.

    Raises:
        ConfigError: the values are not one finite mean and one positive std per channel.
    """
    if not len(mean) and not len(std):
        return nn.Identity()
    if len(mean) != channels or len(std) != channels:
        raise ConfigError(
            f"Normalisation of {channels}-channel images needs {channels} means and stds, "
            f"got {len(mean)} and {len(std)}."
        )
    return Normalisation(mean, std)
