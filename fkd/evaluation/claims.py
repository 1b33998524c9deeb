"""Headline claims of papers on distillation, tested on measured figures: three ways to come out.

A claim is tested for each data set and teacher by itself, on the mean of each student's figures over the
seeds that all of those compared have.  It holds, or does not, where that is so beyond the noise of the
images that the figures are from; else the images cannot tell.  Where a figure or a student that it
compares is missing, the claim is not tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from fkd.core.errors import ConfigError
from fkd.evaluation._claim_group import IDENTITY, TEACHER, Claim, Group
from fkd.evaluation._verdicts import Comparison, exact

__all__ = ["COMPARABLE", "IDENTITY", "Claim", "check_claims"]

#: Two accuracies are comparable where they differ by no more than this share.
COMPARABLE = 0.01
_POINTS = f"{100 * COMPARABLE:g} point"
#: What CCKD's abstract says it gains under attack: on CIFAR-10, and elsewhere.
_GAIN = {"cifar10": 0.06}
_USUAL_GAIN = 0.03

FAITHFUL_PAPER = "Faithful knowledge distillation, 2306.04431"
KDIGA_PAPER = "KDIGA, 2110.12072"
CCKD_PAPER = "CCKD, 2107.06993"
TINTEM_PAPER = "TinTeM, 2411.15239"
#: What this project set out to show of its own method.
OWN = "fkd, this project"

_FAITHFUL_FIGURES = ("clean_accuracy", "gap_certified_mean", "agreement_certified")
_FAITHFUL = ("faithful_ibp", "faithful_crown_ibp", "faithful", "certified_gap")
_OWN = "certified_gap"
_RIVALS = ("kd", "ard", "rslad")
#: Every rival that trains on attacks; the paper had the first two alone.
_ATTACK_BASED = ("ard", "rslad", "iad", "akd", "adaad", "igdm")
_CCKD = ("cckd_l", "cckd_t", "cckd_l_sr", "cckd_t_sr")


def check_claims(
    table: pd.DataFrame,
    *,
    counts: Mapping[str, Mapping[str, int]] | None = None,
    images: Mapping[str, pd.DataFrame] | None = None,
) -> list[Claim]:
    """Test every claim that the table has the figures for.

    Args:
        table: one row a student, columns `IDENTITY` and figures of the leaderboard, of one radius:
            shares in [0, 1] (``clean_accuracy``, ``robust_accuracy``, ``agreement_certified``,
            ``agreement_outside``, ``agreement_corrupted``, ``retention_train``),
            ``gap_certified_mean`` in [0, 1] and ``training_examples``.  Students that differ by seed
            alone have one ``label``; with a column ``seed`` those are compared that all have.
        counts: by teacher and figure, how many different images the figures of its students are of, which
            says how far they are told apart.  A figure that is in neither this nor ``images`` is not
            compared.
        images: by student's and teacher's name, what figures are of each image: a column a figure (yes or
            no, or in [0, 1]), rows by the image's index, of which the figure is the mean.  Where two
            models have it, they are compared image by image.  Of a teacher ``robust_accuracy``, without
            which nobody is compared with it.

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
    for (_, teacher), rows in table.groupby(["dataset", "teacher"], sort=False):
        group = Group(rows, (counts or {}).get(teacher, {}), images or {})
        for test in _TESTS:
            claims += test(group)
    return claims


def _faithful(group: Group) -> Iterator[Claim]:
    """Narrower certified gap and more certified agreement than each rival, and no less accurate."""
    said = (
        "{own} has a smaller mean certified gap and more certified agreement than {rivals}, at an "
        "accuracy at most {points} below."
    )
    for label in _FAITHFUL:
        yield from _against(group, FAITHFUL_PAPER, said, label, _RIVALS)
        # Against the paper's own rivals alone it would be the same claim twice.
        if group.has(sorted(set(_ATTACK_BASED) - set(_RIVALS))):
            harder = "Harder than the paper's: " + said
            yield from _against(group, FAITHFUL_PAPER, harder, label, _ATTACK_BASED)


def _own(group: Group) -> Iterator[Claim]:
    """The narrowest certified gap of those that train on bounds, and no less accurate."""
    said = "{own} has a smaller mean certified gap than {rivals}, at an accuracy at most {points} below."
    rivals = tuple(label for label in _FAITHFUL if label != _OWN)
    figures = ("clean_accuracy", "gap_certified_mean")
    yield from _against(group, OWN, said, _OWN, rivals, figures)


