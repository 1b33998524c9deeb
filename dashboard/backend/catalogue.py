"""Data sets and models there are, and which of them go together."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pandas as pd

from dashboard.backend.choice import DEFAULT_COUNT, DEFAULT_LEVEL, GAP_CLASSES, Choice
from fkd.core.ball import NORMS
from fkd.core.errors import FkdError
from fkd.core.progress import ProgressCallback
from fkd.data import DataSetInfo, get_data_set, list_data_sets
from fkd.evaluation import AnalysisEntry, ResolvedPair, list_analyses
from fkd.models import ModelCard, damaged_models, list_models

#: Parts of a model card worth comparing, with their names for people.
_CARD_PARTS = {
    "method": "method",
    "architecture": "architecture",
    "parameters": "parameters",
    "epsilon": "trained at ε",
    "seed": "seed",
}

#: Settings of a training that a card tells by themselves.
_TOLD = frozenset(
    {"name", "seed", "method", "method_config", "architecture", "architecture_config"}
)


def data_sets() -> list[DataSetInfo]:
    """All data sets, those with models first."""
    with_models = {card.dataset for card in list_models()}
    return sorted(list_data_sets(), key=lambda info: info.name not in with_models)


def data_set(name: str) -> DataSetInfo | None:
    """One data set's facts; None for an unknown name."""
    return next((info for info in list_data_sets() if info.name == name), None)


def image_count(dataset: str) -> int | None:
    """How many test images there are; None where they cannot be read.

    Reading is for once: splits stay in memory, and a stored answer needs their fingerprint anyway.
    """
    try:
        found = get_data_set(dataset)
        return len(found.load("test")) if found.is_available() else None
    except FkdError:
        return None


def cards(dataset: str | None = None, role: str | None = None) -> list[ModelCard]:
    """Model cards, shipped ones first."""
    return list_models(dataset, role)


def damaged() -> dict[str, str]:
    """Model folders that cannot be used, with a sentence each."""
    return damaged_models()


def teachers(dataset: str) -> list[ModelCard]:
    """Teachers trained on a data set, those with students first."""
    taught = {card.teacher.name for card in list_models(dataset, "student") if card.teacher}
    return sorted(list_models(dataset, "teacher"), key=lambda card: card.name not in taught)


def students(dataset: str, teacher: str) -> list[ModelCard]:
    """Students on a data set: the teacher's own first, and trained ones before copies of its weights."""
    found = list_models(dataset, "student")
    return sorted(found, key=lambda card: (not is_student_of(card, teacher), not card.history))


def is_student_of(card: ModelCard, teacher: str) -> bool:
    """Whether the card's student was distilled from the teacher of that name."""
    return card.teacher is not None and card.teacher.name == teacher


def same_method_student(dataset: str, teacher: str, student: str) -> str | None:
    """The teacher's own student nearest to ``student``: itself, same method, or the first."""
    own = [card for card in students(dataset, teacher) if is_student_of(card, teacher)]
    if not own:
        return None
    if any(card.name == student for card in own):
        return student
    method = next((c.method for c in list_models(dataset, "student") if c.name == student), None)
    same = [card.name for card in own if card.method == method]
    return same[0] if same else own[0].name


#: Method whose students are shown first: the one this product is named after.
SHOWN_FIRST = "faithful"


