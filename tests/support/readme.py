"""The README's tables, made from what is shipped; ``python -m tests.support.readme`` writes them in."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from fkd.core.paths import pretrained_dir
from fkd.distillation import COPIES, METHODS
from fkd.evaluation import (
    all_figures,
    bound_text,
    figure_text,
    find_analysis,
    list_analyses,
    reached_text,
    summarise,
)
from fkd.models import read_card
from fkd.records import column_documentation
from pretrained.report import VERDICTS, group_lines, students_table, tested_claims, unequal
from pretrained.specs import Member, zoo
from pretrained.zoo import DATA, TEACHERS

README = Path(__file__).resolve().parents[2] / "README.md"


def _columns() -> list[str]:
    return ["| column | unit | meaning |", "|---|---|---|"] + [
        f"| `{row.column}` | {row.unit} | {row.meaning.replace('|', chr(92) + '|')} |"
        for row in column_documentation().itertuples()
    ]


def _methods() -> list[str]:
    entries = [(METHODS.get(name).role, name, METHODS.get(name)) for name in METHODS]
    entries.sort(key=lambda entry: entry[0], reverse=True)
    entries += [("copy", name, COPIES.get(name)) for name in COPIES]
    return ["| makes | method | source |", "|---|---|---|"] + [
        f"| a {made} | `{name}`: {entry.title} | {entry.source} |" for made, name, entry in entries
    ]


#: What the README shows of the zoo, so that its tables do not grow with it; the report of
#: `pretrained/build.py` shows everything.
_TEACHERS = ("ibp", "pgd")
_LABELS = ("8bit", "faithful", "kd", "pruned", "rslad")


def _shown(dataset: str) -> list[str]:
    students = [f"{dataset}-{label}-of-{teacher}" for label in _LABELS for teacher in _TEACHERS]
    return [f"{dataset}-teacher-{teacher}" for teacher in _TEACHERS] + students


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _by_intervals(metrics: dict[str, float], radius: float) -> float:
    """What intervals alone prove, so that cards of all ages are comparable."""
    return metrics.get(f"interval_accuracy_{radius:g}", metrics[f"certified_accuracy_{radius:g}"])


def _zoo() -> list[str]:
    lines = []
    for dataset, radii in (("digits", (0.02, 0.05, 0.1)), ("mnist", (0.05, 0.1, 0.3))):
        titles = " | ".join(f"robust % at {r:g}" for r in radii)
        lines += [
            "",
            f"| {dataset} | parameters | clean % | as teacher % | {titles} |",
            "|---|--:|--:|--:|" + "--:|" * len(radii),
        ]
        for card in map(read_card, _shown(dataset)):
            metrics = card.metrics
            cells = []
            for radius in radii:
                proved = _by_intervals(metrics, radius)
                cells.append(
                    _percent(metrics[f"robust_accuracy_{radius:g}"])
                    + (f" ({_percent(proved)})" if proved else "")
                )
            lines.append(
                f"| `{card.name}` | {card.parameters:,} | {_percent(metrics['clean_accuracy'])} | "
                f"{_percent(metrics.get('teacher_agreement'))} | {' | '.join(cells)} |"
            )
    return lines[1:]


def _teachers() -> list[str]:
    lines = [
        "| teacher | parameters | clean % | radius | robust % | certified % |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for dataset, data in DATA.items():
        radii = sorted({data.score_epsilon, float(data.attack["epsilon"])})
        names = [member.name for member in zoo(dataset) if member.teacher is None]
        for card in (read_card(name) for name in names if (pretrained_dir() / name).is_dir()):
            for radius in radii:
                # The newest cards know the better of intervals and CROWN-IBP, the others intervals.
                figures = [
                    _percent(card.metrics[f"{kind}_accuracy_{radius:g}"])
                    for kind in ("robust", "certified")
                ]
                shown = f"{radius:g}" if dataset != "cifar10_jpeg" else f"{255 * radius:g}/255"
                lines.append(
                    f"| `{card.name}` | {card.parameters:,} | "
                    f"{_percent(card.metrics['clean_accuracy'])} | {shown} | {' | '.join(figures)} |"
                )
    return lines


def _pairs() -> list[str]:
    lines = []
    entries = [entry for entry in list_analyses() if entry.is_shipped]
    for dataset in ("digits", "mnist"):
        radii = sorted({e.config.epsilon for e in entries if e.config.dataset == dataset})
        lines += [
            "",
            f"| {dataset} | " + " | ".join(f"ε = {r:g}" for r in radii) + " |",
            "|---|" + "--:|" * len(radii),
        ]
        for teacher in ("pgd", "ibp"):
            for label in ("kd", "rslad", "faithful", "8bit", "pruned"):
                name = f"{dataset}-{label}-of-{teacher}"
                cells = []
                for radius in radii:
                    (entry,) = (
                        e
                        for e in entries
                        if e.config.student == name and e.config.epsilon == radius
                    )
                    analysis = find_analysis(entry.config)
                    assert analysis is not None, f"the table of {name} at {radius} is stale"
                    figures = summarise(analysis.table)
                    cells.append(
                        f"{reached_text(figures.gap_attack_mean)} … "
                        f"{bound_text(figures.gap_certified_mean)}, "
                        f"{100 * figures.agreement_certified:.0f} % / "
                        f"{100 * figures.disagreement_found:.0f} %"
                    )
                teacher_name = read_card(name).teacher.name
                assert teacher_name == f"{dataset}-teacher-{teacher}"
                lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines[1:]


#: Figures of the README's comparison; the page *Compare methods* has them all.
_COMPARED = (
    "clean_accuracy",
    "robust_accuracy",
    "certified_accuracy",
    "agreement_certified",
    "gap_attack_mean",
    "gap_certified_mean",
    "relative_attack",
    "kl_corrupted",
    "training_examples",
)


def _students(dataset: str) -> list[Member]:
    """Students of the teachers that every method distils, where they and their figures are shipped."""
    return [
        member
        for member in zoo(dataset)
        if member.teacher is not None
        and member.method not in COPIES
        and (pretrained_dir() / member.name).is_dir()
        and TEACHERS[member.teacher.rsplit("-", 1)[1]].labels is None
    ]


def _told(students: list[Member]) -> list[str]:
    """In what they were not trained alike, as a paragraph with an empty line after it; or nothing."""
    sentences = unequal(students)
    return [" ".join(sentences), ""] if sentences else []


def _compared() -> list[str]:
    lines = []
    for dataset in DATA:
        students = _students(dataset)
        table = students_table(students)
        if len(table):
            lines += ["", f"{dataset}, ε = {DATA[dataset].score_epsilon:.4g}:", ""]
            lines += _told(students)
            lines += group_lines(table, [all_figures()[name] for name in _COMPARED])
    return lines[1:]


def _claims() -> list[str]:
    tables = {dataset: students_table(_students(dataset)) for dataset in DATA}
    tables = {dataset: table for dataset, table in tables.items() if len(table)}
    claims = tested_claims(tables, [one for dataset in tables for one in _students(dataset)])
    places = list(dict.fromkeys((claim.dataset, claim.teacher) for claim in claims))
    verdicts: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for claim in claims:
        said = claim.statement.removesuffix(".")
        row = verdicts.setdefault((claim.paper.rsplit(", ", 1)[0], said), {})
        row[claim.dataset, claim.teacher] = VERDICTS[claim.verdict]
    titles = [f"{dataset}, {teacher.rsplit('-', 1)[1]}" for dataset, teacher in places]
    lines = [f"| paper | claim | {' | '.join(titles)} |", "|---|---|" + "---|" * len(places)]
    for (paper, said), row in verdicts.items():
        cells = " | ".join(row.get(place, "") for place in places)
        lines.append(f"| {paper} | {said} | {cells} |")
    told = [line for dataset in tables for line in _told(_students(dataset))]
    return [*lines, "", *told[:-1]] if told else lines


def _card_figures(name: str, radius: float) -> str:
    metrics = read_card(name).metrics
    return (
        f"`{name}`: {_percent(metrics['clean_accuracy'])} clean, "
        f"{_percent(_by_intervals(metrics, radius))} certified by intervals"
    )


def _score(name: str, figure: str) -> str:
    dataset = name.split("-")[0]
    (member,) = (m for m in _students(dataset) if m.name == name)
    return figure_text(all_figures()[figure], float(students_table([member])[figure].iloc[0]))


def _gain() -> str:
    students = [
        f"{dataset}-{label}-of-pgd"
        for dataset in ("mnist", "fashion_mnist")
        for label in ("cckd_l", "cckd_t", "kd")
    ]
    cells = [f"`{name}` {_score(name, 'robust_accuracy')}" for name in students]
    return "under attack at 0.1: " + ", ".join(cells)


def _saved() -> str:
    part, whole = (
        read_card(f"mnist-{label}-of-pgd").history[-1]["examples"]
        for label in ("cckd_l_sr", "kdiga")
    )
    return f"`mnist-cckd_l_sr-of-pgd` sees {100 * part / whole:.0f} % of the examples"


def _published() -> list[str]:
    """Published figures as far as they are known, and ours; the marks are those of the sources."""
    return [
        "| published | here | what differs |",
        "|---|---|---|",
        "| certified training, MNIST at 0.1: 98 to 99 % clean, 97 to 98 % certified (tables of SABR and "
        f"MTL-IBP, from memory) | {_card_figures('mnist-teacher-mtl', 0.1)} | a network of 0.17 million "
        "weights instead of the seven layers used there, 24 epochs, the first 1,000 test images, "
        "certified by intervals alone |",
        "| CCKD: at least 3 points better than KD under attack on MNIST and Fashion-MNIST (abstract) | "
        f"{_gain()} | a robust teacher, PGD and AutoAttack on 200 images, forms of the losses from the "
        "abstract |",
        "| CCKD: as accurate with fewer examples (abstract) | "
        f"{_saved()} | the rule of self-regulation is ours |",
        "| CCKD: 6 points better than KD under attack on CIFAR-10 (abstract) | CCKD is not distilled on "
        "CIFAR-10 | |",
        "| certified training, MNIST at 0.3: about 98 % clean, 93 % certified (tables of SABR and "
        f"MTL-IBP, from memory) | {_card_figures('mnist-teacher-mtl', 0.3)} | trained for 0.1: nobody "
        "here is trained for 0.3, so that this is no attempt at the figure |",
        "| adversarial training, CIFAR-10 at 8/255: about 80 % clean, 45 to 50 % under AutoAttack with "
        f"ResNet-18 (from memory) | {_attacked('cifar10_jpeg-teacher-pgd', 8 / 255)} | "
        f"{_smaller('cifar10_jpeg-teacher-pgd')} |",
        "| RSLAD, CIFAR-10 at 8/255: about 83.4 % clean, 51.5 % under AutoAttack with ResNet-18 (from "
        f"memory) | {_attacked('cifar10_jpeg-rslad-of-pgd', 8 / 255)} | "
        f"{_smaller('cifar10_jpeg-rslad-of-pgd')}; its teacher is the one "
        "above, not a WideResNet |",
    ]


#: What sets CIFAR-10's networks here apart from published ones.
_SMALL = (
    "two convolutions and {} weights instead of 11 million, {} epochs on a CPU, recompressed images, PGD "
    "(50 steps) on the first 1,000 test images instead of AutoAttack on all"
)


def _attacked(name: str, radius: float) -> str:
    metrics = read_card(name).metrics
    return (
        f"`{name}`: {_percent(metrics['clean_accuracy'])} clean, "
        f"{_percent(metrics[f'robust_accuracy_{radius:g}'])} under PGD"
    )


def _smaller(name: str) -> str:
    card = read_card(name)
    return _SMALL.format(f"{card.parameters:,}", card.training_config["epochs"])


SECTIONS: dict[str, Callable[[], list[str]]] = {
    "columns": _columns,
    "teachers": _teachers,
    "zoo": _zoo,
    "pairs": _pairs,
    "compared": _compared,
    "claims": _claims,
    "published": _published,
    "methods": _methods,
}


def section(text: str, name: str) -> str:
    """What stands between a section's marks."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
    assert found is not None, f"README.md has no section {name}"
    return found[1]


def main() -> None:
    """Write every table into the README."""
    text = README.read_text(encoding="utf-8")
    for name, make in SECTIONS.items():
        made = "\n".join(make()) + "\n"
        text = text.replace(
            f"<!-- {name} -->\n{section(text, name)}<!-- /{name} -->",
            f"<!-- {name} -->\n{made}<!-- /{name} -->",
        )
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    # Models and tables of the person who writes it are not the README's.
    with tempfile.TemporaryDirectory() as home:
        os.environ["FKD_HOME"] = home
        main()
