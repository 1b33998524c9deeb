"""Certified agreement radii: the stored table that answers a choice, and the run that makes it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dashboard.backend.analyses import NotStoredError
from dashboard.backend.choice import Choice
from dashboard.backend.runs import check_may_start, live_run
from fkd import evaluation, runs
from fkd.evaluation import RADIUS_STATUSES, Radii, RadiusConfig, RadiusSummary
from fkd.records import column_documentation
from fkd.runs import RunRecord

#: Levels at which radii are searched; of any other, the last is used instead: a dozen radii an image with
#: a time budget each would take hours.
_LEVELS = ("fast", "tight")


@dataclass(frozen=True)
class LoadedRadii:
    """Stored radii ready to draw; shared by all sessions, so read only.

    Attributes:
        radii: as stored.
        summary: its figures.
    """

    radii: Radii
    summary: RadiusSummary

    @property
    def key(self) -> str:
        """Hash of all that determines the radii."""
        return self.radii.key

    @property
    def table(self) -> pd.DataFrame:
        """One row an example; columns `fkd.evaluation.RADIUS_COLUMNS`."""
        return self.radii.table


def radius_level(choice: Choice) -> str:
    """Registry name of the level at which radii of the choice's pair are searched."""
    return choice.level if choice.level in _LEVELS else _LEVELS[-1]


def radius_search(choice: Choice) -> RadiusConfig:
    """The search that answers a choice: its pair and norm, and at most as many examples.

    Raises:
        ConfigError: the choice names something that cannot be.
    """
    usual = int(RadiusConfig.model_fields["count"].default)
    return RadiusConfig.parse(
        {
            "dataset": choice.dataset,
            "teacher": choice.teacher,
            "student": choice.student,
            "norm": choice.norm,
            "count": min(usual, choice.count),
            "certificate": {"name": radius_level(choice)},
        }
    )


def find_radii(choice: Choice) -> LoadedRadii | None:
    """The stored radii of a choice; None where they have not been searched.

    Raises:
        FkdError: the choice names something that does not exist or does not fit.
    """
    config = radius_search(choice)
    try:
        key = evaluation.radius_key(evaluation.ResolvedPair(config))
        return _load(key, config.model_dump_json())
    except NotStoredError:
        return None


@st.cache_resource(max_entries=64, show_spinner=False)
def _load(key: str, config_json: str) -> LoadedRadii:
    radii = evaluation.find_radii(RadiusConfig.model_validate_json(config_json))
    if radii is None:
        raise NotStoredError(key)
    return LoadedRadii(radii, evaluation.radius_summary(radii.table))


def start_radii(choice: Choice) -> str:
    """Start the run that searches the choice's radii; its id.

    Raises:
        FkdError: they cannot be searched.
    """
    check_may_start()
    return runs.start_run("radius", radius_search(choice).model_dump(mode="json"))


def live_radii(choice: Choice) -> RunRecord | None:
    """The newest run of exactly this search, unless it is done."""
    return live_run("radius", radius_search(choice).model_dump(mode="json"))


def radius_meanings() -> dict[str, str]:
    """Meaning of each column of a table of radii and of each figure of its summary, for tool-tips."""
    columns = column_documentation(evaluation.RADIUS_COLUMNS)
    meanings = dict(zip(columns["column"], columns["meaning"], strict=True))
    figures = RadiusSummary.model_fields.items()
    return meanings | {name: field.description or "" for name, field in figures}


def radius_statuses() -> dict[str, str]:
    """What each status of a row of radii means."""
    return dict(RADIUS_STATUSES)


def reproduce_radii(choice: Choice) -> str:
    """The command line that searches these radii, one option per line."""
    return evaluation.reproduce_snippet(radius_search(choice), lines=True)
