"""Several students side by side: one row a pair, from stored analyses."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fkd.core.errors import ConfigError
from fkd.evaluation.config import AnalysisConfig, ResolvedPair
from fkd.evaluation.store import Analysis, find_resolved
from fkd.evaluation.summary import summarise


def compare(configs: Sequence[AnalysisConfig]) -> pd.DataFrame:
    """One row for each configuration that has a stored analysis.

    Returns:
        ``teacher, student, method, architecture, parameters``, then `Summary`'s figures, then ``key``;
        empty (with these columns absent) where nothing is stored.

    Raises:
        ConfigError: the configurations differ in data set, ball, examples, compared class, attack or
            certificate, so that their figures would not be comparable.
    """
    check_comparable(configs)
    rows = []
    for config in configs:
        pair = ResolvedPair(config)
        analysis = find_resolved(pair)
        if analysis is not None:
            rows.append(_row(pair, analysis))
    return pd.DataFrame(rows)


def check_comparable(configs: Sequence[AnalysisConfig]) -> None:
    """Refuse configurations whose figures would not be comparable.

    Raises:
        ConfigError: they differ in data set, ball, examples, compared class, attack or certificate.
    """
    for name in ("dataset", "epsilon", "norm", "channel_scale", "count", "split", "gap_class"):
        seen = {getattr(config, name) for config in configs}
        if len(seen) > 1:
            raise ConfigError(
                f"Only analyses with the same {name} can be compared, got "
                f"{', '.join(sorted(str(value) for value in seen))}; choose one."
            )
    # A longer attack or a tighter certificate is no property of the student.
    for what, settings in (
        ("attack", {config.attack_json() for config in configs}),
        ("certificate", {config.certificate_json() for config in configs}),
    ):
        if len(settings) > 1:
            raise ConfigError(
                f"Only analyses with the same {what} can be compared, got "
                f"{' and '.join(sorted(settings))}; choose one."
            )


def _row(pair: ResolvedPair, analysis: Analysis) -> dict:
    card = pair.student_card
    return {
        "teacher": pair.teacher_card.name,
        "student": card.name,
        "method": card.method,
        "architecture": card.architecture,
        "parameters": card.parameters,
        **summarise(analysis.table).model_dump(),
        "key": analysis.key,
    }
