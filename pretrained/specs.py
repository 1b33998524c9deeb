"""From the zoo's table to specifications, and whether a folder holds what its specification makes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fkd.core.device import choose_device
from fkd.core.errors import FkdError
from fkd.core.paths import pretrained_dir
from fkd.distillation import METHODS, CopySpec, TrainSpec
from fkd.models import ModelCard, read_card
from fkd.models.checkpoint import WEIGHTS_FILE
from pretrained.zoo import COPIED, COPIES, DATA, LABELS, STUDENTS, TEACHERS, TeacherRow

LOG = logging.getLogger("build")

Spec = TrainSpec | CopySpec

#: Settings that say where a model was trained, not which.
_PLACE = ("device", "mixed_precision")


@dataclass(frozen=True)
class Member:
    """One model of the zoo.

    Attributes:
        dataset: data set.
        label: way of making it: a row of the table; a teacher's is its own name.
        spec: everything that determines it.
    """

    dataset: str
    label: str
    spec: Spec

    @property
    def name(self) -> str:
        """The model's and its folder's name."""
        return self.spec.name

    @property
    def teacher(self) -> str | None:
        """Name of the model it needs; None for a teacher."""
        return self.spec.teacher

    @property
    def method(self) -> str:
        """Registered name of the method, or of the way of copying."""
        return self.spec.method

    @property
    def table_epsilons(self) -> tuple[float, ...]:
        """Radii of its shipped tables beside its teacher; none for a teacher."""
        if self.teacher is None:
            return ()
        data = DATA[self.dataset]
        return data.epsilons if self.spec.seed == 0 else data.repeat_epsilons


def zoo(dataset: str, device: str = "cpu") -> list[Member]:
    """One data set's models, teachers first, then students by seed, then copies.

    Args:
        dataset: a row of the table.
        device: auto, cpu or cuda.

    Raises:
        ConfigError: there is no such device.
    """
    data = DATA[dataset]
    place = _place(device)
    members = list(_teachers(dataset, place))
    for seed in data.seeds:
        for teacher, row in _rows(dataset):
            if seed and not row.has_seeds:
                continue
            labels = row.labels or LABELS.get(dataset, tuple(STUDENTS))
            members += [_student(dataset, label, teacher, seed, place) for label in labels]
    return members + list(_copies(dataset, place))


def _rows(dataset: str) -> list[tuple[str, TeacherRow]]:
    """The data set's teachers."""
    return [(label, row) for label, row in TEACHERS.items() if dataset in row.epochs]


def registered(members: Sequence[Member]) -> list[Member]:
    """The members whose method exists; each method that does not is warned of once."""
    absent = {m.method for m in members if isinstance(m.spec, TrainSpec)} - set(METHODS)
    for method in sorted(absent):
        count = sum(member.method == method for member in members)
        LOG.warning("no method is called '%s' yet: %d models are left out", method, count)
    return [member for member in members if member.method not in absent]


def _place(device: str) -> dict[str, object]:
    found = choose_device(device)
    # A certificate or a gradient's difference in bfloat16 would be another method.
    return (
        {"device": "cpu"} if found.type == "cpu" else {"device": device, "mixed_precision": False}
    )


def _teachers(dataset: str, place: dict[str, object]) -> Iterator[Member]:
    data = DATA[dataset]
    for label, row in _rows(dataset):
        settings = row.settings.get(dataset, {})
        spec = TrainSpec(
            name=f"{dataset}-teacher-{label}",
            dataset=dataset,
            method=row.method,
            method_config=dict(data.attack if settings == "attack" else settings),
            epochs=row.epochs[dataset],
            seed=0,
            **{**data.training, **data.teacher, **row.training.get(dataset, {}), **place},
        )
        yield Member(dataset, label, spec)


def _student(dataset: str, label: str, teacher: str, seed: int, place: dict[str, object]) -> Member:
    data, row = DATA[dataset], STUDENTS[label]
    ball = {None: {}, "attack": data.attack, "certified": {"epsilon": data.radius}}[row.ball]
    spec = TrainSpec(
        name=f"{dataset}-{label}-of-{teacher}" + (f"-s{seed}" if seed else ""),
        dataset=dataset,
        method=row.method,
        method_config={**ball, **row.settings, **row.exceptions.get((dataset, teacher), {})},
        teacher=f"{dataset}-teacher-{teacher}",
        epochs=data.epochs[row.cost],
        seed=seed,
        **{**data.training, **data.student, **place},
    )
    return Member(dataset, label, spec)


def _copies(dataset: str, place: dict[str, object]) -> Iterator[Member]:
    for teacher, row in _rows(dataset):
        # Copies cost nothing to train and much space: those of small sets show what they show.
        if not row.has_copies or dataset not in COPIED:
            continue
        for label, (method, settings) in COPIES.items():
            spec = CopySpec(
                name=f"{dataset}-{label}-of-{teacher}",
                teacher=f"{dataset}-teacher-{teacher}",
                method=method,
                method_config=settings,
                report_epsilons=DATA[dataset].training["report_epsilons"],
                device=str(place["device"]),
            )
            yield Member(dataset, label, spec)


def folder_of(name: str) -> Path:
    """Where a shipped model lies, whether or not it is there."""
    return pretrained_dir() / name


def shipped_card(name: str) -> ModelCard | None:
    """The card of a shipped model; None where it is absent or damaged."""
    try:
        return read_card(folder_of(name))
    except FkdError:
        return None


def is_current(spec: Spec) -> bool:
    """Whether the folder holds the model that this specification makes, wherever it was trained.

    Weights that are not those of the card are as good as none.
    """
    card = shipped_card(spec.name)
    if card is None or _identity(spec, card) != _identity(spec, spec):
        return False
    if _weights_hash(folder_of(spec.name) / WEIGHTS_FILE) != card.weights_sha256:
        return False
    if spec.teacher is None:
        return True
    teacher = shipped_card(spec.teacher)
    return (
        teacher is not None
        and card.teacher is not None
        and card.teacher.model_hash == teacher.model_hash
    )


def _weights_hash(path: Path) -> str | None:
    """SHA-256 (hex) of a file; None where there is none.  Read again only where it was written again."""
    try:
        state = path.stat()
    except OSError:
        return None
    return _hash_of(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1024)
def _hash_of(path: Path, _time: int, _size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _identity(spec: Spec, source: Spec | ModelCard) -> dict[str, object] | None:
    """A specification's settings without those of the place; fields younger than a card are defaults."""
    try:
        found = source if isinstance(source, Spec) else type(spec).parse(source.training_config)
    except FkdError:
        return None
    return found.model_dump(mode="json", exclude=set(_PLACE))
