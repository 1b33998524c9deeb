"""``python -m fkd compare``: several students of one teacher side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fkd.cli.options import DEVICE, QUIET, Option, config_values, options_of, parse
from fkd.cli.output import bound, check_out, format_table, gap, percent, say, write_whole
from fkd.cli.progress import ProgressBar

if TYPE_CHECKING:
    import pandas as pd

_DESCRIPTION = (
    "Analyse several students of one teacher (stored answers are reused) and set them side by side, "
    "the lowest mean certified gap first."
)

#: Columns of the printed table: heading, column of `fkd.evaluation.compare`, how it is written.
_SHOWN = (
    ("student", "student", str),
    ("method", "method", str),
    ("accuracy", "student_accuracy", percent),
    ("agree", "agreement_clean", percent),
    ("certified", "agreement_certified", percent),
    ("disagree", "disagreement_found", percent),
    ("gap found", "gap_attack_mean", gap),
    ("bound", "gap_certified_mean", bound),
    ("worst found", "gap_attack_max", gap),
    ("worst bound", "gap_certified_max", bound),
)


def run(arguments: Sequence[str]) -> int:
    """Analyse each pair, print the table, and write it where asked."""
    from fkd.core.errors import ConfigError
    from fkd.evaluation import (
        AnalysisConfig,
        ResolvedPair,
        analyse,
        certificate_text,
        compare,
    )

    options = [
        *options_of(AnalysisConfig, skip=["student"]),
        Option("students", list[str], "Students: models' names or folders.", metavar="TEXT ..."),
        Option("out", Path | None, "Write all figures to this .csv or .parquet.", None, "FILE"),
        DEVICE,
        QUIET,
    ]
    values = parse("compare", arguments, options, description=_DESCRIPTION)
    students = list(dict.fromkeys(values.get("students", [])))
    if not students:
        raise ConfigError("--students needs at least one model's name or folder; give one or more.")
    shared = config_values(AnalysisConfig, values)
    configs = [AnalysisConfig.parse(shared, student=student) for student in students]
    for config in configs:
        ResolvedPair(config)  # a wrong last name must not cost the work on the first
    out = check_out(values["out"], [".csv", ".parquet"]) if "out" in values else None
    for config in configs:
        with ProgressBar(quiet=values["quiet"], what=config.student) as progress:
            analyse(config, device=values["device"], progress=progress)
    table = compare(configs).sort_values("gap_certified_mean", kind="stable", ignore_index=True)
    if out is not None:
        _write(table, out)
    first = configs[0]
    say(
        f"Students of {first.teacher} on {first.dataset} ({first.split}), "
        f"{first.ball.describe()}, {first.count} examples, seed {first.seed}, certificate "
        f"{certificate_text(first.certificate)}\n"
    )
    say(
        format_table(
            [{h: write(row[c]) for h, c, write in _SHOWN} for row in table.to_dict("records")]
        )
    )
    if out is not None:
        say(f"\nTable: {out}")
    return 0


def _write(table: pd.DataFrame, out: Path) -> None:
    if out.suffix == ".csv":
        write_whole(out, lambda path: table.to_csv(path, index=False))
    else:
        write_whole(out, lambda path: table.to_parquet(path, index=False))
