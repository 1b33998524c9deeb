"""How faithfully the student imitates its teacher inside the ball: agreement and confidence gaps."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from fkd.core.progress import ProgressCallback
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


def _gap(name: str, title: str, meaning: str, interval: str = "") -> Figure:
    is_bound = name.startswith("gap_certified")
    rounding = "up" if is_bound else "down"
    is_main = name in ("gap_attack_mean", "gap_certified_mean")
    return Figure(name, title, "probability", "lower", meaning, interval, rounding, is_main)


@SCORES.register("faithfulness")
class Faithfulness(ScoreGroup):
    """Agreement and confidence gaps of the pair, from its analysis."""

    title = "Faithfulness"
    order = 20
    needs_ball: ClassVar[bool] = True
    figures = (
        Figure(
            "agreement_clean",
            "agreement, clean",
            "share",
            "higher",
            "Share of the split on which both networks predict the same class.",
            WILSON,
        ),
        Figure(
            "agreement_found",
            "no disagreement found",
            "share",
            "higher",
            "Share for which the attack found no point of the ball where the predictions differ: an "
            "upper end of the share that agrees everywhere.",
            WILSON,
            is_main=True,
        ),
        Figure(
            "agreement_certified",
            "agreement, certified",
            "share",
            "higher",
            "Share for which it is proved that the predictions are equal everywhere in the ball: a "
            "lower end of the share that agrees everywhere.",
            WILSON,
            is_main=True,
        ),
        _gap(
            "gap_clean_mean",
            "gap, clean, mean",
            "Mean confidence gap at the images that were analysed.",
            NORMAL,
        ),
        _gap(
            "gap_attack_mean",
            "gap found, mean",
            "Mean of the largest gap that the attack reached in the ball: a lower end.",
            NORMAL,
        ),
        _gap("gap_attack_p95", "gap found, 95 %", "95th percentile of the largest gap reached."),
        _gap("gap_attack_max", "gap found, worst", "Largest gap reached on any example."),
        _gap(
            "gap_certified_mean",
            "gap bound, mean",
            "Mean upper bound of the gap on the whole ball, over examples with a certificate.",
            NORMAL,
        ),
        _gap(
            "gap_certified_p95",
            "gap bound, 95 %",
            "95th percentile of the upper bound, over the same examples.",
        ),
        _gap(
            "gap_certified_max", "gap bound, worst", "Largest upper bound, over the same examples."
        ),
    )

    def measure(self, pair: ScoredPair, progress: ProgressCallback | None) -> GroupScores:
        """See `ScoreGroup.measure`."""
        teacher, student = (logits.argmax(1) for logits in pair.clean)
        table = pair.analysis(progress).table
        clean = share(int((teacher == student).sum()), len(teacher))
        return GroupScores({"agreement_clean": clean, **figures_of_analysis(table)})


def figures_of_analysis(table: pd.DataFrame) -> dict[str, Score]:
    """The figures of `Faithfulness` that an analysis table alone tells: all but ``agreement_clean``."""
    count = len(table)
    clean, found = table.gap_clean.to_numpy(), table.gap_attack.to_numpy()
    return {
        "agreement_found": share(int((~table.disagrees).sum()), count),
        "agreement_certified": share(int(table.agrees_certified.sum()), count),
        "gap_clean_mean": mean(clean, least=0.0, most=1.0),
        "gap_attack_mean": mean(found, least=0.0, most=1.0),
        "gap_attack_p95": Score(float(np.quantile(found, 0.95)), count=count),
        "gap_attack_max": Score(float(found.max()), count=count),
        **_certified(table.gap_certified.to_numpy(), table.certificate_reason),
    }


def _certified(bounds: np.ndarray, reasons: object) -> dict[str, Score]:
    """Figures of the bounds that there are; NaN where there is none."""
    names = ("gap_certified_mean", "gap_certified_p95", "gap_certified_max")
    known = bounds[~np.isnan(bounds)]
    why = list(reasons.dropna())  # type: ignore[attr-defined]
    if not len(known):
        return dict.fromkeys(names, missing(why[0] if why else "There is no certificate."))
    left_out = len(bounds) - len(known)
    note = f"Without {left_out} examples that have no certificate: {why[0]}" if left_out else None
    average = mean(known, least=0.0, most=1.0)
    count = len(known)
    return {
        names[0]: Score(average.value, average.lower, average.upper, count, note),
        names[1]: Score(float(np.quantile(known, 0.95)), count=count, reason=note),
        names[2]: Score(float(known.max()), count=count, reason=note),
    }
