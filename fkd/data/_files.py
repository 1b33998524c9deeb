"""Looking at files: is the data folder usable, and in what state are the files in it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fkd.core.errors import DataError
from fkd.core.paths import data_dir


class FileState(NamedTuple):
    """A regular file's length in bytes and its `stamp`."""

    size: int
    stamp: str


def stamp(path: str, status: os.stat_result) -> str:
    """A text that tells one version of a file from another without reading it; sorts by path.

    The change time is in it because unpacking an archive restores old modification times, and
    uncompressed images all have the same size.  Texts, not tuples: Python's garbage collector goes
    through all of torch's objects each time a few hundred more containers are there.
    """
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"


def path_in(stamp: str) -> str:
    """The path in a stamp."""
    return stamp.partition("\0")[0]


def file_state(path: Path) -> FileState | None:
    """The state of a regular file, None where there is none.

    Raises:
        DataError: the folder it is in may not be read.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        return None
    return FileState(status.st_size, stamp(str(path), status))


def hash_stamps(stamps: Iterable[str], *more: object) -> str:
    """One SHA-256 (hex) of many files' stamps and of whatever else decides how they are read."""
    text = "\n".join([repr(more), *stamps])
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def unreadable(path: Path | str, error: OSError) -> DataError:
    """The error for something that is there but cannot be read."""
    reason = error.strerror or type(error).__name__
    return DataError(f"{path} cannot be read ({reason}); check its permissions.")


def check_data_folder() -> Path:
    """The data folder, which need not exist.

    Raises:
        DataError: it is a file, or may not be read.
    """
    folder = data_dir()
    try:
        status = folder.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise DataError(
                f"The data folder {folder} is a file; set FKD_DATA_DIR to a folder, or unset it."
            )
        with os.scandir(folder):
            pass
    except (FileNotFoundError, NotADirectoryError):
        return folder
    except OSError as error:
        raise DataError(
            f"The data folder {folder} cannot be read ({error.strerror}); check its permissions "
            "or set FKD_DATA_DIR to another folder."
        ) from None
    return folder
