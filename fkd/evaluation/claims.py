"""Headline claims of papers on distillation, tested on measured figures: three ways to come out.

A claim is tested for each data set and teacher by itself, on the mean over seeds of each student's
figures.  It holds, or does not, where that is so beyond the noise of the images that the figures are
from; else the images cannot tell.  Where a figure or a student that it compares is missing, the claim is
not tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd
from pydantic import Field

from fkd.core.config import Config
from fkd.core.errors import ConfigError
from fkd.evaluation._verdicts import Comparison, Verdict, exact, of_images, of_shares, verdict

#: Columns that say which student a row is.
IDENTITY = ("dataset", "teacher", "student", "label")

#: Two accuracies are comparable where they differ by no more than this share.
COMPARABLE = 0.01
#: What CCKD's abstract says it gains under attack: on CIFAR-10, and elsewhere.
_GAIN = {"cifar10": 0.06}
_USUAL_GAIN = 0.03

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
    verdict: Verdict = Field(
        description="Whether it holds or does not, each beyond the noise of the images at 95 %, or is "
        "within that noise, whatever the figures say by themselves."
    )
    noise: str = Field(
        description="How the noise was told: tests and numbers of images; empty for exact numbers."
    )
    figures: dict[str, float] = Field(
        description="What was compared, means over seeds; keys are 'label: figure'."
    )
    n: int = Field(ge=1, description="Students whose figures were compared, seeds counted.")


class _Group:
    """The students of one teacher: means over seeds by label, and what is known of each image.

    The teacher itself stands beside them with the label ``teacher``.
    """

    def __init__(
        self, rows: pd.DataFrame, counts: Mapping[str, int], images: Mapping[str, pd.DataFrame]
    ) -> None:
        self.dataset = str(rows["dataset"].iloc[0])
        self.teacher = str(rows["teacher"].iloc[0])
        self.counts = counts
        self.seeds = rows["label"].value_counts()
        named = rows.drop(columns=[c for c in IDENTITY if c != "label"])
        grouped = named.groupby("label")
        # A mean of some seeds would pass for one of all.
        is_whole = grouped.count().eq(self.seeds, axis=0)
        self._means = grouped.mean(numeric_only=True).where(is_whole)
        names = {label: list(part) for label, part in rows.groupby("label")["student"]}
        self._images = {
            label: [images[name] for name in of if name in images]
            for label, of in {**names, "teacher": [self.teacher]}.items()
        }

    def value(self, label: str, figure: str) -> float | None:
        """Mean over seeds; None where it was not measured for each of them."""
        if label == "teacher":
            seen = self.by_image(label, figure)
            return None if seen is None or seen.empty else float(seen.mean())
        if label not in self._means.index or figure not in self._means.columns:
            return None
        found = float(self._means.loc[label, figure])
        return None if math.isnan(found) else found

    def has(self, labels: Sequence[str]) -> bool:
        """Whether any of the students is there."""
        return any(label in self._means.index for label in labels)

    def by_image(self, label: str, figure: str) -> pd.Series | None:
        """A figure's part of each image, mean over seeds; None where a seed lacks it."""
        tables = self._images.get(label, [])
        if len(tables) < self.seeds.get(label, 1) or any(figure not in one for one in tables):
            return None
        both = pd.concat([one[figure].astype(float) for one in tables], axis=1, join="inner")
        return both.dropna().mean(axis=1)

    def compare(
        self, own: str, theirs: str, figure: str, *, bar: float = 0.0, is_lower_better: bool = False
    ) -> Comparison | None:
        """Whether a student is better than another by more than ``bar``; None where nothing tells.

        Image by image where both are known of the same ones, else as two shares.
        """
        first, second = self.value(own, figure), self.value(theirs, figure)
        if first is None or second is None:
            return None
        seen = [self.by_image(label, figure) for label in (own, theirs)]
        if is_lower_better:
            first, second, seen = second, first, seen[::-1]
        if all(one is not None for one in seen):
            pairs = pd.concat(seen, axis=1, join="inner")
            if len(pairs):
                return of_images(*(pairs.iloc[:, side].to_numpy() for side in (0, 1)), bar)
        if figure not in self.counts:
            return None
        return of_shares(first, second, self.counts[figure], bar)

    def claim(
        self,
        paper: str,
        statement: str,
        comparisons: Sequence[Comparison],
        compared: Sequence[tuple[str, str]],
    ) -> Claim:
        """A claim on the figures ``compared``, by label and figure; the first label is the claim's."""
        labels = list(dict.fromkeys(label for label, _ in compared))
        values = {f"{of}: {what}": self.value(of, what) for of, what in compared}
        return Claim(
            paper=paper,
            dataset=self.dataset,
            teacher=self.teacher,
            label=labels[0],
            statement=statement,
            verdict=verdict(comparisons),
            noise="; ".join(dict.fromkeys(one.noise for one in comparisons if one.noise)),
            figures={name: value for name, value in values.items() if value is not None},
            n=sum(int(self.seeds.get(label, 0)) for label in labels),
        )


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
            alone have one ``label``.
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
        group = _Group(rows, (counts or {}).get(teacher, {}), images or {})
        for test in _TESTS:
            claims += test(group)
    return claims


