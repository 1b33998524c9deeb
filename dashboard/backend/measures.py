"""Other ways to differ: the stored table of measures that answers a choice, and the run that makes it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dashboard.backend.analyses import NotStoredError
from dashboard.backend.choice import Choice
from dashboard.backend.runs import check_may_start, live_run
from fkd import evaluation, runs
from fkd.attacks.measures import MEASURES
from fkd.evaluation import Measured, MeasuresConfig, MeasureSummary, Spread, WhoStaysRight
from fkd.records import column_documentation
from fkd.runs import RunRecord


@dataclass(frozen=True)
class LoadedMeasures:
    """Stored measures ready to draw; shared by all sessions, so read only.

    Attributes:
        measured: as stored.
        summaries: figures of each measure, by its name.
        who: which network stays right.
    """

    measured: Measured
    summaries: dict[str, MeasureSummary]
    who: WhoStaysRight | None

    @property
    def key(self) -> str:
        """Hash of all that determines the table."""
        return self.measured.key

    @property
    def table(self) -> pd.DataFrame:
        """One row an example and measure; columns `fkd.evaluation.MEASURES_COLUMNS`."""
        return self.measured.table

    @property
    def events(self) -> dict[str, MeasureSummary]:
        """Figures of those that are found or not."""
        return {name: one for name, one in self.summaries.items() if one.found is not None}

    def of(self, measure: str) -> pd.DataFrame:
        """The rows of one measure."""
        return self.table[self.table["measure"] == measure]

    def curve(self, measure: str) -> pd.DataFrame:
        """Shares of images by how large its value is: `fkd.evaluation.measure_curve`."""
        return evaluation.measure_curve(self.table, measure)


@dataclass(frozen=True)
class MeasureFacts:
    """How a measure is told to people.

    Attributes:
        title: in few words.
        meaning: in a sentence.
        unit: probability, nats or logits.
        is_event: whether it is found or not, rather than large or small.
    """

    title: str
    meaning: str
    unit: str
    is_event: bool


def measure_facts() -> dict[str, MeasureFacts]:
    """Every measure there is, by its name."""
    return {
        name: MeasureFacts(*(getattr(MEASURES.get(name), field) for field in _FACTS))
        for name in evaluation.measure_names()
    }


_FACTS = tuple(MeasureFacts.__dataclass_fields__)


def measures_of(choice: Choice) -> MeasuresConfig:
    """What is measured for a choice: every measure, of its pair, images and ball.

    Raises:
        ConfigError: the choice names something that cannot be.
    """
    return MeasuresConfig.parse(
        {
            "dataset": choice.dataset,
            "teacher": choice.teacher,
            "student": choice.student,
            "epsilon": choice.epsilon,
            "norm": choice.norm,
            "count": choice.count,
        }
    )


def find_measures(choice: Choice) -> LoadedMeasures | None:
    """The stored measures of a choice; None where they have not been searched.

    Raises:
        FkdError: the choice names something that does not exist or does not fit.
    """
    config = measures_of(choice)
    try:
        return _load(evaluation.measures_key(config), config.model_dump_json())
    except NotStoredError:
        return None


@st.cache_resource(max_entries=64, show_spinner=False)
def _load(key: str, config_json: str) -> LoadedMeasures:
    found = evaluation.find_measures(MeasuresConfig.model_validate_json(config_json))
    if found is None:
        raise NotStoredError(key)
    summaries = {one.measure: one for one in evaluation.measures_summary(found.table)}
    return LoadedMeasures(found, summaries, evaluation.who_stays_right(found.table))


def start_measures(choice: Choice) -> str:
    """Start the run that searches the choice's measures; its id.

    Raises:
        FkdError: they cannot be searched.
    """
    check_may_start()
    return runs.start_run("attack", measures_of(choice).model_dump(mode="json"))


def live_measures(choice: Choice) -> RunRecord | None:
    """The newest run of exactly this, unless it is done."""
    return live_run("attack", measures_of(choice).model_dump(mode="json"))


def measures_meanings() -> dict[str, str]:
    """Meaning of each column of a table of measures and of each figure of a summary, for tool-tips."""
    columns = column_documentation(evaluation.MEASURES_COLUMNS)
    meanings = dict(zip(columns["column"], columns["meaning"], strict=True))
    return meanings | {
        name: field.description or ""
        for model in (Spread, WhoStaysRight)
        for name, field in model.model_fields.items()
    }


def reproduce_measures(choice: Choice) -> str:
    """The command line that searches these measures, one option per line."""
    return evaluation.reproduce_snippet(measures_of(choice), lines=True)
