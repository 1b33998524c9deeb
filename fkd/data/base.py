"""What a data set is: images in [0, 1], labels, names of classes, and a fingerprint of the content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from fkd.core.errors import ConfigError, DataError
from fkd.core.progress import ProgressCallback

SplitName = Literal["train", "test"]


def check_split(split: str) -> SplitName:
    """``split`` itself if it is "train" or "test".

    Raises:
        ConfigError: it is neither.
    """
    if split not in get_args(SplitName):
        raise ConfigError(f"There is no split called {split!r}; use train or test.")
    return split  # type: ignore[return-value]


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
        images: float32 (N, C, H, W), every value in [0, 1].  Shared by all callers: never write to it.
        labels: int64 (N,), every value in [0, K).  Shared likewise.
        fingerprint: SHA-256 (hex) of the pixels and labels; part of every result's key.
    """

    images: Tensor
    labels: Tensor
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels at ``indices`` (int64, example ids are positions in the split)."""
        return self.images[indices], self.labels[indices]

    @property
    def nbytes(self) -> int:
        """Memory held by images and labels, in bytes."""
        return self.images.nbytes + self.labels.nbytes


class DataSet(ABC):
    """A named set with a train and a test split.

    Built-in sets are classes registered in `fkd.data.DATA_SETS`; folders and ``.npz`` files that a user
    drops into ``FKD_DATA_DIR`` become instances of the same interface.
    """

    name: ClassVar[str] | str
    title: str
    licence: str
    #: Where it comes from: a package, or the folder or file on this machine.
    source: str = ""
    classes: tuple[str, ...]
    #: (C, H, W)
    image_shape: tuple[int, int, int]
    #: Whether `download` can fetch it.
    can_download: bool = False
    #: Whether its images may be stored beside results that are shipped (only the embedded set).
    is_embedded: bool = False
    #: Radii worth offering for this set, in [0, 1].
    epsilons: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
    #: Fingerprints known in advance, so results can be looked up where the images are absent.
    known_fingerprints: Mapping[str, str] = {}
    #: Names in ``FKD_DATA_DIR`` that hold this set's files, so they are not taken for a user's folder.
    reserved_names: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.classes)

    @abstractmethod
    def is_available(self) -> bool:
        """Whether `load` would find the data on this machine (cheap: looks at files, reads none)."""

    def problem(self) -> str | None:
        """What is wrong with the files that are there, as a sentence; None where nothing is.

        As cheap as `is_available`.  A set that was never downloaded has no problem.
        """
        return None

    @abstractmethod
    def load(self, split: SplitName) -> Split:
        """Read one split; cached in memory after the first call.

        Raises:
            DataError: absent, truncated or wrongly shaped; the sentence says which and what to do.
        """

    def fingerprint(self, split: SplitName) -> str:
        """The split's content hash, without reading it where it is known in advance.

        Raises:
            DataError: it is not known in advance and the data cannot be read.
        """
        known = self.known_fingerprints.get(check_split(split))
        return known if known is not None else self.load(split).fingerprint

    def download(self, progress: ProgressCallback | None = None) -> None:
        """Fetch the set into ``FKD_DATA_DIR``; nothing half-written is left where it fails.

        Raises:
            DataError: this set cannot be downloaded, or the download failed.
            Cancelled: the callback asked to stop.
        """
        if self.is_embedded:
            raise DataError(f"The data set '{self.name}' is always there; no download is needed.")
        raise DataError(
            f"The data set '{self.name}' cannot be downloaded; put its files into the data folder."
        )

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over the train split (for normalisation).

        Both in pixel units, [0, 1], rounded to six digits; a constant channel's deviation is given as
        0.001, so that dividing by it is safe.  Computed once a process for each content.

        Raises:
            DataError: the train split cannot be read.
        """
        fingerprint = self.fingerprint("train")
        if fingerprint not in _STATISTICS:
            _STATISTICS[fingerprint] = _channel_statistics(self.load("train").images)
        mean, std = _STATISTICS[fingerprint]
        return list(mean), list(std)


#: Fingerprint of a train split -> its statistics; a few numbers for each content ever asked for.
_STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {}


def _channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Sums in float64, a piece at a time: far more exact than the six digits kept."""
    count = images.shape[0] * images.shape[2] * images.shape[3]
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for piece in images.split(_STATISTICS_BATCH):
        total += piece.sum(dim=(0, 2, 3), dtype=torch.float64)
        squares += piece.square().sum(dim=(0, 2, 3), dtype=torch.float64)
    mean = total / count
    variance = (squares - count * mean.square()) / max(1, count - 1)
    std = variance.clamp_min(0.0).sqrt().clamp_min(_LEAST_STD)
    return tuple(round(v, 6) for v in mean.tolist()), tuple(round(v, 6) for v in std.tolist())


_STATISTICS_BATCH = 1024
_LEAST_STD = 1e-3
