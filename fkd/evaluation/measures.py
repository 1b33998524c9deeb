"""Other ways to differ than the confidence of one class: what is measured, on which examples and how.

How far two networks are apart at a point can be said in several ways, each with a search of its own
(`fkd.attacks.measures`).  Whatever was searched, its witnesses are points of the ball, so both networks'
confidences and predictions there are held against every stored certificate of the pair.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor

from fkd.attacks import attack_config
from fkd.attacks.measures import MEASURES, MeasuredDifference, measure_differences
from fkd.attacks.objectives import confidence
from fkd.attacks.search import SearchConfig
from fkd.core.device import choose_device
from fkd.core.errors import ConfigError, SoundnessError
from fkd.core.precision import double_copy, logits_of
from fkd.core.progress import ProgressCallback
from fkd.evaluation.config import AnalysisConfig, AttackedConfig, ResolvedPair, check_count
from fkd.evaluation.levels import at_every_level
from fkd.evaluation.pair import SOUNDNESS_TOLERANCE
from fkd.evaluation.store import Analysis
from fkd.records import Column

#: In what an analysis may differ, and its certificates still hold at the same points.
_ANY = ("certificate", "attack", "seed", "count")

MEASURES_COLUMNS: tuple[Column, ...] = (
    Column("index", pa.int64(), "position", "Example id: position in the data set's split."),
    Column("label", pa.int64(), "class", "True class y of the example."),
    Column("measure", pa.string(), "name", "What is measured, by its name."),
    Column("unit", pa.string(), "name", "Unit of the two values: probability, nats or logits."),
    Column("value_clean", pa.float64(), "see unit", "Value at the clean image."),
    Column(
        "value_attack",
        pa.float64(),
        "see unit",
        "Largest value found in the ball; of an event the smaller of both margins, above 0 where the "
        "event was found.",
    ),
    Column(
        "compared",
        pa.int64(),
        "class",
        "Class whose confidences are compared at the witness; null where the measure compares none.",
        nullable=True,
    ),
    Column(
        "teacher_conf",
        pa.float64(),
        "probability",
        "Teacher's confidence in that class at the witness; null where there is none.",
        nullable=True,
    ),
    Column(
        "student_conf",
        pa.float64(),
        "probability",
        "Student's confidence in that class at the witness; null where there is none.",
        nullable=True,
    ),
    Column("teacher_pred", pa.int64(), "class", "Teacher's prediction at the witness."),
    Column("student_pred", pa.int64(), "class", "Student's prediction at the witness."),
    Column(
        "found",
        pa.bool_(),
        "yes/no",
        "Whether the event was found in the ball; null for a measure that is no event.",
        nullable=True,
    ),
)


def measure_names() -> list[str]:
    """All measures' names: differences of probabilities, others, and events."""

    def order(name: str) -> tuple[bool, bool, str]:
        measure = MEASURES.get(name)
        return measure.is_event, measure.unit != "probability", name

    return sorted(MEASURES, key=order)


