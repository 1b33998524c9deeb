"""Small data sets in every layout that fkd.data reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from fkd.data._idx import IdxDataSet


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, counts: Mapping[str, int], side: int = 28, seed: int = 0) -> None:
    """The four files of MNIST's layout, with random content."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        count = counts[split]
        images = random.integers(0, 256, (count, side, side))
        labels = random.integers(0, 10, count)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


class TinyIdx(IdxDataSet):
    """MNIST's layout with a handful of examples and no known fingerprint."""

    name = "tiny"
    title = "Tiny"
    licence = "none"
    classes = tuple("0123456789")
    image_shape = (1, 5, 5)
    folder_name = "MNIST"
    num_examples = {"train": 12, "test": 6}


def write_image(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    """One image file of uint8 (H, W) or (H, W, 3); the suffix decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


def write_folder(
    root: Path,
    *,
    splits: tuple[str, ...] = ("train", "test"),
    classes: tuple[str, ...] = ("cat", "dog"),
    each: int = 3,
    shape: tuple[int, ...] = (4, 6, 3),
    suffix: str = ".png",
    seed: int = 0,
) -> None:
    """An ImageFolder of random images; no split folders for ``splits=("",)``."""
    random = np.random.default_rng(seed)
    for split in splits:
        for name in classes:
            for number in range(each):
                pixels = random.integers(0, 256, shape).astype(np.uint8)
                write_image(root / split / name / f"{number:03d}{suffix}", pixels)


def npz_arrays(
    shape: tuple[int, ...] = (5, 4), classes: int = 3, each: int = 2, seed: int = 0
) -> dict[str, np.ndarray]:
    """The four arrays of a MedMNIST-style file; every class occurs in both splits."""
    random = np.random.default_rng(seed)
    count = classes * each
    arrays = {}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, *shape)).astype(np.uint8)
        arrays[f"{split}_labels"] = np.tile(np.arange(classes, dtype=np.uint8), each)[:, None]
    return arrays
