"""What a group of figures is: which it has, how each is to be read, and how they are measured."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from fkd.core.progress import ProgressCallback
from fkd.core.registry import Registry
from fkd.evaluation.robustness_summary import wilson_share
from fkd.records import Column

if TYPE_CHECKING:
    from fkd.evaluation.scored_pair import ScoredPair

Better = Literal["higher", "lower", "neither"]

#: What the ends of an interval are, as the column ``interval`` says it.
WILSON = "95 % Wilson"
NORMAL = "95 % normal"

#: Normal quantile of a two-sided interval of 95 %.
QUANTILE = 1.959963984540054


@dataclass(frozen=True)
class Figure:
    """One figure of a student, and how it is to be read.

    Attributes:
        name: unique among all groups; a column of the leaderboard.
        title: a few words for a heading.
        unit: ``share`` (in [0, 1], written as a percentage), ``probability``, ``probability, signed``,
            ``nats``, ``area`` (under a ROC curve), ``ms``, ``s``, ``bytes``, ``examples``, ``number`` or
            what a group says.
        better: whether ``higher`` or ``lower`` is better; ``neither`` where a figure only informs.
        meaning: one sentence: what is measured, on which examples, from which source.
        interval: what the two ends are; empty where there are none.
        rounding: how it is written: ``down`` for what was reached, ``up`` for what bounds.
        is_main: whether it is one of the few that a first look at students should show.
    """

    name: str
    title: str
    unit: str
    better: Better
    meaning: str
    interval: str = ""
    rounding: Literal["nearest", "down", "up"] = "nearest"
    is_main: bool = False


@dataclass(frozen=True)
class Score:
    """The value of one figure.

    Attributes:
        value: in the figure's unit; None where it could not be had.
        lower: lower end, None without an interval.
        upper: upper end.
        count: examples that it is from; None where it is from none.
        reason: why the value is missing, or what it leaves out; None where all is there.
    """

    value: float | None
    lower: float | None = None
    upper: float | None = None
    count: int | None = None
    reason: str | None = None


def missing(reason: str) -> Score:
    """No value, with the reason in one sentence."""
    return Score(None, reason=reason)


def share(hits: int, count: int, reason: str | None = None) -> Score:
    """``hits`` of ``count`` (at least 1) with the 95 % Wilson interval."""
    found = wilson_share(hits, count)
    return Score(found.value, found.low, found.high, count, reason)


def mean(values: np.ndarray, *, least: float = -math.inf, most: float = math.inf) -> Score:
    """Mean of N values (at least 1) with the 95 % interval of a normal mean, cut to what is possible.

    ``mean +- 1.96 s / sqrt(N)``, s the sample's standard deviation; no ends where N is 1.
    """
    value, count = float(values.mean()), len(values)
    if count == 1:
        return Score(value, count=1)
    half = QUANTILE * float(values.std(ddof=1)) / math.sqrt(count)
    return Score(value, max(least, value - half), min(most, value + half), count)


@dataclass(frozen=True)
class GroupScores:
    """What a group measured.

    Attributes:
        scores: a score for each of the group's figures, by name.
        detail: its second table (columns: the group's ``detail_columns``); None without one.
        facts: what belongs to the provenance beside versions and seconds.
    """

    scores: Mapping[str, Score]
    detail: pd.DataFrame | None = None
    facts: Mapping[str, Any] | None = None


class ScoreGroup(ABC):
    """Some figures of one student that are measured together.

    Subclasses register in `SCORES`, one file each; nothing else has to know of them.

    Attributes:
        title: in a few words, for headings.
        order: where it stands among the groups.
        version: raised whenever it computes something else: old tables are then no longer found.
        needs_ball: whether the ball, the attack or the certificate matter; figures of groups that need
            none are the same at every epsilon and are measured once.
        figures: what it measures.
        detail_columns: columns of its second table; empty without one.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    order: ClassVar[int] = 100
    version: ClassVar[int] = 1
    needs_ball: ClassVar[bool] = False
    figures: ClassVar[tuple[Figure, ...]]
    detail_columns: ClassVar[tuple[Column, ...]] = ()

    def inputs(self, pair: ScoredPair) -> dict[str, Any]:
        """What determines the figures beside pair, examples, ball and seed, as JSON values."""
        return {}

    @abstractmethod
    def measure(self, pair: ScoredPair, progress: ProgressCallback | None) -> GroupScores:
        """Measure every figure.

        Figures that this pair cannot have are None with a reason.

        Raises:
            UnsupportedModelError: the group is not for such networks; its sentence becomes the reason.
            FkdError: whatever the procedures raise that it calls.
            Cancelled: ``progress`` asked to stop.
        """


SCORES: Registry[type[ScoreGroup]] = Registry("group of figures", "fkd.evaluation.scores")


def group_names() -> list[str]:
    """All groups' names in the order in which they are shown."""
    return sorted(SCORES, key=lambda name: (SCORES.get(name).order, name))


def all_figures() -> dict[str, Figure]:
    """Every figure by its name, group after group."""
    return {figure.name: figure for name in group_names() for figure in SCORES.get(name).figures}


def group_of(figure: str) -> str:
    """The name of the group that has this figure.

    Raises:
        KeyError: none has it.
    """
    for name in group_names():
        if any(one.name == figure for one in SCORES.get(name).figures):
            return name
    raise KeyError(figure)
