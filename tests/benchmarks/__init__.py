"""Benchmarks: scripts that print ratios against a named baseline measured in the same run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fkd.data import Split, get_data_set
from fkd.models import ModelCard, list_models, load_model, read_card


def default_data_set() -> str:
    """MNIST where its files are, else digits."""
    return "mnist" if get_data_set("mnist").is_available() else "digits"


def benchmark_parser(
    description: str | None, *, count: int, epsilons: Sequence[float]
) -> argparse.ArgumentParser:
    """The options that benchmarks over pairs share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default=default_data_set())
    add_students(parser)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(epsilons))
    return parser


def add_students(parser: argparse.ArgumentParser) -> None:
    """The option that picks pairs; the answer goes to `taught_cards`."""
    parser.add_argument("--students", nargs="+", help="only these (a part of the name is enough)")


def taught_cards(
    dataset: str, students: Sequence[str] | None = None
) -> Iterator[tuple[ModelCard, ModelCard]]:
    """The teacher's card and the student's, of each student that has a teacher.

    Args:
        dataset: name of the data set.
        students: only those in whose name one of these stands; None for all.
    """
    for card in list_models(dataset=dataset, role="student"):
        if card.teacher is not None and (
            students is None or any(part in card.name for part in students)
        ):
            yield read_card(card.teacher.name), card


def taught_pairs(
    dataset: str, students: Sequence[str] | None = None
) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Name of each student that has a teacher, the teacher's network and its own (`taught_cards`)."""
    for teacher, student in taught_cards(dataset, students):
        yield student.name, load_model(teacher.name).network, load_model(student.name).network


def first_right(teacher: nn.Module, student: nn.Module, split: Split, count: int) -> Tensor:
    """Ids of the first examples that both networks classify right, int64 (count,)."""
    with torch.no_grad():
        head, labels = split.images[: 5 * count + 100], split.labels[: 5 * count + 100]
        right = (teacher(head).argmax(1) == labels) & (student(head).argmax(1) == labels)
    return right.nonzero().squeeze(1)[:count]
