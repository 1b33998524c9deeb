"""Random shifts and mirrorings of a batch, each example its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fkd.core.seeding import uniform_noise

#: Streams below this belong to the methods' attacks (`Batch.uniform`); steps never get this far.
_STREAM = 1 << 40


def augment(
    images: Tensor, example_ids: Tensor, *, shift: int, flip: bool, seed: int, step: int
) -> Tensor:
    """Shift each image by up to ``shift`` pixels (0 comes in at the edge) and mirror half of them.

    Args:
        images: (N, C, H, W).
        example_ids: int64 (N,).
        shift: largest shift along each axis.
        flip: whether to mirror left and right.
        seed: the run's seed.
        step: the step; with seed and id it determines each example's draw.
    """
    if not shift and not flip:
        return images
    draws = uniform_noise(example_ids, (3,), seed=seed, stream=_STREAM + step)
    if shift:
        _, _, height, width = images.shape
        offsets = (draws[:, :2] * (2 * shift + 1)).long()
        rows = offsets[:, 0, None] + torch.arange(height, device=images.device)
        columns = offsets[:, 1, None] + torch.arange(width, device=images.device)
        padded = functional.pad(images, (shift, shift, shift, shift))
        which = torch.arange(len(images), device=images.device)
        # Indexing with (N,1,1), (N,H,1), (N,1,W) puts channels last.
        images = padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        images = images.permute(0, 3, 1, 2).contiguous()
    if flip:
        images = torch.where((draws[:, 2] < 0.5)[:, None, None, None], images.flip(-1), images)
    return images
