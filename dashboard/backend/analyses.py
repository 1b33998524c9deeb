"""Stored analyses and what is drawn from them; cached by the analysis's key, which is its content."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dashboard.backend.catalogue import choice_of, is_current
from dashboard.backend.choice import DEFAULT_LEVEL, Choice
from fkd import evaluation
from fkd.evaluation import Analysis, ExampleDetail, Summary

#: The three states of an example, which always add up to all of them.
STATE_NAMES = {
    "refuted": "Disagreement found",
    "open": "Open",
    "certified": "Agreement certified",
}


@dataclass(frozen=True)
class Loaded:
    """A stored analysis ready to draw; shared by all sessions, so read only.

    Attributes:
        analysis: as stored.
        frame: its table with the column ``state`` (a key of `STATE_NAMES`).
        summary: figures and verdict.
    """

    analysis: Analysis
    frame: pd.DataFrame
    summary: Summary

    @property
    def key(self) -> str:
        """Hash of all that determines the analysis."""
        return self.analysis.key


class NotStoredError(Exception):
    """Raised inside the cache, so that an absence is never remembered."""


def find(choice: Choice) -> Loaded | None:
    """The stored analysis of a choice; None where it has not been computed.

    Raises:
        FkdError: the choice names something that does not exist or does not fit.
    """
    config = choice.config()
    try:
        return _load(evaluation.ResolvedPair(config).key(), config.model_dump_json())
    except NotStoredError:
        return None


@st.cache_resource(max_entries=64, show_spinner=False)
def _load(key: str, config_json: str) -> Loaded:
    config = evaluation.AnalysisConfig.model_validate_json(config_json)
    analysis = evaluation.find_analysis(config)
    if analysis is None:
        raise NotStoredError(key)
    frame = analysis.table.copy()
    frame["state"] = "open"
    frame.loc[frame["agrees_certified"], "state"] = "certified"
    frame.loc[frame["disagrees"], "state"] = "refuted"
    return Loaded(analysis, frame, evaluation.summarise(analysis.table))


def stored(choice: Choice) -> list[Choice]:
    """What is stored of the choice's pair: other radii, numbers of examples, levels.

    The same ball comes first, at other levels, then the same norm.
    """
    entries = evaluation.list_analyses(choice.dataset, choice.teacher, choice.student)
    found = {choice_of(entry.config) for entry in entries if is_current(entry)}

    def order(other: Choice) -> tuple:
        is_near = other.but(level=choice.level, seconds=choice.seconds) == choice
        at_level = (other.level != choice.level, other.level, other.seconds or 0.0)
        here = (other.norm != choice.norm, other.epsilon, other.count, other.gap_class)
        return (not is_near, *here, *at_level)

    return sorted(found, key=order)


def radii(choice: Choice) -> pd.DataFrame:
    """Every stored radius of the choice's pair, else the same in everything: `Summary`'s figures."""
    rows = []
    for other in stored(choice):
        loaded = find(other) if other.but(epsilon=choice.epsilon) == choice else None
        if loaded is not None:
            rows.append(loaded.summary.model_dump())
    return pd.DataFrame(rows).sort_values("epsilon", ignore_index=True) if rows else pd.DataFrame()


@st.cache_data(max_entries=256, show_spinner=False)
def _certified_curve(key: str, _table: pd.DataFrame) -> pd.DataFrame:
    return evaluation.certified_curve(_table)


def certified_curve(loaded: Loaded) -> pd.DataFrame:
    """Columns ``gap, share_certified, share_attack``."""
    return _certified_curve(loaded.key, loaded.analysis.table)


@st.cache_data(max_entries=256, show_spinner=False)
def _histogram(key: str, bins: int, _table: pd.DataFrame) -> pd.DataFrame:
    return evaluation.histogram(_table, bins)


def histogram(loaded: Loaded, bins: int = 20) -> pd.DataFrame:
    """Columns ``gap_left, gap_right, count_certified, count_attack``."""
    return _histogram(loaded.key, bins, loaded.analysis.table)


@st.cache_data(max_entries=512, show_spinner=False)
def _example(key: str, index: int, _choice: Choice) -> ExampleDetail:
    return evaluation.example_detail(_choice.config(), index)


def example(choice: Choice, loaded: Loaded, index: int) -> ExampleDetail:
    """Images, witnesses and probabilities of one example.

    Raises:
        DataError: the data set's images are not on this machine.
    """
    return _example(loaded.key, index, choice)


@st.cache_data(max_entries=512, show_spinner=False)
def _curve(key: str, index: int, _choice: Choice) -> pd.DataFrame:
    return evaluation.gap_curve(_choice.config(), index)


def curve(choice: Choice, loaded: Loaded, index: int) -> pd.DataFrame:
    """Columns ``epsilon, gap_attack, gap_certified`` of one example; seconds the first time.

    The bounds are those of `curve_choice`.

    Raises:
        DataError: the data set's images are not on this machine.
    """
    return _curve(loaded.key, index, curve_choice(choice))


def curve_choice(choice: Choice) -> Choice:
    """The choice at whose level a curve is computed: its own, unless that is given time.

    A dozen radii with a budget each would keep a page waiting for minutes.
    """
    if choice.seconds is None:
        return choice
    return choice.but(level=DEFAULT_LEVEL, seconds=None)


def reproduce(choice: Choice) -> str:
    """The command line that computes this analysis, one option per line."""
    return evaluation.reproduce_snippet(choice.config(), lines=True)
