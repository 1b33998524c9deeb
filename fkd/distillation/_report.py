"""The figures on a new model's card, all measured on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from fkd.core.errors import UnsupportedModelError
from fkd.core.progress import ProgressCallback, report
from fkd.data.base import Split
from fkd.distillation.measure import (
    certified_accuracy,
    evaluate_accuracy,
    robust_accuracy,
    teacher_agreement,
)

_RELAXATIONS: tuple[Literal["ibp", "crown_ibp"], ...] = ("ibp", "crown_ibp")


def final_metrics(
    network: nn.Module,
    teacher: nn.Module | None,
    split: Split,
    *,
    epsilons: Sequence[float],
    count: int,
    steps: int,
    seed: int,
    progress: ProgressCallback | None = None,
) -> dict[str, float]:
    """Clean accuracy, agreement with the teacher, and accuracies in the ball.

    ``robust_accuracy_E`` is what PGD with ``steps`` steps leaves at epsilon E, and
    ``certified_accuracy_E`` what is proved by the better of intervals and CROWN-IBP, both on the first
    ``count`` test examples; the true share lies between them.  ``interval_accuracy_E`` is what intervals
    alone prove, as training by intervals makes possible.  Where it is absent, ``certified_accuracy_E`` is
    by intervals alone: a network without a linear relaxation, or a card older than this figure.

    Args:
        network: in eval mode.
        teacher: likewise; None for a model that has none.
        split: the whole of it counts for what is measured without a ball.
        epsilons: radii of the L-infinity balls.
        count: examples for the accuracies in the ball.
        steps: of the attack.
        seed: of the attack's starts.
        progress: called for each radius; True stops.

    Raises:
        Cancelled: the callback asked for it.
    """
    report(progress, "measuring", 0, len(epsilons) + 1)
    metrics = {"clean_accuracy": evaluate_accuracy(network, split)}
    if teacher is not None:
        metrics["teacher_agreement"] = teacher_agreement(teacher, network, split)
    for done, epsilon in enumerate(epsilons, start=1):
        report(progress, "measuring", done, len(epsilons) + 1, epsilon=epsilon)
        metrics[f"robust_accuracy_{epsilon:g}"] = robust_accuracy(
            network,
            split,
            epsilon=epsilon,
            steps=steps,
            count=count,
            seed=seed,
            progress=progress,
        )
        metrics |= _proved(network, split, epsilon=epsilon, count=count)
    return metrics


def _proved(network: nn.Module, split: Split, *, epsilon: float, count: int) -> dict[str, float]:
    """The certified figures of one radius, as far as bounds pass through the network."""
    shares: list[float] = []
    try:
        for relaxation in _RELAXATIONS:
            shares.append(
                certified_accuracy(
                    network, split, epsilon=epsilon, count=count, relaxation=relaxation
                )
            )
    except UnsupportedModelError:
        # Intervals pass through more networks than a linear relaxation, and through some neither does.
        pass
    metrics = {f"certified_accuracy_{epsilon:g}": max(shares)} if shares else {}
    if len(shares) == len(_RELAXATIONS):
        metrics[f"interval_accuracy_{epsilon:g}"] = shares[0]
    return metrics
