"""Each network's standard robustness alone: stored tables of a choice, and the runs that make them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dashboard.backend.analyses import Loaded, NotStoredError
from dashboard.backend.choice import Choice
from dashboard.backend.runs import check_may_start, live_run
from fkd import evaluation, runs
from fkd.evaluation import Robustness, RobustnessConfig, RobustnessSummary
from fkd.runs import RunRecord

#: The networks of a pair, as a choice calls them.
ROLES = ("teacher", "student")


@dataclass(frozen=True)
class LoadedRobustness:
    """One network's stored robustness ready to draw; shared by all sessions, so read only.

    Attributes:
        found: as stored.
        summary: its shares with their intervals.
    """

    found: Robustness
    summary: RobustnessSummary


def robustness_search(choice: Choice, role: str) -> RobustnessConfig:
    """The measurement that answers a choice for its teacher or student, on at most the usual count.

    Raises:
        ConfigError: the choice names something that cannot be.
    """
    usual = int(RobustnessConfig.model_fields["count"].default)
    return RobustnessConfig.parse(
        {
            "dataset": choice.dataset,
            "model": getattr(choice, role),
            "epsilon": choice.epsilon,
            "norm": choice.norm,
            "count": min(usual, choice.count),
        }
    )


def find_robustness(choice: Choice) -> dict[str, LoadedRobustness]:
    """What is stored of a choice's networks, by role; empty where neither was measured.

    Raises:
        FkdError: the choice names something that does not exist or does not fit.
    """
    loaded = {}
    for role in ROLES:
        config = robustness_search(choice, role)
        key = evaluation.robustness_key(evaluation.ResolvedModel(config))
        try:
            loaded[role] = _load(key, config.model_dump_json())
        except NotStoredError:
            continue
    return loaded


@st.cache_resource(max_entries=64, show_spinner=False)
def _load(key: str, config_json: str) -> LoadedRobustness:
    found = evaluation.find_robustness(RobustnessConfig.model_validate_json(config_json))
    if found is None:
        raise NotStoredError(key)
    return LoadedRobustness(found, evaluation.robustness_summary(found.table))


def start_robustness(choice: Choice, roles: Collection[str]) -> list[str]:
    """Start one run for each of these networks; their ids.

    Raises:
        FkdError: one cannot be measured.
    """
    check_may_start()
    return [
        runs.start_run("robust", robustness_search(choice, role).model_dump(mode="json"))
        for role in roles
    ]


def live_robustness(choice: Choice, roles: Collection[str]) -> dict[str, RunRecord]:
    """The newest run of exactly each of these networks' measurements, unless it is done."""
    specs = {role: robustness_search(choice, role).model_dump(mode="json") for role in roles}
    records = {role: live_run("robust", spec) for role, spec in specs.items()}
    return {role: record for role, record in records.items() if record is not None}


def robustness_shares(loaded: Mapping[str, LoadedRobustness]) -> pd.DataFrame:
    """Columns ``network`` (a role), ``name`` (of the share), ``at`` (in words), ``share, low, high``."""
    rows = []
    for role, one in loaded.items():
        for name, at in evaluation.measurement_names(one.found.config).items():
            share = getattr(one.summary, name)
            rows.append((role, name, at, share.value, share.low, share.high))
    return pd.DataFrame(rows, columns=["network", "name", "at", "share", "low", "high"])


def robustness_table(loaded: Mapping[str, LoadedRobustness]) -> pd.DataFrame:
    """The stored tables one below the other, with the network and its name before their columns."""
    parts = []
    for role, one in loaded.items():
        table = one.found.table.copy()
        table.insert(0, "network", role)
        table.insert(1, "model", one.found.config.model)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def cross_robustness(loaded: Mapping[str, LoadedRobustness], analysis: Loaded) -> pd.DataFrame:
    """Which network breaks beside what is known of the pair: `fkd.evaluation.cross_robustness`."""
    teacher, student = (loaded[role].found.table for role in ROLES)
    return evaluation.cross_robustness(teacher, student, analysis.analysis.table)


def reproduce_robustness(choice: Choice) -> str:
    """The command lines that measure both networks, one option per line."""
    return "\n\n".join(
        evaluation.reproduce_robustness(robustness_search(choice, role), lines=True)
        for role in ROLES
    )
