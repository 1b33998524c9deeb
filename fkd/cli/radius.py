"""``python -m fkd radius``: the certified agreement radius of each example."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path

import pandas as pd

from fkd.cli.analyse import DEVICE
from fkd.cli.options import QUIET, Option, config_values, options_of, parse
from fkd.cli.output import check_out, format_table, say
from fkd.cli.progress import ProgressBar

_DESCRIPTION = (
    "Find the largest radius at which teacher and student provably predict the same on the whole ball, "
    "for each example, with the distance of the nearest disagreement found beside it. --epsilon is the "
    "largest radius looked at."
)


def run(arguments: Sequence[str]) -> int:
    """Search, print a table, and write it where asked."""
    from fkd.evaluation import RadiusConfig, agreement_radii, write_radii

    options = [
        *options_of(RadiusConfig, skip=["gap_class"]),
        Option("out", Path | None, "Write the table to this .parquet file.", None, "FILE"),
        DEVICE,
        QUIET,
    ]
    values = parse("radius", arguments, options, description=_DESCRIPTION)
    config = RadiusConfig.parse(config_values(RadiusConfig, values))
    out = check_out(values["out"], [".parquet"]) if "out" in values else None
    with ProgressBar(quiet=values["quiet"]) as progress:
        table = agreement_radii(config, device=values["device"], progress=progress)
    if out is not None:
        write_radii(out, table, config)
    say(
        f"{config.student} against {config.teacher} on {config.dataset} ({config.split}), "
        f"{config.norm}, up to {config.epsilon:g}, certificate {config.certificate.name}\n"
    )
    say(format_table([_row(row) for row in table.to_dict("records")]))
    if out is not None:
        say(f"\nTable: {out}")
    return 0


def _row(row: dict) -> dict[str, str]:
    return {
        "example": str(row["index"]),
        "certified": _rounded(row["radius_certified"], ROUND_FLOOR),
        "attack": _rounded(row["radius_attack"], ROUND_CEILING),
        "status": row["status"],
        "seconds": f"{row['seconds']:.2f}",
    }


def _rounded(value: float, direction: str) -> str:
    """A proved radius is rounded down, a witness's distance up: neither claims too much."""
    if pd.isna(value):
        return "-"
    return str(Decimal(value).quantize(Decimal("0.00001"), rounding=direction))
