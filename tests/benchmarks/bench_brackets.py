"""How narrow the bracket [gap_attack, gap_certified] is and what it costs, level by level.

Run ``python -m tests.benchmarks.bench_brackets [--dataset mnist] [--students NAME ...] [--levels ...]
[--count 100] [--exact-seconds 10 60] [--exact-count 10] [--threads 2] [--out FILE.jsonl]``.

Baselines (auto_LiRPA's CROWN, see `tests.benchmarks.baselines`): A, the softmax in the graph, clamped
to 1; B, each network's margins alone with exact softmax; both in float64 like the project's levels, and
B in float32, auto_LiRPA's usual type, for its time.  `crown` is the project's general path (plain joint
rows by auto_LiRPA).  Everything of a pair and radius is measured in turns in one process; times are
medians (*exact* runs once, on a few examples spread over the others; the other levels' figures on the
same ones stand beside it).  ``--memory`` bounds 512 examples of the largest pair instead and prints
what is held.

It exits with 1 if a bound is below what an attack reached (UNSOUND) or a level is looser on any example
than the level below it (LOOSER).  The end is one line for each aim.  ``--out`` appends what was measured,
``--summarise FILE ...`` prints the aims of such files and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from fkd.bounds import CERTIFICATES
from fkd.core.ball import Ball
from fkd.core.device import choose_device
from fkd.core.errors import FkdError
from fkd.data import Split, load_split
from fkd.models import ModelCard, load_model
from tests.benchmarks import benchmark_parser, first_right, taught_cards
from tests.benchmarks._block import Block
from tests.benchmarks.aims import TRAINING, MemoryRow, Row, is_same_shape, summary
from tests.benchmarks.baselines import margins_alone, margins_alone_single, softmax_in_graph
from tests.benchmarks.measure import Method, Problem, certificate, measure

BASELINES: dict[str, Method] = {
    "A": softmax_in_graph,
    "B": margins_alone,
    "B float32": margins_alone_single,
}
#: Levels measured unless others are asked for, each no looser than the one before.
LEVELS = ("crown", "fast", "tight", "exact")
EPSILONS, MORE_FOR_CERTIFIED = (0.02, 0.05, 0.1), (0.2,)
MEMORY_COUNT, MEMORY_EPSILON = 512, 0.1


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser(__doc__, count=100, epsilons=EPSILONS)
    # None: the usual ones, and one more for teachers trained for certificates.
    parser.set_defaults(epsilons=None)
    add = parser.add_argument
    add("--levels", nargs="+", default=list(LEVELS), help="certificates, loosest first")
    add("--no-baselines", action="store_true", help="without A and B")
    add("--exact-seconds", type=float, nargs="+", default=[10.0, 60.0], help="an example")
    add("--exact-count", type=int, default=10, help="examples that exact is measured on")
    add("--repeats", type=int, default=3, help="runs a time is the median of")
    add("--device", default="cpu", help="cpu, cuda or auto; on CUDA levels are timed on both")
    add("--memory", action="store_true", help="peak memory of a large batch instead of brackets")
    add("--memory-count", type=int, default=MEMORY_COUNT, help="examples of that batch")
    add("--out", type=Path, help="append one line of JSON for each row")
    add("--summarise", type=Path, nargs="+", help="print the aims of such files, measure nothing")
    return parser


def _chosen(options: argparse.Namespace) -> list[tuple[ModelCard, ModelCard]]:
    return list(taught_cards(options.dataset, options.students))


def _training(teacher: ModelCard) -> str:
    return TRAINING.get(teacher.method, teacher.method)


def _print_pairs(cards: Sequence[tuple[ModelCard, ModelCard]]) -> None:
    print(f"{'student':34} {'teacher':24} {'training':12} {'method':10} {'parameters':>10} shape")
    for teacher, student in cards:
        shape = "the teacher's" if is_same_shape(teacher, student) else "its own"
        print(
            f"{student.name:34} {teacher.name:24} {_training(teacher):12} {student.method:10} "
            f"{student.parameters:10d} {shape}"
        )


def _levels(options: argparse.Namespace) -> tuple[dict[str, Method], dict[str, Method]]:
    """Levels measured on all examples, and *exact* at each budget."""
    missing = [name for name in options.levels if name not in CERTIFICATES]
    for name in missing:
        print(f"skipped: there is no certificate called '{name}' here")
    present = [name for name in options.levels if name not in missing]
    exact = {
        f"exact {seconds:g}": certificate({"name": "exact", "seconds": seconds})
        for seconds in sorted(options.exact_seconds)
        if "exact" in present
    }
    return {name: certificate({"name": name}) for name in present if name != "exact"}, exact


def _problem(
    cards: tuple[ModelCard, ModelCard], split: Split, ids: torch.Tensor, epsilon: float
) -> Problem:
    images, labels = split.take(ids)
    networks = [load_model(card.name).network for card in cards]
    return Problem(*networks, Ball(epsilon=epsilon).region(images, ids), labels)


def _brackets(options: argparse.Namespace) -> tuple[list[Row], list[MemoryRow]]:
    cards = _chosen(options)
    _print_pairs(cards)
    levels, exact = _levels(options)
    methods = ({} if options.no_baselines else BASELINES) | levels
    split = load_split(options.dataset, "test")
    rows: list[Row] = []
    for teacher, student in cards:
        networks = (load_model(teacher.name).network, load_model(student.name).network)
        ids = first_right(*networks, split, options.count)
        usual = EPSILONS + MORE_FOR_CERTIFIED * (_training(teacher) == "certified")
        for epsilon in options.epsilons or usual:
            problem = _problem((teacher, student), split, ids, epsilon)
            block = Block(
                problem.to(choose_device(options.device)),
                {
                    "dataset": options.dataset,
                    "teacher": teacher.name,
                    "student": student.name,
                    "training": _training(teacher),
                    "method": student.method,
                    "same_shape": is_same_shape(teacher, student),
                    "epsilon": epsilon,
                    "threads": options.threads,
                },
            )
            block.measure(methods, options.repeats)
            block.measure_few(exact, options.exact_count)
            made = block.rows()
            block.show(made)
            _append(options.out, made)
            rows += made
    return rows, []


def _memory(options: argparse.Namespace) -> tuple[list[Row], list[MemoryRow]]:

    def size(pair: tuple[ModelCard, ModelCard]) -> tuple[int, bool]:
        # Of pairs as large, those not trained for certificates have more open units.
        return pair[0].parameters + pair[1].parameters, _training(pair[0]) != "certified"

    cards = max(_chosen(options), key=size)
    # A second an example is enough for exact to fill its memory.
    options.exact_seconds = [1.0]
    levels, exact = _levels(options)
    split = load_split(options.dataset, "test")
    ids = torch.arange(min(options.memory_count, len(split.labels)))
    device = choose_device(options.device)
    problem = _problem(cards, split, ids, MEMORY_EPSILON).to(device)
    print(f"{len(ids)} examples of {cards[1].name} at {MEMORY_EPSILON:g}, {device}")
    print(f"{'level':12} {'peak MiB':>9} {'added':>7} {'s/ex':>8}")
    rows = []
    for name, method in (levels | exact).items():
        cost = measure(problem, {name: method}, 1)[name]
        row = MemoryRow(
            dataset=options.dataset,
            student=cards[1].name,
            epsilon=MEMORY_EPSILON,
            level=name,
            examples=len(ids),
            device=str(device),
            seconds=cost.median / len(ids),
            peak_mib=cost.peak / 2**20,
            added_mib=(cost.peak - cost.before) / 2**20,
        )
        print(f"{name:12} {row.peak_mib:9.0f} {row.added_mib:7.0f} {row.seconds:8.3f}", flush=True)
        rows.append(row)
    _append(options.out, rows)
    return [], rows


def _append(path: Path | None, rows: Sequence[Row | MemoryRow]) -> None:
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(
                json.dumps({"kind": type(row).__name__} | asdict(row)) + "\n" for row in rows
            )


def _stored(paths: Sequence[Path]) -> tuple[list[Row], list[MemoryRow]]:
    rows: list[Row] = []
    memory: list[MemoryRow] = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            values: Mapping = json.loads(line)
            fields = {name: value for name, value in values.items() if name != "kind"}
            if values["kind"] == "Row":
                rows.append(Row(**fields | {"violations": tuple(fields["violations"])}))
            else:
                memory.append(MemoryRow(**fields))
    return rows, memory


def main() -> int:
    """Measure, print, and say which aims are met."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    try:
        if options.summarise:
            rows, memory = _stored(options.summarise)
        else:
            rows, memory = _memory(options) if options.memory else _brackets(options)
    except FkdError as error:
        print(error, file=sys.stderr)
        return 2
    print("\naims (worst of all pairs and radii measured)")
    print("\n".join(summary(rows, memory)))
    return 1 if any(row.violations for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
