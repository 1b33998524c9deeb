"""What the student costs: to keep, to ask, and to train."""

from __future__ import annotations

import contextlib
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fkd.core.progress import ProgressCallback, report
from fkd.evaluation.scored_pair import ScoredPair
from fkd.evaluation.scores._base import (
    SCORES,
    Figure,
    GroupScores,
    Score,
    ScoreGroup,
    missing,
)
from fkd.models import ModelCard

_QUARTILES = "quartiles of repeats"
#: Batch sizes with how often each is timed.
_BATCHES = {1: 100, 256: 15}


def flops(network: nn.Module, images: Tensor) -> int:
    """Floating point operations of one forward pass, a multiplication and an addition counting as two.

    Matrix products, convolutions and the normalisation in front are counted, by torch's own counter;
    activations are not.
    """
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addcmul: _fused})
    with torch.no_grad(), counter:
        network(images)
    return int(counter.get_total_flops())


def _fused(*shapes: Any, out_shape: torch.Size, **settings: Any) -> int:
    """A product and a sum for each number, as `fkd.models.base.Normalisation` makes them.

    Shipped figures are of the time when it was a 1x1 convolution, which the counter knows by itself.
    """
    del shapes, settings
    return 2 * math.prod(out_shape)


def latency(network: nn.Module, images: Tensor, repeats: int) -> np.ndarray:
    """Seconds of each of ``repeats`` forward passes of the whole batch, after some to warm up.

    One thread, so that it is comparable; the number of threads is restored.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = np.zeros(repeats)
        with torch.inference_mode():
            for _ in range(3 + repeats // 10):
                network(images)
            for repeat in range(repeats):
                started = time.perf_counter()
                network(images)
                seconds[repeat] = time.perf_counter() - started
    finally:
        torch.set_num_threads(threads)
    return seconds


def training_cost(card: ModelCard, available: int) -> dict[str, Score]:
    """What a card says of the training: ``training_seconds`` and ``training_examples``.

    Args:
        card: the student's.
        available: train examples that there are.
    """
    if not card.history:
        untrained = missing("The model was not trained here: it was copied or imported.")
        return {"training_seconds": untrained, "training_examples": untrained}
    seconds = (
        missing("The model's card does not say how long training took.")
        if card.seconds is None
        else Score(float(card.seconds))
    )
    return {"training_seconds": seconds, "training_examples": _examples_seen(card, available)}


def _examples_seen(card: ModelCard, available: int) -> Score:
    """Examples that training went through, repetitions counted."""
    if "examples" in card.history[-1]:
        return Score(float(card.history[-1]["examples"]))
    an_epoch = card.training_config.get("train_count") or available
    return Score(
        float(len(card.history) * an_epoch),
        reason="Epochs times train examples: the card is older than the count of examples.",
    )


@SCORES.register("cost")
class Cost(ScoreGroup):
    """Size, operations, latency and training of the student."""

    title = "Cost"
    order = 90
    figures = (
        Figure(
            "parameters",
            "parameters",
            "number",
            "lower",
            "Numbers in the student's weights; those that pruning set to zero count too.",
            is_main=True,
        ),
        Figure(
            "flops",
            "operations an image",
            "FLOPs",
            "lower",
            "Floating point operations of matrix products, convolutions and the normalisation in front "
            "for one image, a multiplication and an addition counting as two.",
        ),
        Figure(
            "latency_1",
            "latency alone",
            "ms",
            "lower",
            "Milliseconds for one image by itself, median of repeats on one thread of the CPU that the "
            "metadata names; no other machine will give the same.",
            _QUARTILES,
        ),
        Figure(
            "latency_256",
            "latency in a batch",
            "ms",
            "lower",
            "Milliseconds an image in batches of 256, measured likewise.",
            _QUARTILES,
        ),
        Figure(
            "training_seconds",
            "training time",
            "s",
            "neither",
            "Seconds that training took, as the model's card has it, on the machine that did it, beside "
            "whatever else it did; seconds of other machines or loads cannot be compared.",
        ),
        Figure(
            "training_examples",
            "examples trained on",
            "examples",
            "lower",
            "Examples that training went through, repetitions counted.",
        ),
        Figure("size", "file size", "bytes", "lower", "Size of the student's weights file."),
    )

    def inputs(self, pair: ScoredPair) -> dict[str, Any]:
        """See `ScoreGroup.inputs`: what the card says of the training, which no hash of weights holds."""
        card = pair.resolved.student_card
        return {
            "seconds": card.seconds,
            "epochs": len(card.history),
            "examples": card.history[-1].get("examples") if card.history else None,
            "train_count": card.training_config.get("train_count"),
            "train": pair.data_set.fingerprint("train"),
        }

    def measure(self, pair: ScoredPair, progress: ProgressCallback | None) -> GroupScores:
        """See `ScoreGroup.measure`."""
        model, card = pair.models[1], pair.resolved.student_card
        # On the CPU wherever the rest is computed, so that students can be compared.
        network, images = model.network.to("cpu"), pair.load_split().images
        scores: dict[str, Score] = {}
        for done, (size, repeats) in enumerate(_BATCHES.items()):
            report(progress, "cost", done, len(_BATCHES))
            batch = images[torch.arange(size) % len(images)]
            an_image = 1000.0 / size * latency(network, batch, repeats)
            low, middle, high = (float(q) for q in np.quantile(an_image, (0.25, 0.5, 0.75)))
            scores[f"latency_{size}"] = Score(middle, low, high)
        scores["flops"] = Score(float(flops(network, images[:1])))
        network.to(pair.device)
        scores["parameters"] = Score(float(sum(p.numel() for p in network.parameters())))
        scores |= training_cost(card, len(pair.data_set.load("train")))
        scores["size"] = Score(float(model.path.stat().st_size))
        return GroupScores(scores, facts={"processor": _processor(), "threads": 1})


def _processor() -> str:
    """The processor's name, where the system tells it, else its kind."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