class MeasuresConfig(AttackedConfig):
    """One table of measures: as an analysis, but of several differences, and without a certificate.

    ``gap_class`` says nothing here, since each measure knows its class.
    """

    student: str = Field(description="Student: a model's name or folder.")
    measures: tuple[str, ...] = Field(
        default_factory=lambda: tuple(measure_names()),
        description="Which differences are measured, in any order; all if none are named.",
    )
    attack: SerializeAsAny[SearchConfig] = Field(
        default_factory=SearchConfig, description="The attack, which is search, and its settings."
    )

    @field_validator("attack", mode="before")
    @classmethod
    def _typed_attack(cls, value: Any) -> Any:
        if isinstance(value, dict):
            value = attack_config({"name": SearchConfig().name, **value})
        if not isinstance(value, SearchConfig):
            name = getattr(value, "name", value)
            raise ConfigError(
                f"Measures are driven up by the attack 'search' alone, got '{name}'; leave the name out."
            )
        usual = SearchConfig()
        for idle in ("corners", "seek"):
            if getattr(value, idle) != getattr(usual, idle):
                raise ConfigError(
                    f"Measures have no use for the search's setting '{idle}', which is for analyses; "
                    "leave it out."
                )
        return value

    @field_validator("measures")
    @classmethod
    def _check_measures(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = measure_names()
        if not value:
            raise ConfigError(
                f"At least one measure is needed, got none; name some of {', '.join(known)}."
            )
        for name in value:
            MEASURES.get(name)
        twice = [name for name, times in Counter(value).items() if times > 1]
        if twice:
            raise ConfigError(f"The measure '{twice[0]}' is named more than once; name each once.")
        # Their order says nothing: the same measures are the same table.
        return tuple(name for name in known if name in value)

    def analysis(self, gap_class: Literal["label", "teacher"] = "label") -> AnalysisConfig:
        """An analysis of the same pair on the same examples, with the same attack."""
        shared = {name: getattr(self, name) for name in AttackedConfig.model_fields}
        return AnalysisConfig(**{**shared, "gap_class": gap_class}, student=self.student)


@dataclass(frozen=True)
class FoundDifferences:
    """What was found, before it is stored.

    Attributes:
        table: one row an example and measure (columns: `MEASURES_COLUMNS`).
        witnesses: each measure's points, float32 (N, C, H, W), in the order of the examples.
        gradient_evaluations: of the pair, by all searches together, the mean over examples.
    """

    table: pd.DataFrame
    witnesses: dict[str, np.ndarray]
    gradient_evaluations: float


def find_differences(
    config: MeasuresConfig,
    *,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> FoundDifferences:
    """Drive every measure up in each example's ball, storing nothing.

    Args:
        config: pair, examples, ball, measures and the search.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: told how far the searches are; answering True cancels.

    Raises:
        ConfigError: unknown names, a pair or ball that does not fit, a count beyond the data.
        DataError: the data set is absent or damaged.
        CheckpointError: a model is damaged.
        SoundnessError: a witness exceeds a stored certificate, a bug in this program.
        Cancelled: ``progress`` asked to stop.
    """
    pair = ResolvedPair(config.analysis())
    place = choose_device(device)
    split = pair.data_set.load(config.split)
    check_count(config.count, len(split), config.dataset, config.split)
    networks = tuple(model.network for model in pair.load(str(place)))
    images, labels = (part[: config.count].to(place) for part in (split.images, split.labels))
    found = measure_differences(
        *networks,
        config.ball.region(images, torch.arange(config.count, device=place)),
        labels,
        config.measures,
        seed=config.seed,
        config=config.attack,
        progress=progress,
    )
    doubles = [double_copy(network) for network in networks]
    witnesses = torch.stack([one.witness for one in found.values()])
    teacher, student = (
        logits_of(network, witnesses.flatten(0, 1)).unflatten(0, witnesses.shape[:2])
        for network in doubles
    )
    _check_soundness(config, teacher, student, labels, logits_of(doubles[0], images).argmax(1))
    parts = [
        _rows(name, one, (teacher[number], student[number]), labels)
        for number, (name, one) in enumerate(found.items())
    ]
    # One measure after the other: each example's rows are brought together.
    table = pd.concat(parts).sort_values("index", kind="stable", ignore_index=True)
    return FoundDifferences(
        table,
        {name: one.witness.cpu().numpy() for name, one in found.items()},
        max(one.gradient_evaluations for one in found.values()),
    )


def _rows(
    name: str, found: MeasuredDifference, logits: tuple[Tensor, Tensor], labels: Tensor
) -> pd.DataFrame:
    """One measure's rows; both networks' logits (N, K) are those at the witnesses."""
    measure = MEASURES.get(name)
    is_known = found.compared >= 0
    classes = found.compared.clamp_min(0)

    def numbers(tensor: Tensor) -> pd.Series:
        return pd.Series(tensor.cpu().numpy())

    def where_compared(tensor: Tensor) -> pd.Series:
        return numbers(tensor).where(numbers(is_known))

    value = numbers(found.value)
    return pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "label": numbers(labels),
            "measure": name,
            "unit": measure.unit,
            "value_clean": numbers(found.value_clean),
            "value_attack": value,
            "compared": numbers(classes).astype("Int64").where(numbers(is_known)),
            "teacher_conf": where_compared(confidence(logits[0], classes)),
            "student_conf": where_compared(confidence(logits[1], classes)),
            "teacher_pred": numbers(found.teacher_pred),
            "student_pred": numbers(found.student_pred),
            "found": pd.array(value > 0 if measure.is_event else [None] * len(value), "boolean"),
        }
    )


def _check_soundness(
    config: MeasuresConfig, teacher: Tensor, student: Tensor, labels: Tensor, predicted: Tensor
) -> None:
    """Hold both networks' logits at all witnesses, (P, N, K), against every stored certificate.

    Args:
        config: pair, examples and ball.
        teacher: the teacher's logits.
        student: the student's.
        labels: int64 (N,).
        predicted: int64 (N,), the teacher's predictions at the images.
    """
    several = len(teacher)
    differs = (teacher.argmax(2) != student.argmax(2)).any(0).cpu().numpy()
    for gap_class, classes in (("label", labels), ("teacher", predicted)):
        every = classes.repeat(several)
        sides = [confidence(part.flatten(0, 1), every) for part in (teacher, student)]
        signed = (sides[0] - sides[1]).view(several, -1)
        highest, lowest = (part.cpu().numpy() for part in (signed.amax(0), signed.amin(0)))
        for analysis in at_every_level(config.analysis(gap_class), apart_from=_ANY):
            _hold(analysis, highest, lowest, differs)


def _hold(analysis: Analysis, highest: np.ndarray, lowest: np.ndarray, differs: np.ndarray) -> None:
    """Hold one analysis's bounds against what was seen of teacher minus student confidence, (N,) each."""
    count = min(len(analysis.table), len(differs))
    table = analysis.table.iloc[:count]
    bound = table.gap_certified.fillna(np.inf)
    upper = np.minimum(bound, table.gap_upper_certified.fillna(np.inf))
    lower = np.maximum(-bound, table.gap_lower_certified.fillna(-np.inf))
    outside = (highest[:count] > upper + SOUNDNESS_TOLERANCE) | (
        lowest[:count] < lower - SOUNDNESS_TOLERANCE
    )
    wrong = np.flatnonzero(outside | (differs[:count] & table.agrees_certified))
    if not len(wrong):
        return
    row = int(wrong[0])
    what = (
        f"teacher minus student confidence from {lowest[row]:.9f} to {highest[row]:.9f} where the "
        f"certificate of {analysis.key} claims {lower[row]:.9f} to {upper[row]:.9f}"
        if outside[row]
        else f"a disagreement where the certificate of {analysis.key} claims agreement"
    )
    raise SoundnessError(
        f"Example {row}: witnesses of measures show {what}; please report this pair."
    )
