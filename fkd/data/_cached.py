"""Data sets read from files: what all of them share about caching, fingerprints and verification."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable

from fkd.core.errors import DataError
from fkd.data._disk import DecodedCache
from fkd.data._memory import SPLITS
from fkd.data._pixels import Pixels
from fkd.data.base import DataSet, Split, SplitName, check_split


class CachedDataSet(DataSet):
    """Reads a split at most once a process while its files stay as they are.

    Subclasses say in what state the files are (`_state`, cheap) and read them (`_read`).  Where
    `known_fingerprints` names the split, what was read must have that fingerprint.
    """

    #: Whether fingerprints are noted on disk (pointless where they are known in advance).
    notes_fingerprint: bool = False
    #: Whether the decoded pixels are kept on disk too (worth it where decoding is slow).
    keeps_pixels: bool = False

    @abstractmethod
    def _place(self) -> str:
        """Absolute path of the set's files: two sets are the same one if their places are."""

    @abstractmethod
    def _state(self, split: SplitName) -> str:
        """A text that changes whenever the split's files do.

        Raises:
            DataError: files are absent, or so wrong that looking at them is enough.
        """

    @abstractmethod
    def _read(self, split: SplitName) -> Pixels:
        """Decode and check the split's files.

        Raises:
            DataError: they are damaged or wrongly shaped.
        """

    def load(self, split: SplitName) -> Split:
        """Read one split; cached in memory while its files stay as they are.

        Raises:
            ConfigError: the split is neither "train" nor "test".
            DataError: absent, truncated, altered or wrongly shaped data.
        """
        check_split(split)
        state = self._state(split)
        return SPLITS.get(self._key(split), state, lambda: self._load(split, state))

    def fingerprint(self, split: SplitName) -> str:
        """The split's content hash: known in advance, noted on disk, or from reading the split.

        Raises:
            ConfigError: the split is neither "train" nor "test".
            DataError: the data must be read and cannot.
        """
        known = self.known_fingerprints.get(check_split(split))
        if known is not None:
            return known
        state = self._state(split)
        loaded = SPLITS.find(self._key(split), state)
        if loaded is not None:
            return loaded.fingerprint
        noted = self._disk().fingerprint(split, state) if self.notes_fingerprint else None
        return noted if noted is not None else self.load(split).fingerprint

    def _key(self, split: SplitName) -> Hashable:
        return type(self).__qualname__, self.name, self._place(), split

    def _disk(self) -> DecodedCache:
        return DecodedCache(f"{type(self).__qualname__}\0{self._place()}")

    def _load(self, split: SplitName, state: str) -> Split:
        kept = self._disk().pixels(split, state) if self.keeps_pixels else None
        pixels = kept if kept is not None else self._read(split)
        fingerprint = pixels.fingerprint()
        self._verify(split, fingerprint)
        if kept is None and self.notes_fingerprint:
            self._disk().keep(split, state, fingerprint, pixels if self.keeps_pixels else None)
        return pixels.to_split(fingerprint)

    def _verify(self, split: SplitName, fingerprint: str) -> None:
        """Refuse content that is not the published one.

        Raises:
            DataError: the split's fingerprint is known and is another.
        """
        known = self.known_fingerprints.get(split)
        if known is None or fingerprint == known:
            return
        remedy = (
            f"run `python -m fkd data download {self.name}` to fetch them again"
            if self.can_download
            else "restore the original files"
        )
        raise DataError(
            f"The {split} files of {self.title} in {self._place()} differ from the published ones; "
            f"{remedy}."
        )
