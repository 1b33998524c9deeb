"""Image files to arrays of bytes, with every way they can be wrong turned into a sentence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from fkd.core.errors import DataError
from fkd.data._files import unreadable

_GREY_MODES = frozenset({"1", "L"})
#: More than 8 bits a channel: converting would quietly throw away most of what they hold.
_DEEP_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
_BLOCK = 256
_LARGE_FILE = 2**14


def image_size(path: str) -> tuple[int, int, bool]:
    """Height, width, and whether the image is grey; reads the header only.

    Raises:
        DataError: the file is no image, cannot be read, or has more than 8 bits a channel.
    """
    with _opened(path) as image:
        return image.height, image.width, image.mode in _GREY_MODES


def decode(paths: Sequence[str], image_shape: tuple[int, int, int], reference: str) -> np.ndarray:
    """All images as uint8 (N, C, H, W): grey for one channel, else what ``convert("RGB")`` gives.

    Args:
        paths: the files.
        image_shape: (C, H, W) that every image must have; grey images become colour, not the reverse.
        reference: a file that has this shape, named where another differs.

    Raises:
        DataError: a file is damaged or of another size; the sentence names it.
    """
    values = np.empty((len(paths), *image_shape), dtype=np.uint8)

    def decode_block(start: int) -> None:
        for row in range(start, min(start + _BLOCK, len(paths))):
            values[row] = _decode_one(paths[row], image_shape, reference)

    blocks = range(0, len(paths), _BLOCK)
    with ThreadPoolExecutor(_workers(paths)) as pool:
        try:
            for _ in pool.map(decode_block, blocks):
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return values


def _workers(paths: Sequence[str]) -> int:
    """Threads worth having: Pillow lets others run while it decodes, which small files do not repay."""
    return min(4, os.cpu_count() or 1) if Path(paths[0]).stat().st_size > _LARGE_FILE else 1


def _decode_one(path: str, image_shape: tuple[int, int, int], reference: str) -> np.ndarray:
    channels, height, width = image_shape
    with _opened(path) as image:
        if (image.height, image.width) != (height, width):
            raise DataError(
                f"All images must have one size, but {path} is {image.width}x{image.height} pixels "
                f"and {reference} is {width}x{height}; resize them to one size."
            )
        if channels == 1 and image.mode not in _GREY_MODES:
            raise DataError(
                f"The image {path} is in colour ({image.mode}) while {reference} and the others "
                "looked at are grey; convert all to grey or all to colour."
            )
        try:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        except Exception as error:  # Pillow's readers raise almost anything on damaged files
            raise _damaged(path, error) from None
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _opened(path: str) -> Image.Image:
    try:
        image = Image.open(path)
    except PermissionError as error:
        raise unreadable(Path(path), error) from None
    except Exception as error:  # Pillow's readers raise almost anything on damaged files
        raise _damaged(path, error) from None
    if image.mode in _DEEP_MODES:
        image.close()
        raise DataError(
            f"The image {path} has more than 8 bits a channel (mode {image.mode}); convert it to "
            "8 bits."
        )
    return image


def _damaged(path: str, error: Exception) -> DataError:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    if path in reason or "cannot identify image file" in reason:
        reason = "it is no image this program can read"
    return DataError(f"The image {path} is damaged ({reason}); replace or remove it.")
