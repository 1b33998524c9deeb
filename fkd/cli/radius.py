"""``python -m fkd radius``: the certified agreement radius of each example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from fkd.cli.analyse import DEVICE, levels_text, start_in_background
from fkd.cli.options import QUIET, Option, config_values, options_of, parse
from fkd.cli.output import check_out, format_table, percent, say
from fkd.cli.progress import ProgressBar

if TYPE_CHECKING:
    from fkd.evaluation import Radii

_DESCRIPTION = (
    "Find the largest radius at which teacher and student provably predict the same on the whole ball, "
    "for each example, with the distance of the nearest disagreement found beside it; --no-proofs finds "
    "that alone, in seconds. --epsilon is the largest radius looked at. A stored answer is reused. The "
    "level of the bounds is tight unless --certificate names another (name=fast is much quicker); below "
    "are all of them with their settings."
)


def run(arguments: Sequence[str]) -> int:
    """Search, print a table, and write it where asked."""
    from fkd.evaluation import RadiusConfig, search_radii

    options = [
        *options_of(RadiusConfig, skip=["gap_class"]),
        Option("out", Path | None, "Write the table to this .parquet file.", None, "FILE"),
        DEVICE,
        Option("fresh", bool, "Search anew even where an answer is stored.", False),
        Option("background", bool, "Start as a run and return at once; see 'runs'.", False),
        QUIET,
    ]
    values = parse(
        "radius",
        arguments,
        options,
        description=_DESCRIPTION,
        epilog=lambda: levels_text(RadiusConfig),
    )
    config = RadiusConfig.parse(config_values(RadiusConfig, values))
    if values["background"]:
        return start_in_background("radius", config.model_dump(mode="json"), values)
    out = check_out(values["out"], [".parquet"]) if "out" in values else None
    with ProgressBar(quiet=values["quiet"]) as progress:
        radii = search_radii(
            config, device=values["device"], progress=progress, fresh=values["fresh"]
        )
    if out is not None:
        radii.write(out)
    level = f"certificate {config.certificate.name}" if config.proofs else "no certificate"
    say(
        f"{config.student} against {config.teacher} on {config.dataset} ({config.split}), "
        f"{config.norm}, up to {config.epsilon:g}, {level}\n"
    )
    say(format_table([_row(row) for row in radii.table.to_dict("records")]))
    say("\n" + _medians(radii))
    say(f"Stored under the key {radii.key}." if out is None else f"Table: {out}")
    return 0


def _row(row: dict) -> dict[str, str]:
    from fkd.evaluation import found_radius_text, proved_radius_text

    found = row["radius_attack"]
    return {
        "example": str(row["index"]),
        "certified": (
            "-" if row["status"] == "not tried" else proved_radius_text(row["radius_certified"])
        ),
        "attack": "-" if pd.isna(found) else found_radius_text(found),
        "status": row["status"],
        "seconds": f"{row['seconds']:.2f}",
    }


def _medians(radii: Radii) -> str:
    from fkd.evaluation import found_radius_text, proved_radius_text, radius_summary

    summary = radius_summary(radii.table)
    found = summary.radius_attack_median
    above = (
        "no upper end (a disagreement was found on fewer than half)"
        if found is None
        else f"at most {found_radius_text(found)} (nearest disagreement found, upper median)"
    )
    if not radii.config.proofs:
        return f"Median radius: {above}. Nothing was tried to be proved."
    return (
        f"Median radius: at least {proved_radius_text(summary.radius_certified_median)} (certified, "
        f"lower median), {above}.\n"
        f"Known within the tolerance: {percent(summary.known_share)} of {summary.count} examples."
    )
