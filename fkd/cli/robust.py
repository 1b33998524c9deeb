"""``python -m fkd robust``: how often one model alone stays right inside the ball."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fkd.cli.measurement import place_text, run_measurement
from fkd.cli.output import format_table, percent

if TYPE_CHECKING:
    from fkd.evaluation import Robustness

_DESCRIPTION = (
    "Measure one model's standard robustness: the share of examples that it classifies correctly at the "
    "image and wherever PGD (50 steps, 10 restarts) and AutoAttack's standard ensemble (Auto-PGD on the "
    "cross-entropy and on targeted logit ratios, FAB, Square) looked in the ball. A stored answer is "
    "reused; epsilon may be written 0.03 or 8/255."
)


def run(arguments: Sequence[str]) -> int:
    """Measure one model, print the shares, and write the table where asked."""
    from fkd.evaluation import RobustnessConfig, measure_robustness

    return run_measurement(
        "robust",
        arguments,
        RobustnessConfig,
        measure_robustness,
        _describe,
        description=_DESCRIPTION,
        anew="Measure",
    )


def _describe(found: Robustness, out: Path | None) -> str:
    config = found.config
    return "\n".join(
        [
            f"{config.model} on {config.dataset} ({config.split}), {config.ball.describe()}, "
            f"{config.count} examples, seed {config.seed}",
            "",
            format_table(_rows(found)),
            "",
            *found.left_out,
            place_text(found, out),
        ]
    )


def _rows(found: Robustness) -> list[dict[str, str]]:
    from fkd.evaluation import measurement_names, robustness_summary

    summary, rows = robustness_summary(found.table), []
    for name, what in measurement_names(found.config).items():
        share, seconds = getattr(summary, name), found.metadata.get(f"{name}_seconds")
        rows.append(
            {
                "right at": what,
                "share": percent(share.value),
                "95 % interval": f"{percent(share.low)} to {percent(share.high)}",
                "seconds an example": "-" if seconds is None else f"{seconds / summary.count:.2g}",
            }
        )
    return rows
