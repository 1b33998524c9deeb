"""What a data set is: images in [0, 1], labels, names of classes, and a fingerprint of the content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fkd.core.progress import ProgressCallback

SplitName = Literal["train", "test"]


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
        images: float32 (N, C, H, W), every value in [0, 1].
        labels: int64 (N,), every value in [0, K).
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


class DataSet(ABC):
    """A named set with a train and a test split.

    Built-in sets are classes registered in `fkd.data.DATA_SETS`; folders and ``.npz`` files that a user
    drops into ``FKD_DATA_DIR`` become instances of the same interface.
    """

    name: ClassVar[str] | str
    title: str
    licence: str
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

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.classes)

    @abstractmethod
    def is_available(self) -> bool:
        """Whether `load` would find the data on this machine (cheap: looks at files, reads none)."""

    @abstractmethod
    def load(self, split: SplitName) -> Split:
        """Read one split; cached in memory after the first call.

        Raises:
            DataError: absent, truncated or wrongly shaped; the sentence says which and what to do.
        """

    def fingerprint(self, split: SplitName) -> str:
        """The split's content hash, without reading it where it is known in advance."""
        known = self.known_fingerprints.get(split)
        return known if known is not None else self.load(split).fingerprint

    def download(self, progress: ProgressCallback | None = None) -> None:
        """Fetch the set into ``FKD_DATA_DIR``; nothing half-written is left where it fails.

        Raises:
            DataError: this set cannot be downloaded, or the download failed.
        """
        from fkd.core.errors import DataError

        raise DataError(
            f"The data set '{self.name}' cannot be downloaded; put its files into the data folder."
        )

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over the train split (for normalisation)."""
        images = self.load("train").images
        mean = images.mean(dim=(0, 2, 3), dtype=torch.float64)
        std = images.std(dim=(0, 2, 3)).double().clamp_min(1e-3)
        return [round(v, 6) for v in mean.tolist()], [round(v, 6) for v in std.tolist()]