def _against(
    group: Group,
    paper: str,
    said: str,
    label: str,
    rivals: tuple[str, ...],
    figures: tuple[str, ...] = _FAITHFUL_FIGURES,
) -> Iterator[Claim]:
    """One claim of one student against those of the rivals that there are, in each of the figures."""
    there = [
        one
        for one in (label, *rivals)
        if all(group.value(one, figure) is not None for figure in figures)
    ]
    if label not in there:
        return
    equal = group.among(there)
    found = {one: _comparisons(equal, label, one, figures) for one in there if one != label}
    known = [rival for rival, comparisons in found.items() if comparisons]
    if known:
        yield equal.claim(
            paper,
            said.format(own=label, rivals=", ".join(known), points=_POINTS),
            [one for rival in known for one in found[rival]],
            [(one, figure) for one in (label, *known) for figure in figures],
        )


def _comparisons(group: Group, own: str, rival: str, figures: tuple[str, ...]) -> list[Comparison]:
    """A comparison in each of the figures; none where one of them is not known of both."""
    terms = {
        "clean_accuracy": {"bar": -COMPARABLE},
        "gap_certified_mean": {"is_lower_better": True},
    }
    found = [group.compare(own, rival, figure, **terms.get(figure, {})) for figure in figures]
    known = [one for one in found if one is not None]
    return known if len(known) == len(figures) else []


def _kdiga(group: Group) -> Iterator[Claim]:
    """At least as robust as KD's student, and as the teacher."""
    for label in ("kdiga", "kdiga_a"):
        for rival, called in (("kd", "kd"), (TEACHER, "its teacher")):
            # Where nobody withstands the attack, being no worse says nothing.
            if group.value(label, "robust_accuracy") == group.value(rival, "robust_accuracy") == 0:
                continue
            yield from _single(
                group,
                KDIGA_PAPER,
                f"{label} is as robust as {called}: at most {_POINTS} less accurate under attack.",
                (label, rival, "robust_accuracy"),
                bar=-COMPARABLE,
            )


def _single(
    group: Group,
    paper: str,
    statement: str,
    compared: tuple[str, str, str],
    *,
    bar: float = 0.0,
    is_lower_better: bool = False,
) -> Iterator[Claim]:
    """A claim of one comparison: own label, the rival's, and the figure."""
    own, rival, figure = compared
    if not group.has([own]):
        return
    equal = group.among((own, rival))
    found = equal.compare(own, rival, figure, bar=bar, is_lower_better=is_lower_better)
    if found is not None:
        yield equal.claim(paper, statement, [found], [(own, figure), (rival, figure)])


def _cckd(group: Group) -> Iterator[Claim]:
    """Accuracy of KD, a gain under attack, fewer mistakes taken over, and fewer examples."""
    gain = _GAIN.get(group.dataset.removesuffix("_jpeg"), _USUAL_GAIN)
    for label in _CCKD:
        yield from _single(
            group,
            CCKD_PAPER,
            f"{label} is as accurate as kd: at most {_POINTS} less.",
            (label, "kd", "clean_accuracy"),
            bar=-COMPARABLE,
        )
        yield from _single(
            group,
            CCKD_PAPER,
            f"{label} is at least {100 * gain:g} points better than kd under attack.",
            (label, "kd", "robust_accuracy"),
            bar=gain,
        )
        yield from _single(
            group,
            CCKD_PAPER,
            f"{label} keeps fewer of its teacher's mistakes on train examples than kd.",
            (label, "kd", "retention_train"),
            is_lower_better=True,
        )
        if label.endswith("_sr"):
            yield from _cheaper(group, label)


def _cheaper(group: Group, label: str) -> Iterator[Claim]:
    """Self-regulation: fewer examples than KD and the same accuracy.

    Examples only ever leave, so that fewer of them alone would be no claim.
    """
    if not group.has([label]):
        return
    equal = group.among((label, "kd"))
    own, theirs = (equal.value(one, "training_examples") for one in (label, "kd"))
    accurate = equal.compare(label, "kd", "clean_accuracy", bar=-COMPARABLE)
    if own is not None and theirs is not None and accurate is not None:
        yield equal.claim(
            CCKD_PAPER,
            f"{label} is trained on fewer examples than kd, at an accuracy at most "
            f"{_POINTS} below.",
            [exact(theirs, own), accurate],
            [
                (one, what)
                for one in (label, "kd")
                for what in ("training_examples", "clean_accuracy")
            ],
        )


def _tintem(group: Group) -> Iterator[Claim]:
    """More agreement with the teacher than KD out of distribution."""
    for figure, where in (
        ("agreement_outside", "images of another data set"),
        ("agreement_corrupted", "corrupted images"),
    ):
        yield from _single(
            group,
            TINTEM_PAPER,
            f"tintem predicts as its teacher more often than kd does on {where}.",
            ("tintem", "kd", figure),
        )


_TESTS: tuple[Callable[[Group], Iterator[Claim]], ...] = (
    _faithful,
    _own,
    _kdiga,
    _cckd,
    _tintem,
)
