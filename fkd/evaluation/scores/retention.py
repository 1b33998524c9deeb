"""What becomes of the teacher's mistakes: kept by the student, or put right.

Confidence Conditioned Knowledge Distillation (CCKD, Mishra and Sundaram, 2107.06993) claims that its
students take over fewer of the teacher's mistakes on the training examples.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fkd.core.progress import ProgressCallback, report
from fkd.data import SplitName
from fkd.evaluation.scored_pair import ScoredPair
from fkd.evaluation.scores._base import (
    SCORES,
    WILSON,
    Figure,
    GroupScores,
    Score,
    ScoreGroup,
    share,
)

_SPLITS: tuple[SplitName, ...] = ("train", "test")
#: Of fewer mistakes no share is told: of 20 the 95 % interval is already 40 points wide.
LEAST_MISTAKES = 20


def retention(teacher: Tensor, student: Tensor, labels: Tensor) -> tuple[int, int, int]:
    """The teacher's mistakes, and how many of them the student makes too and puts right.

    Args:
        teacher: predictions, int64 (N,).
        student: the student's.
        labels: int64 (N,).

    Returns:
        Numbers of examples: the teacher is wrong; the student predicts the same wrong class there; the
        student is right there.
    """
    wrong = teacher != labels
    kept = wrong & (student == teacher)
    return int(wrong.sum()), int(kept.sum()), int((wrong & (student == labels)).sum())


def share_of_mistakes(hits: int, wrong: int, split: SplitName) -> Score:
    """``hits`` of the teacher's ``wrong`` examples; no value where those are fewer than `LEAST_MISTAKES`.

    The count is kept either way.
    """
    if wrong >= LEAST_MISTAKES:
        return share(hits, wrong)
    if wrong == 0:
        reason = f"The teacher gets no {split} example wrong."
    else:
        examples = "example" if wrong == 1 else "examples"
        reason = f"The teacher gets only {wrong} {split} {examples} wrong, too few to tell."
    return Score(None, count=wrong, reason=reason)


def _figures() -> tuple[Figure, ...]:
    figures = []
    for split in _SPLITS:
        which = (
            f"Of the {split} examples that the teacher gets wrong, the share on which the student"
        )
        figures += [
            Figure(
                f"retention_{split}",
                f"teacher's mistakes kept, {split}",
                "share",
                "lower",
                f"{which} predicts the same wrong class; none where there are fewer than "
                f"{LEAST_MISTAKES}.",
                WILSON,
                is_main=split == "train",
            ),
            Figure(
                f"correction_{split}",
                f"teacher's mistakes corrected, {split}",
                "share",
                "higher",
                f"{which} is right; none where there are fewer than {LEAST_MISTAKES}.",
                WILSON,
            ),
        ]
    return tuple(figures)


@SCORES.register("retention")
class Retention(ScoreGroup):
    """Whether the student takes over the teacher's mistakes."""

    title = "Retention of mistakes"
    order = 60
    version = 2
    figures = _figures()

    def inputs(self, pair: ScoredPair) -> dict[str, Any]:
        """See `ScoreGroup.inputs`: both splits are looked at."""
        return {split: pair.data_set.fingerprint(split) for split in _SPLITS}

    def measure(self, pair: ScoredPair, progress: ProgressCallback | None) -> GroupScores:
        """See `ScoreGroup.measure`."""
        scores: dict[str, Score] = {}
        for done, name in enumerate(_SPLITS):
            report(progress, "retention", done, len(_SPLITS))
            split = pair.load_split(name)
            teacher, student = (part.argmax(1).cpu() for part in pair.logits(split.images))
            wrong, kept, right = retention(teacher, student, split.labels)
            scores[f"retention_{name}"] = share_of_mistakes(kept, wrong, name)
            scores[f"correction_{name}"] = share_of_mistakes(right, wrong, name)
        return GroupScores(scores)
