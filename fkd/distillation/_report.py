"""The figures on a new model's card, all measured on the test split."""

from __future__ import annotations

from collections.abc import Sequence

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
    ``certified_accuracy_E`` what interval bounds prove, both on the first ``count`` test examples; the
    true share lies between them.

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
        try:
            metrics[f"certified_accuracy_{epsilon:g}"] = certified_accuracy(
                network, split, epsilon=epsilon, count=count
            )
        except UnsupportedModelError:
            # Intervals do not pass through every network; the card then has no such figure.
            continue
    return metrics
