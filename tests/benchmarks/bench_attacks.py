"""What the attacks on a pair find and cost, against plain PGD on the confidence gap.

Run ``python -m tests.benchmarks.bench_attacks [--dataset NAME] [--count 100] [--epsilons ...]
[--methods pgd search both] [--threads 2]``.  Baseline: sign-gradient ascent on ``|p_T(c) - p_S(c)|``
without momentum, step epsilon / 10, 50 steps from each of 10 random starts: 500 gradients an example.
Ratios are against it in the same run.  ``pgd`` is the default attack, ``search`` is the local search for
the gap alone with a certificate's corners (its seconds count those too), ``both`` the same for
disagreements as well.  The last line of each method is the mean over all pairs.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from fkd.attacks import PairAttackResult, attack_config
from fkd.attacks.objectives import confidence
from fkd.core.ball import Ball, Region
from fkd.core.seeding import uniform_noise
from fkd.data import load_split
from fkd.evaluation._attacked import attack_pair
from tests.benchmarks import benchmark_parser, first_right, taught_pairs

#: The baseline's, and how much less than it counts as less.
_STEPS, _RESTARTS, _LESS = 50, 10, 1e-4

METHODS: dict[str, dict[str, str]] = {
    "pgd": {"name": "pgd"},
    "search": {"name": "search", "seek": "gap"},
    "both": {"name": "search"},
}


@dataclass(frozen=True)
class Line:
    """What a method found; ratios are to the baseline's."""

    plain: float
    found: float
    ratio: float
    at_least: float
    disagree: float
    superset: float
    gradients: float
    gradients_ratio: float
    seconds_ratio: float


def plain_pgd(
    teacher: nn.Module, student: nn.Module, region: Region, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Largest gap found by plain PGD, (N,), and whether predictions differed at a point on the way."""
    best = torch.zeros(len(region))
    differ = torch.zeros(len(region), dtype=torch.bool)
    wide = region.radius.to(region.images.dtype)[:, None, None, None]
    for restart in range(_RESTARTS):
        noise = uniform_noise(
            region.example_ids, tuple(region.images.shape[1:]), seed=0, stream=restart
        )
        point = region.lower + noise * (region.upper - region.lower)
        for _ in range(_STEPS):
            point = point.detach().requires_grad_(True)
            logits = teacher(point), student(point)
            gap = (confidence(logits[0], labels) - confidence(logits[1], labels)).abs()
            best = torch.maximum(best, gap.detach())
            differ |= logits[0].argmax(1) != logits[1].argmax(1)
            (gradient,) = torch.autograd.grad(gap.sum(), point)
            point = region.clamp(point.detach() + wide / 10 * gradient.sign())
    return best, differ


def _timed(work: Callable[[], object]) -> tuple[object, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _line(
    plain: tuple[Tensor, Tensor], seconds: float, found: PairAttackResult, took: float
) -> Line:
    gap, differ = plain
    return Line(
        plain=float(gap.mean()),
        found=float(found.gap.mean()),
        ratio=float(found.gap.mean() / gap.mean()),
        at_least=float((found.gap >= gap - _LESS).double().mean()),
        disagree=float(found.disagrees.double().mean()),
        superset=float((found.disagrees | ~differ).double().mean()),
        gradients=found.gradient_evaluations,
        gradients_ratio=found.gradient_evaluations / (_STEPS * _RESTARTS),
        seconds_ratio=took / seconds,
    )


def _text(line: Line) -> str:
    return " ".join(f"{getattr(line, field.name):15.4f}" for field in fields(Line))


def main() -> int:
    """Print one line for each shipped pair, epsilon and method."""
    parser = benchmark_parser(__doc__, count=100, epsilons=(0.05, 0.1))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    split = load_split(options.dataset, "test")
    names = " ".join(f"{field.name:>15}" for field in fields(Line))
    print(f"{'student':28} {'eps':>5} {'attack':8} {names}")
    every: dict[str, list[Line]] = defaultdict(list)
    for name, teacher, student in taught_pairs(options.dataset):
        ids = first_right(teacher, student, split, options.count)
        images, labels = split.take(ids)
        for epsilon in options.epsilons:
            region = Ball(epsilon=epsilon).region(images, ids)
            plain, seconds = _timed(lambda: plain_pgd(teacher, student, region, labels))  # noqa: B023
            for method in options.methods:
                config = attack_config(METHODS[method])
                found, took = _timed(
                    lambda: attack_pair(config, (teacher, student), region, labels, seed=0)  # noqa: B023
                )
                line = _line(plain, seconds, found, took)
                every[method].append(line)
                print(f"{name:28} {epsilon:5.2f} {method:8} {_text(line)}", flush=True)
    for method, lines in every.items():
        mean = Line(
            *(
                sum(getattr(line, field.name) for line in lines) / len(lines)
                for field in fields(Line)
            )
        )
        print(f"{'mean':28} {'':5} {method:8} {_text(mean)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
