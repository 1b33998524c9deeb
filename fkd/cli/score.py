"""``python -m fkd score``: students of one teacher in all figures by which methods are compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fkd.cli.measurement import start_in_background
from fkd.cli.options import DEVICE, QUIET, Option, config_values, options_of, parse
from fkd.cli.output import check_out, format_table, say, write_whole
from fkd.cli.progress import ProgressBar

if TYPE_CHECKING:
    import pandas as pd

    from fkd.evaluation import ScoresConfig

_DESCRIPTION = (
    "Measure several students of one teacher in all figures by which methods are compared, and set them "
    "side by side. Figures at images are of the whole split, those of attacks and certificates of the "
    "first examples; analyses and measurements of robustness that are stored are used, others are made, "
    "and stored figures are reused. epsilon may be written 0.03 or 8/255. Below are all groups with "
    "their figures."
)


def run(arguments: Sequence[str]) -> int:
    """Measure, print the leaderboard, and write it where asked."""
    from fkd.evaluation import (
        LEADERBOARD_FORMATS,
        ScoresConfig,
        leaderboard,
        leaderboard_bytes,
        score_configs,
        score_pair,
    )
    from fkd.evaluation.config import check_examples

    options = [
        *options_of(ScoresConfig, skip=["student"]),
        Option("students", list[str], "Students: models' names or folders.", metavar="TEXT ..."),
        Option(
            "out",
            Path | None,
            "Write the leaderboard to this .csv, .parquet or .tex.",
            None,
            "FILE",
        ),
        DEVICE,
        Option("fresh", bool, "Measure anew even where figures are stored.", False),
        Option("background", bool, "Start as a run and return at once; see 'runs'.", False),
        QUIET,
    ]
    values = parse("score", arguments, options, description=_DESCRIPTION, epilog=_groups_text)
    students = values.pop("students", [])
    settings = config_values(ScoresConfig, values)
    if values["background"]:
        return start_in_background("score", {**settings, "students": students}, values)
    configs = score_configs(settings, students)
    for config in configs:
        check_examples(config.analysis())  # a wrong last name must not cost the work on the first
    out = check_out(values["out"], list(LEADERBOARD_FORMATS)) if "out" in values else None
    for config in configs:
        with ProgressBar(quiet=values["quiet"], what=config.student) as progress:
            score_pair(config, device=values["device"], progress=progress, fresh=values["fresh"])
    table = leaderboard(configs)
    if out is not None:
        content = leaderboard_bytes(table, out.suffix, measured=configs[0])  # type: ignore[arg-type]
        write_whole(out, lambda path: path.write_bytes(content) and None)
    say(_describe(table, configs))
    if out is not None:
        say(f"\nTable: {out}")
    return 0


def _groups_text() -> str:
    from fkd.evaluation import SCORES, group_names

    lines = []
    for name in group_names():
        group = SCORES.get(name)
        lines.append(f"--groups {name}: {(group.__doc__ or '').splitlines()[0]}")
        lines += [f"  {figure.name}: {figure.meaning}" for figure in group.figures]
    return "\n".join(lines)


def _origin(config: ScoresConfig) -> str:
    """Whose student it is, where that is not the teacher it is compared with."""
    from fkd.models import read_card

    made_of = read_card(config.student).teacher
    if made_of is None or made_of.model_hash == read_card(config.teacher).model_hash:
        return ""
    return f", distilled from {made_of.name}"


def _describe(table: pd.DataFrame, configs: Sequence[ScoresConfig]) -> str:
    """Figures as rows and students as columns: there are more figures than a line has room for."""
    from fkd.evaluation import SCORES, figure_text

    first = configs[0]
    records = table.to_dict("records")
    numbers = [f"({number})" for number in range(1, len(records) + 1)]
    parts = [
        f"Students of {first.teacher} on {first.dataset} ({first.split}), {first.ball.describe()}, "
        f"attacks and certificates on {first.count} examples, seed {first.seed}",
        "",
        *(
            f"{number} {row['student']}: {row['method']}, {row['architecture']}{made_of}"
            for number, row, made_of in zip(numbers, records, map(_origin, configs), strict=True)
        ),
    ]
    for name in first.groups:
        group = SCORES.get(name)
        rows = [
            {
                group.title.lower(): figure.title,
                "better": figure.better,
                **{
                    number: figure_text(figure, row[figure.name])
                    for number, row in zip(numbers, records, strict=True)
                },
            }
            for figure in group.figures
        ]
        parts += ["", format_table(rows)]
    return "\n".join(parts)
