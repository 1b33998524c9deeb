"""Students of a teacher side by side in all figures: one row each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from fkd.core.errors import ConfigError
from fkd.core.hashing import hash_json, short
from fkd.core.progress import Progress, ProgressCallback, report
from fkd.evaluation.compare import check_comparable
from fkd.evaluation.config import ResolvedPair
from fkd.evaluation.scored_pair import ScoresConfig
from fkd.evaluation.scores import SCORES
from fkd.evaluation.scores.faithfulness import Faithfulness, figures_of_analysis
from fkd.evaluation.scores_store import Scores, find_scores, score_pair
from fkd.models import ModelCard
from fkd.records import Column

#: What a leaderboard tells of a student before its figures.
STUDENT_COLUMNS: tuple[Column, ...] = (
    Column("student", pa.string(), "name", "Student's name."),
    Column("teacher", pa.string(), "name", "Teacher's name."),
    Column("method", pa.string(), "name", "Method by which the student was made."),
    Column("architecture", pa.string(), "name", "The student's architecture."),
    Column(
        "seed",
        pa.int64(),
        "number",
        "Seed of the student's training; null where it was not trained here.",
        nullable=True,
    ),
    Column(
        "recipe",
        pa.string(),
        "hash",
        "Hash of all that made the student but its name, seed and device: students that differ only by "
        "seed have the same.",
    ),
    Column(
        "missing",
        pa.string(),
        "name",
        "Groups of figures that were not measured yet, separated by commas; empty where all were.",
    ),
    Column("key", pa.string(), "hash", "Key of the student's figures."),
)


def score_configs(settings: Mapping[str, Any], students: Sequence[str]) -> tuple[ScoresConfig, ...]:
    """The configurations of several students with the same settings.

    Args:
        settings: of a `ScoresConfig`, without ``student``.
        students: models' names or folders.

    Raises:
        ConfigError: no student, one that is named twice, an unknown setting or name, or a student that
            does not fit the teacher and the data set.
    """
    if not students:
        raise ConfigError("At least one student is needed, got none; name one or more.")
    configs = tuple(ScoresConfig.parse(dict(settings), student=student) for student in students)
    # A folder may be another name of the same model.
    names = Counter(ResolvedPair(config.analysis()).student_card.name for config in configs)
    twice = [name for name, times in names.items() if times > 1]
    if twice:
        raise ConfigError(f"The student '{twice[0]}' is named more than once; name each once.")
    return configs


def score_students(
    configs: Sequence[ScoresConfig],
    *,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    fresh: bool = False,
) -> pd.DataFrame:
    """Measure what is not stored yet, student after student, then `leaderboard`.

    Args:
        configs: one for each student.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: told about the students and what is done with each; answering True cancels.
        fresh: measure anew even where figures are stored.

    Raises:
        FkdError: whatever `score_pair` raises; students that were finished are kept.
    """
    check_comparable(configs)
    # Before hours of measuring, not after.
    _check_figures(configs)
    for done, config in enumerate(configs):
        report(progress, "students", done, len(configs))
        score_pair(config, device=device, progress=_named(progress, config.student), fresh=fresh)
    report(progress, "students", len(configs), len(configs))
    return leaderboard(configs)


def _named(progress: ProgressCallback | None, student: str) -> ProgressCallback | None:
    if progress is None:
        return None
    return lambda step: progress(
        Progress(f"{student}: {step.stage}", step.done, step.total, step.values)
    )


def leaderboard(configs: Sequence[ScoresConfig]) -> pd.DataFrame:
    """One row for each student of whom any group of figures is stored, in the order asked for.

    Returns:
        `STUDENT_COLUMNS`, then a column for each figure of the groups asked for (`leaderboard_columns`
        documents them); NaN where a figure is missing.

    Raises:
        ConfigError: the configurations differ in data set, ball, examples, compared class, attack,
            certificate, groups or data set out of distribution, so that their figures would not be
            comparable; or a name is unknown.
    """
    check_comparable(configs)
    found = (find_scores(config) for config in configs)
    wanted = configs[0].groups if configs else ()
    _check_figures(configs)
    return leaderboard_of([scores for scores in found if scores is not None], groups=wanted)


def leaderboard_of(
    found: Sequence[Scores],
    analyses: Mapping[str, pd.DataFrame] | None = None,
    *,
    groups: Sequence[str] | None = None,
) -> pd.DataFrame:
    """A `leaderboard` of figures that are in memory already.

    Args:
        found: each student's, from `fkd.evaluation.stored_scores` or `find_scores`; comparable ones.
        analyses: analysis tables by the student's name.  Where the group of faithfulness is missing, what
            an analysis alone tells stands in its place, and what the student's card tells where those of
            accuracy and cost are; the groups stay named in ``missing``.
        groups: whose figures the columns are; those of the first student if absent.

    Returns:
        As `leaderboard`, one row for each of ``found``.

    Raises:
        ConfigError: their groups, or their data sets out of distribution, differ.
    """
    _check_figures([scores.config for scores in found])
    names = groups if groups is not None else (found[0].config.groups if found else ())
    wanted = [figure.name for name in names for figure in SCORES.get(name).figures]
    rows = [_row(scores, analyses or {}) for scores in found]
    table = pd.DataFrame(rows, columns=[*(column.name for column in STUDENT_COLUMNS), *wanted])
    return table.astype({"seed": "Int64", **dict.fromkeys(wanted, float)})


def _check_figures(configs: Sequence[ScoresConfig]) -> None:
    """Refuse figures that are not the same ones, or not of the same images."""
    if len({config.groups for config in configs}) > 1:
        raise ConfigError(
            "Only students with the same groups of figures can be set side by side; ask for the same "
            "groups of each."
        )
    sets = {config.outside for config in configs}
    if len(sets) > 1:
        raise ConfigError(
            "Only figures with the same data set out of distribution can be compared, got "
            f"{' and '.join(sorted(str(name) for name in sets))}; choose one."
        )


def _row(scores: Scores, analyses: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    pair = ResolvedPair(scores.config.analysis())
    card = pair.student_card
    told = analyses.get(card.name) if Faithfulness.name in scores.missing else None
    from_analysis = {} if told is None else figures_of_analysis(told)
    return {
        "student": card.name,
        "teacher": pair.teacher_card.name,
        "method": card.method,
        "architecture": card.architecture,
        "seed": card.training_config.get("seed") if card.seed is None else card.seed,
        "recipe": recipe(card),
        "missing": ", ".join(scores.missing),
        "key": scores.key,
        **_of_card(card, scores.config),
        **{name: score.value for name, score in from_analysis.items()},
        # Nulls of nullable columns are no floats.
        **dict(zip(scores.table.figure, _floats(scores.table.value), strict=True)),
    }


def _of_card(card: ModelCard, config: ScoresConfig) -> dict[str, float]:
    """Figures that a card tells whatever the ball is; what was measured stands before them."""
    told = {"parameters": float(card.parameters)} if card.parameters else {}
    accuracy = card.metrics.get("clean_accuracy")
    if accuracy is not None and card.dataset == config.dataset and config.split == "test":
        told["clean_accuracy"] = accuracy
    return told


def _floats(values: pd.Series) -> np.ndarray:
    return values.to_numpy(dtype=float, na_value=np.nan)


def recipe(card: ModelCard) -> str:
    """Hash of all that made a model but its name, its seed and the device (hex).

    A model without a training configuration (copied, imported) is its own recipe.
    """
    if not card.training_config:
        return short(card.model_hash)
    # Where a seed was trained, and what was measured of it afterwards, is no part of how.
    left_out = ("name", "seed", "device", "mixed_precision")
    settings = {
        name: value
        for name, value in card.training_config.items()
        if name not in left_out and not name.startswith("report_")
    }
    made_by = {
        "method": card.method,
        "architecture": [card.architecture, card.architecture_config],
        "teacher": None if card.teacher is None else card.teacher.model_hash,
        "data": card.data_fingerprint,
    }
    return short(hash_json({"settings": settings, **made_by}))
