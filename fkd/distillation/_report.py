"""The figures on a new model's card, all measured on the test split."""

from __future__ import annotations

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
from fkd.distillation.spec import Plan


def final_metrics(
    plan: Plan,
    network: nn.Module,
    teacher: nn.Module | None,
    split: Split,
    progress: ProgressCallback | None = None,
) -> dict[str, float]:
    """Clean accuracy, agreement with the teacher, and accuracies in the ball.

    ``robust_accuracy_E`` is what PGD with ``report_steps`` steps leaves at epsilon E, and
    ``certified_accuracy_E`` what interval bounds prove, both on the first ``report_count`` test
    examples; the true share lies between them.
    """
    spec = plan.spec
    epsilons = plan.report_epsilons
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
            steps=spec.report_steps,
            count=spec.report_count,
            seed=spec.seed,
            progress=progress,
        )
        try:
            metrics[f"certified_accuracy_{epsilon:g}"] = certified_accuracy(
                network, split, epsilon=epsilon, count=spec.report_count
            )
        except UnsupportedModelError:
            # Intervals do not pass through every network; the card then has no such figure.
            continue
    return metrics
