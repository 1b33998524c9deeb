"""``python -m fkd transfer``: what is found against one student, tried on the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fkd.cli.measurement import place_text, run_measurement
from fkd.cli.options import Option, config_values, options_of
from fkd.cli.output import format_table, gap, percent

if TYPE_CHECKING:
    from fkd.evaluation import Share, Transfer, TransferCell, TransferGain

_DESCRIPTION = (
    "Try the points that the attack on each student found (its witnesses) on every other student of the "
    "teacher: on how many does that one disagree with the teacher too, and how large is its gap there "
    "beside the largest that the attack on itself found? Witnesses of stored analyses are used, and a "
    "stored answer is reused; epsilon may be written 0.03 or 8/255."
)


def run(arguments: Sequence[str]) -> int:
    """Try the witnesses, print the matrices, and write the table where asked."""
    from fkd.evaluation import TransferConfig, transfer_witnesses

    def settings(values: dict[str, Any]) -> TransferConfig:
        students = values.pop("students", [])
        return TransferConfig.parse(config_values(TransferConfig, values), students=students)

    return run_measurement(
        "transfer",
        arguments,
        TransferConfig,
        transfer_witnesses,
        _describe,
        description=_DESCRIPTION,
        anew="Attack and measure",
        options=[
            *options_of(TransferConfig, skip=["students"]),
            Option(
                "students", list[str], "Students: models' names or folders.", metavar="TEXT ..."
            ),
        ],
        settings=settings,
    )


def _describe(found: Transfer, out: Path | None) -> str:
    from fkd.evaluation import transfer_summary

    config, summary = found.config, transfer_summary(found.table)
    # Names are long and the columns many: a column is headed by its row's number.
    numbers = {gain.target: str(row) for row, gain in enumerate(summary.gains, 1)}
    return "\n".join(
        [
            f"Students of {config.teacher} on {config.dataset} ({config.split}), "
            f"{config.ball.describe()}, {config.count} examples, seed {config.seed}; a row's witnesses "
            "tried on each column's student",
            "",
            "Disagreements carried over, of those found against the row's student (95 % interval):",
            format_table(_matrix(summary.cells, numbers, carried=True)),
            "",
            "Mean gap there, relative to that at the column's own witnesses:",
            format_table(_matrix(summary.cells, numbers, carried=False)),
            "",
            "What each student's lower ends gain from all others' witnesses:",
            format_table([_gained(gain, numbers) for gain in summary.gains]),
            "",
            place_text(found, out),
        ]
    )


def _matrix(
    cells: Sequence[TransferCell], numbers: dict[str, str], *, carried: bool
) -> list[dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for cell in cells:
        row = rows.setdefault(cell.source, {"found against": _numbered(cell.source, numbers)})
        if carried:
            row["witnesses"] = str(cell.witnesses)
        row[numbers[cell.target]] = _share(cell.carried) if carried else percent(cell.gap_ratio)
    return list(rows.values())


def _gained(gain: TransferGain, numbers: dict[str, str]) -> dict[str, str]:
    return {
        "student": _numbered(gain.target, numbers),
        "gap, clean": gap(gain.gap_clean_mean),
        "gap, own": gap(gain.gap_own_mean),
        "gap, all": gap(gain.gap_best_mean),
        "beaten by another": _share(gain.improved),
        "by at most": gap(gain.raised_max),
        "disagreements, own": str(gain.disagreements_own),
        "new": str(gain.disagreements_new),
    }


def _numbered(name: str, numbers: dict[str, str]) -> str:
    return f"({numbers[name]}) {name}"


def _share(share: Share | None) -> str:
    if share is None:
        return "-"
    return f"{percent(share.value)} ({100 * share.low:.0f} to {100 * share.high:.0f})"
