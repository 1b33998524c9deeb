"""CIFAR-10: photographs of 32x32 pixels."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import numpy as np

from fkd.core.errors import DataError
from fkd.core.paths import data_dir
from fkd.core.progress import ProgressCallback
from fkd.data._cached import CachedDataSet
from fkd.data._download import RemoteFile, extract_members, fetch, staging, swap_in
from fkd.data._files import check_data_folder, file_state, hash_stamps
from fkd.data._pixels import Pixels
from fkd.data._registry import DATA_SETS
from fkd.data.base import SplitName

_FOLDER = "cifar-10-batches-py"
_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
_COUNTS = {"train": 50_000, "test": 10_000}
#: warnings.catch_warnings changes the whole process, so only one thread at a time may be inside.
_WARNINGS_LOCK = threading.Lock()


@DATA_SETS.register("cifar10")
class Cifar10(CachedDataSet):
    """60,000 photographs of ten classes, 32x32 colour; downloaded on request.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009; the published
    50,000 train and 10,000 test examples in torchvision's order.  The files are pickles, so torchvision
    compares each with its published checksum before it is opened.
    """

    title = "CIFAR-10"
    licence = "Not stated by its authors; published for research"
    source = "torchvision"
    classes = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    image_shape = (3, 32, 32)
    can_download = True
    epsilons = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
    reserved_names = (_FOLDER,)
    notes_fingerprint = True
    keeps_pixels = True

    def is_available(self) -> bool:
        """Whether all batches are there."""
        try:
            return all(file_state(path) is not None for path in self._paths())
        except DataError:
            return False

    def problem(self) -> str | None:
        """Which batch is missing or unreadable; None where all or none are there."""
        try:
            check_data_folder()
            missing = [path for path in self._paths() if file_state(path) is None]
        except DataError as error:
            return str(error)
        return self._absent_sentence(missing[0]) if 0 < len(missing) < len(_FILES) else None

    def download(self, progress: ProgressCallback | None = None) -> None:
        """Fetch, verify and unpack the published archive, then move it into place.

        Raises:
            DataError: the download failed; what was there before is untouched.
            Cancelled: the callback asked to stop.
        """
        from torchvision.datasets import CIFAR10

        with staging(self.name, progress) as temporary:
            if self._is_intact():
                return
            remote = RemoteFile(CIFAR10.filename, (CIFAR10.url,), CIFAR10.tgz_md5)
            packed = fetch(remote, temporary / "packed", self.title, progress)
            members = [f"{_FOLDER}/{name}" for name in _FILES]
            extract_members(packed, members, temporary / _FOLDER, self.title)
            packed.unlink()
            self._read_from(temporary, "test")
            swap_in(temporary / _FOLDER, self._folder(), self.title)

    def _is_intact(self) -> bool:
        try:
            self.load("train")
            self.load("test")
        except DataError:
            return False
        return True

    def _folder(self) -> Path:
        return data_dir() / _FOLDER

    def _paths(self) -> list[Path]:
        return [self._folder() / name for name in _FILES]

    def _place(self) -> str:
        return str(self._folder().absolute())

    def _absent_sentence(self, path: Path) -> str:
        return (
            f"CIFAR-10 is not in the data folder (no file {path}); run `python -m fkd data download "
            f"cifar10`, or set FKD_DATA_DIR to the folder that holds {_FOLDER}."
        )

    def _state(self, split: SplitName) -> str:
        check_data_folder()
        stamps = []
        for path in self._paths():
            state = file_state(path)
            if state is None:
                raise DataError(self._absent_sentence(path))
            stamps.append(state.stamp)
        return hash_stamps(stamps, self.image_shape)

    def _read(self, split: SplitName) -> Pixels:
        return self._read_from(data_dir(), split)

    def _read_from(self, root: Path, split: SplitName) -> Pixels:
        from torchvision.datasets import CIFAR10

        try:
            # The published pickles are of Python 2; numpy warns of how those spelled its types.
            with _WARNINGS_LOCK, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                published = CIFAR10(str(root), train=split == "train", download=False)
        except (RuntimeError, OSError, EOFError, KeyError, ValueError, TypeError) as error:
            reason = str(error).split(" You can use")[0].rstrip(".")
            raise DataError(
                f"CIFAR-10 in {root / _FOLDER} is truncated or not the published one ({reason}); "
                "run `python -m fkd data download cifar10` to fetch it again."
            ) from None
        values = np.ascontiguousarray(np.asarray(published.data).transpose(0, 3, 1, 2))
        labels = np.asarray(published.targets, dtype=np.int64)
        shape = (_COUNTS[split], *self.image_shape)
        if values.shape != shape or labels.shape != shape[:1] or values.dtype != np.uint8:
            raise DataError(
                f"CIFAR-10's {split} split in {root / _FOLDER} has the shape {values.shape} with "
                f"{len(labels)} labels instead of {shape}; run `python -m fkd data download cifar10`."
            )
        return Pixels(values, labels)
