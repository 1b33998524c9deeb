"""The build's own report, in Markdown: all figures of each data set, the claims, what is missing."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from fkd import evaluation
from fkd.evaluation import Claim, check_claims, find_analysis, find_robustness, find_scores
from fkd.evaluation._verdicts import Verdict
from fkd.evaluation.leaderboard_text import figure_text
from fkd.evaluation.scores import SCORES, Figure, all_figures, group_names
from fkd.models import read_card
from pretrained.estimate import LARGEST_TOTAL, total_size
from pretrained.right import right_of
from pretrained.robustness import COMPARED, compared_tables
from pretrained.specs import Member, is_current
from pretrained.tables import missing, own_home, scores_of
from pretrained.zoo import DATA

LOG = logging.getLogger("build")

#: How verdicts are written, in the order in which they are counted.
VERDICTS: dict[Verdict, str] = {
    "holds": "holds",
    "within noise": "within noise",
    "does not hold": "**does not hold**",
}
#: Five corruptions of the same images are not five times as many images: what those of one kind are.
_SAME_IMAGES = {"agreement_corrupted": "agreement_blur"}


def write_report(members: Sequence[Member], out: Path | None) -> int:
    """Write the report of the members; the exit code, 1 where it holds an error."""
    lines, errors = report(members)
    write_lines(lines, out)
    for error in errors:
        LOG.error("%s", error)
    return 1 if errors else 0


def write_lines(lines: Sequence[str], out: Path | None) -> None:
    """Write them to a file, or to standard output."""
    text = "\n".join(lines) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    out.write_text(text, encoding="utf-8")
    LOG.info("written to %s", out)


def report(members: Sequence[Member]) -> tuple[list[str], list[str]]:
    """The report's lines, and the errors in it."""
    errors = []
    lacking = [member.name for member in members if not is_current(member.spec)]
    if lacking:
        errors.append(f"{len(lacking)} of {len(members)} models are missing or out of date.")
    current = [member for member in members if member.name not in lacking]
    bare = [member.name for member in current if missing(member)]
    if bare:
        errors.append(f"{len(bare)} models lack tables.")
    size = total_size()
    if size > LARGEST_TOTAL:
        errors.append(f"{size / 1e6:.1f} MB are more than the {LARGEST_TOTAL / 1e6:.0f} allowed.")
    counted = f"{len(current)} models; the folder has {size / 1e6:.1f} MB."
    lines = ["# The shipped models", "", counted, ""]
    lines += [f"**Error: {error}**\n" for error in errors]
    for title, names in (("Missing or out of date", lacking), ("Without all tables", bare)):
        lines += [f"{title}: {', '.join(f'`{name}`' for name in names)}.", ""] if names else []
    tables, shown = {}, []
    for dataset in DATA:
        students = [m for m in current if m.dataset == dataset and m.teacher is not None]
        table = students_table(students)
        if len(table):
            tables[dataset] = table
            shown += students
    claims = tested_claims(tables, shown)
    lines += ["## Claims", "", *claim_lines(claims)]
    for dataset in tables:
        told = unequal([member for member in shown if member.dataset == dataset])
        lines += ["", " ".join(told)] if told else []
    for dataset, table in tables.items():
        lines += ["", f"## {dataset}", "", *figure_lines(dataset, table)]
    return lines, errors


def students_table(students: Sequence[Member]) -> pd.DataFrame:
    """The leaderboard of students of one data set, with ``dataset`` and ``label`` of the zoo."""
    configs = [scores_of(member) for member in students]
    if not configs:
        return pd.DataFrame()
    table = evaluation.leaderboard(configs)
    labels = {member.name: member.label for member in students}
    names = [Path(name).name for name in table["student"]]
    return table.assign(
        dataset=students[0].dataset, label=[labels[name] for name in names], student=names
    )


def tested_claims(tables: Mapping[str, pd.DataFrame], students: Sequence[Member]) -> list[Claim]:
    """The claims on all data sets' leaderboards, teachers measured as their students are.

    Args:
        tables: `students_table` of each data set.
        students: those of all tables.
    """
    if not tables:
        return []
    both = pd.concat(tables.values(), ignore_index=True)
    # What the user measured is not shipped, and must not turn a shipped verdict.
    with own_home():
        return check_claims(both, counts=count_images(students), images=images_of(students))


def count_images(students: Sequence[Member]) -> dict[str, dict[str, int]]:
    """How many different images figures are of, by teacher and figure."""
    counts: dict[str, dict[str, int]] = {}
    for member in students:
        found = find_scores(scores_of(member))
        if found is not None:
            known = found.table.dropna(subset=["value", "count"])
            of_teacher = counts.setdefault(str(member.teacher), {})
            of_teacher |= dict(zip(known["figure"], known["count"].astype(int), strict=True))
    for of_teacher in counts.values():
        for figure, one_kind in _SAME_IMAGES.items():
            if figure in of_teacher:
                of_teacher[figure] = of_teacher[one_kind]
    return counts


