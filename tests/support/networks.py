"""Tiny pairs of networks with weights large enough that something happens inside a ball."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fkd.models import build


def make_network(
    architecture: str,
    config: dict,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    seed: int,
    gain: float = 1.5,
) -> nn.Module:
    """A seeded network in eval mode; ``gain`` scales every weight tensor."""
    channels = image_shape[0]
    network = build(
        architecture,
        config,
        image_shape=image_shape,
        num_classes=num_classes,
        mean=[0.4] * channels,
        std=[0.5] * channels,
        seed=seed,
    )
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(gain)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.3 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
    return network.eval().requires_grad_(False)


def make_linear(image_shape: tuple[int, int, int], num_classes: int, seed: int) -> nn.Module:
    """A linear network: every bound on one of its rows is exact."""
    generator = torch.Generator().manual_seed(seed)
    inputs = image_shape[0] * image_shape[1] * image_shape[2]
    layer = nn.Linear(inputs, num_classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator))
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


PAIRS: dict[str, tuple[tuple[str, dict], tuple[str, dict], tuple[int, int, int], int]] = {
    "mlp": (("mlp", {"hidden": (12, 8)}), ("mlp", {"hidden": (6,)}), (1, 3, 3), 4),
    "two_classes": (("mlp", {"hidden": (8,)}), ("mlp", {"hidden": (4,)}), (1, 2, 2), 2),
    "convolutional": (("cnn_small", {"width": 3}), ("cnn_small", {"width": 2}), (1, 8, 8), 3),
    "residual": (("resnet_small", {"width": 3}), ("mlp", {"hidden": (8,)}), (1, 8, 8), 3),
    "colour": (("cnn_small", {"width": 2}), ("mlp", {"hidden": (8,)}), (3, 8, 8), 3),
}


def make_pair(name: str, seed: int = 0) -> tuple[nn.Module, nn.Module, tuple[int, int, int], int]:
    """Teacher, student, image shape and number of classes of one of `PAIRS`."""
    teacher, student, shape, classes = PAIRS[name]
    return (
        make_network(*teacher, image_shape=shape, num_classes=classes, seed=2 * seed),
        make_network(*student, image_shape=shape, num_classes=classes, seed=2 * seed + 1),
        shape,
        classes,
    )


def make_images(count: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Uniform images, some pixels exactly 0 or 1 so that balls are clipped."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *shape, generator=generator)
    return (1.4 * images - 0.2).clamp(0.0, 1.0)
