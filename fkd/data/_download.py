"""Downloads that leave either the verified whole or nothing: staged aside, checked, then moved."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fkd.core.errors import DataError
from fkd.core.progress import ProgressCallback, report
from fkd.data._files import check_data_folder

_CHUNK = 2**18
_TIMEOUT_SECONDS = 30.0
_HEADERS = {"User-Agent": "pytorch/vision"}  # some mirrors refuse Python's own name


@dataclass(frozen=True)
class RemoteFile:
    """A published file: where it may be had, and what it must be."""

    name: str
    urls: tuple[str, ...]
    md5: str


@contextmanager
def staging(name: str, progress: ProgressCallback | None) -> Iterator[Path]:
    """A temporary folder inside the data folder, for one process at a time; removed at the end.

    Waits while another process downloads the same set.

    Raises:
        DataError: the data folder cannot be written.
        Cancelled: the callback asked to stop while waiting.
    """
    folder = check_data_folder()
    prefix = f".download-{name}-"
    lock = FileLock(folder / f".{name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, name, progress)
    except OSError as error:
        raise _not_written(folder, error) from None
    try:
        for left_over in folder.glob(f"{prefix}*"):  # of a process that was killed
            shutil.rmtree(left_over, ignore_errors=True)
        try:
            temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
        except OSError as error:
            raise _not_written(folder, error) from None
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    finally:
        lock.release()  # the empty lock file stays: removing it could let two processes in


def _acquire(lock: FileLock, name: str, progress: ProgressCallback | None) -> None:
    while True:
        try:
            lock.acquire(timeout=0.5)
            return
        except Timeout:
            report(progress, f"waiting for another download of {name}", 0, 0)


def _not_written(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"The data folder {folder} cannot be written ({error.strerror or error}); set FKD_DATA_DIR "
        "to a folder that can."
    )


def fetch(remote: RemoteFile, folder: Path, title: str, progress: ProgressCallback | None) -> Path:
    """Download one file from the first address that gives it whole.

    Progress: stage "download NAME", in bytes.

    Raises:
        DataError: no address gave the published file.
        Cancelled: the callback asked to stop.
    """
    reasons = []
    for url in remote.urls:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return _fetch_from(url, remote, folder / remote.name, progress)
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            reasons.append(f"{url}: {_reason(error)}")
            if isinstance(error, urllib.error.HTTPError):
                error.close()
    raise DataError(
        f"Downloading {title} failed ({'; '.join(reasons)}); check the connection and the free disk "
        "space and try again, nothing was left behind."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return str(error)
    cause = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(cause).rstrip(".") or type(error).__name__


def _fetch_from(
    url: str, remote: RemoteFile, target: Path, progress: ProgressCallback | None
) -> Path:
    digest = hashlib.md5(usedforsecurity=False)
    done = 0
    request = urllib.request.Request(url, headers=_HEADERS)
    with (
        urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer,
        target.open("wb") as file,
    ):
        total = int(answer.headers.get("Content-Length") or 0)
        report(progress, f"download {remote.name}", 0, total)
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            report(progress, f"download {remote.name}", done, total)
    if digest.hexdigest() != remote.md5:
        what = "arrived incomplete" if done < total else "is not the published one"
        raise ValueError(f"the file of {done} bytes {what}")
    return target


def unpack_gzip(packed: Path, target: Path, size: int, title: str) -> None:
    """Unpack a file that must hold exactly ``size`` bytes.

    Raises:
        DataError: it is damaged, of another length, or the disk is full.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(packed, "rb") as source, target.open("wb") as file:
            found = 0
            while chunk := source.read(_CHUNK):
                found += len(chunk)
                if found > size:
                    break
                file.write(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"Unpacking {packed.name} of {title} failed ({_reason(error)}); check the free disk space "
            "and download it again."
        ) from None
    if found != size:
        raise DataError(
            f"{packed.name} of {title} does not unpack to the {size} bytes it should; "
            "download it again later."
        )


def extract_members(packed: Path, members: list[str], folder: Path, title: str) -> None:
    """Copy the named files, and nothing else, out of a tar archive into one folder.

    Raises:
        DataError: the archive is damaged, lacks one, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(packed, "r:*") as archive:
            for member in members:
                source = archive.extractfile(member)
                if source is None:
                    raise KeyError(f"{member} is no file")
                with source, (folder / Path(member).name).open("wb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
    except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError) as error:
        raise DataError(
            f"Unpacking {packed.name} of {title} failed ({_reason(error)}); check the free disk space "
            "and download it again."
        ) from None


def swap_in(staged: Path, target: Path, title: str) -> None:
    """Move a finished folder into place: at once where nothing is there, else file by file.

    Raises:
        DataError: the data folder does not allow it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            staged.replace(target)
            return
        for file in sorted(staged.iterdir()):
            file.replace(target / file.name)
    except OSError as error:
        raise DataError(
            f"{title} was downloaded but could not be moved to {target} "
            f"({error.strerror or error}); check the folder's permissions and try again."
        ) from None
