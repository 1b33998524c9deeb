"""How well the student reproduces the teacher's output, in distribution and out of it.

Fidelity: agreement of the predictions and the divergence of the distributions (Stanton et al.,
2106.05945), on test images, on corrupted ones, on noise, and on another data set where there is one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fkd.core.progress import ProgressCallback, report
from fkd.evaluation.scored_pair import ScoredPair
from fkd.evaluation.scores._base import (
    NORMAL,
    SCORES,
    WILSON,
    Figure,
    GroupScores,
    Score,
    ScoreGroup,
    mean,
    missing,
    share,
)
from fkd.evaluation.scores._shifts import CORRUPTIONS, NOISE

#: Images of each kind out of distribution at most.
MOST = 2000

_SHIFTS = {**CORRUPTIONS, "noise": NOISE}


def divergences(teacher: Tensor, student: Tensor) -> Tensor:
    """``KL(p_T || p_S)`` of each example in nats, (N,), from logits (N, K)."""
    log_teacher, log_student = (torch.log_softmax(part, 1) for part in (teacher, student))
    # Rounding may leave a divergence of equal distributions just below 0.
    return (log_teacher.exp() * (log_teacher - log_student)).sum(1).clamp_min(0.0)


def _pair_of_figures(name: str, title: str, where: str) -> tuple[Figure, Figure]:
    return (
        Figure(
            f"kl_{name}",
            f"KL, {title}",
            "nats",
            "lower",
            f"Mean KL divergence of the student's distribution from the teacher's on {where}.",
            NORMAL,
            is_main=name in ("inside", "corrupted"),
        ),
        Figure(
            f"agreement_{name}",
            f"agreement, {title}",
            "share",
            "higher",
            f"Share of equal predictions on {where}.",
            WILSON,
        ),
    )


def _figures() -> tuple[Figure, ...]:
    first = f"the first {MOST}"
    figures = [
        *_pair_of_figures("inside", "in distribution", "the images of the split"),
        *_pair_of_figures("corrupted", "corrupted", "all corrupted images below together"),
    ]
    for name, one in _SHIFTS.items():
        figures += _pair_of_figures(name, one.title, f"{first} {one.meaning}")
    figures += _pair_of_figures(
        "outside", "other data set", f"{first} test images of another data set"
    )
    return tuple(figures)


@SCORES.register("fidelity")
class Fidelity(ScoreGroup):
    """KL divergence and agreement in distribution and out of it."""

    title = "Fidelity"
    order = 40
    figures = _figures()

    def inputs(self, pair: ScoredPair) -> dict[str, Any]:
        """See `ScoreGroup.inputs`."""
        return pair.outside_identity()

    def measure(self, pair: ScoredPair, progress: ProgressCallback | None) -> GroupScores:
        """See `ScoreGroup.measure`."""
        scores = _scores("inside", *pair.clean)
        images = pair.load_split().images[:MOST].to(pair.device)
        ids = torch.arange(len(images), device=pair.device)
        corrupted: list[tuple[Tensor, Tensor]] = []
        for done, (name, one) in enumerate(_SHIFTS.items()):
            report(progress, "fidelity", done, len(_SHIFTS) + 1)
            logits = pair.logits(one.apply(images, ids, pair.config.seed))
            if name in CORRUPTIONS:
                corrupted.append(logits)
            scores |= _scores(name, *logits)
        scores |= _scores("corrupted", *(torch.cat(part) for part in zip(*corrupted, strict=True)))
        others = pair.outside_images(MOST)
        if others is None:
            reason = missing(pair.why_no_outside())
            scores |= {"kl_outside": reason, "agreement_outside": reason}
        else:
            scores |= _scores("outside", *pair.logits(others))
        return GroupScores(scores)


def _scores(name: str, teacher: Tensor, student: Tensor) -> dict[str, Score]:
    same = int((teacher.argmax(1) == student.argmax(1)).sum())
    return {
        f"kl_{name}": mean(divergences(teacher, student).cpu().numpy(), least=0.0),
        f"agreement_{name}": share(same, len(teacher)),
    }
