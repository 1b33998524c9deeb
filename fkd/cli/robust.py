"""``python -m fkd robust``: how often one model alone stays right inside the ball."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fkd.cli.analyse import DEVICE, start_in_background
from fkd.cli.options import QUIET, Option, config_values, options_of, parse
from fkd.cli.output import check_out, format_table, percent, say
from fkd.cli.progress import ProgressBar

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

    options = [
        *options_of(RobustnessConfig),
        Option("out", Path | None, "Write the table to this .parquet file.", None, "FILE"),
        DEVICE,
        Option("fresh", bool, "Measure anew even where an answer is stored.", False),
        Option("background", bool, "Start as a run and return at once; see 'runs'.", False),
        QUIET,
    ]
    values = parse("robust", arguments, options, description=_DESCRIPTION)
    config = RobustnessConfig.parse(config_values(RobustnessConfig, values))
    if values["background"]:
        return start_in_background("robust", config.model_dump(mode="json"), values)
    out = check_out(values["out"], [".parquet"]) if "out" in values else None
    with ProgressBar(quiet=values["quiet"]) as progress:
        found = measure_robustness(
            config, device=values["device"], progress=progress, fresh=values["fresh"]
        )
    if out is not None:
        found.write(out)
    say(
        f"{config.model} on {config.dataset} ({config.split}), {config.ball.describe()}, "
        f"{config.count} examples, seed {config.seed}\n"
    )
    say(format_table(_rows(found)) + "\n")
    for sentence in found.left_out:
        say(sentence)
    say(f"Stored under the key {found.key}." if out is None else f"Table: {out}")
    return 0


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
