"""Black-box transfer: witnesses found against one student, tried on every other student of the teacher.

An attack that knows a student's weights finds a point where it differs from its teacher.  Whoever attacks
another student has that point for nothing.  Each student's witnesses are evaluated on the teacher and on
all students, so that one sees which weaknesses are shared.  What carries over is also a point of the
other's ball: where it beats the other's own witness, the lower end of that bracket can be raised.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from pydantic import Field, field_validator
from torch import Tensor

from fkd.attacks.objectives import confidence
from fkd.core.device import choose_device
from fkd.core.errors import ConfigError, SoundnessError
from fkd.core.precision import double_copy, logits_of
from fkd.core.progress import Progress, ProgressCallback, report
from fkd.data import Split
from fkd.evaluation._attacked import attack_pair
from fkd.evaluation.config import AnalysisConfig, AttackedConfig, ResolvedPair, check_count
from fkd.evaluation.levels import at_every_level
from fkd.evaluation.pair import SOUNDNESS_TOLERANCE
from fkd.evaluation.store import Analysis
from fkd.evaluation.witnesses import witness_arrays
from fkd.models import Model, load_model
from fkd.records import Column

TRANSFER_COLUMNS: tuple[Column, ...] = (
    Column("index", pa.int64(), "position", "Example id: position in the data set's split."),
    Column("source", pa.string(), "name", "Student against which the witnesses were found."),
    Column("target", pa.string(), "name", "Student on which they are tried."),
    Column(
        "disagrees",
        pa.bool_(),
        "yes/no",
        "Whether the teacher and the target differ at the source's disagreement witness; null where the "
        "source has none.",
        nullable=True,
    ),
    Column(
        "gap", pa.float64(), "probability", "The target's gap at the source's witness of its gap."
    ),
    Column(
        "gap_own",
        pa.float64(),
        "probability",
        "The target's gap at its own witness: the largest that the attack on it found.",
    ),
    Column("gap_clean", pa.float64(), "probability", "The target's gap at the clean image."),
)


class TransferConfig(AttackedConfig):
    """One table of transfers: as an analysis without a certificate, but of several students."""

    students: tuple[str, ...] = Field(
        description="Students: at least two models' names or folders, in any order."
    )

    @field_validator("students")
    @classmethod
    def _check_students(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) < 2:
            named = f"'{value[0]}' alone" if value else "none"
            raise ConfigError(
                "Witnesses carry over from one student to another, so at least two students are needed, "
                f"got {named}; name two or more."
            )
        _check_different(value)
        # Their order says nothing: the same students are the same table.
        return tuple(sorted(value))

    def pair(self, student: str) -> AnalysisConfig:
        """The analysis of one student on the same examples, with the same attack."""
        shared = {name: getattr(self, name) for name in AttackedConfig.model_fields}
        return AnalysisConfig(**shared, student=student)


class ResolvedTransfer:
    """The pairs of a transfer, each checked against the data set and the ball.

    Raises:
        ConfigError: unknown names, a student that does not fit, or one that is named twice.
    """

    def __init__(self, config: TransferConfig) -> None:
        self.config = config
        self.pairs = [ResolvedPair(config.pair(student)) for student in config.students]
        # A folder may be another name of the same model.
        _check_different(self.names)

    @property
    def names(self) -> list[str]:
        """The students' names, as their cards have them."""
        return [pair.student_card.name for pair in self.pairs]

    def load_split(self) -> Split:
        """The split whose first examples are meant.

        Raises:
            ConfigError: it has fewer of them.
            DataError: the images are absent or damaged.
        """
        config = self.config
        split = self.pairs[0].data_set.load(config.split)
        check_count(config.count, len(split), config.dataset, config.split)
        return split


def _check_different(students: tuple[str, ...] | list[str]) -> None:
    twice = [name for name, times in Counter(students).items() if times > 1]
    if twice:
        raise ConfigError(f"The student '{twice[0]}' is named more than once; name each once.")


@dataclass(frozen=True)
class _Source:
    """One student with what was found against it.

    Attributes:
        model: with its weights.
        witnesses: as `Analysis.witnesses` holds them.
        origin: key of the analysis that they were read from; None where the attack was run.
        stored: every stored analysis of it, of whatever certificate.
    """

    model: Model
    witnesses: dict[str, np.ndarray]
    origin: str | None
    stored: list[Analysis]


