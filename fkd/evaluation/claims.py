"""Headline claims of papers on distillation, tested on measured figures: each comes out true or false.

A claim is tested for each data set and teacher by itself, on the mean over seeds of each student's
figures.  Where a figure or a student that it compares is missing, the claim is not tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import pandas as pd
from pydantic import Field

from fkd.core.config import Config
from fkd.core.errors import ConfigError

#: Columns that say which student a row is.
IDENTITY = ("dataset", "teacher", "student", "label")

#: Two accuracies are comparable where they differ by no more than this share.
COMPARABLE = 0.01
#: Shares are ratios of counts, averaged over seeds: equality must not be lost to rounding.
_ROUNDING = 1e-9
#: What CCKD's abstract says it gains under attack: on CIFAR-10, and elsewhere.
_GAIN = {"cifar10": 0.06}
_USUAL_GAIN = 0.03
#: Normal quantile of a two-sided interval of 95 %.
_QUANTILE = 1.959963984540054

FAITHFUL_PAPER = "Faithful knowledge distillation, 2306.04431"
KDIGA_PAPER = "KDIGA, 2110.12072"
CCKD_PAPER = "CCKD, 2107.06993"
TINTEM_PAPER = "TinTeM, 2411.15239"

_FAITHFUL = ("faithful_ibp", "faithful_crown_ibp", "faithful", "certified_gap")
_RIVALS = ("kd", "ard", "rslad")
_CCKD = ("cckd_l", "cckd_t", "cckd_l_sr", "cckd_t_sr")


class Claim(Config):
    """What a paper says of its method, as a statement about students of one teacher."""

    paper: str = Field(description="Short name and number of the paper.")
    dataset: str = Field(description="Name of the data set.")
    teacher: str = Field(description="Teacher's name.")
    label: str = Field(description="The way of distilling that the claim is about.")
    statement: str = Field(description="One sentence, true or false.")
    holds: bool = Field(description="Whether it is true of the figures.")
    figures: dict[str, float] = Field(
        description="What was compared, means over seeds; keys are 'label: figure'."
    )
    n: int = Field(ge=1, description="Students whose figures were compared, seeds counted.")


class _Group:
    """The students of one teacher: means over seeds by label, and what the teacher itself reaches."""

    def __init__(
        self, rows: pd.DataFrame, examples: int | None, teacher_robust: float | None
    ) -> None:
        self.dataset = str(rows["dataset"].iloc[0])
        self.teacher = str(rows["teacher"].iloc[0])
        self.examples = examples
        self.teacher_robust = teacher_robust
        named = rows.drop(columns=[c for c in IDENTITY if c != "label"])
        self.means = named.groupby("label").mean(numeric_only=True)
        self.counts = rows["label"].value_counts()

    def value(self, label: str, figure: str) -> float | None:
        """Mean over seeds; None where it was not measured."""
        if label not in self.means.index or figure not in self.means.columns:
            return None
        found = float(self.means.loc[label, figure])
        return None if math.isnan(found) else found

    def claim(
        self,
        paper: str,
        statement: str,
        holds: bool,
        compared: Mapping[tuple[str, str], float | None],
    ) -> Claim:
        """A claim on the figures ``compared``, by label and figure; the first label is the claim's."""
        labels = [label for label, _ in compared]
        return Claim(
            paper=paper,
            dataset=self.dataset,
            teacher=self.teacher,
            label=labels[0],
            statement=statement,
            holds=holds,
            figures={f"{of}: {what}": v for (of, what), v in compared.items() if v is not None},
            n=sum(int(self.counts.get(label, 0)) for label in dict.fromkeys(labels)),
        )


def check_claims(
    table: pd.DataFrame,
    *,
    examples: Mapping[str, int] | None = None,
    teacher_robust: Mapping[str, float] | None = None,
) -> list[Claim]:
    """Test every claim that the table has the figures for.

    Args:
        table: one row a student, columns `IDENTITY` and figures of the leaderboard, of one radius:
            shares in [0, 1] (``clean_accuracy``, ``robust_accuracy``, ``agreement_certified``,
            ``agreement_outside``, ``agreement_corrupted``), ``gap_certified_mean`` in [0, 1] and
            ``training_examples``.  Students that differ by seed alone have one ``label``.
        examples: test examples of each data set, which say how far accuracies are told apart; claims
            that need it are left out without.
        teacher_robust: each teacher's ``robust_accuracy`` on the same examples at the same radius.

    Returns:
        The claims by data set and teacher, in the order of the papers.

    Raises:
        ConfigError: a column of `IDENTITY` is missing.
    """
    missing = [column for column in IDENTITY if column not in table.columns]
    if missing:
        raise ConfigError(
            f"Claims are tested on a table with the column '{missing[0]}', which this one has not; "
            f"give it {', '.join(IDENTITY)} and the leaderboard's figures."
        )
    claims: list[Claim] = []
    for (dataset, teacher), rows in table.groupby(["dataset", "teacher"], sort=False):
        group = _Group(rows, (examples or {}).get(dataset), (teacher_robust or {}).get(teacher))
        for test in _TESTS:
            claims += test(group)
    return claims


