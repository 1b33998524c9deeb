"""Decoded images on their way from files to tensors, and the hash that says what they hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import psutil
import torch

from fkd.core.errors import DataError
from fkd.core.hashing import hash_arrays
from fkd.data.base import Split

_GIB = 2**30


@dataclass(frozen=True)
class Pixels:
    """Images as their files hold them.

    Attributes:
        values: uint8 (N, C, H, W) of whole numbers up to ``scale``, or float32 in [0, 1].
        labels: int64 (N,).
        scale: what ``values`` are divided by to lie in [0, 1]; 1 for float32.
    """

    values: np.ndarray
    labels: np.ndarray
    scale: int = 255

    def fingerprint(self) -> str:
        """SHA-256 (hex) of pixels, labels and scale, with their shapes; the same on every platform."""
        little_endian = self.values.dtype.newbyteorder("<")
        return hash_arrays(
            [
                self.values.astype(little_endian, copy=False),
                self.labels.astype("<i8", copy=False),
                np.array([self.scale], dtype="<i8"),
            ]
        )

    def to_split(self, fingerprint: str) -> Split:
        """Images in [0, 1]; the division is rounded correctly, so every machine gets the same floats."""
        images = torch.empty(self.values.shape, dtype=torch.float32)
        np.copyto(images.numpy(), self.values, casting="unsafe")
        if self.scale != 1:
            images.div_(self.scale)
        return Split(images, torch.from_numpy(self.labels.astype(np.int64)), fingerprint)


def check_memory(name: str, count: int, image_shape: tuple[int, int, int]) -> None:
    """Refuse a split that would not fit, before anything is decoded.

    Raises:
        DataError: bytes and float32 together exceed the memory that is free.
    """
    needed = count * int(np.prod(image_shape, dtype=np.int64)) * (1 + 4)
    free = psutil.virtual_memory().available
    if needed > free:
        raise DataError(
            f"The data set '{name}' needs {needed / _GIB:.1f} GiB of memory for {count} images of "
            f"shape {image_shape}, and {free / _GIB:.1f} GiB are free; use fewer or smaller images."
        )