def _faithful(group: _Group) -> Iterator[Claim]:
    """Narrower certified gap and more certified agreement than each rival, and no less accurate."""
    for label in _FAITHFUL:
        yield from _faithful_against(group, label, _RIVALS, "")
        # Against the paper's own rivals alone it would be the same claim twice.
        if group.has(sorted(set(_ATTACK_BASED) - set(_RIVALS))):
            yield from _faithful_against(group, label, _ATTACK_BASED, "Harder than the paper's: ")


def _faithful_against(
    group: _Group, label: str, rivals: tuple[str, ...], said_first: str
) -> Iterator[Claim]:
    """One claim of one student against those of the rivals that there are."""
    comparisons: list[Comparison] = []
    known = []
    for rival in rivals:
        against = (
            group.compare(label, rival, "clean_accuracy", bar=-COMPARABLE),
            group.compare(label, rival, "gap_certified_mean", is_lower_better=True),
            group.compare(label, rival, "agreement_certified"),
        )
        found = [one for one in against if one is not None]
        if len(found) == len(against):
            comparisons += found
            known.append(rival)
    if known:
        yield group.claim(
            FAITHFUL_PAPER,
            f"{said_first}{label} has a smaller mean certified gap and more certified agreement than "
            f"{', '.join(known)}, at an accuracy at most {100 * COMPARABLE:g} point below.",
            comparisons,
            [(one, figure) for one in (label, *known) for figure in _FAITHFUL_FIGURES],
        )


def _kdiga(group: _Group) -> Iterator[Claim]:
    """At least as robust as KD's student, and as the teacher."""
    for label in ("kdiga", "kdiga_a"):
        for rival, called in (("kd", "kd"), ("teacher", "its teacher")):
            # Where nobody withstands the attack, being no worse says nothing.
            if group.value(label, "robust_accuracy") == group.value(rival, "robust_accuracy") == 0:
                continue
            yield from _single(
                group,
                KDIGA_PAPER,
                f"{label} is at least as robust as {called} (accuracy under attack).",
                (label, rival, "robust_accuracy"),
            )


def _single(
    group: _Group,
    paper: str,
    statement: str,
    compared: tuple[str, str, str],
    *,
    bar: float = 0.0,
    is_lower_better: bool = False,
) -> Iterator[Claim]:
    """A claim of one comparison: own label, the rival's, and the figure."""
    own, rival, figure = compared
    found = group.compare(own, rival, figure, bar=bar, is_lower_better=is_lower_better)
    if found is not None:
        yield group.claim(paper, statement, [found], [(own, figure), (rival, figure)])


def _cckd(group: _Group) -> Iterator[Claim]:
    """Accuracy of KD, a gain under attack, fewer mistakes taken over, and fewer examples."""
    gain = _GAIN.get(group.dataset.removesuffix("_jpeg"), _USUAL_GAIN)
    for label in _CCKD:
        yield from _single(
            group,
            CCKD_PAPER,
            f"{label} is at least as accurate as kd.",
            (label, "kd", "clean_accuracy"),
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
        whole, figure = label.removesuffix("_sr"), "training_examples"
        seen, all_seen = (group.value(one, figure) for one in (label, whole))
        if whole != label and seen is not None and all_seen is not None:
            yield group.claim(
                CCKD_PAPER,
                f"{label} is trained on fewer examples than {whole}.",
                [exact(all_seen, seen)],
                [(label, figure), (whole, figure)],
            )


def _tintem(group: _Group) -> Iterator[Claim]:
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


_TESTS: tuple[Callable[[_Group], Iterator[Claim]], ...] = (_faithful, _kdiga, _cckd, _tintem)
