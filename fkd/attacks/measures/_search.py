"""The search for the worst of several measures at once, each starting from the others' witnesses too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fkd.attacks._hunt import Hunt
from fkd.attacks.base import rows_at_once, within
from fkd.attacks.measures._base import MEASURES, Measure
from fkd.attacks.search import SearchConfig
from fkd.core.ball import Region
from fkd.core.errors import ConfigError
from fkd.core.precision import double_copy, logits_of
from fkd.core.progress import ProgressCallback, report

#: Streams of random numbers of one measure.
_STREAMS = 10_000


@dataclass(frozen=True)
class MeasuredDifference:
    """The worst of one measure, one entry an example (float64, measured at the witnesses).

    Attributes:
        value_clean: (N,), at the image.
        value: (N,), the largest found, at least ``value_clean``.
        witness: float32 (N, C, H, W), where.
        compared: int64 (N,), the class whose confidences differ there; -1 where all are compared.
        teacher_pred: int64 (N,), teacher's prediction there.
        student_pred: int64 (N,), student's prediction there.
        gradient_evaluations: of the pair, for all measures together, the mean over examples.
    """

    value_clean: Tensor
    value: Tensor
    witness: Tensor
    compared: Tensor
    teacher_pred: Tensor
    student_pred: Tensor
    gradient_evaluations: float


def measure_differences(
    teacher: nn.Module,
    student: nn.Module,
    region: Region,
    labels: Tensor,
    names: Sequence[str],
    *,
    seed: int,
    config: SearchConfig | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, MeasuredDifference]:
    """Search each ball for the worst of every measure.

    What is found for one is a start for the next, and in the end every witness is held against every
    measure, so the largest gap of any class is at least the label's, and total variation at least that.

    Args:
        teacher: images (N, C, H, W) to logits (N, K), in eval mode.
        student: the same.
        region: N balls.
        labels: int64 (N,).
        names: of `MEASURES`, at least one, each once.
        seed: chooses everything random, together with the example ids.
        config: how long each is searched.
        progress: told after each step; answering True cancels.

    Raises:
        ConfigError: an unknown measure, none, or one twice.
        Cancelled: ``progress`` asked to stop.
    """
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            f"Measures must be named, each once, got {list(names)!r}; there are "
            f"{', '.join(MEASURES.available())}."
        )
    measures: list[Measure] = [MEASURES.get(name)() for name in names]
    config = config or SearchConfig()
    doubles = double_copy(teacher), double_copy(student)
    predicted = logits_of(doubles[0], region.images).argmax(1)
    per_example = max(2 * config.starts, config.copies)
    per_chunk = max(1, rows_at_once(config.rows, region) // per_example)
    gradients, every = 0.0, []
    for rows, part in region.chunks(per_chunk):
        hunt = Hunt(
            (teacher, student),
            part,
            seed=seed,
            effort=config.effort,
            tell=within(progress, rows.start, len(part), len(region)),
            look=lambda *_: None,
        )
        every.append(_search(hunt, measures, labels[rows], predicted[rows]))
        gradients += hunt.gradients
    report(progress, "attack", len(region), len(region))
    points = torch.cat(every)
    logits = tuple(
        logits_of(network, points.flatten(0, 1)).unflatten(0, points.shape[:2])
        for network in doubles
    )
    mean = round(gradients / max(1, len(region)), 1)
    return {
        measure.name: _worst(measure, points, logits, labels, predicted, mean)
        for measure in measures
    }


def _search(hunt: Hunt, measures: list[Measure], labels: Tensor, predicted: Tensor) -> Tensor:
    """The image and each measure's witness, (N, 1 + number of measures, C, H, W)."""
    seen = hunt.candidates(labels, None)
    points = [hunt.region.images]
    count = seen.logits[0].shape[2]
    for number, measure in enumerate(measures, 1):
        goal = measure.goal(measure.classes(labels, predicted), count)
        found = hunt.run(goal, seen, stream=number * _STREAMS, until=number / len(measures))
        points.append(found.point)
        seen = seen.and_more(hunt.observe(found.point[:, None]))
    return torch.stack(points, 1)


def _worst(
    measure: Measure,
    points: Tensor,
    logits: tuple[Tensor, Tensor],
    labels: Tensor,
    predicted: Tensor,
    gradients: float,
) -> MeasuredDifference:
    """The point (of N x P) at which a measure is largest; the image where all are equal."""
    classes = measure.classes(labels, predicted)
    each = points.shape[1]
    flat = [part.flatten(0, 1) for part in logits]
    values = measure.value(*flat, classes.repeat_interleave(each)).view(-1, each)
    values = torch.where(values.isnan(), -torch.inf, values)
    value, which = values.max(1)
    which = torch.where(values[:, 0] == value, 0, which)
    every = torch.arange(len(points), device=points.device)
    there = [part[every, which] for part in logits]
    return MeasuredDifference(
        value_clean=values[:, 0],
        value=value,
        witness=points[every, which],
        compared=measure.compared(*there, classes),
        teacher_pred=there[0].argmax(1),
        student_pred=there[1].argmax(1),
        gradient_evaluations=gradients,
    )
