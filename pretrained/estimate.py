"""How long what is missing will take and how large all will be, judged by like models that are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from fkd.core.paths import pretrained_dir
from fkd.data import get_data_set
from fkd.distillation import TrainSpec
from fkd.evaluation import shipped_dir, witness_path
from fkd.evaluation._packed_tables import (
    INDEX,
    is_packed_file,
    packed_metadata,
    packed_tables,
)
from fkd.models import ModelCard
from fkd.records import list_tables, read_metadata
from pretrained.specs import Member, folder_of, shipped_card
from pretrained.zoo import DATA, STUDENTS

#: What all that is shipped may take, in bytes.
LARGEST_TOTAL = 60 * 10**6


class Estimate:
    """Seconds and bytes of models, from the cards of those of the zoo that are there.

    Args:
        members: the whole zoo.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._per_epoch: dict[tuple[str, tuple[str, ...]], list[float]] = {}
        self._bytes: dict[tuple[str, bool], list[int]] = {}
        for member in members:
            card = shipped_card(member.name)
            if card is None:
                continue
            size = folder_size(folder_of(member.name))
            self._bytes.setdefault((member.dataset, _is_wide(member)), []).append(size)
            if card.seconds is None:
                continue
            for kind in _kinds(member):
                seconds = card.seconds / _epochs(member, card)
                self._per_epoch.setdefault((member.dataset, kind), []).append(seconds)

    def seconds(self, member: Member) -> float | None:
        """Seconds of training; None where no like model is there.

        Like are models of the same row, else of rows with the same ball and cost, on the same data set,
        else on one of the same image shape.
        """
        for kind in _kinds(member):
            for dataset in _like_data_sets(member.dataset):
                if found := self._per_epoch.get((dataset, kind)):
                    return mean(found) * _epochs(member)
        return None

    def size(self, member: Member) -> int | None:
        """Bytes of the model's folder; None where neither it nor a like model is there."""
        if own := folder_size(folder_of(member.name)):
            return own
        for dataset in _like_data_sets(member.dataset):
            if found := self._bytes.get((dataset, _is_wide(member))):
                return round(mean(found))
        return None


class TableEstimate:
    """Seconds and bytes of a pair's analyses, from those that are shipped.

    Those still in files of their own will be packed, so their sizes count only where no like ones are.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}
        self._packed: dict[str, list[float]] = {}
        self._loose: dict[str, list[float]] = {}
        folder = shipped_dir()
        sizes = packed_sizes(folder)
        for key, metadata in packed_metadata(folder).items():
            self._note(metadata, sizes[key], self._packed)
        for path in list_tables(folder):
            if not is_packed_file(path):
                files = (path, witness_path(path))
                size = sum(file.stat().st_size for file in files if file.is_file())
                self._note(read_metadata(path) or {}, size, self._loose)

    def _note(
        self, metadata: Mapping[str, Any], size: float, sizes: dict[str, list[float]]
    ) -> None:
        dataset = metadata.get("config", {}).get("dataset")
        if dataset and metadata.get("seconds"):
            self._seconds.setdefault(dataset, []).append(float(metadata["seconds"]))
            sizes.setdefault(dataset, []).append(size)

    def seconds(self, member: Member) -> float | None:
        """Seconds of a student's analyses; None where none of a like data set is there."""
        return self._of(member, self._seconds)

    def size(self, member: Member) -> float | None:
        """Bytes of a student's analyses, packed; None where none of a like data set is there."""
        packed = self._of(member, self._packed)
        return self._of(member, self._loose) if packed is None else packed

    @staticmethod
    def _of(member: Member, known: Mapping[str, Sequence[float]]) -> float | None:
        for dataset in _like_data_sets(member.dataset):
            if found := known.get(dataset):
                return mean(found) * len(member.table_epsilons)
        return None


def packed_sizes(folder: Path) -> dict[str, float]:
    """Bytes of each packed table with its witnesses, by key: equal shares of the files it lies in."""
    packed = packed_tables(folder)
    files = {
        key: [INDEX, *(place.file for place in (one.rows, one.witnesses) if place is not None)]
        for key, one in packed.items()
    }
    sharing = Counter(name for names in files.values() for name in names)
    share = {
        name: (folder / name).stat().st_size / count
        for name, count in sharing.items()
        if (folder / name).is_file()
    }
    return {key: sum(share.get(name, 0.0) for name in names) for key, names in files.items()}


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def total_size() -> int:
    """Bytes of everything shipped but the programs that make it."""
    return sum(
        folder_size(path)
        for path in pretrained_dir().iterdir()
        if path.is_dir() and path.name != "__pycache__"
    )


def duration(seconds: float) -> str:
    """Seconds as people say them.

    Example:
        >>> duration(40), duration(4000)
        ('40 s', '1.1 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _kinds(member: Member) -> list[tuple[str, ...]]:
    """What a model's time a step depends on: its row, else the row's ball and cost."""
    role = "teacher" if member.teacher is None else "student"
    row = STUDENTS.get(member.label)
    return [(role, member.label)] + ([(role, str(row.ball), row.cost)] if row else [])


def _like_data_sets(dataset: str) -> list[str]:
    """The data set itself, then those with images of its shape."""
    shape = get_data_set(dataset).image_shape
    others = [name for name in DATA if get_data_set(name).image_shape == shape]
    return sorted(others, key=lambda name: name != dataset)


def _is_wide(member: Member) -> bool:
    """Whether it has its teacher's shape: teachers and their copies."""
    return member.teacher is None or not isinstance(member.spec, TrainSpec)


def _epochs(member: Member, card: ModelCard | None = None) -> int:
    """Epochs trained; 1 for a copy, whose time is that of its measurements."""
    if card is not None and card.history:
        return len(card.history)
    return member.spec.epochs if isinstance(member.spec, TrainSpec) else 1
