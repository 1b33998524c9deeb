"""Accuracies of a trained network: clean, under attack (upper estimates) and certified (lower bounds)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fkd.bounds.engine.intervals import BoundedNetwork, margin_rows
from fkd.core.ball import Ball, check_epsilon
from fkd.core.errors import ConfigError
from fkd.core.precision import double_copy
from fkd.core.progress import ProgressCallback, report
from fkd.data.base import Split
from fkd.distillation._inner import ascend, cross_entropy_objective, uniform_start
from fkd.distillation.base import Batch

_ROWS = 1000
#: Far above float64's rounding in a bound, far below any margin that matters.
_ROUNDING = 1e-9
#: Of a linear relaxation at a time, so that wide networks need no gigabytes: 128 MiB in float64.
_COEFFICIENTS = 2**24


def _device(network: nn.Module) -> torch.device:
    tensor = next(network.parameters(), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _pieces(
    split: Split, count: int | None, device: torch.device, rows: int = _ROWS
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images, labels and ids of the first ``count`` examples, a piece at a time on ``device``."""
    if count is not None and count < 1:
        raise ConfigError(f"The number of examples must be at least 1, got {count}.")
    ids = torch.arange(min(len(split), count or len(split)))
    for part in ids.split(rows):
        images, labels = split.take(part)
        yield images.to(device), labels.to(device), part.to(device)


def _used(split: Split, count: int | None) -> int:
    return min(len(split), count or len(split))


@torch.no_grad()
def evaluate_accuracy(network: nn.Module, split: Split, *, count: int | None = None) -> float:
    """Share of examples classified as labelled.

    Args:
        network: in eval mode, on any device.
        split: images and labels.
        count: only the first so many examples.

    Raises:
        ConfigError: ``count`` is below 1.
    """
    hits = sum(
        int((network(images).argmax(1) == labels).sum())
        for images, labels, _ in _pieces(split, count, _device(network))
    )
    return hits / _used(split, count)


@torch.no_grad()
def teacher_agreement(
    teacher: nn.Module, student: nn.Module, split: Split, *, count: int | None = None
) -> float:
    """Share of clean examples on which both networks predict the same class."""
    hits = sum(
        int((teacher(images).argmax(1) == student(images).argmax(1)).sum())
        for images, _, _ in _pieces(split, count, _device(student))
    )
    return hits / _used(split, count)


def robust_accuracy(
    network: nn.Module,
    split: Split,
    *,
    epsilon: float,
    steps: int = 50,
    restarts: int = 1,
    step_size: float | None = None,
    count: int | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> float:
    """Share of examples still classified as labelled after PGD on the cross-entropy.

    An attack can miss: the true robust accuracy is at most this.  Clean points count, and an example
    is lost as soon as one restart ends at another class.

    Args:
        network: in eval mode, on any device.
        split: images and labels.
        epsilon: radius of the L-infinity ball, in [0, 1].
        steps: PGD steps of each restart.
        restarts: independent uniform starts.
        step_size: length of a step; None takes 2.5 epsilon / steps, at least epsilon / 40.
        count: only the first so many examples.
        seed: of the starts, which depend on seed, restart and example alone.
        progress: called for each piece; True stops.

    Raises:
        ConfigError: a number is out of range.
        Cancelled: the callback asked for it.
    """
    epsilon = check_epsilon(epsilon)
    if steps < 1 or restarts < 1:
        raise ConfigError(
            f"An attack needs at least one step and one restart, got {steps} and {restarts}."
        )
    length = step_size or max(2.5 * epsilon / steps, epsilon / 40)
    done = hits = 0
    total = _used(split, count)
    for images, labels, ids in _pieces(split, count, _device(network)):
        with torch.no_grad():
            survives = network(images).argmax(1) == labels
        for restart in range(restarts if epsilon > 0 else 0):
            batch = Batch(images, labels, ids, seed=seed, step=restart)
            points = ascend(
                network,
                images,
                uniform_start(batch, epsilon),
                cross_entropy_objective(labels),
                epsilon=epsilon,
                steps=steps,
                step_size=length,
            )
            with torch.no_grad():
                survives &= network(points).argmax(1) == labels
            report(progress, "attacking", done, total, epsilon=epsilon)
        hits += int(survives.sum())
        done += len(ids)
    return hits / total


@torch.no_grad()
def certified_accuracy(
    network: nn.Module,
    split: Split,
    *,
    epsilon: float,
    count: int | None = None,
    relaxation: Literal["ibp", "crown_ibp"] = "ibp",
) -> float:
    """Share of examples proved to keep their label on the whole ball: the true share is at least this.

    Bounds are computed in float64, so that rounding proves nothing.

    Args:
        network: in eval mode, on any device.
        split: images and labels.
        epsilon: radius of the L-infinity ball, in [0, 1].
        count: only the first so many examples.
        relaxation: ``"ibp"`` for intervals alone (1810.12715), or ``"crown_ibp"`` for the better of
            intervals and a linear relaxation over them (1906.06316): never less, some twenty times as
            slow where intervals prove nothing.

    Raises:
        ConfigError: a number is out of range.
        UnsupportedModelError: bounds cannot pass through the network.
    """
    epsilon = check_epsilon(epsilon)
    exact = double_copy(network)
    bounded = BoundedNetwork(exact)
    hits = 0
    for images, labels, _ in _pieces(split, count, _device(network), rows=250):
        logits = exact(images.double())
        lower, upper = (limit.double() for limit in Ball(epsilon=epsilon).limits(images))
        hidden = bounded.hidden(lower, upper)
        rows = margin_rows(labels, logits.shape[1], lower)
        highest = bounded.interval_rows(hidden, rows)[1]
        # NaN compares false, so it counts as not certified.
        proved = highest.amax(1) < -_ROUNDING
        hits += int(proved.sum())
        if relaxation == "ibp":
            continue
        # The image is in the ball: where it is wrong nothing can be proved.
        open_ones = torch.nonzero(~proved & (logits.argmax(1) == labels))[:, 0]
        widest = max(low[0].numel() for low, _ in hidden.intervals)
        for part in open_ones.split(max(1, _COEFFICIENTS // (rows.shape[1] * widest))):
            region = lower[part], upper[part]
            linear = bounded.linear_rows(bounded.hidden(*region), rows[part]).highest(*region)
            both = torch.minimum(linear, highest[part])
            hits += int((both.amax(1) < -_ROUNDING).sum())
    return hits / _used(split, count)


@torch.no_grad()
def mean_loss(network: nn.Module, split: Split, *, count: int | None = None) -> float:
    """Mean cross-entropy of the labels."""
    total = sum(
        float(functional.cross_entropy(network(images), labels, reduction="sum"))
        for images, labels, _ in _pieces(split, count, _device(network))
    )
    return total / _used(split, count)
