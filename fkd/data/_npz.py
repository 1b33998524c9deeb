"""MedMNIST-style ``.npz`` files, dropped into the data folder."""

from __future__ import annotations

import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import numpy as np

from fkd.core.errors import DataError
from fkd.data._cached import CachedDataSet
from fkd.data._files import FileState, file_state, hash_stamps
from fkd.data._pixels import Pixels, check_memory
from fkd.data.base import SplitName

_REQUIRED = ("train_images", "train_labels", "test_images", "test_labels")
_NAMES = "class_names"
_MOST_CHANNELS = 4
#: What numpy and zipfile raise on files that are truncated, altered, encrypted or no archives.
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


class NpzSet(CachedDataSet):
    """Arrays ``train_images, train_labels, test_images, test_labels``, as MedMNIST publishes them.

    Images are uint8 (N, H, W) or (N, H, W, C), or floating point in [0, 1]; labels are whole numbers
    0 to K-1, (N,) or (N, 1).  ``val_*`` is ignored.  ``class_names``, K texts, is optional.  Nothing is
    ever unpickled.

    Args:
        path: the file; its name without ``.npz`` becomes the set's name.

    Raises:
        DataError: the file is damaged, lacks an array, or holds one of the wrong shape.
    """

    licence = "Not stated (your own data)"
    notes_fingerprint = True

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = self.title = path.stem
        self.source = str(self.path)
        summary = _summary(self.path)
        self.classes = summary.classes
        self.image_shape = summary.image_shape

    def is_available(self) -> bool:
        """Whether the file is still there."""
        return self.path.is_file()

    def _place(self) -> str:
        return str(self.path)

    def _state(self, split: SplitName) -> str:
        summary = _summary(self.path)
        if (summary.classes, summary.image_shape) != (self.classes, self.image_shape):
            raise DataError(
                f"The file {self.path} now holds other classes or image sizes; open it again."
            )
        return hash_stamps([summary.state.stamp])

    def _read(self, split: SplitName) -> Pixels:
        check_memory(self.name, _summary(self.path).counts[split], self.image_shape)
        images = _array(self.path, f"{split}_images")
        labels = _labels(self.path, split)
        if len(images) != len(labels):
            _refuse(self.path, f"has {len(images)} {split} images and {len(labels)} labels")
        if _image_shape(self.path, f"{split}_images", images.shape) != self.image_shape:
            _refuse(self.path, "changed while it was read")
        values = _values(self.path, f"{split}_images", images)
        values = values[:, None] if values.ndim == 3 else values.transpose(0, 3, 1, 2)
        scale = 255 if values.dtype == np.uint8 else 1
        return Pixels(np.ascontiguousarray(values), labels, scale)


@dataclass(frozen=True)
class _Summary:
    """What headers and labels tell, without reading the images."""

    state: FileState
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    counts: dict[str, int]


_SUMMARIES: dict[Path, _Summary] = {}
_SUMMARIES_LOCK = threading.Lock()
_MOST_SUMMARIES = 256


def _summary(path: Path) -> _Summary:
    """The file's summary, remembered until it changes: pages ask at each draw."""
    state = _present(path)
    with _SUMMARIES_LOCK:
        known = _SUMMARIES.get(path)
    if known is not None and known.state == state:
        return known
    summary = _summarise(path, state)
    with _SUMMARIES_LOCK:
        if len(_SUMMARIES) >= _MOST_SUMMARIES:
            _SUMMARIES.clear()
        _SUMMARIES[path] = summary
    return summary