def images_of(students: Sequence[Member]) -> dict[str, pd.DataFrame]:
    """What figures are of each image, as far as it is stored, for `check_claims`."""
    names = {str(member.teacher) for member in students}
    names |= {member.name for member in students if member.label in COMPARED}
    columns: dict[str, list[pd.Series]] = {}
    for config in compared_tables(sorted(names)):
        alone = find_robustness(config)
        if alone is not None:
            robust = alone.table.set_index("index")["robust"]
            columns.setdefault(config.model, []).append(robust.rename("robust_accuracy"))
    for name, right in right_of(students).items():
        columns.setdefault(name, []).append(right.rename("clean_accuracy"))
    for member in students:
        analysis = find_analysis(scores_of(member).analysis())
        if analysis is not None:
            table = analysis.table.set_index("index")
            columns.setdefault(member.name, []).extend(
                [
                    table["gap_certified"].rename("gap_certified_mean"),
                    table["agrees_certified"].rename("agreement_certified"),
                ]
            )
    return {name: pd.concat(found, axis=1) for name, found in columns.items()}


def claim_lines(claims: Sequence[Claim]) -> list[str]:
    """A table of claims, and of how many of each paper came out in which way."""
    if not claims:
        return [
            "No claim could be tested: each needs figures of at least two methods, named in it."
        ]
    lines = [
        f"| paper | {' | '.join(VERDICTS)} |",
        "|---|" + "--:|" * len(VERDICTS),
    ]
    for paper in dict.fromkeys(claim.paper for claim in claims):
        of_paper = Counter(claim.verdict for claim in claims if claim.paper == paper)
        lines.append(f"| {paper} | {' | '.join(str(of_paper[v]) for v in VERDICTS)} |")
    lines += [
        "",
        "| verdict | data set | teacher | statement | figures | students | seeds | noise |",
        "|---|---|---|---|---|--:|---|---|",
    ]
    for claim in claims:
        figures = "; ".join(f"{name} {_text(name, v)}" for name, v in claim.figures.items())
        lines.append(
            f"| {VERDICTS[claim.verdict]} | {claim.dataset} | `{claim.teacher}` | "
            f"{claim.statement} | {figures} | {claim.n} | {_seeds(claim)} | "
            f"{claim.noise or 'none'} |"
        )
    return lines


def _seeds(claim: Claim) -> str:
    return ", ".join(map(str, claim.seeds)) or "-"


def unequal(students: Sequence[Member]) -> list[str]:
    """In what the students of one data set that are compared were not trained alike, in sentences.

    Args:
        students: shipped ones, of one data set.
    """
    by_epochs: dict[int, list[str]] = {}
    for member in students:
        # What a model was trained for, not what it would be by now.
        epochs = read_card(member.name).training_config.get("epochs")
        if epochs is not None and member.label not in by_epochs.setdefault(epochs, []):
            by_epochs[epochs].append(member.label)
    sentences = []
    if len(by_epochs) > 1:
        usual = max(by_epochs, key=lambda epochs: (len(by_epochs[epochs]), epochs))
        others = "; ".join(
            f"{', '.join(labels)} for {epochs} epochs"
            for epochs, labels in sorted(by_epochs.items())
            if epochs != usual
        )
        sentences.append(
            f"On {students[0].dataset} not all were trained equally long: {others}, the others for "
            f"{usual}."
        )
    data = DATA[students[0].dataset] if students else None
    if data is not None and data.attack["epsilon"] != data.radius:
        ball, radius, shown = (
            f"{255 * e:g}/255" for e in (data.attack["epsilon"], data.radius, data.score_epsilon)
        )
        sentences.append(
            f"On {students[0].dataset} methods that train on attacks do so at {ball}, those that train "
            f"on certificates at {radius}, and all are measured at {shown}."
        )
    return sentences


def _text(name: str, value: float) -> str:
    return figure_text(all_figures()[name.split(": ")[1]], value)


def figure_lines(dataset: str, table: pd.DataFrame) -> list[str]:
    """All figures of a data set's students, a table for each group; means over seeds, +- deviations."""
    data = DATA[dataset]
    lines = [f"Figures of attacks and certificates are at radius {data.score_epsilon:.6g}."]
    for group in group_names():
        figures = [
            f for f in SCORES.get(group).figures if f.name in table and table[f.name].notna().any()
        ]
        if figures:
            lines += ["", f"### {SCORES.get(group).title}", "", *group_lines(table, figures)]
    return lines


def group_lines(table: pd.DataFrame, figures: Sequence[Figure]) -> Iterator[str]:
    """A table of some figures: a row a teacher and label, means over seeds and their deviations.

    A figure that a seed lacks is none: a mean of the others would pass for one of all seeds.
    """
    yield "| student | seeds | " + " | ".join(figure.title for figure in figures) + " |"
    yield "|---|--:|" + "--:|" * len(figures)
    for (teacher, label), rows in table.groupby(["teacher", "label"], sort=False):
        cells = []
        for figure in figures:
            values = rows[figure.name].dropna()
            is_whole = len(values) == len(rows)
            mean = values.mean() if is_whole else None
            cells.append(figure_text(figure, mean, values.std(ddof=1)))
        yield f"| {label} of {teacher.rsplit('-', 1)[1]} | {len(rows)} | {' | '.join(cells)} |"
