"""How often the student is right: at the image, under attack, and proved."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from fkd.bounds import certificate_config, make_certificate
from fkd.core.errors import SoundnessError, UnsupportedModelError
from fkd.core.progress import ProgressCallback
from fkd.evaluation.robustness import ResolvedModel
from fkd.evaluation.robustness_store import robustness_key
from fkd.evaluation.robustness_summary import Share, robustness_summary
from fkd.evaluation.scored_pair import ScoredPair
from fkd.evaluation.scores._base import (
    SCORES,
    WILSON,
    Figure,
    GroupScores,
    Score,
    ScoreGroup,
    missing,
    share,
)


def _share_of(share: Share, count: int, left_out: str | None = None) -> Score:
    return Score(share.value, share.low, share.high, count, left_out)


@SCORES.register("accuracy")
class Accuracy(ScoreGroup):
    """How often the student predicts the label: at the image, under attack, and proved."""

    title = "Accuracy"
    order = 10
    needs_ball: ClassVar[bool] = True
    figures = (
        Figure(
            "clean_accuracy",
            "accuracy, clean",
            "share",
            "higher",
            "Share of the split that the student classifies as labelled.",
            WILSON,
            is_main=True,
        ),
        Figure(
            "teacher_accuracy",
            "teacher's accuracy, clean",
            "share",
            "neither",
            "Share of the split that the teacher classifies as labelled.",
            WILSON,
        ),
        Figure(
            "pgd_accuracy",
            "accuracy under PGD",
            "share",
            "higher",
            "Share that is right at the image and wherever PGD (50 steps, 10 restarts) looked in the "
            "ball: an upper end of the true robust accuracy.",
            WILSON,
        ),
        Figure(
            "autoattack_accuracy",
            "accuracy under AutoAttack",
            "share",
            "higher",
            "Share that is right at the image and wherever AutoAttack's standard ensemble (2003.01690) "
            "looked in the ball: an upper end of the true robust accuracy.",
            WILSON,
        ),
        Figure(
            "robust_accuracy",
            "accuracy under both attacks",
            "share",
            "higher",
            "Share that neither PGD nor AutoAttack found wrong: the worst case of the two.",
            WILSON,
            is_main=True,
        ),
        Figure(
            "certified_accuracy",
            "certified accuracy",
            "share",
            "higher",
            "Share that is right at the image and proved to keep its class on the whole ball, by the "
            "analysis's certificate or by level fast on the student alone: a lower end.",
            WILSON,
            is_main=True,
        ),
    )

    def inputs(self, pair: ScoredPair) -> dict[str, Any]:
        """See `ScoreGroup.inputs`: the attacks on the student alone are no part of an analysis's key."""
        return {"robustness": robustness_key(ResolvedModel(pair.config.robustness()))}

    def measure(self, pair: ScoredPair, progress: ProgressCallback | None) -> GroupScores:
        """See `ScoreGroup.measure`."""
        right = [logits.argmax(1) == pair.labels for logits in pair.clean]
        teacher, student = (share(int(part.sum()), len(part)) for part in right)
        robustness = pair.robustness(progress)
        summary = robustness_summary(robustness.table)
        # Members of the ensemble that could not attack this network.
        left_out = " ".join(robustness.left_out) or None
        return GroupScores(
            {
                "clean_accuracy": student,
                "teacher_accuracy": teacher,
                "pgd_accuracy": _share_of(summary.pgd, summary.count),
                "autoattack_accuracy": _share_of(summary.autoattack, summary.count, left_out),
                "robust_accuracy": _share_of(summary.robust, summary.count, left_out),
                "certified_accuracy": _certified(
                    pair, robustness.table.robust.to_numpy(dtype=bool), progress
                ),
            }
        )


def _certified(pair: ScoredPair, robust: np.ndarray, progress: ProgressCallback | None) -> Score:
    """The share with a proof, held against what the attacks found (bool (N,), nothing found)."""
    try:
        proved = certified_right(pair, progress)
    except UnsupportedModelError as error:
        return missing(str(error))
    wrong = np.flatnonzero(proved & ~robust)
    if len(wrong):
        raise SoundnessError(
            f"Example {wrong[0]}: an attack fooled '{pair.config.student}' although its prediction was "
            "certified; please report this pair."
        )
    return share(int(proved.sum()), len(proved))


def certified_right(pair: ScoredPair, progress: ProgressCallback | None = None) -> np.ndarray:
    """Which examples the student gets right with a proof that it does so on the whole ball, bool (N,).

    Proofs are those of the analysis and, where it has none, of level fast on the student alone: each is
    sound by itself, so their union is.

    Raises:
        UnsupportedModelError: the student holds an operation that cannot be bounded.
        FkdError: whatever `fkd.evaluation.analyse` raises.
    """
    table = pair.analysis(progress).table
    right = (table.student_pred == table.label).to_numpy()
    proved = table.student_robust_certified.to_numpy(dtype=bool, copy=True)
    # An analysis does not try where the two predictions differ, and stops where agreement is settled.
    rest = np.flatnonzero(right & ~proved)
    if len(rest):
        ids = torch.from_numpy(rest)
        images, labels = pair.load_split().take(ids)
        student = pair.models[1].network
        region = pair.config.ball.region(images.to(pair.device), ids.to(pair.device))
        certificate = make_certificate(certificate_config({"name": "fast"}))
        alone = certificate.bound(
            student, student, region, labels.to(pair.device), progress=progress
        )
        proved[rest] = alone.student_robust.cpu().numpy()
    return right & proved
