"""``python -m fkd radius``: the certified agreement radius of each example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from fkd.cli.analyse import levels_text
from fkd.cli.measurement import place_text, run_measurement
from fkd.cli.options import options_of
from fkd.cli.output import format_table, percent

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

    return run_measurement(
        "radius",
        arguments,
        RadiusConfig,
        search_radii,
        _describe,
        description=_DESCRIPTION,
        anew="Search",
        options=options_of(RadiusConfig, skip=["gap_class"]),
        epilog=lambda: levels_text(RadiusConfig),
    )


def _describe(radii: Radii, out: Path | None) -> str:
    config = radii.config
    level = f"certificate {config.certificate.name}" if config.proofs else "no certificate"
    return "\n".join(
        [
            f"{config.student} against {config.teacher} on {config.dataset} ({config.split}), "
            f"{config.norm}, up to {config.epsilon:g}, {level}",
            "",
            format_table([_row(row) for row in radii.table.to_dict("records")]),
            "",
            _medians(radii),
            place_text(radii, out),
        ]
    )


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