def _summarise(path: Path, state: FileState) -> _Summary:
    shapes = {}
    try:
        with zipfile.ZipFile(path) as archive:
            held = {name.removesuffix(".npy") for name in archive.namelist()}
            missing = [name for name in _REQUIRED if name not in held]
            if not missing:
                for name in ("train_images", "test_images"):
                    with archive.open(f"{name}.npy") as member:
                        shapes[name] = _header_shape(member)
    except _DAMAGE as error:
        raise _damaged(path, error) from None
    if missing:
        found = ", ".join(sorted(held)[:8]) or "nothing"
        _refuse(path, f"has no array '{missing[0]}' (it holds {found})")
    image_shapes = {name: _image_shape(path, name, shape) for name, shape in shapes.items()}
    train, test = image_shapes["train_images"], image_shapes["test_images"]
    if train != test:
        _refuse(path, f"has train images of shape {train} and test images of shape {test}")
    classes = _class_names(path, held, np.union1d(_labels(path, "train"), _labels(path, "test")))
    counts = {split: shapes[f"{split}_images"][0] for split in ("train", "test")}
    return _Summary(state, classes, train, counts)


def _present(path: Path) -> FileState:
    state = file_state(path)
    if state is None:
        raise DataError(f"There is no file {path} any more; put it back into the data folder.")
    return state


def _header_shape(member: IO[bytes]) -> tuple[int, ...]:
    version = np.lib.format.read_magic(member)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"array format {version} is not supported")
    shape, _, _ = read(member)
    return shape


def _array(path: Path, name: str) -> np.ndarray:
    """One array of the file; object arrays are refused, they would have to be unpickled."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays[name]
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def _image_shape(path: Path, name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W) of images stored as (N, H, W) or (N, H, W, C)."""
    if len(shape) not in (3, 4) or 0 in shape:
        _refuse(path, f"has '{name}' of shape {shape} instead of (N, H, W) or (N, H, W, C)")
    if len(shape) == 3:
        return 1, shape[1], shape[2]
    if shape[3] <= _MOST_CHANNELS:
        return shape[3], shape[1], shape[2]
    what = "channels must come last" if shape[1] <= _MOST_CHANNELS else "volumes are not supported"
    return _refuse(path, f"has '{name}' of shape {shape} instead of (N, H, W, C), {what}")


def _values(path: Path, name: str, images: np.ndarray) -> np.ndarray:
    """uint8 as it is; floating point as float32, if all of it lies in [0, 1]."""
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        _refuse(path, f"has '{name}' of type {images.dtype} instead of uint8 or floats in [0, 1]")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0.0 and high <= 1.0):  # written so that NaN is refused too
        _refuse(path, f"has '{name}' with values from {low:g} to {high:g} instead of [0, 1]")
    return images.astype(np.float32)


def _labels(path: Path, split: SplitName) -> np.ndarray:
    """int64 (N,), none negative."""
    name = f"{split}_labels"
    labels = _array(path, name)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.shape[1] > 1:
        _refuse(
            path,
            f"has '{name}' with {labels.shape[1]} columns: one label per image is needed, and "
            "multi-label sets are not supported",
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        _refuse(
            path,
            f"has '{name}' of type {labels.dtype} and shape {labels.shape} instead of whole numbers "
            "(N,) or (N, 1)",
        )
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        _refuse(path, f"has '{name}' from {labels.min()} to {labels.max()} instead of 0 to K-1")
    return labels.astype(np.int64)


def _class_names(path: Path, held: set[str], present: np.ndarray) -> tuple[str, ...]:
    """Given names, else the numbers; ``present`` are the labels that occur, sorted."""
    if _NAMES in held:
        names = _array(path, _NAMES)
        if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != len(names):
            _refuse(path, f"has '{_NAMES}' that is not a list of distinct texts")
        if present[-1] >= len(names) or len(names) < 2:
            _refuse(path, f"has {len(names)} class names and labels up to {present[-1]}")
        return tuple(names.tolist())
    count = int(present[-1]) + 1
    if count < 2 or len(present) != count:
        shown = ", ".join(map(str, present[:8])) + (", ..." if len(present) > 8 else "")
        _refuse(path, f"has the labels {shown} instead of every one of 0 to K-1 for K >= 2 classes")
    return tuple(map(str, range(count)))


def _refuse(path: Path, what: str) -> NoReturn:
    raise DataError(
        f"The file {path} {what}; it must be laid out as MedMNIST's, with {', '.join(_REQUIRED)}."
    )


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return DataError(
        f"The file {path} is truncated or no .npz file of plain arrays ({reason}); replace it."
    )
