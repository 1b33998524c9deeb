"""Which images a folder holds, in torchvision's order, and what a glance at a few of them tells."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fkd.core.errors import DataError
from fkd.data._files import path_in, stamp, unreadable
from fkd.data.base import SplitName

#: What torchvision.datasets.folder.IMG_EXTENSIONS lists.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_TRAIN_NAMES = ("train", "training")
_TEST_NAMES = ("test", "testing", "val", "valid", "validation")
#: Where a folder has no split of its own: the share whose hash makes them test examples.
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Listing:
    """A split's images.

    Attributes:
        stamps: each file's stamp, in the order of ``torchvision.datasets.ImageFolder``.
        labels: int64 (N,), positions in the train split's classes.
    """

    stamps: list[str]
    labels: np.ndarray

    def paths(self) -> list[str]:
        """Each file's path."""
        return [path_in(one) for one in self.stamps]


@dataclass(frozen=True)
class Layout:
    """How a folder is divided.

    Attributes:
        roots: the folder that holds each split's class folders; both the same where the folder has no
            split of its own.
        classes: names of the train split's class folders, sorted.
    """

    roots: tuple[tuple[SplitName, Path], ...]
    classes: tuple[str, ...]

    @property
    def is_split_by_hash(self) -> bool:
        """Whether this program divides the folder."""
        return self.roots[0][1] == self.roots[1][1]

    def root(self, split: SplitName) -> Path:
        """The folder with the class folders of a split."""
        return dict(self.roots)[split]


def find_layout(folder: Path) -> Layout:
    """Train and test (or val, valid) subfolders, else one folder of classes.

    Raises:
        DataError: it cannot be read or has fewer than two class folders.
    """
    inside = {name.lower(): name for name in reversed(_subfolders(folder))}
    train = next((inside[name] for name in _TRAIN_NAMES if name in inside), None)
    test = next((inside[name] for name in _TEST_NAMES if name in inside), None)
    if train is not None and test is not None:
        roots = folder / train, folder / test
    elif train is not None and len(inside) == 1:
        roots = folder / train, folder / train
    else:
        roots = folder, folder
    classes = tuple(_subfolders(roots[0]))
    if len(classes) < 2:
        raise DataError(
            f"The folder {roots[0]} has {len(classes)} class folders and needs at least two; sort "
            f"the images into one folder per class, {folder.name}/train/CLASS/ and "
            f"{folder.name}/test/CLASS/ or just {folder.name}/CLASS/."
        )
    return Layout((("train", roots[0]), ("test", roots[1])), classes)


def list_split(layout: Layout, split: SplitName) -> Listing:
    """The split's images.

    Raises:
        DataError: a folder cannot be read, a class of the train split is empty, the test split has a
            class that the train split has not, or the split has no image.
    """
    root = layout.root(split)
    strangers = set(_subfolders(root)) - set(layout.classes)
    if strangers:
        raise DataError(
            f"The {split} folder {root} has the class '{min(strangers)}', which the train folder has "
            "not; give both the same class folders."
        )
    stamps: list[str] = []
    counts = []
    for name in layout.classes:
        found = list_images(root / name) if (root / name).is_dir() else []
        if not found and (split == "train" or layout.is_split_by_hash):
            raise DataError(
                f"The class folder {root / name} holds no image ({', '.join(EXTENSIONS)}); add some "
                "or remove the folder."
            )
        if layout.is_split_by_hash:
            found = [one for one in found if _member(root, one) == split]
        stamps += found
        counts.append(len(found))
    if not stamps:
        raise DataError(f"The folder {root} holds no image for the {split} split; add more images.")
    return Listing(stamps, np.repeat(np.arange(len(counts), dtype=np.int64), counts))


def list_images(folder: Path) -> list[str]:
    """The stamp of every image below a folder: folders sorted, then names within each.

    Hidden files and folders are left out (macOS and notebooks leave copies there that are no images).

    Raises:
        DataError: a folder or file below cannot be read.
    """
    found: dict[str, list[str]] = {}
    _walk(str(folder), found, ancestors=())
    return [one for path in sorted(found) for one in sorted(found[path])]


def first_image(folder: Path) -> str | None:
    """The image that `list_images` puts first; quick, since it asks for no file's state.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_image_name(entry.name)]
    except OSError as error:
        raise unreadable(folder, error) from None
    for name in sorted(names):
        if (folder / name).is_file():
            return str(folder / name)
    return next((path_in(one) for one in list_images(folder)), None)


def _is_image_name(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _walk(folder: str, found: dict[str, list[str]], ancestors: tuple[str, ...]) -> None:
    stamps: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    if not entry.name.startswith(".") and not _leads_back(entry, ancestors, folder):
                        _walk(entry.path, found, (*ancestors, folder))
                elif _is_image_name(entry.name):
                    stamps.append(stamp(entry.path, entry.stat()))
    except OSError as error:
        raise unreadable(error.filename or folder, error) from None
    found[folder] = stamps


def _leads_back(entry: os.DirEntry[str], ancestors: tuple[str, ...], folder: str) -> bool:
    """Whether a folder is a link to one that it lies in: following it would never end."""
    if not entry.is_symlink():
        return False
    target = Path(entry.path).resolve()
    here = Path(folder).resolve()
    return here.is_relative_to(target) or target in (Path(one).resolve() for one in ancestors)


def _subfolders(folder: Path) -> list[str]:
    """Names of the folders inside, sorted, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from None


def _member(root: Path, one: str) -> SplitName:
    """The split that an image belongs to, by its path alone: adding images moves no other one.

    The path is written the same way on every platform: relative, with slashes, in normal form C.
    """
    relative = Path(path_in(one)).relative_to(root).as_posix()
    normal = unicodedata.normalize("NFC", relative).encode(errors="surrogateescape")
    number = int.from_bytes(hashlib.sha256(normal).digest()[:8], "big")
    return "test" if number < TEST_SHARE * 2**64 else "train"
