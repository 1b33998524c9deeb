"""One pair under several certificates: what each of them proves, and what it costs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pandas as pd

from fkd.bounds import CertificateConfig
from fkd.core.errors import FkdError
from fkd.evaluation.config import AnalysisConfig, ResolvedPair
from fkd.evaluation.store import Analysis, find_resolved, list_analyses
from fkd.evaluation.summary import summarise


def certificate_text(config: CertificateConfig) -> str:
    """A certificate in a few words: ``fast``, ``exact (seconds 30)``.

    Only settings that change the result and differ from their defaults are named, but for a time
    budget, which always is.
    """
    values = config.model_dump(mode="json", exclude={"name", "rows"})
    default = type(config)().model_dump(mode="json")
    told = [
        f"{name.replace('_', ' ')} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if name == "seconds" or value != default[name]
    ]
    return f"{config.name} ({', '.join(told)})" if told else config.name


def time_budget(config: AnalysisConfig) -> float | None:
    """Seconds that the certificate may take for all examples; None where it has no budget.

    Only a certificate with the setting ``seconds``, its budget an example, has one.
    """
    seconds = getattr(config.certificate, "seconds", None)
    return None if seconds is None else float(seconds) * config.count


def level_figures(analysis: Analysis) -> dict[str, Any]:
    """What an analysis's certificate proved and what it cost.

    Returns:
        ``certificate`` (registry name), ``settings`` (`certificate_text`), ``count``,
        ``certificate_seconds`` and ``attack_seconds`` (an example, on the machine that computed the
        table; None for tables older than that note), ``gap_attack_mean``, ``gap_certified_mean``,
        ``bracket_mean`` (see `Summary`), ``decided_share`` (certified to agree, or shown to
        disagree), ``key``.
    """
    summary = summarise(analysis.table)
    config = analysis.config.certificate

    def an_example(name: str) -> float | None:
        seconds = analysis.metadata.get(name)
        return None if seconds is None else float(seconds) / summary.count

    return {
        "certificate": config.name,
        "settings": certificate_text(config),
        "count": summary.count,
        "certificate_seconds": an_example("certificate_seconds"),
        "attack_seconds": an_example("attack_seconds"),
        "gap_attack_mean": summary.gap_attack_mean,
        "gap_certified_mean": summary.gap_certified_mean,
        "bracket_mean": summary.bracket_mean,
        "decided_share": 1.0 - summary.open_share,
        "key": analysis.key,
    }


def at_every_level(
    config: AnalysisConfig, *, apart_from: Collection[str] = ("certificate",)
) -> list[Analysis]:
    """Every stored analysis that differs from ``config`` in its certificate only.

    Args:
        config: the analysis; its certificate does not matter.
        apart_from: names of all fields that do not matter.
    """
    found = []
    for entry in list_analyses(config.dataset, config.teacher, config.student):
        asked = config.model_copy(update={n: getattr(entry.config, n) for n in apart_from})
        if asked != entry.config:
            continue
        try:
            analysis = find_resolved(ResolvedPair(asked))
        except FkdError:
            # A model or a data set that it names is gone.
            continue
        # A table of weights that were replaced since then answers another question.
        if analysis is not None and analysis.key == entry.key:
            found.append(analysis)
    return found


def compare_levels(config: AnalysisConfig) -> pd.DataFrame:
    """Every stored analysis that differs from ``config`` in its certificate only, as a row each.

    Nothing is computed.

    Args:
        config: the analysis; its certificate does not matter.

    Returns:
        Columns as `level_figures` names them, widest mean bracket first; empty (columns absent) where
        nothing is stored.

    Example:
        >>> from fkd.evaluation import AnalysisConfig, compare_levels
        >>> config = AnalysisConfig(
        ...     dataset="digits", teacher="digits-teacher-pgd", student="digits-kd-of-pgd",
        ...     epsilon=0.05)
        >>> table = compare_levels(config)
    """
    rows = [level_figures(analysis) for analysis in at_every_level(config)]
    table = pd.DataFrame(rows)
    if rows:
        table = table.sort_values("bracket_mean", ascending=False, ignore_index=True)
    return table
