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

_FAITHFUL_FIGURES = ("clean_accuracy", "gap_certified_mean", "agreement_certified")
_FAITHFUL = ("faithful_ibp", "faithful_crown_ibp", "faithful", "certified_gap")
_RIVALS = ("kd", "ard", "rslad")
#: Every rival that trains on attacks; the paper had the first two alone.
_ATTACK_BASED = ("ard", "rslad", "iad", "akd", "adaad", "igdm")
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
        self,
        rows: pd.DataFrame,
        examples: int | None,
        attacked: int | None,
        teacher_robust: float | None,
    ) -> None:
        self.dataset = str(rows["dataset"].iloc[0])
        self.teacher = str(rows["teacher"].iloc[0])
        self.examples = examples
        self.attacked = attacked
        self.teacher_robust = teacher_robust
        named = rows.drop(columns=[c for c in IDENTITY if c != "label"])
        self.counts = rows["label"].value_counts()
        grouped = named.groupby("label")
        # A mean of some seeds would pass for one of all.
        is_whole = grouped.count().eq(self.counts, axis=0)
        self.means = grouped.mean(numeric_only=True).where(is_whole)

    def value(self, label: str, figure: str) -> float | None:
        """Mean over seeds; None where it was not measured for each of them."""
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
    attacked: Mapping[str, int] | None = None,
    teacher_robust: Mapping[str, float] | None = None,
) -> list[Claim]:
    """Test every claim that the table has the figures for.

    Args:
        table: one row a student, columns `IDENTITY` and figures of the leaderboard, of one radius:
            shares in [0, 1] (``clean_accuracy``, ``robust_accuracy``, ``agreement_certified``,
            ``agreement_outside``, ``agreement_corrupted``, ``retention_train``),
            ``gap_certified_mean`` in [0, 1] and ``training_examples``.  Students that differ by seed
            alone have one ``label``.
        examples: test examples of each data set, which say how far accuracies are told apart; claims
            that need it are left out without.
        attacked: those of them that were attacked, for accuracies under attack likewise.
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
        group = _Group(
            rows,
            (examples or {}).get(dataset),
            (attacked or {}).get(dataset),
            (teacher_robust or {}).get(teacher),
        )
        for test in _TESTS:
            claims += test(group)
    return claims


def _noise(first: float, second: float, examples: int) -> float:
    """How far two shares of as many examples differ by chance, 95 % of the time."""
    return _QUANTILE * math.sqrt((first * (1 - first) + second * (1 - second)) / examples)


def _faithful(group: _Group) -> Iterator[Claim]:
    """Narrower certified gap and more certified agreement than each rival, and no less accurate."""
    for label in _FAITHFUL:
        yield from _faithful_against(group, label, _RIVALS, "")
        # Against the paper's own rivals alone it would be the same claim twice.
        if any(rival in group.means.index for rival in set(_ATTACK_BASED) - set(_RIVALS)):
            yield from _faithful_against(group, label, _ATTACK_BASED, "Harder than the paper's: ")


def _faithful_against(
    group: _Group, label: str, rivals: tuple[str, ...], said_first: str
) -> Iterator[Claim]:
    """One claim of one student against those of the rivals that there are."""
    own = {(label, figure): group.value(label, figure) for figure in _FAITHFUL_FIGURES}
    if None in own.values():
        return
    compared, wins = dict(own), []
    for rival in rivals:
        theirs = {(rival, figure): group.value(rival, figure) for figure in _FAITHFUL_FIGURES}
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
        statement = (
            f"{label} has a smaller mean certified gap and more certified agreement than {names}, "
            f"at an accuracy at most {100 * COMPARABLE:g} point below."
        )
        yield group.claim(FAITHFUL_PAPER, said_first + statement, all(wins), compared)


def _kdiga(group: _Group) -> Iterator[Claim]:
    """At least as robust as KD's student, and as the teacher."""
    rivals = (
        ("kd", "kd", group.value("kd", "robust_accuracy")),
        ("teacher", "its teacher", group.teacher_robust),
    )
    for label in ("kdiga", "kdiga_a"):
        own = group.value(label, "robust_accuracy")
        for rival, called, theirs in rivals:
            # Where nobody withstands the attack, being no worse says nothing.
            if own is None or theirs is None or not group.attacked or own == theirs == 0.0:
                continue
            yield group.claim(
                KDIGA_PAPER,
                f"{label} is at least as robust as {called} (accuracy under attack), up to the 95 % "
                f"noise of {group.attacked:,} examples.",
                own >= theirs - _noise(own, theirs, group.attacked) - _ROUNDING,
                {(label, "robust_accuracy"): own, (rival, "robust_accuracy"): theirs},
            )


def _cckd(group: _Group) -> Iterator[Claim]:
    """Accuracy of KD, a gain under attack, fewer mistakes taken over, and fewer examples."""
    gain = _GAIN.get(group.dataset.removesuffix("_jpeg"), _USUAL_GAIN)
    for label in _CCKD:
        own, plain = (group.value(one, "clean_accuracy") for one in (label, "kd"))
        if own is not None and plain is not None and group.examples:
            yield group.claim(
                CCKD_PAPER,
                f"{label} is at least as accurate as kd, up to the 95 % noise of "
                f"{group.examples:,} examples.",
                own >= plain - _noise(own, plain, group.examples),
                {(label, "clean_accuracy"): own, ("kd", "clean_accuracy"): plain},
            )
        own, plain = (group.value(one, "robust_accuracy") for one in (label, "kd"))
        if own is not None and plain is not None:
            yield group.claim(
                CCKD_PAPER,
                f"{label} is at least {100 * gain:g} points better than kd under attack.",
                # No allowance for noise: of few examples it is wider than the gain, so that a student
                # no better than kd would pass.
                own >= plain + gain - _ROUNDING,
                {(label, "robust_accuracy"): own, ("kd", "robust_accuracy"): plain},
            )
        own, plain = (group.value(one, "retention_train") for one in (label, "kd"))
        if own is not None and plain is not None:
            yield group.claim(
                CCKD_PAPER,
                f"{label} keeps fewer of its teacher's mistakes on train examples than kd.",
                own < plain - _ROUNDING,
                {(label, "retention_train"): own, ("kd", "retention_train"): plain},
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