def default_pair(dataset: str) -> tuple[str | None, str | None, float]:
    """Teacher, student and radius (L∞) to show first: a pair whose analysis is stored, if there is one.

    Shipped pairs come first; students of `SHOWN_FIRST` before others, those that were trained before
    mere copies, the teacher of most such students before others, then by name, so the choice is the
    same on every machine; of the radii stored for it, the middle one: at the smallest little happens,
    at the largest little can be proved.
    """
    usual = (DEFAULT_COUNT, GAP_CLASSES[0], NORMS[0], DEFAULT_LEVEL)
    found: dict[tuple[bool, bool, bool, str, str], list[AnalysisEntry]] = {}
    compared: defaultdict[str, set[str]] = defaultdict(set)
    known = {card.name: card for card in list_models(dataset)}
    for entry in list_analyses(dataset):
        choice = choice_of(entry.config)
        if (choice.count, choice.gap_class, choice.norm, choice.level) != usual:
            continue
        student = known.get(choice.student)
        if student is None or not is_student_of(student, choice.teacher):
            continue
        order = (not entry.is_shipped, student.method != SHOWN_FIRST, not student.history)
        found.setdefault((*order, choice.teacher, choice.student), []).append(entry)
        if student.history:
            compared[choice.teacher].add(choice.student)

    def place(pair: tuple[bool, bool, bool, str, str]) -> tuple[bool | int | str, ...]:
        *order, teacher, student = pair
        return (*order, -len(compared[teacher]), teacher, student)

    # Whether an entry is current takes a hash: of the zoo's hundreds, few are asked.
    for pair in sorted(found, key=place):
        radii = sorted(entry.config.epsilon for entry in found[pair] if is_current(entry))
        if radii:
            *_, teacher, student_name = pair
            return teacher, student_name, radii[len(radii) // 2]
    first = next(iter(teachers(dataset)), None)
    if first is None:
        return None, None, 0.1
    own = next(iter(students(dataset, first.name)), None)
    return first.name, own.name if own else None, 0.1


def is_current(entry: AnalysisEntry) -> bool:
    """Whether a stored analysis still answers the choice it was made for.

    It does not once a model was replaced, or where settings were used that the pages do not offer:
    its key is then not the one the page asks for.
    """
    try:
        return ResolvedPair(choice_of(entry.config).config()).key() == entry.key
    except FkdError:
        # A model or a data set it names is gone.
        return False


def card_differences(names: list[str], dataset: str, *, show_all: bool = False) -> pd.DataFrame:
    """What sets models apart: one row per setting, one column per model.

    Args:
        names: model names.
        dataset: their data set.
        show_all: also settings that are equal in all of them.
    """
    by_name = {card.name: card for card in list_models(dataset)}
    settings: dict[str, dict[str, Any]] = {}
    for name in names:
        card = by_name.get(name)
        if card is None:
            continue
        parts: dict[str, Any] = {
            label: getattr(card, field) for field, label in _CARD_PARTS.items()
        }
        parts["teacher"] = card.teacher.name if card.teacher else None
        parts |= {f"method: {k}": v for k, v in card.method_config.items()}
        parts |= {f"architecture: {k}": v for k, v in card.architecture_config.items()}
        parts |= {f"training: {k}": v for k, v in card.training_config.items() if k not in _TOLD}
        settings[name] = {key: "—" if v is None else str(v) for key, v in parts.items()}
    table = pd.DataFrame(settings).fillna("—")
    if show_all or table.shape[1] < 2:
        return table
    # A copy was not trained: that its training has no batch size, say, sets nobody apart.
    is_training = table.index.str.startswith("training: ")
    there = table.mask(table == "—")
    differs = table.nunique(axis=1).where(~is_training, there.nunique(axis=1))
    return table[differs > 1]


def download(name: str, progress: ProgressCallback | None = None) -> None:
    """Fetch a data set.

    Raises:
        DataError: it cannot be downloaded.
    """
    get_data_set(name).download(progress)


def choice_of(entry_config: Any) -> Choice:
    """The choice that a stored analysis answers."""
    return Choice(
        dataset=entry_config.dataset,
        teacher=entry_config.teacher,
        student=entry_config.student,
        epsilon=entry_config.epsilon,
        count=entry_config.count,
        gap_class=entry_config.gap_class,
        norm=entry_config.norm,
        level=entry_config.certificate.name,
        seconds=getattr(entry_config.certificate, "seconds", None),
    )
