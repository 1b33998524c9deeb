"""Any folder that ``torchvision.datasets.ImageFolder`` reads, dropped into the data folder."""

from __future__ import annotations

import threading
from pathlib import Path

import PIL

from fkd.core.errors import DataError
from fkd.data._cached import CachedDataSet
from fkd.data._decode import decode, image_size
from fkd.data._files import hash_stamps
from fkd.data._listing import find_layout, first_image, list_split
from fkd.data._pixels import Pixels, check_memory
from fkd.data.base import SplitName

#: Classes whose first image is looked at to learn whether the set is grey.
_GLANCES = 16


class ImageFolderSet(CachedDataSet):
    """Images sorted into one folder per class, with train and test (or val, valid) above or without.

    Without a split of its own, a fifth of the images, chosen by a hash of each path, are test examples.
    All images must have one size.  If the first image of each of the first classes is grey the set has
    one channel, else three; decoding is Pillow's ``convert("RGB")``, as in torchvision.  Decoded pixels
    are kept on disk, so the files are decoded again only when one changes.

    Args:
        root: the folder; its name becomes the set's name.

    Raises:
        DataError: the folder cannot be read, or holds no classes with images.
    """

    licence = "Not stated (your own data)"
    notes_fingerprint = True
    keeps_pixels = True

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.name = self.title = root.name
        self.source = str(self.root)
        glance = _glance(self.root)
        self._layout = glance.layout
        self._reference = glance.reference
        self.classes = glance.layout.classes
        self.image_shape = glance.image_shape
        if self.image_shape[0] == 3:
            self.epsilons = (1 / 255, 2 / 255, 4 / 255, 8 / 255, 0.05, 0.1)

    def is_available(self) -> bool:
        """Whether the folder is still there."""
        return self.root.is_dir()

    def _place(self) -> str:
        return str(self.root)

    def _state(self, split: SplitName) -> str:
        glance = _glance(self.root)
        if (glance.layout, glance.image_shape) != (self._layout, self.image_shape):
            raise DataError(
                f"The folder {self.root} now holds other classes or image sizes; open it again."
            )
        stamps = list_split(self._layout, split).stamps
        # Pillow's version too: another decoder may round another way.
        return hash_stamps(stamps, PIL.__version__, self.image_shape, self.classes)

    def _read(self, split: SplitName) -> Pixels:
        listing = list_split(self._layout, split)
        check_memory(self.name, len(listing.stamps), self.image_shape)
        values = decode(listing.paths(), self.image_shape, self._reference)
        return Pixels(values, listing.labels)


class _Glance:
    """What a few images and the folders' names tell; ``stamps`` says until when it holds."""

    def __init__(self, root: Path) -> None:
        self.layout = find_layout(root)
        train = self.layout.root("train")
        looked_at = [first_image(train / name) for name in self.layout.classes[:_GLANCES]]
        firsts = [path for path in looked_at if path is not None]
        if not firsts:
            raise DataError(
                f"The folder {train} holds no image in its class folders "
                f"({', '.join(self.layout.classes[:3])}); put some there."
            )
        looks = [image_size(path) for path in firsts]
        self.reference = firsts[0]
        height, width, _ = looks[0]
        is_grey = all(grey for _, _, grey in looks)
        self.image_shape = (1 if is_grey else 3, height, width)
        folders = [root, *(path for _, path in self.layout.roots)]
        folders += [train / name for name in self.layout.classes[:_GLANCES]]
        self._watched = [*map(str, folders), *firsts]
        self._stamps = self._look()

    def holds(self) -> bool:
        """Whether none of the folders and files looked at has changed."""
        return self._stamps == self._look()

    def _look(self) -> list[tuple[int, int, int] | None]:
        stamps = []
        for path in self._watched:
            try:
                status = Path(path).stat()
                stamps.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns))
            except OSError:
                stamps.append(None)
        return stamps


_GLANCED: dict[Path, _Glance] = {}
_GLANCED_LOCK = threading.Lock()
_MOST_GLANCED = 256


def _glance(root: Path) -> _Glance:
    """The glance at a folder, remembered until something it saw changes: pages ask at each draw."""
    with _GLANCED_LOCK:
        known = _GLANCED.get(root)
    if known is not None and known.holds():
        return known
    glance = _Glance(root)
    with _GLANCED_LOCK:
        if len(_GLANCED) >= _MOST_GLANCED:
            _GLANCED.clear()
        _GLANCED[root] = glance
    return glance
