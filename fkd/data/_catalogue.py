"""Which data sets there are: the built-in ones and what lies in the data folder."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from fkd.core.errors import ConfigError, DataError
from fkd.core.paths import data_dir
from fkd.core.registry import unknown_name_sentence
from fkd.data._files import check_data_folder
from fkd.data._folder import ImageFolderSet
from fkd.data._npz import NpzSet
from fkd.data._registry import DATA_SETS
from fkd.data.base import DataSet, Split, SplitName

_LOG = logging.getLogger(__name__)
_SUFFIX = ".npz"
_LONGEST_NAME = 200  # bytes; file systems allow 255, suffixes included
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z")


@dataclass(frozen=True)
class DataSetInfo:
    """What a list of data sets shows of each.

    Attributes:
        name: what `get_data_set` takes.
        title: for people.
        classes: names of the classes; empty where the files cannot be read.
        image_shape: (C, H, W); None where the files cannot be read.
        is_available: whether it can be loaded now.
        can_download: whether `DataSet.download` can fetch it.
        is_embedded: whether it comes with the program.
        source: a package, or the folder or file.
        licence: as its authors state it.
        epsilons: radii worth offering, in [0, 1].
        problem: what is wrong with its files, as a sentence; None where nothing is, and for a set that
            was not downloaded yet.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    is_available: bool
    can_download: bool
    is_embedded: bool
    source: str
    licence: str
    epsilons: tuple[float, ...]
    problem: str | None


def get_data_set(name: str) -> DataSet:
    """The data set called ``name``: built-in, else a folder or ``.npz`` file in the data folder.

    Raises:
        ConfigError: there is none of that name.
        DataError: it is there but damaged, or the data folder cannot be read.

    Example:
        >>> from fkd.data import get_data_set
        >>> get_data_set("digits").image_shape
        (1, 8, 8)
    """
    if name in DATA_SETS:
        return DATA_SETS.get(name)()
    found = _dropped_in() if _is_safe(name) else {}
    if name in found:
        return _open(found[name][0])
    if _is_safe(name):
        _refuse_packed(name)
    known = [*DATA_SETS, *(other for other in _known_names() if other not in DATA_SETS)]
    raise ConfigError(unknown_name_sentence("data set", name, known))


def load_split(name: str, split: SplitName) -> Split:
    """One split of a data set by name; cached in memory.

    Raises:
        ConfigError: there is no such data set or split.
        DataError: its files are absent, damaged or of the wrong shape.
    """
    return get_data_set(name).load(split)


def list_data_sets() -> list[DataSetInfo]:
    """Every data set: the embedded one first, built-in ones, then the user's by name.

    Takes milliseconds, since it looks at few files and remembers what it saw.  A damaged entry is listed
    with its problem and stops nothing.
    """
    built_in = [_info(DATA_SETS.get(name)()) for name in DATA_SETS]
    built_in.sort(key=lambda info: not info.is_embedded)
    try:
        found = _dropped_in()
    except DataError as error:
        _LOG.warning("No data sets of the user's are listed: %s", error)
        return built_in
    users = [info for name, paths in sorted(found.items()) for info in _users_infos(name, paths)]
    return built_in + users


def _refuse_packed(name: str) -> None:
    """Say so where the set is there but still packed.

    Raises:
        DataError: an archive of that name lies in the data folder.
    """
    for suffix in _ARCHIVES:
        packed = data_dir() / f"{name}{suffix}"
        if packed.is_file():
            raise DataError(
                f"The data set '{name}' is still packed in {packed}; unpack it there, so that the "
                f"folder {packed.with_name(name)} holds its class folders."
            )


def _known_names() -> list[str]:
    try:
        return sorted(_dropped_in())
    except DataError:
        return []


def _is_safe(name: str) -> bool:
    """Whether a name is one visible thing in a folder, and not a way out of it."""
    return (
        isinstance(name, str)
        and 0 < len(name.encode(errors="surrogateescape")) <= _LONGEST_NAME
        and not name.startswith(".")
        and name.isprintable()
        and not set(name) & set("/\\")
    )


def _dropped_in() -> dict[str, list[Path]]:
    """Names of the user's sets, each with the folders and files that claim it (folders first).

    Raises:
        DataError: the data folder cannot be read.
    """
    folder = check_data_folder()
    reserved = {entry for name in DATA_SETS for entry in DATA_SETS.get(name).reserved_names}
    found: dict[str, list[Path]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: (not e.is_dir(), e.name)):
                is_npz = entry.name.endswith(_SUFFIX) and not entry.is_dir()
                name = entry.name.removesuffix(_SUFFIX) if is_npz else entry.name
                if (is_npz or entry.is_dir()) and _is_safe(name) and entry.name not in reserved:
                    found.setdefault(name, []).append(folder / entry.name)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"The data folder {folder} cannot be read ({error.strerror}).") from None
    return found


def _open(path: Path) -> DataSet:
    return NpzSet(path) if path.name.endswith(_SUFFIX) and path.is_file() else ImageFolderSet(path)


def _info(data_set: DataSet) -> DataSetInfo:
    return DataSetInfo(
        name=data_set.name,
        title=data_set.title,
        classes=data_set.classes,
        image_shape=data_set.image_shape,
        is_available=data_set.is_available(),
        can_download=data_set.can_download,
        is_embedded=data_set.is_embedded,
        source=data_set.source,
        licence=data_set.licence,
        epsilons=data_set.epsilons,
        problem=data_set.problem(),
    )


def _users_infos(name: str, paths: list[Path]) -> list[DataSetInfo]:
    """One entry for each path: the first has the name, unless a built-in set has it."""
    infos = []
    for place, path in enumerate(paths):
        if name in DATA_SETS or place:
            holder = "a built-in data set" if name in DATA_SETS else paths[0].name
            problem = f"{path} has the name '{name}' of {holder} and is left out; rename it."
            # Listed by a name that no set can have, so that it clashes with none.
            infos.append(_problem_info(f"{path.name}/", path, problem))
            continue
        try:
            infos.append(_info(_open(path)))
        except (DataError, OSError) as error:
            infos.append(_problem_info(name, path, str(error)))
    return infos


def _problem_info(name: str, path: Path, problem: str) -> DataSetInfo:
    return DataSetInfo(
        name=name,
        title=path.name,
        classes=(),
        image_shape=None,
        is_available=False,
        can_download=False,
        is_embedded=False,
        source=str(path),
        licence=ImageFolderSet.licence,
        epsilons=(),
        problem=problem,
    )
