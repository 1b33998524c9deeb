"""``python -m fkd attack``: how far two models get apart, by several measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fkd.cli.analyse import DEVICE, start_in_background
from fkd.cli.options import QUIET, Option, config_values, options_of, parse, settings_text
from fkd.cli.output import check_out, format_table, gap, percent, say
from fkd.cli.progress import ProgressBar

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
    from fkd.evaluation import MeasuresConfig, measure_pair, witness_path

    options = [
        *options_of(MeasuresConfig, skip=["gap_class"]),
        Option("out", Path | None, "Write the table to this .parquet file.", None, "FILE"),
        DEVICE,
        Option("fresh", bool, "Search anew even where an answer is stored.", False),
        Option("background", bool, "Start as a run and return at once; see 'runs'.", False),
        QUIET,
    ]
    values = parse("attack", arguments, options, description=_DESCRIPTION, epilog=_measures_text)
    config = MeasuresConfig.parse(config_values(MeasuresConfig, values))
    if values["background"]:
        return start_in_background("attack", config.model_dump(mode="json"), values)
    out = check_out(values["out"], [".parquet"]) if "out" in values else None
    with ProgressBar(quiet=values["quiet"]) as progress:
        found = measure_pair(
            config, device=values["device"], progress=progress, fresh=values["fresh"]
        )
    if out is not None:
        found.write(out)
    say(_describe(found))
    if out is None:
        say(f"\nStored under the key {found.key}.")
    else:
        say(f"\nTable: {out}")
        if found.witnesses:
            say(f"Witnesses: {witness_path(out)}")
    return 0


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


def _describe(found: Measured) -> str:
    from fkd.evaluation import measures_summary

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