def _faithful(group: _Group) -> Iterator[Claim]:
    """Narrower certified gap and more certified agreement than each rival, and no less accurate."""
    figures = ("clean_accuracy", "gap_certified_mean", "agreement_certified")
    for label in _FAITHFUL:
        own = {(label, figure): group.value(label, figure) for figure in figures}
        if None in own.values():
            continue
        compared, wins = dict(own), []
        for rival in _RIVALS:
            theirs = {(rival, figure): group.value(rival, figure) for figure in figures}
            if None in theirs.values():
                continue
            accuracy, gap, agreement = own.values()
            other_accuracy, other_gap, other_agreement = theirs.values()
            compared |= theirs
            wins.append(
                accuracy >= other_accuracy - COMPARABLE - _ROUNDING
                and gap < other_gap
                and agreement > other_agreement
            )
        if wins:
            names = ", ".join(name for name, _ in list(compared)[len(own) :: len(own)])
            yield group.claim(
                FAITHFUL_PAPER,
                f"{label} has a smaller mean certified gap and more certified agreement than {names}, "
                f"at an accuracy at most {100 * COMPARABLE:g} point below.",
                all(wins),
                compared,
            )


def _kdiga(group: _Group) -> Iterator[Claim]:
    """At least as robust as KD's student, and as the teacher."""
    for label in ("kdiga", "kdiga_a"):
        own, plain = (group.value(one, "robust_accuracy") for one in (label, "kd"))
        if own is None:
            continue
        if plain is not None:
            yield group.claim(
                KDIGA_PAPER,
                f"{label} is at least as robust as kd (accuracy under attack).",
                own >= plain - _ROUNDING,
                {(label, "robust_accuracy"): own, ("kd", "robust_accuracy"): plain},
            )
        if group.teacher_robust is not None:
            yield group.claim(
                KDIGA_PAPER,
                f"{label} is at least as robust as its teacher (accuracy under attack).",
                own >= group.teacher_robust - _ROUNDING,
                {
                    (label, "robust_accuracy"): own,
                    ("teacher", "robust_accuracy"): group.teacher_robust,
                },
            )


def _cckd(group: _Group) -> Iterator[Claim]:
    """Accuracy of KD, a gain under attack, and fewer examples with self-regulation."""
    gain = _GAIN.get(group.dataset.removesuffix("_jpeg"), _USUAL_GAIN)
    for label in _CCKD:
        own, plain = (group.value(one, "clean_accuracy") for one in (label, "kd"))
        if own is not None and plain is not None and group.examples:
            spread = _QUANTILE * math.sqrt((own * (1 - own) + plain * (1 - plain)) / group.examples)
            yield group.claim(
                CCKD_PAPER,
                f"{label} is at least as accurate as kd, up to the 95 % noise of "
                f"{group.examples:,} examples.",
                own >= plain - spread,
                {(label, "clean_accuracy"): own, ("kd", "clean_accuracy"): plain},
            )
        own, plain = (group.value(one, "robust_accuracy") for one in (label, "kd"))
        if own is not None and plain is not None:
            yield group.claim(
                CCKD_PAPER,
                f"{label} is at least {100 * gain:g} points better than kd under attack.",
                own >= plain + gain - _ROUNDING,
                {(label, "robust_accuracy"): own, ("kd", "robust_accuracy"): plain},
            )
        whole = label.removesuffix("_sr")
        seen, all_seen = (group.value(one, "training_examples") for one in (label, whole))
        if whole != label and seen is not None and all_seen is not None:
            yield group.claim(
                CCKD_PAPER,
                f"{label} is trained on fewer examples than {whole}.",
                seen < all_seen,
                {(label, "training_examples"): seen, (whole, "training_examples"): all_seen},
            )


def _tintem(group: _Group) -> Iterator[Claim]:
    """More agreement with the teacher than KD out of distribution."""
    for figure, where in (
        ("agreement_outside", "images of another data set"),
        ("agreement_corrupted", "corrupted images"),
    ):
        own, plain = (group.value(one, figure) for one in ("tintem", "kd"))
        if own is not None and plain is not None:
            yield group.claim(
                TINTEM_PAPER,
                f"tintem predicts as its teacher more often than kd does on {where}.",
                own > plain,
                {("tintem", figure): own, ("kd", figure): plain},
            )


_TESTS: tuple[Callable[[_Group], Iterator[Claim]], ...] = (_faithful, _kdiga, _cckd, _tintem)
