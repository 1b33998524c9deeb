"""CIFAR-10 from a packed folder of JPEG files: a lossy copy, kept apart from the published set."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from pathlib import Path
from typing import NoReturn

import numpy as np
import PIL
from PIL import Image

from fkd.core.errors import DataError
from fkd.core.paths import data_dir
from fkd.core.progress import ProgressCallback
from fkd.data._cached import CachedDataSet
from fkd.data._files import check_data_folder, file_state, hash_stamps
from fkd.data._pixels import Pixels, check_memory
from fkd.data._registry import DATA_SETS
from fkd.data.base import SplitName, check_split
from fkd.data.cifar10 import Cifar10

_FILE = "cifar10-jpeg.zip"
#: Files of each class.
_COUNTS = {"train": 5_000, "test": 1_000}
#: A packed file beyond this is not read at all: 60,000 names and images of a kilobyte fit four times.
_LARGEST_ARCHIVE = 2**28
#: The largest JPEG of 32x32 pixels that is unpacked, in bytes; those there are have about 900.
_LARGEST_IMAGE = 2**16
_NAME = re.compile(r"cifar10-jpeg/(train|test)/([a-z]+)/(\d{4})\.jpg")
_DAMAGE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
#: What zipfile raises for passwords and unknown compression, beside the above.
_UNSUPPORTED = (RuntimeError, NotImplementedError)


@DATA_SETS.register("cifar10_jpeg")
class Cifar10Jpeg(CachedDataSet):
    """CIFAR-10 as 60,000 JPEG files in one zip: a lossy copy; figures are reported under this name.

    ``cifar10-jpeg.zip`` holds ``cifar10-jpeg/{train,test}/CLASS/NNNN.jpg``, 5,000 train and 1,000 test
    files of each class; there is no download.  Examples are ordered by number, then by class, so that
    the first examples of a split hold all classes alike (the published order is lost).  Images are
    Pillow's ``convert("RGB")``.  Nothing is unpacked to disk, and names, counts and sizes are checked
    before anything is decoded.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """

    title = "CIFAR-10 (JPEG)"
    licence = Cifar10.licence
    source = f"{_FILE} in the data folder, a lossy copy of CIFAR-10"
    classes = Cifar10.classes
    image_shape = Cifar10.image_shape
    epsilons = Cifar10.epsilons
    notes_fingerprint = True
    keeps_pixels = True
    #: Decoded by libjpeg-turbo, so that results are found where the file is absent.  Not in
    #: `known_fingerprints`: a decoder that rounds another way gives another set, not a damaged one.
    published_fingerprints = {
        "train": "699acd011e5c5da275a6a428da0d896ec2cc833abff7e1d2950f3ef85500f9eb",
        "test": "bfb63041610fd50164f6030da47f4659c198bb4135607dac2fd39f4f38ab4ea5",
    }

    def is_available(self) -> bool:
        """Whether the packed file is there."""
        try:
            return file_state(self._path()) is not None
        except DataError:
            return False

    def problem(self) -> str | None:
        """Why the packed file cannot be looked at; None where it is there or absent."""
        try:
            check_data_folder()
            file_state(self._path())
        except DataError as error:
            return str(error)
        return None

    def fingerprint(self, split: SplitName) -> str:
        """The split's content hash; where the file is absent, that of the file this was made for.

        Raises:
            ConfigError: the split is neither "train" nor "test".
            DataError: the file is there and must be read and cannot.
        """
        check_split(split)
        if self.problem() is None and not self.is_available():
            return self.published_fingerprints[split]
        return super().fingerprint(split)

    def download(self, progress: ProgressCallback | None = None) -> None:
        """Refuse: nobody publishes this copy.

        Raises:
            DataError: always; it names what can be done.
        """
        del progress
        raise DataError(self._advice(f"{self.title} cannot be downloaded"))

    def _path(self) -> Path:
        return data_dir() / _FILE

    def _place(self) -> str:
        return str(self._path().absolute())

    def _advice(self, what: str) -> str:
        return (
            f"{what}; put {_FILE} into the data folder {data_dir()}, or use the published set: "
            "`python -m fkd data download cifar10` and --dataset cifar10."
        )

    def _state(self, split: SplitName) -> str:
        check_data_folder()
        state = file_state(self._path())
        if state is None:
            raise DataError(self._advice(f"{self.title} is not in the data folder"))
        if state.size > _LARGEST_ARCHIVE:
            self._refuse(f"has {state.size:,} bytes, more than the {_LARGEST_ARCHIVE:,} allowed")
        # Pillow's version too: another decoder may round another way.
        return hash_stamps([state.stamp], PIL.__version__, self.image_shape, _COUNTS)

    def _read(self, split: SplitName) -> Pixels:
        count = _COUNTS[split] * len(self.classes)
        check_memory(self.name, count, self.image_shape)
        values = np.empty((count, *self.image_shape), dtype=np.uint8)
        try:
            with zipfile.ZipFile(self._path()) as archive:
                for row, info in enumerate(self._members(archive, split)):
                    values[row] = self._decoded(archive, info)
        except _DAMAGE as error:
            reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
            self._refuse(f"is damaged ({reason})")
        labels = np.tile(np.arange(len(self.classes), dtype=np.int64), _COUNTS[split])
        return Pixels(values, labels)

    def _members(self, archive: zipfile.ZipFile, split: SplitName) -> list[zipfile.ZipInfo]:
        """The split's files by number and class, after every name and size has been checked."""
        expected = {(part, name): count for part, count in _COUNTS.items() for name in self.classes}
        found: dict[tuple[str, str], dict[str, zipfile.ZipInfo]] = {key: {} for key in expected}
        for info in archive.infolist():
            if info.is_dir():
                continue
            match = _NAME.fullmatch(info.filename)
            key = (match[1], match[2]) if match else None
            if match is None or key not in found:
                self._refuse(f"holds {info.filename[:80]!r}")
            if match[3] in found[key]:
                self._refuse(f"holds {info.filename} twice")
            if not 0 < info.file_size <= _LARGEST_IMAGE:
                self._refuse(f"says that {info.filename} has {info.file_size:,} bytes")
            found[key][match[3]] = info
        for (part, name), count in expected.items():
            if len(found[part, name]) != count:
                held = len(found[part, name])
                self._refuse(f"holds {held:,} files of {part}/{name} instead of {count:,}")
        numbered = [
            [files[n] for n in sorted(files)] for (p, _), files in found.items() if p == split
        ]
        return [info for row in zip(*numbered, strict=True) for info in row]

    def _decoded(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
        """One image, uint8 (C, H, W)."""
        _, height, width = self.image_shape
        try:
            with archive.open(info) as member:
                # The size in the header may be a lie; one byte more tells.
                packed = member.read(_LARGEST_IMAGE + 1)
        except _UNSUPPORTED as error:
            self._refuse(f"holds {info.filename}, which cannot be unpacked ({error})")
        if len(packed) > _LARGEST_IMAGE:
            self._refuse(f"holds {info.filename}, which is longer than {_LARGEST_IMAGE:,} bytes")
        try:
            with Image.open(io.BytesIO(packed), formats=["JPEG"]) as image:
                size = image.size
                # Only a header was read so far: pixels of another size are never decoded.
                pixels = np.asarray(image.convert("RGB")) if size == (width, height) else None
        except Exception as error:  # Pillow's readers raise almost anything on damaged files
            reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
            if "cannot identify" in reason:
                reason = "no JPEG image"
            self._refuse(f"holds {info.filename}, which is damaged ({reason})")
        if pixels is None:
            self._refuse(
                f"holds {info.filename} of {size[0]}x{size[1]} pixels instead of {width}x{height}"
            )
        return pixels.transpose(2, 0, 1)

    def _refuse(self, what: str) -> NoReturn:
        raise DataError(
            f"The file {self._path()} {what}; it must hold "
            f"cifar10-jpeg/{{train,test}}/CLASS/NNNN.jpg, {_COUNTS['train']:,} train and "
            f"{_COUNTS['test']:,} test images of each class; restore the original file."
        )