def carry_over(
    resolved: ResolvedTransfer,
    *,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    fresh: bool = False,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Try every student's witnesses on every student, storing nothing.

    Witnesses are read from stored analyses where they are the attack's own, and found by the same attack
    elsewhere, so the table does not depend on what is stored.

    Args:
        resolved: students, teacher and examples.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: told about the stages ``attack`` and ``transfer``; answering True cancels.
        fresh: attack also where witnesses are stored.

    Returns:
        One row an example, source and target (columns: `TRANSFER_COLUMNS`), and ``witnesses_from``: the
        key of the analysis whose witnesses were used for each student, None where it was attacked.

    Raises:
        ConfigError: a count beyond the data.
        DataError: the data set is absent or damaged.
        CheckpointError: a model is damaged.
        SoundnessError: a witness exceeds a stored certificate of another student, a bug in this program.
        Cancelled: ``progress`` asked to stop.
    """
    config = resolved.config
    place = choose_device(device)
    split = resolved.load_split()
    images = split.images[: config.count].to(place)
    teacher = load_model(config.teacher, device=str(place))
    exact = double_copy(teacher.network)
    clean = logits_of(exact, images)
    by_label = config.gap_class == "label"
    classes = split.labels[: config.count].to(place) if by_label else clean.argmax(1)
    sources = []
    for number in range(len(resolved.pairs)):
        tell = _within(progress, number, len(resolved.pairs), config.count)
        sources.append(_find_source(resolved, number, teacher, images, classes, tell, fresh))
    networks = [double_copy(source.model.network) for source in sources]

    def gaps(teachers: Tensor, students: Tensor) -> Tensor:
        return (confidence(teachers, classes) - confidence(students, classes)).abs()

    count, size = config.count, (len(sources), len(sources), config.count)
    gap = np.zeros(size)
    has_witness, differs = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    for row, source in enumerate(sources):
        report(progress, "transfer", row, len(sources))
        found = source.witnesses
        rows = found["disagreement_rows"]
        points = np.concatenate([found["gap_witness"], found["disagreement_witness"]])
        batch = torch.from_numpy(points).to(place)
        at_teacher = logits_of(exact, batch)
        has_witness[row][:, rows] = True
        for column, network in enumerate(networks):
            at_target = logits_of(network, batch)
            gap[row, column] = gaps(at_teacher[:count], at_target[:count]).cpu().numpy()
            apart = at_teacher[count:].argmax(1) != at_target[count:].argmax(1)
            differs[row, column, rows] = apart.cpu().numpy()
    gap_clean = np.stack([gaps(clean, logits_of(n, images)).cpu().numpy() for n in networks])
    for column, source in enumerate(sources):
        _check_soundness(source, gap[:, column].max(0), differs[:, column].any(0))
    report(progress, "transfer", len(sources), len(sources))

    names = np.array(resolved.names, dtype=object)
    every = np.arange(len(sources))
    table = pd.DataFrame(
        {
            "index": np.broadcast_to(np.arange(count), size).ravel(),
            "source": np.broadcast_to(names[:, None, None], size).ravel(),
            "target": np.broadcast_to(names[None, :, None], size).ravel(),
            "disagrees": pd.Series(differs.ravel(), dtype="boolean").mask(~has_witness.ravel()),
            "gap": gap.ravel(),
            "gap_own": np.broadcast_to(gap[every, every], size).ravel(),
            "gap_clean": np.broadcast_to(gap_clean, size).ravel(),
        }
    )
    return table, {"witnesses_from": {s.model.card.name: s.origin for s in sources}}


def _find_source(
    resolved: ResolvedTransfer,
    number: int,
    teacher: Model,
    images: Tensor,
    classes: Tensor,
    progress: ProgressCallback | None,
    fresh: bool,
) -> _Source:
    config, reference = resolved.config, resolved.config.students[number]
    model = load_model(reference, device=str(images.device))
    stored = at_every_level(config.pair(reference))
    for analysis in [] if fresh else stored:
        # A search's own points would make a student's table depend on which level was stored.
        if analysis.witnesses and analysis.metadata.get("witnesses_of_certificate") == 0:
            return _Source(model, analysis.witnesses, analysis.key, stored)
    found = attack_pair(
        config.attack,
        (teacher.network, model.network),
        config.ball.region(images, torch.arange(config.count, device=images.device)),
        classes,
        seed=config.seed,
        progress=progress,
    )
    return _Source(model, witness_arrays(found), None, stored)


def _within(
    progress: ProgressCallback | None, number: int, students: int, count: int
) -> ProgressCallback:
    """An attack's reports as part of those on all students."""

    def tell(step: Progress) -> None:
        report(progress, step.stage, number * count + step.done, students * count)

    return tell


def _check_soundness(target: _Source, gap: np.ndarray, differs: np.ndarray) -> None:
    """Hold what was seen on a target, (N,) each, against every certificate stored of it."""
    for analysis in target.stored:
        table = analysis.table
        bound = table.gap_certified.fillna(np.inf).to_numpy()
        above = gap > bound + SOUNDNESS_TOLERANCE
        wrong = np.flatnonzero(above | (differs & table.agrees_certified.to_numpy()))
        if len(wrong):
            row = int(wrong[0])
            what = (
                f"a gap of {gap[row]:.9f} where the certificate of {analysis.key} claims at most "
                f"{bound[row]:.9f}"
                if above[row]
                else f"a disagreement where the certificate of {analysis.key} claims agreement"
            )
            raise SoundnessError(
                f"Example {row}: another student's witness shows {what} for "
                f"'{target.model.card.name}'; please report this pair."
            )
