"""Tiny networks on maps of pixels: what reaches beyond borders, strides, joins and pools."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _Block(nn.Module):
    """relu(conv relu(conv x) + shortcut x), where the branches see windows of different sizes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, images: Tensor) -> Tensor:
        branch = self.norm(self.conv2(self.relu1(self.conv1(images))))
        return self.relu2(branch + self.shortcut(images))


def _layers(kind: str) -> tuple[list[nn.Module], tuple[int, int, int]]:
    """Everything before the logits, and the image's shape."""
    if kind == "padded":
        return [nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, 2), nn.ReLU()], (
            1,
            3,
            4,
        )
    if kind == "strided":
        # The far border is not reached by the stride; the second kernel is not square.
        first = nn.Conv2d(2, 2, 2, (2, 1), padding=(1, 0))
        return [first, nn.ReLU(), nn.Conv2d(2, 3, (1, 2), 1), nn.ReLU()], (2, 3, 3)
    if kind == "dilated":
        first = nn.Conv2d(2, 4, 2, dilation=2, padding=1, groups=2)
        return [first, nn.ReLU(), nn.Conv2d(4, 1, 2), nn.ReLU()], (2, 3, 3)
    if kind == "residual":
        return [_Block(1, 2, 1), nn.AvgPool2d((2, 3)), nn.Conv2d(2, 2, 1), nn.ReLU()], (1, 2, 3)
    if kind == "pooled":
        normalised = [nn.Conv2d(1, 2, 2, padding=1), nn.BatchNorm2d(2), nn.ReLU()]
        return [*normalised, nn.AvgPool2d(2, 1), nn.Conv2d(2, 2, 2), nn.ReLU()], (1, 3, 3)
    return [nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(2)], (1, 3, 5)


def _wide_layers(kind: str) -> tuple[list[nn.Module], tuple[int, int, int]]:
    """Images wider than what a hidden unit sees, so that bounds slide a window over them."""
    if kind == "padded":
        second = nn.Conv2d(2, 2, 3, 2, padding=1)
        return [nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), second, nn.ReLU()], (1, 7, 8)
    if kind == "joined":
        return [_Block(1, 2, 1), nn.Conv2d(2, 1, 2, 2), nn.ReLU(), nn.AvgPool2d(2)], (1, 6, 7)
    if kind == "pooled":
        first = [nn.Conv2d(2, 2, 2, (1, 2), padding=(0, 1)), nn.ReLU(), nn.AvgPool2d(2, 1)]
        return [*first, nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU()], (2, 7, 8)
    first = nn.Conv2d(2, 4, 2, dilation=(2, 1), padding=1, groups=2)
    return [first, nn.ReLU(), nn.Conv2d(4, 2, 2, groups=2), nn.ReLU()], (2, 6, 6)


WIDE = ("padded", "joined", "pooled", "dilated")
KINDS = ("padded", "strided", "dilated", "residual", "pooled", "largest")


def map_network(
    kind: str, classes: int, generator: torch.Generator, *, is_wide: bool = False
) -> tuple[nn.Module, tuple[int, int, int]]:
    """A network of one of `KINDS`, or `WIDE`, and the shape of its images."""
    layers, shape = (_wide_layers if is_wide else _layers)(kind)
    with torch.no_grad():
        body = nn.Sequential(*layers, nn.Flatten()).eval()
        width = body(torch.zeros(1, *shape)).shape[1]
    network = nn.Sequential(body, nn.Linear(width, classes)).eval()
    with torch.no_grad():
        for name, values in network.state_dict().items():
            if not values.is_floating_point():
                continue
            noise = torch.randn(values.shape, generator=generator)
            if name.endswith("running_var"):
                values.copy_(0.5 + noise.abs())
            elif values.ndim > 1:
                values.copy_(1.6 * noise / values[0].numel() ** 0.5)
            else:
                values.copy_(0.4 * noise + (1.0 if name.endswith("norm.weight") else 0.0))
    return network, shape
