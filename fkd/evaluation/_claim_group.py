"""The students of one teacher, seeds together, and one of them held against another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from pydantic import Field

from fkd.core.config import Config
from fkd.evaluation._verdicts import Comparison, Verdict, of_images, of_shares, verdict

#: Columns that say which student a row is.
IDENTITY = ("dataset", "teacher", "student", "label")
#: The label under which the teacher itself stands beside its students.
TEACHER = "teacher"


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
    seeds: tuple[int, ...] = Field(description="Their seeds; empty where none are known.")


class Group:
    """The students of one teacher: means over seeds by label, and what is known of each image.

    The teacher itself stands beside them with the label `TEACHER`.

    Args:
        rows: of one teacher, at least one; see `fkd.evaluation.check_claims`.
        counts: images by figure.
        images: what is known of each image, by model.
    """

    def __init__(
        self, rows: pd.DataFrame, counts: Mapping[str, int], images: Mapping[str, pd.DataFrame]
    ) -> None:
        self.dataset = str(rows["dataset"].iloc[0])
        self.teacher = str(rows["teacher"].iloc[0])
        self._rows = rows
        self._counts = counts
        self._of_all = images
        self._sizes = rows["label"].value_counts()
        named = rows.drop(columns=[c for c in IDENTITY if c != "label"])
        grouped = named.groupby("label")
        # A mean of some seeds would pass for one of all.
        is_whole = grouped.count().eq(self._sizes, axis=0)
        self._means = grouped.mean(numeric_only=True).where(is_whole)
        names = {label: list(part) for label, part in rows.groupby("label")["student"]}
        self._images = {
            label: [images[name] for name in of if name in images]
            for label, of in {**names, TEACHER: [self.teacher]}.items()
        }

    def among(self, labels: Sequence[str]) -> Group:
        """The students of these labels, of which one at least is there, on equal terms.

        Those are the seeds that all of them have, where there are any: one more seed, good or bad, is no
        merit of a method.
        """
        rows = self._rows[self._rows["label"].isin(labels)]
        if "seed" in rows:
            common = set.intersection(
                *(set(of.dropna()) for _, of in rows.groupby("label")["seed"])
            )
            if common:
                rows = rows[rows["seed"].isin(common)]
        return Group(rows, self._counts, self._of_all)

    def value(self, label: str, figure: str) -> float | None:
        """Mean over seeds; None where it was not measured for each of them."""
        if label == TEACHER:
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
        if len(tables) < self._sizes.get(label, 1) or any(figure not in one for one in tables):
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
        if figure not in self._counts:
            return None
        return of_shares(first, second, self._counts[figure], bar)

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
        among = self._rows[self._rows["label"].isin(labels)]
        seeds = among["seed"].dropna().unique() if "seed" in among else ()
        return Claim(
            paper=paper,
            dataset=self.dataset,
            teacher=self.teacher,
            label=labels[0],
            statement=statement,
            verdict=verdict(comparisons),
            noise="; ".join(dict.fromkeys(one.noise for one in comparisons if one.noise)),
            figures={name: value for name, value in values.items() if value is not None},
            n=sum(int(self._sizes.get(label, 0)) for label in labels),
            seeds=tuple(sorted(int(seed) for seed in seeds)),
        )
