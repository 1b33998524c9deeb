"""Students in all figures: what is stored as a leaderboard, the run that measures the rest, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.backend import analyses
from dashboard.backend.catalogue import choice_of, is_student_of
from dashboard.backend.catalogue import students as students_of
from dashboard.backend.choice import Choice
from dashboard.backend.runs import check_may_start
from fkd import evaluation, runs
from fkd.core import paths
from fkd.core.errors import FkdError
from fkd.data import list_data_sets
from fkd.evaluation import Figure, Scores, ScoresConfig
from fkd.models import list_models
from fkd.runs import RunRecord

#: So many students are asked for whether a radius was measured.
_ASKED = 4


@dataclass(frozen=True)
class Board:
    """Students of one teacher in all figures; shared by all sessions, so read only.

    Attributes:
        students: a leaderboard, one row a student, also for those of whom nothing is stored.
        methods: the same with students that differ by seed alone as one row: means, and as ``FIGURE_std``
            standard deviations.
        unmeasured: students of whom a group of figures is missing.
        unanalysed: students without a stored analysis.
        bins: those of each student's reliability diagram; without students that have none.
    """

    students: pd.DataFrame
    methods: pd.DataFrame
    unmeasured: tuple[str, ...]
    unanalysed: tuple[str, ...]
    bins: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class FigureGroup:
    """Figures that are measured together.

    Attributes:
        name: as fkd has it.
        title: for people.
        figures: their names.
    """

    name: str
    title: str
    figures: tuple[str, ...]


def figure_groups() -> list[FigureGroup]:
    """All groups of figures in the order in which they are shown."""
    found = []
    for name in evaluation.group_names():
        group = evaluation.SCORES.get(name)
        found.append(FigureGroup(name, group.title, tuple(f.name for f in group.figures)))
    return found


def score_figures() -> dict[str, Figure]:
    """Every figure by its name: title, unit, which end is better, meaning."""
    return evaluation.all_figures()


def recipes(dataset: str, teacher: str) -> dict[str, str]:
    """Student to a hash of all that made it but name and seed, the teacher's own students first."""
    return {card.name: evaluation.recipe(card) for card in students_of(dataset, teacher)}


def _settings(choice: Choice) -> dict[str, Any]:
    settings = choice.config().model_dump(mode="json")
    del settings["student"]
    return settings


def board(choice: Choice, students: Sequence[str]) -> Board:
    """The stored figures of a choice's teacher, images and ball for these students.

    Raises:
        FkdError: the choice names something that does not exist or does not fit.
    """
    hashes = {card.name: card.model_hash for card in list_models(choice.dataset)}
    # Students that went away meanwhile are no reason for an error.
    there = tuple(name for name in students if name in hashes)
    identity = tuple(hashes[name] for name in (choice.teacher, *there))
    return _board(choice, there, identity, _stamp())


def _stamp() -> tuple:
    """Changes whenever a table may have come or gone: asking for each by its key takes too long."""
    folders = (
        *(paths.results_dir() / name for name in ("", "scores")),
        *(evaluation.shipped_dir() / name for name in ("", "scores")),
    )
    times = tuple(folder.stat().st_mtime_ns if folder.is_dir() else 0 for folder in folders)
    return times, tuple(info.name for info in list_data_sets() if info.is_available)


@st.cache_resource(max_entries=32, show_spinner="Reading the students' figures …")
def _board(choice: Choice, students: tuple[str, ...], identity: tuple, stamp: tuple) -> Board:
    configs = evaluation.score_configs(_settings(choice), students) if students else ()
    found = [_scores(config) for config in configs]
    tables = {}
    for name in students:
        loaded = analyses.find(choice.but(student=name))
        if loaded is not None:
            tables[name] = loaded.analysis.table
    table = evaluation.leaderboard_of(found, tables)
    return Board(
        students=table,
        methods=evaluation.spread(table),
        unmeasured=tuple(table.loc[table["missing"] != "", "student"]),
        unanalysed=tuple(name for name in students if name not in tables),
        bins={
            name: bins
            for name, one in zip(students, found, strict=True)
            if (bins := one.details.get("calibration")) is not None and len(bins)
        },
    )


class _IncompleteError(Exception):
    """Raised inside the cache, so that an absence is never remembered; holds what there is."""

    def __init__(self, found: Scores) -> None:
        super().__init__(found.key)
        self.found = found


def _scores(config: ScoresConfig) -> Scores:
    """What is stored of one student; kept in memory once all of it is there."""
    try:
        return _complete(evaluation.scores_key(config), config.model_dump_json())
    except _IncompleteError as error:
        return error.found


@st.cache_resource(max_entries=512, show_spinner=False)
def _complete(key: str, config_json: str) -> Scores:
    config = ScoresConfig.model_validate_json(config_json)
    found = evaluation.stored_scores(config, values_only=True)
    if found.missing:
        raise _IncompleteError(found)
    return found


def measured_radii(choice: Choice, students: Sequence[str]) -> tuple[float, ...]:
    """Radii at which one of these students is measured in all figures, everything else being equal.

    Only radii of which an analysis of the student is stored are looked at: measuring makes one.
    """
    return _measured_radii(choice, tuple(students), _stamp())


