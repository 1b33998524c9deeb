"""The shipped tables: each student beside its teacher, each model alone, figures of the leaderboard."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fkd import evaluation
from fkd.core.paths import results_dir
from fkd.data import get_data_set
from fkd.evaluation import (
    AnalysisConfig,
    ResolvedPair,
    analyse,
    find_scores,
    score_pair,
    shipped_dir,
    summarise,
)
from fkd.evaluation._packed_tables import is_packed_file
from fkd.evaluation._packing import pack_tables
from fkd.evaluation._stored_tables import is_stored
from fkd.evaluation.scored_pair import ScoresConfig
from pretrained.robustness import (
    COMPARED,
    SHOWN_ALONE,
    compared_tables,
    make_missing,
    robustness_tables,
    table_path,
)
from pretrained.specs import Member, is_current
from pretrained.zoo import COUNT, DATA

LOG = logging.getLogger("build")

#: Folder of the students' figures, below that of the analyses.
SCORES_FOLDER = "scores"


def analyses_of(member: Member) -> list[AnalysisConfig]:
    """What the shipped analyses of a student are of; none of a teacher."""
    return [
        AnalysisConfig(
            dataset=member.dataset,
            teacher=member.teacher,
            student=member.name,
            epsilon=epsilon,
            count=COUNT,
        )
        for epsilon in member.table_epsilons
    ]


def scores_of(member: Member) -> ScoresConfig | None:
    """What the student's figures for the leaderboard are of; None of a teacher."""
    if member.teacher is None:
        return None
    return ScoresConfig(
        dataset=member.dataset,
        teacher=member.teacher,
        student=member.name,
        epsilon=DATA[member.dataset].score_epsilon,
        count=COUNT,
    )


def robustness_of(member: Member) -> list[evaluation.RobustnessConfig]:
    """What a model's shipped robustness tables are of."""
    if member.teacher is None:
        return robustness_tables([member.name]) + compared_tables([member.name])
    is_shown = member.label in SHOWN_ALONE and member.spec.seed == 0
    tables = robustness_tables([member.name]) if is_shown else []
    return tables + (compared_tables([member.name]) if member.label in COMPARED else [])


def missing(member: Member) -> list[str]:
    """Which kinds of a current model's tables are missing, in words."""
    kinds = []
    if any(not is_stored(shipped_dir(), _key(config)) for config in analyses_of(member)):
        kinds.append("analyses")
    if any(not table_path(config).is_file() for config in robustness_of(member)):
        kinds.append("robustness")
    scores = scores_of(member)
    if scores is not None:
        # What the user measured is not shipped.
        with own_home():
            found = find_scores(scores)
        if found is None or found.missing:
            kinds.append("figures")
    return kinds


def make_tables(member: Member, device: str) -> None:
    """Make those of a current model's tables that are missing.

    Raises:
        FkdError: whatever analyses and measurements raise.
    """
    with own_home():
        for config in analyses_of(member):
            _make_analysis(config, device)
        make_missing(robustness_of(member), device)
        scores = scores_of(member)
        if scores is not None and "figures" in missing(member):
            score_pair(scores, device=device)
            _ship_scores()
            LOG.info("%s: figures at %g", member.name, scores.epsilon)


def prune(members: Sequence[Member]) -> int:
    """Drop tables of pairs, models or procedures that are no more; pack analyses and figures.

    Both are made one by one, by several processes side by side, and packed at the end.

    Args:
        members: the whole zoo: what it does not name goes.

    Returns:
        How many files and packed tables were dropped.

    Raises:
        StoreError: a table that is to be kept is damaged; none was packed with it.
    """
    current = [member for member in members if is_current(member.spec)]
    analyses = {_key(config) for m in current for config in analyses_of(m)}
    alone = {table_path(config).name for m in current for config in robustness_of(m)}
    folder = shipped_dir()
    loose = [p for p in folder.glob("[!.]*") if p.is_file() and not is_packed_file(p)]
    stale = [p for p in loose if p.name.split(".")[0] not in analyses]
    stale += [p for p in (folder / evaluation.ROBUSTNESS_FOLDER).glob("*") if p.name not in alone]
    for path in stale:
        path.unlink()
    figures = {key for member in current for key in _score_keys(member)}
    # Thousands of tables of a few rows, of which some have a second one beside the first.
    keep = figures | {f"{key}-detail" for key in figures}
    dropped = pack_tables(folder, analyses) + pack_tables(folder / SCORES_FOLDER, keep)
    return len(stale) + dropped


def _key(config: AnalysisConfig) -> str:
    return ResolvedPair(config).key()


def _make_analysis(config: AnalysisConfig, device: str) -> None:
    if is_stored(shipped_dir(), _key(config)):
        return
    path = shipped_dir() / f"{_key(config)}.parquet"
    analysis = analyse(config, device=device)
    if not get_data_set(config.dataset).is_embedded:
        # Witnesses are images, and those of downloaded sets are not shipped.
        analysis = dataclasses.replace(analysis, witnesses={})
    path.parent.mkdir(parents=True, exist_ok=True)
    analysis.write(path)
    LOG.info("%s at %g: %s", config.student, config.epsilon, summarise(analysis.table).verdict)


def _ship_scores() -> None:
    target = shipped_dir() / SCORES_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for path in (results_dir() / SCORES_FOLDER).glob("*.parquet"):
        shutil.copyfile(path, target / path.name)


def _score_keys(member: Member) -> set[str]:
    """Keys of the stored groups of a student's figures."""
    scores = scores_of(member)
    found = find_scores(scores) if scores is not None else None
    return set() if found is None else {str(one["key"]) for one in found.metadata.values()}


@contextmanager
def own_home() -> Iterator[None]:
    """A home of its own: the user's stored results must not pass for newly made ones."""
    before = os.environ.get("FKD_HOME")
    with tempfile.TemporaryDirectory() as home:
        os.environ["FKD_HOME"] = home
        try:
            yield
        finally:
            if before is None:
                del os.environ["FKD_HOME"]
            else:
                os.environ["FKD_HOME"] = before
