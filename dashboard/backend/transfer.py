"""Witnesses tried on other students: the stored table that answers a choice, the run that makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dashboard.backend.analyses import NotStoredError
from dashboard.backend.choice import Choice
from dashboard.backend.runs import check_may_start, live_run
from fkd import evaluation, runs
from fkd.evaluation import Transfer, TransferCell, TransferConfig, TransferGain, TransferSummary
from fkd.runs import RunRecord


@dataclass(frozen=True)
class LoadedTransfer:
    """Stored transfers ready to draw; shared by all sessions, so read only.

    Attributes:
        transfer: as stored.
        summary: its figures.
    """

    transfer: Transfer
    summary: TransferSummary

    @property
    def key(self) -> str:
        """Hash of all that determines the table."""
        return self.transfer.key

    @property
    def table(self) -> pd.DataFrame:
        """One row an example, source and target; columns `fkd.evaluation.TRANSFER_COLUMNS`."""
        return self.transfer.table


def transfer_of(choice: Choice, students: Sequence[str]) -> TransferConfig:
    """What is measured for a choice's teacher, images and ball, on these students.

    Raises:
        ConfigError: the choice names something that cannot be, or there are fewer than two students.
    """
    return TransferConfig.parse(
        {
            "dataset": choice.dataset,
            "teacher": choice.teacher,
            "students": list(students),
            "epsilon": choice.epsilon,
            "norm": choice.norm,
            "count": choice.count,
            "gap_class": choice.gap_class,
        }
    )


def find_transfer(choice: Choice, students: Sequence[str]) -> LoadedTransfer | None:
    """The stored transfers between a choice's students; None where they have not been measured.

    Raises:
        FkdError: the choice names something that does not exist or does not fit.
    """
    config = transfer_of(choice, students)
    try:
        key = evaluation.transfer_key(evaluation.ResolvedTransfer(config))
        return _load(key, config.model_dump_json())
    except NotStoredError:
        return None


@st.cache_resource(max_entries=64, show_spinner=False)
def _load(key: str, config_json: str) -> LoadedTransfer:
    found = evaluation.find_transfer(TransferConfig.model_validate_json(config_json))
    if found is None:
        raise NotStoredError(key)
    return LoadedTransfer(found, evaluation.transfer_summary(found.table))


def start_transfer(choice: Choice, students: Sequence[str]) -> str:
    """Start the run that tries the students' witnesses on each other; its id.

    Raises:
        FkdError: they cannot be tried.
    """
    check_may_start()
    return runs.start_run("transfer", transfer_of(choice, students).model_dump(mode="json"))


def live_transfer(choice: Choice, students: Sequence[str]) -> RunRecord | None:
    """The newest run of exactly this, unless it is done."""
    return live_run("transfer", transfer_of(choice, students).model_dump(mode="json"))


def transfer_meanings() -> dict[str, str]:
    """Meaning of each figure of a cell and of a target's gain, for tool-tips."""
    return {
        name: field.description or ""
        for model in (TransferCell, TransferGain)
        for name, field in model.model_fields.items()
    }


def reproduce_transfer(choice: Choice, students: Sequence[str]) -> str:
    """The command line that measures these transfers, one option per line."""
    return evaluation.reproduce_snippet(transfer_of(choice, students), lines=True)
