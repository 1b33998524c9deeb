"""Decoded splits kept on disk, so that neither a page nor a new process decodes a set again.

Under ``FKD_HOME``: ``cache/data/<hash of the set's place>/<split>-<state of the files>.json`` holds the
fingerprint, and ``.npz`` beside it the pixels.  An entry whose files have changed is never found; one
that cannot be written is only a cache that is not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fkd.core.hashing import short
from fkd.core.paths import home_dir
from fkd.data._pixels import Pixels

_LOG = logging.getLogger(__name__)
_HASH = re.compile(r"[0-9a-f]{64}")

#: Larger splits are decoded each time: a cache must not fill a disk.
MAX_PIXEL_BYTES = 4 * 2**30


class DecodedCache:
    """The entries of one data set.

    Args:
        place: where the set's files are; sets in different places never mix.
    """

    def __init__(self, place: str) -> None:
        self._place = short(hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest())

    @property
    def folder(self) -> Path:
        """Where the entries are; it need not exist."""
        return home_dir() / "cache" / "data" / self._place

    def fingerprint(self, split: str, state: str) -> str | None:
        """The fingerprint noted for the files in this state."""
        try:
            found = json.loads(self._path(split, state, "json").read_text("utf-8"))
            fingerprint = found["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        is_hash = isinstance(fingerprint, str) and _HASH.fullmatch(fingerprint)
        return fingerprint if is_hash else None

    def pixels(self, split: str, state: str) -> Pixels | None:
        """The pixels kept for the files in this state, if they still have their fingerprint."""
        fingerprint = self.fingerprint(split, state)
        path = self._path(split, state, "npz")
        if fingerprint is None or not path.is_file():
            return None
        try:
            # Opened here: np.load leaves a damaged file open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                pixels = Pixels(arrays["values"], arrays["labels"], int(arrays["scale"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            _LOG.warning("The decoded copy %s is damaged and is made anew: %s", path, error)
            return None
        return pixels if pixels.fingerprint() == fingerprint else None

    def keep(self, split: str, state: str, fingerprint: str, pixels: Pixels | None = None) -> None:
        """Note the fingerprint, and the pixels if given, in place of those of earlier states."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if pixels is not None and self._has_room(pixels.values.nbytes):
                self._write(
                    self._path(split, state, "npz"),
                    lambda file: np.savez(
                        file,
                        values=pixels.values,
                        labels=pixels.labels,
                        scale=np.int64(pixels.scale),
                    ),
                )
            note = json.dumps({"fingerprint": fingerprint}).encode()
            self._write(self._path(split, state, "json"), lambda file: file.write(note))
            self._drop_others(split, state)
        except OSError as error:
            _LOG.warning("A decoded copy could not be kept in %s: %s", self.folder, error)

    def _path(self, split: str, state: str, suffix: str) -> Path:
        return self.folder / f"{split}-{short(state)}.{suffix}"

    def _has_room(self, size: int) -> bool:
        return size <= MAX_PIXEL_BYTES and 2 * size < shutil.disk_usage(self.folder).free

    def _write(self, path: Path, write: Callable[[BinaryIO], object]) -> None:
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _drop_others(self, split: str, state: str) -> None:
        kept = f"{split}-{short(state)}."
        for path in self.folder.iterdir():
            is_old = path.name.startswith(f"{split}-") and not path.name.startswith(kept)
            with contextlib.suppress(OSError):  # another process may have dropped it
                # A temporary file that old is left from a process that was killed.
                if is_old or (path.suffix == ".tmp" and time.time() - path.stat().st_mtime > 3600):
                    path.unlink()
