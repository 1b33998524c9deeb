"""Sets published as four IDX files, in the layout torchvision writes (``<folder>/raw/*-ubyte``).

Loading reads the files itself: torchvision's reader takes seconds to import and meets a truncated file
with a bare assertion.  Downloading takes addresses and checksums from torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from fkd.core.errors import DataError
from fkd.core.paths import data_dir
from fkd.core.progress import ProgressCallback
from fkd.data._cached import CachedDataSet
from fkd.data._download import RemoteFile, fetch, staging, swap_in, unpack_gzip
from fkd.data._files import check_data_folder, file_state, hash_stamps, unreadable
from fkd.data._pixels import Pixels
from fkd.data.base import SplitName

_UNSIGNED_BYTES = 0x08
_SPLIT_PREFIX: Mapping[SplitName, str] = {"train": "train", "test": "t10k"}


class IdxDataSet(CachedDataSet):
    """Grey images of one size with their labels, in IDX files of known length."""

    can_download = True
    #: Its folder in ``FKD_DATA_DIR``; torchvision's class has the same name.
    folder_name: ClassVar[str]
    num_examples: ClassVar[Mapping[str, int]] = {"train": 60_000, "test": 10_000}

    def is_available(self) -> bool:
        """Whether all four files are there with their published lengths."""
        try:
            return all(self._fault(path, size) is None for path, size in self._sizes().items())
        except DataError:
            return False

    def problem(self) -> str | None:
        """Which file is missing, truncated or unreadable; None where all or none are there."""
        try:
            check_data_folder()
            faults = [self._fault(path, size) for path, size in self._sizes().items()]
            is_absent = all(file_state(path) is None for path in self._sizes())
        except DataError as error:
            return str(error)
        return None if is_absent else next((fault for fault in faults if fault), None)

    def download(self, progress: ProgressCallback | None = None) -> None:
        """Fetch, verify and unpack the four files, then move them into place.

        Raises:
            DataError: the download failed; what was there before is untouched.
            Cancelled: the callback asked to stop.
        """
        with staging(self.name, progress) as temporary:
            if self._is_intact():
                return
            staged = temporary / "raw"
            sizes = {path.name: size for path, size in self._sizes().items()}
            for remote in self._remote_files():
                packed = fetch(remote, temporary / "packed", self.title, progress)
                name = remote.name.removesuffix(".gz")
                unpack_gzip(packed, staged / name, sizes[name], self.title)
                packed.unlink()
            for split in _SPLIT_PREFIX:
                self._verify(split, self._read_from(staged, split).fingerprint())
            swap_in(staged, self._folder(), self.title)

    def _remote_files(self) -> list[RemoteFile]:
        import torchvision.datasets

        published = getattr(torchvision.datasets, self.folder_name)
        return [
            RemoteFile(name, tuple(f"{mirror}{name}" for mirror in published.mirrors), md5)
            for name, md5 in published.resources
        ]

    def _is_intact(self) -> bool:
        try:
            for split in _SPLIT_PREFIX:
                self.load(split)
        except DataError:
            return False
        return True

    def _folder(self) -> Path:
        return data_dir() / self.folder_name / "raw"

    def _place(self) -> str:
        return str(self._folder().absolute())

    def _paths(self, split: SplitName, folder: Path | None = None) -> tuple[Path, Path]:
        """Where the split's images and labels are, in torchvision's place or another folder."""
        folder = folder or self._folder()
        prefix = _SPLIT_PREFIX[split]
        return folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-labels-idx1-ubyte"

    def _shapes(self, split: SplitName) -> tuple[tuple[int, ...], tuple[int, ...]]:
        count = self.num_examples[split]
        return (count, *self.image_shape[1:]), (count,)

    def _sizes(self) -> dict[Path, int]:
        """Every file with its published length in bytes."""
        return {
            path: 4 + 4 * len(shape) + math.prod(shape)
            for split in _SPLIT_PREFIX
            for path, shape in zip(self._paths(split), self._shapes(split), strict=True)
        }

    def _fault(self, path: Path, size: int) -> str | None:
        found = file_state(path)
        if found is None:
            return self._absent_sentence(path)
        if found.size != size:
            what = "is truncated" if found.size < size else "is not the published one"
            return (
                f"{self.title}'s file {path} {what}: it holds {found.size} of {size} bytes; "
                f"run `python -m fkd data download {self.name}` to fetch it again."
            )
        return None

    def _absent_sentence(self, path: Path) -> str:
        return (
            f"{self.title} is not in the data folder (no file {path}); run `python -m fkd data "
            f"download {self.name}`, or set FKD_DATA_DIR to the folder that holds "
            f"{self.folder_name}/raw."
        )

    def _state(self, split: SplitName) -> str:
        check_data_folder()
        stamps: list[str] = []
        for path in self._paths(split):
            fault = self._fault(path, self._sizes()[path])
            if fault is not None:
                raise DataError(fault)
            state = file_state(path)
            if state is None:
                raise DataError(self._absent_sentence(path))
            stamps.append(state.stamp)
        return hash_stamps(stamps)

    def _read(self, split: SplitName) -> Pixels:
        return self._read_from(self._folder(), split)

    def _read_from(self, folder: Path, split: SplitName) -> Pixels:
        images, labels = (
            self._read_file(path, shape)
            for path, shape in zip(self._paths(split, folder), self._shapes(split), strict=True)
        )
        return Pixels(images[:, None], labels.astype(np.int64))

    def _read_file(self, path: Path, shape: tuple[int, ...]) -> np.ndarray:
        """One IDX file: two zero bytes, type, number of dimensions, big-endian sizes, the bytes."""
        header = bytes([0, 0, _UNSIGNED_BYTES, len(shape)])
        header += b"".join(size.to_bytes(4, "big") for size in shape)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise unreadable(path, error) from None
        if not content.startswith(header) or len(content) != len(header) + math.prod(shape):
            raise DataError(
                f"{self.title}'s file {path} does not hold unsigned bytes of shape {shape} in IDX "
                f"format; run `python -m fkd data download {self.name}` to fetch it again."
            )
        return np.frombuffer(content, dtype=np.uint8, offset=len(header)).reshape(shape)
