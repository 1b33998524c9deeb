"""How wide and how dear the certificate is, against what auto_LiRPA gives by itself.

Run ``python -m tests.benchmarks.bench_bounds [--dataset NAME] [--count 32] [--threads 2]``.
Baselines: (A) CROWN with the softmax in the graph, (B) each network's margins alone with exact
softmax.  Every ratio is against (A) in the same run; times are medians of three.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fkd.attacks import attack_config, make_attack
from fkd.bounds import certificate_config, make_certificate
from fkd.core.ball import Ball, Region
from fkd.data import Split, load_split
from tests.benchmarks import benchmark_parser, taught_pairs
from tests.benchmarks.baselines import margins_alone, softmax_in_graph


def _timed(run: Callable[..., Tensor], arguments: tuple, repeats: int) -> tuple[Tensor, float]:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = run(*arguments)
        seconds.append(time.perf_counter() - started)
    return result, statistics.median(seconds)


def _certificate(name: str) -> Callable[..., Tensor]:
    certificate = make_certificate(certificate_config({"name": name}))

    def run(teacher: nn.Module, student: nn.Module, region: Region, labels: Tensor) -> Tensor:
        return certificate.bound(teacher, student, region, labels).gap.clamp(0.0, 1.0)

    return run


def _attack(teacher: nn.Module, student: nn.Module, region: Region, labels: Tensor) -> Tensor:
    return make_attack(attack_config({})).run(teacher, student, region, labels, seed=0).gap


METHODS: dict[str, Callable[..., Tensor]] = {
    "A softmax": softmax_in_graph,
    "B margins": margins_alone,
    "crown": _certificate("crown"),
    "crown_ibp": _certificate("crown_ibp"),
}


def _print_pair(name: str, epsilon: float, arguments: tuple, repeats: int) -> bool:
    """One block of lines; False where a bound is below the attack."""
    examples = len(arguments[-1])
    found, seconds = _timed(_attack, arguments, 1)
    print(
        f"{name:34} {epsilon:5.2f} {'attack':10} {found.mean():7.4f} {'':8} {'':7} "
        f"{1e3 * seconds / examples:7.1f}"
    )
    base_width = base_seconds = float("nan")
    for method, run in METHODS.items():
        bound, seconds = _timed(run, arguments, repeats)
        if (found > bound + 1e-6).any():
            print(f"UNSOUND: {method} on {name} at {epsilon}", file=sys.stderr)
            return False
        width = float((bound - found).mean())
        if method.startswith("A"):
            base_width, base_seconds = width, seconds
        print(
            f"{'':34} {'':5} {method:10} {bound.mean():7.4f} {width / base_width:8.3f} "
            f"{seconds / base_seconds:7.2f} {1e3 * seconds / examples:7.1f}",
            flush=True,
        )
    return True


def first_right(teacher: nn.Module, student: nn.Module, split: Split, count: int) -> Tensor:
    """Ids of the first examples that both networks classify right, int64 (count,)."""
    with torch.no_grad():
        head, labels = split.images[: 5 * count + 100], split.labels[: 5 * count + 100]
        right = (teacher(head).argmax(1) == labels) & (student(head).argmax(1) == labels)
    return right.nonzero().squeeze(1)[:count]


def main() -> int:
    """Print one block for each shipped pair and epsilon."""
    parser = benchmark_parser(__doc__, count=32, epsilons=(0.02, 0.05, 0.1))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    split = load_split(options.dataset, "test")
    print(f"{options.dataset}, first test examples both networks classify right, n={options.count}")
    print(
        f"{'student':34} {'eps':>5} {'method':10} {'gap':>7} {'width/A':>8} {'s/A s':>7} {'ms/ex':>7}"
    )
    for name, teacher, student in taught_pairs(options.dataset):
        ids = first_right(teacher, student, split, options.count)
        images, labels = split.take(ids)
        for epsilon in options.epsilons:
            region = Ball(epsilon=epsilon).region(images, ids)
            if not _print_pair(name, epsilon, (teacher, student, region, labels), options.repeats):
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