@st.cache_data(max_entries=64, show_spinner=False)
def _measured_radii(choice: Choice, students: tuple[str, ...], stamp: tuple) -> tuple[float, ...]:
    analysed: dict[float, list[Choice]] = {}
    for entry in evaluation.list_analyses(choice.dataset, choice.teacher):
        other = choice_of(entry.config)
        alike = choice.but(student=other.student, epsilon=other.epsilon)
        if other.student in students and other == alike and other.epsilon != choice.epsilon:
            analysed.setdefault(other.epsilon, []).append(other)
    # A few of them stand for all: they are measured together.
    return tuple(
        epsilon
        for epsilon in sorted(analysed)
        if any(_is_complete(other) for other in analysed[epsilon][:_ASKED])
    )


def stored_radius(choice: Choice) -> float | None:
    """The nearest radius at which some of the teacher's own students are measured in all figures.

    None where some are at the choice's radius, everything else being equal, or at no other one.
    """
    own = [
        card.name
        for card in students_of(choice.dataset, choice.teacher)
        if is_student_of(card, choice.teacher)
    ]
    if any(_is_complete(choice.but(student=name)) for name in own[:_ASKED]):
        return None
    radii = measured_radii(choice, own)
    return min(radii, key=lambda radius: abs(radius - choice.epsilon), default=None)


def _is_complete(choice: Choice) -> bool:
    try:
        return not _scores(ScoresConfig.parse(_settings(choice), student=choice.student)).missing
    except FkdError:
        # A model or a data set it names is gone.
        return False


def start_scores(choice: Choice, students: Sequence[str]) -> str:
    """Start the run that measures these students in all figures; its id.

    Raises:
        FkdError: they cannot be measured.
    """
    check_may_start()
    return runs.start_run("score", scores_spec(choice, students))


def scores_spec(choice: Choice, students: Sequence[str]) -> dict[str, Any]:
    """The specification of the run that measures these students.

    Raises:
        FkdError: the choice names something that does not exist or does not fit.
    """
    configs = evaluation.score_configs(_settings(choice), students)
    shared = configs[0].model_dump(mode="json", exclude={"student"})
    return {**shared, "students": [config.student for config in configs]}


def live_scores(choice: Choice, students: Sequence[str]) -> RunRecord | None:
    """The newest run that measures any of these students, unless it is done.

    A run tells of fewer and fewer students that are missing while it works, so it need not be exactly of
    these.
    """
    if not students:
        return None
    wanted = scores_spec(choice, students)
    for record in runs.list_runs(50, "score"):
        spec = {**record.spec, "students": wanted["students"]}
        if spec == wanted and set(record.spec["students"]) & set(students):
            return record if record.state != "done" else None
    return None


def reliability(board: Board, students: Sequence[str]) -> pd.DataFrame:
    """The bins of a reliability diagram of all these students together; no rows where none has them.

    Columns `fkd.evaluation.RELIABILITY_COLUMNS`.
    """
    tables = [board.bins[name] for name in students if name in board.bins]
    return evaluation.pooled_reliability(tables)


def ranked(table: pd.DataFrame, figure: str) -> pd.DataFrame:
    """The rows, best first in one figure."""
    return evaluation.ranked(table, figure)


def is_copy(table: pd.DataFrame) -> pd.Series:
    """Which rows are the teacher's own weights, rounded or pruned."""
    return evaluation.is_copy(table)


def is_best(table: pd.DataFrame, figure: str, among: pd.Series | None = None) -> pd.Series:
    """Which rows are the best in one figure, of those ``among`` which it is asked (None: all)."""
    return evaluation.is_best(table, figure, among=among)


def front(table: pd.DataFrame, x: str, y: str, among: pd.Series | None = None) -> pd.Series:
    """Which rows no other beats in two figures, of those ``among`` which it is asked (None: all)."""
    return evaluation.pareto(table, x, y, among=among)


def teachers_value(table: pd.DataFrame, figure: str) -> float | None:
    """What the teacher itself has in a figure of students; None where that is not measured."""
    return evaluation.teachers_value(table, figure)


def agreement_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Columns ``agreement_certified, open_share, disagreement_found`` of each row."""
    return evaluation.agreement_shares(table)


def figure_text(figure: Figure, value: float | None, deviation: float | None = None) -> str:
    """A figure as people read it, with its standard deviation over seeds where there is one."""
    return evaluation.figure_text(figure, value, deviation)


def leaderboard_file(
    choice: Choice,
    table: pd.DataFrame,
    figures: Sequence[str],
    suffix: str,
    *,
    names: Sequence[str] | None = None,
    among: pd.Series | None = None,
) -> bytes:
    """A leaderboard as the content of a file, with these figures alone, in this order.

    Args:
        choice: teacher, images and ball that the figures are of.
        table: `Board.students` or `Board.methods`, some or all rows.
        figures: which figures.
        suffix: ``.csv``, ``.parquet`` or ``.tex``.
        names: what the page calls the rows.
        among: rows of which LaTeX has the best in bold; all if None.
    """
    known = evaluation.all_figures()
    facts = [name for name in table if name.removesuffix("_std") not in known]
    ends = [name for figure in figures for name in (figure, f"{figure}_std") if name in table]
    return evaluation.leaderboard_bytes(
        table[[*facts, *ends]],
        suffix,  # type: ignore[arg-type]
        measured=ScoresConfig.parse(_settings(choice), student=choice.student),
        names=names,
        figures=figures,
        among=among,
    )


def reproduce_scores(choice: Choice, students: Sequence[str]) -> str:
    """The command line that measures these students, one option per line."""
    config = ScoresConfig.parse(_settings(choice), student=students[0])
    return evaluation.reproduce_snippet(config, students=students, lines=True)
