"""Benchmarks: scripts that print ratios against a named baseline measured in the same run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from torch import nn

from fkd.data import get_data_set
from fkd.models import list_models, load_model


def benchmark_parser(
    description: str | None, *, count: int, epsilons: Sequence[float]
) -> argparse.ArgumentParser:
    """The options that benchmarks over pairs share; MNIST where its files are, else digits."""
    dataset = "mnist" if get_data_set("mnist").is_available() else "digits"
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--dataset", default=dataset)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(epsilons))
    return parser


def taught_pairs(dataset: str) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Name of each student that has a teacher, the teacher's network and its own."""
    for card in list_models(dataset=dataset, role="student"):
        if card.teacher is not None:
            yield card.name, load_model(card.teacher.name).network, load_model(card.name).network
