"""Images out of distribution that need no other data set: corruptions of test images, and noise.

In the manner of Hendrycks and Dietterich (1903.12261): an image is corrupted in one way at one severity.
Severities are in units of the image's range and of its shorter side, so that they mean the same on 8x8
and 32x32 images.  What is random depends on the seed and the example alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fkd.core.seeding import uniform_noise

#: Standard deviation of the Gaussian noise added to each pixel.
NOISE_STD = 0.2
#: Standard deviation of the blur's kernel, in shorter sides (at least 0.5 pixels).
BLUR_SIDES = 1 / 20
#: Factor by which deviations from each channel's mean shrink.
CONTRAST = 0.4
#: Length of the shift along each axis it takes, in shorter sides (at least a pixel).
SHIFT_SIDES = 1 / 8
#: Side of the grey square, in shorter sides (at least a pixel).
OCCLUSION_SIDES = 1 / 3

#: Streams of random numbers, apart from those of the attacks.
_STREAM = 7000
_DIRECTIONS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


@dataclass(frozen=True)
class Shift:
    """One way to leave the distribution.

    Attributes:
        title: in a few words.
        meaning: what is done, with its severity.
        apply: images (N, C, H, W) in [0, 1], example ids int64 (N,) and the seed to images of the same
            shape and range.
    """

    title: str
    meaning: str
    apply: Callable[[Tensor, Tensor, int], Tensor]


def _side(images: Tensor) -> int:
    return min(images.shape[2:])


def _uniform(ids: Tensor, shape: tuple[int, ...], seed: int, number: int) -> Tensor:
    return uniform_noise(ids, shape, seed=seed, stream=_STREAM + number)


def gaussian_noise(images: Tensor, ids: Tensor, seed: int) -> Tensor:
    """Images with normal noise of `NOISE_STD` on every pixel, clipped to [0, 1]."""
    uniform = _uniform(ids, tuple(images.shape[1:]), seed, 0).double()
    # The middle of each of the 2^24 steps: neither end is infinite.
    normal = math.sqrt(2.0) * torch.erfinv(2.0 * (uniform + 2.0**-25) - 1.0)
    return (images + NOISE_STD * normal.to(images)).clamp(0.0, 1.0)


def blur(images: Tensor, ids: Tensor, seed: int) -> Tensor:
    """Images blurred by a Gaussian kernel."""
    from torchvision.transforms.v2.functional import gaussian_blur

    sigma = max(0.5, BLUR_SIDES * _side(images))
    # The kernel's reflected border must lie in the image.
    radius = min(math.ceil(3.0 * sigma), _side(images) - 1)
    return gaussian_blur(images, [2 * radius + 1] * 2, [sigma] * 2).clamp(0.0, 1.0)


def contrast(images: Tensor, ids: Tensor, seed: int) -> Tensor:
    """Images whose deviations from each channel's mean shrink to `CONTRAST`."""
    from torchvision.transforms.v2.functional import adjust_contrast

    # A channel at a time: torchvision knows one or three of them.
    return adjust_contrast(images.flatten(0, 1)[:, None], CONTRAST).view(images.shape)


def shift(images: Tensor, ids: Tensor, seed: int) -> Tensor:
    """Images moved in one of eight directions; what leaves is lost, the border is repeated."""
    length = max(1, round(SHIFT_SIDES * _side(images)))
    which = (_uniform(ids, (1,), seed, 1)[:, 0] * len(_DIRECTIONS)).long()
    moves = length * torch.tensor(_DIRECTIONS, device=images.device)[which]
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - moves[:, :1]
    columns = torch.arange(width, device=images.device) - moves[:, 1:]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    number = torch.arange(len(images), device=images.device)[:, None, None]
    # Two index arrays around a slice: the channels come last.
    moved = images[number, :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def occlusion(images: Tensor, ids: Tensor, seed: int) -> Tensor:
    """Images with a grey square somewhere."""
    side = max(1, round(OCCLUSION_SIDES * _side(images)))
    place = _uniform(ids, (2,), seed, 2)
    masks = []
    for axis, size in enumerate(images.shape[2:]):
        start = (place[:, axis] * (size - side + 1)).long()[:, None]
        position = torch.arange(size, device=images.device)
        masks.append((position >= start) & (position < start + side))
    covered = masks[0][:, :, None] & masks[1][:, None, :]
    return torch.where(covered[:, None], torch.full_like(images, 0.5), images)


def noise_images(images: Tensor, ids: Tensor, seed: int) -> Tensor:
    """Images of uniform noise in place of the given ones."""
    return _uniform(ids, tuple(images.shape[1:]), seed, 3).to(images)


CORRUPTIONS: dict[str, Shift] = {
    "gaussian_noise": Shift(
        "noise added",
        f"test images with normal noise of standard deviation {NOISE_STD:g}",
        gaussian_noise,
    ),
    "blur": Shift(
        "blurred",
        "test images blurred by a Gaussian of a twentieth of the shorter side (at least half a pixel)",
        blur,
    ),
    "contrast": Shift(
        "low contrast", f"test images with contrast times {CONTRAST:g} in each channel", contrast
    ),
    "shift": Shift(
        "moved",
        "test images moved in one of eight directions, an eighth of the shorter side along each axis",
        shift,
    ),
    "occlusion": Shift(
        "occluded", "test images with a grey square a third of the shorter side wide", occlusion
    ),
}

NOISE = Shift("uniform noise", "images of uniform noise", noise_images)
