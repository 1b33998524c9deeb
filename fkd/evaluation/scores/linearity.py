"""How linear the student's loss is inside the ball.

KDIGA (Shao et al., 2110.12072) explains with it when robustness passes from teacher to student.
"""

from __future__ import annotations

import torch

from fkd.attacks.single import local_linearity
from fkd.core.progress import ProgressCallback, report
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

_NETWORKS = ("student", "teacher")
#: Examples at a time between two reports.
_ROWS = 100


@SCORES.register("linearity")
class Linearity(ScoreGroup):
    """The local linearity measure of student and teacher."""

    title = "Local linearity"
    order = 70
    version = 2
    needs_ball = True
    figures = tuple(
        Figure(
            "linearity" if network == "student" else "teacher_linearity",
            "deviation from linear" if network == "student" else "teacher's deviation from linear",
            "nats",
            "lower" if network == "student" else "neither",
            f"Mean of the largest deviation of the {network}'s cross-entropy from its tangent that "
            "gradient ascent reached in the ball (local linearity measure, 2110.12072): a lower end.",
            NORMAL,
            "down",
            is_main=network == "student",
        )
        for network in _NETWORKS
    )

    def measure(self, pair: ScoredPair, progress: ProgressCallback | None) -> GroupScores:
        """See `ScoreGroup.measure`."""
        config, split = pair.config, pair.load_split()
        teacher, student = (model.network for model in pair.models)
        every = range(0, config.count, _ROWS)
        scores: dict[str, Score] = {}
        for number, (figure, network) in enumerate(
            zip(self.figures, (student, teacher), strict=True)
        ):
            parts = []
            for start in every:
                report(progress, "linearity", number * config.count + start, 2 * config.count)
                rows = slice(start, min(start + _ROWS, config.count))
                ids = torch.arange(rows.start, rows.stop, device=pair.device)
                parts.append(
                    local_linearity(
                        network,
                        split.images[rows].to(pair.device),
                        split.labels[rows].to(pair.device),
                        config.ball,
                        seed=config.seed,
                        example_ids=ids,
                    )
                )
            scores[figure.name] = mean(torch.cat(parts).cpu().numpy(), least=0.0)
        return GroupScores(scores)
