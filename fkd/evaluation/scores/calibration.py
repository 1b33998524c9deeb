"""How honest the student's confidences are, and how they stand to the teacher's.

Calibration against the labels is the expected calibration error (Guo et al. 1706.04599).  *Relative*
calibration asks the same with the teacher in the labels' place (Faithful Knowledge Distillation,
2306.04431): is the student as confident as the teacher?  Examples are binned by the teacher's confidence
in the compared class, and in each bin both networks' mean confidences are set side by side.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from fkd.core.progress import ProgressCallback
from fkd.evaluation.scored_pair import ScoredPair
from fkd.evaluation.scores._base import (
    NORMAL,
    SCORES,
    Figure,
    GroupScores,
    Score,
    ScoreGroup,
    mean,
)
from fkd.records import Column

#: Bins of equal width on [0, 1], as in Guo et al.
BINS = 15
#: The largest float32 below 1.
_BELOW_ONE = 1.0 - 2.0**-24

RELIABILITY_COLUMNS: tuple[Column, ...] = (
    Column(
        "at",
        pa.string(),
        "name",
        "Where confidences are compared: image, or witness (the point of the ball with the largest gap "
        "that the attack reached).",
    ),
    Column("bin", pa.int64(), "position", "Number of the bin of teacher confidences, from 0."),
    Column("left", pa.float64(), "probability", "Lowest teacher confidence of the bin."),
    Column(
        "right",
        pa.float64(),
        "probability",
        "Highest teacher confidence of the bin; the next begins there.",
    ),
    Column(
        "teacher_conf",
        pa.float64(),
        "probability",
        "Teacher's mean confidence in the compared class; null where the bin is empty.",
        nullable=True,
    ),
    Column(
        "student_conf",
        pa.float64(),
        "probability",
        "Student's mean confidence in that class on the same examples; null where the bin is empty.",
        nullable=True,
    ),
    Column("count", pa.int64(), "examples", "Examples in the bin."),
)


def expected_calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Expected calibration error of predictions, in [0, 1] (1706.04599, equation 3).

    ``sum_b n_b / N |accuracy_b - confidence_b|`` over `BINS` equal bins of the largest probability.

    Args:
        logits: (N, K).
        labels: int64 (N,).
    """
    # Imported here: it takes seconds, and lists of figures need none of it.
    from torchmetrics.functional.classification import multiclass_calibration_error

    # torchmetrics reads float32 and gives those of exactly 1 a bin of their own, one too many.
    probabilities = torch.softmax(logits, 1).float().clamp_max(_BELOW_ONE)
    error = multiclass_calibration_error(
        probabilities, labels, num_classes=logits.shape[1], n_bins=BINS, norm="l1"
    )
    return float(error)


def reliability(teacher: np.ndarray, student: np.ndarray) -> pd.DataFrame:
    """Both networks' mean confidences in bins of the teacher's.

    Args:
        teacher: confidences (N,) in [0, 1].
        student: the student's in the same classes.

    Returns:
        `BINS` rows with `RELIABILITY_COLUMNS` but for ``at``.
    """
    edges = np.linspace(0.0, 1.0, BINS + 1)
    # A confidence of 1 belongs to the last bin.
    place = np.clip(np.searchsorted(edges, teacher, side="right") - 1, 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)

    def means(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(place, weights=values, minlength=BINS)
        return np.divide(sums, count, out=np.full(BINS, np.nan), where=count > 0)

    return pd.DataFrame(
        {
            "bin": np.arange(BINS),
            "left": edges[:-1],
            "right": edges[1:],
            "teacher_conf": means(teacher),
            "student_conf": means(student),
            "count": count,
        }
    )


def relative_calibration(bins: pd.DataFrame) -> float:
    """``sum_b n_b / N |student_conf_b - teacher_conf_b|`` of a `reliability` table, in [0, 1]."""
    apart = (bins.student_conf - bins.teacher_conf).abs().fillna(0.0)
    return float((apart * bins["count"]).sum() / bins["count"].sum())


@SCORES.register("calibration")
class Calibration(ScoreGroup):
    """Calibration against the labels, and of the student relative to the teacher."""

    title = "Calibration"
    order = 30
    version = 3
    needs_ball = True
    detail_columns = RELIABILITY_COLUMNS
    figures = (
        Figure(
            "ece",
            "calibration error",
            "probability",
            "lower",
            f"Expected calibration error of the student on the split, {BINS} bins (1706.04599).",
            is_main=True,
        ),
        Figure(
            "teacher_ece",
            "teacher's calibration error",
            "probability",
            "neither",
            f"Expected calibration error of the teacher on the split, {BINS} bins.",
        ),
        Figure(
            "relative_clean",
            "relative calibration, clean",
            "probability",
            "lower",
            f"Mean over {BINS} bins of the teacher's confidence of |student's mean confidence - "
            "teacher's|, in the compared class, at the images that are attacked.",
            rounding="down",
        ),
        Figure(
            "relative_clean_signed",
            "student more confident, clean",
            "probability, signed",
            "neither",
            "Mean of student minus teacher confidence in the compared class at the images that are "
            "attacked; above 0 the student is the more confident.",
            NORMAL,
        ),
        Figure(
            "relative_attack",
            "relative calibration, attacked",
            "probability",
            "lower",
            "The same, of the same examples, where the attack found the largest gap in the ball; "
            "differences of either sign cancel within a bin, so it is at most the mean gap.",
            rounding="down",
            is_main=True,
        ),
        Figure(
            "relative_attack_signed",
            "student more confident, attacked",
            "probability, signed",
            "neither",
            "Mean of student minus teacher confidence where the attack found the largest gap.",
            NORMAL,
        ),
    )

    def measure(self, pair: ScoredPair, progress: ProgressCallback | None) -> GroupScores:
        """See `ScoreGroup.measure`."""
        errors = [expected_calibration_error(logits, pair.labels) for logits in pair.clean]
        # The table holds both confidences at every witness, also where the points are not stored.
        table = pair.analysis(progress).table
        attacked = len(table)
        sides = {
            # Of the same examples, so that what differs between the two is the attack's.
            "image": tuple(part[:attacked] for part in pair.compared_confidences()),
            "witness": (
                table.teacher_conf_attack.to_numpy(),
                table.student_conf_attack.to_numpy(),
            ),
        }
        bins = {at: reliability(*confidences) for at, confidences in sides.items()}
        signed = {
            at: mean(student - teacher, least=-1.0, most=1.0)
            for at, (teacher, student) in sides.items()
        }
        number = len(pair.labels)
        return GroupScores(
            {
                "ece": Score(errors[1], count=number),
                "teacher_ece": Score(errors[0], count=number),
                "relative_clean": Score(relative_calibration(bins["image"]), count=attacked),
                "relative_clean_signed": signed["image"],
                "relative_attack": Score(relative_calibration(bins["witness"]), count=attacked),
                "relative_attack_signed": signed["witness"],
            },
            detail=pd.concat([part.assign(at=at) for at, part in bins.items()], ignore_index=True),
        )
