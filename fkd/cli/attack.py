"""``python -m fkd attack``: how far two models get apart, by several measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fkd.cli.measurement import place_text, run_measurement
from fkd.cli.options import options_of, settings_text
from fkd.cli.output import format_table, gap, percent

if TYPE_CHECKING:
    from fkd.evaluation import Measured, MeasureSummary

_DESCRIPTION = (
    "Search each example's ball for the largest difference of teacher and student, by several measures: "
    "of one class's confidence, of any class's, of the whole distributions, and for points at which one "
    "is right and the other wrong. Every value found has its witness; nothing is certified. A stored "
    "answer is reused; epsilon may be written 0.03 or 8/255. Below are all measures and the attack's "
    "settings."
)


def run(arguments: Sequence[str]) -> int:
    """Search, print the figures of each measure, and write the table where asked."""
    from fkd.evaluation import MeasuresConfig, measure_pair

    return run_measurement(
        "attack",
        arguments,
        MeasuresConfig,
        measure_pair,
        _describe,
        description=_DESCRIPTION,
        anew="Search",
        options=options_of(MeasuresConfig, skip=["gap_class"]),
        epilog=_measures_text,
    )


def _measures_text() -> str:
    from fkd.attacks.measures import MEASURES
    from fkd.attacks.search import SearchConfig
    from fkd.evaluation import measure_names

    measures = [f"--measures {name}: {MEASURES.get(name).meaning}" for name in measure_names()]
    return "\n".join(
        [
            *measures,
            "--attack, search:",
            settings_text(SearchConfig, skip=("name", "seek", "corners")),
        ]
    )


def _describe(found: Measured, out: Path | None) -> str:
    from fkd.evaluation import measures_summary, witness_path

    config, summaries = found.config, measures_summary(found.table)
    graded = [summary for summary in summaries if summary.found is None]
    events = [summary for summary in summaries if summary.found is not None]
    parts = [
        f"{config.student} against {config.teacher} on {config.dataset} ({config.split}), "
        f"{config.ball.describe()}, {config.count} examples, seed {config.seed}"
    ]
    if graded:
        parts += [
            "",
            "Over the examples, at the clean image and the largest found in the ball:",
            format_table(
                [_values(summary, at) for summary in graded for at in ("clean", "attack")]
            ),
        ]
    if events:
        parts += [
            "",
            "Examples with such a point, and their share:",
            format_table([_event(summary) for summary in events]),
        ]
    parts += ["", place_text(found, out)]
    if out is not None and found.witnesses:
        parts.append(f"Witnesses: {witness_path(out)}")
    return "\n".join(parts)


def _values(summary: MeasureSummary, at: str) -> dict[str, str]:
    spread = getattr(summary, at)
    return {
        "measure": summary.measure,
        "unit": summary.unit,
        "at": {"clean": "image", "attack": "ball"}[at],
        "mean": gap(spread.mean),
        "median": gap(spread.median),
        "95 %": gap(spread.p95),
        "max": gap(spread.largest),
    }


def _event(summary: MeasureSummary) -> dict[str, str]:
    from fkd.attacks.measures import MEASURES

    return {
        "event": summary.measure,
        "meaning": MEASURES.get(summary.measure).title,
        "at the image": str(summary.hits_clean),
        "in the ball": str(summary.hits),
        "share": percent(summary.found.value),
        "95 % interval": f"{percent(summary.found.low)} to {percent(summary.found.high)}",
    }
