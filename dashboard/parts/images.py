"""Arrays to crisp pictures: enlarged without smoothing, differences on a fixed diverging scale."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

#: Pictures are enlarged to about this size, so that screens with dense pixels stay sharp.
_TARGET = 320
#: Ends and middle of the diverging scale (Okabe-Ito blue, near white, vermilion).
_BELOW = np.array([0x00, 0x72, 0xB2], dtype=np.float64)
_MIDDLE = np.array([0xF7, 0xF7, 0xF7], dtype=np.float64)
_ABOVE = np.array([0xD5, 0x5E, 0x00], dtype=np.float64)


def picture(image: np.ndarray) -> bytes:
    """An image as PNG.

    Args:
        image: (C, H, W) in [0, 1]; one channel is drawn grey, three as red, green and blue.
    """
    pixels = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
    if pixels.shape[0] == 3:
        return _png(np.moveaxis(pixels, 0, 2))
    return _png(pixels[0])


def difference(image: np.ndarray, perturbed: np.ndarray, epsilon: float) -> bytes:
    """Perturbed minus image as PNG: -epsilon blue, 0 white, +epsilon vermilion.

    The scale is fixed by epsilon, never by the image, so pictures can be compared.  Of several
    channels the one that changed most is shown.

    Args:
        image: (C, H, W) in [0, 1].
        perturbed: (C, H, W) in [0, 1].
        epsilon: the radius.
    """
    change = perturbed.astype(np.float64) - image.astype(np.float64)
    strongest = np.abs(change).argmax(axis=0)[None]
    signed = np.take_along_axis(change, strongest, axis=0)[0]
    share = np.clip(signed / epsilon, -1.0, 1.0) if epsilon > 0 else np.zeros_like(signed)
    end = np.where(share[..., None] < 0, _BELOW, _ABOVE)
    colours = _MIDDLE + np.abs(share)[..., None] * (end - _MIDDLE)
    return _png(np.rint(colours).astype(np.uint8))


def _png(pixels: np.ndarray) -> bytes:
    factor = max(1, _TARGET // max(pixels.shape[:2]))
    enlarged = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(enlarged).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
