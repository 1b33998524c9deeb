"""What the pair attack finds and costs, against plain PGD on the confidence gap.

Run ``python -m tests.benchmarks.bench_attacks [--dataset NAME] [--count 100] [--threads 2]``.
Baseline: sign-gradient ascent on ``|p_T(c) - p_S(c)|`` without momentum, step epsilon / 10, from random
starts, both directions, with as many gradient evaluations.  Ratios are against it in the same run.
"""

from __future__ import annotations

import sys
import time

import torch
from torch import Tensor, nn

from fkd.attacks import attack_config, make_attack
from fkd.attacks.objectives import confidence
from fkd.core.ball import Ball, Region
from fkd.core.seeding import uniform_noise
from fkd.data import load_split
from tests.benchmarks import benchmark_parser, first_right, taught_pairs


def plain_pgd(
    teacher: nn.Module, student: nn.Module, region: Region, labels: Tensor, evaluations: int
) -> Tensor:
    """Largest gap found by plain PGD with ``evaluations`` gradients an example, (N,)."""
    steps = 40
    restarts = max(1, evaluations // (2 * steps))
    best = torch.zeros(len(region))
    wide = region.radius.to(region.images.dtype)[:, None, None, None]
    for restart in range(restarts):
        for direction in (1.0, -1.0):
            noise = uniform_noise(
                region.example_ids, tuple(region.images.shape[1:]), seed=0, stream=restart
            )
            point = region.lower + noise * (region.upper - region.lower)
            for _ in range(steps):
                point = point.detach().requires_grad_(True)
                gap = confidence(teacher(point), labels) - confidence(student(point), labels)
                best = torch.maximum(best, gap.detach().abs())
                (gradient,) = torch.autograd.grad(direction * gap.sum(), point)
                point = region.clamp(point.detach() + wide / 10 * gradient.sign())
    return best


def main() -> int:
    """Print one line for each shipped pair and epsilon."""
    parser = benchmark_parser(__doc__, count=100, epsilons=(0.05, 0.1))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    split = load_split(options.dataset, "test")
    print(
        f"{'student':34} {'eps':>5} {'plain':>7} {'fkd':>7} {'gap/plain':>9} {'at least':>8} "
        f"{'s/plain s':>9} {'gradients/s':>11}"
    )
    for name, teacher, student in taught_pairs(options.dataset):
        ids = first_right(teacher, student, split, options.count)
        images, labels = split.take(ids)
        for epsilon in options.epsilons:
            region = Ball(epsilon=epsilon).region(images, ids)
            started = time.perf_counter()
            found = make_attack(attack_config({})).run(teacher, student, region, labels, seed=0)
            ours = time.perf_counter() - started
            started = time.perf_counter()
            plain = plain_pgd(teacher, student, region, labels, found.gradient_evaluations)
            theirs = time.perf_counter() - started
            print(
                f"{name:34} {epsilon:5.2f} {plain.mean():7.4f} {found.gap.mean():7.4f} "
                f"{found.gap.mean() / plain.mean():9.3f} "
                f"{(found.gap >= plain - 1e-4).double().mean():8.3f} {ours / theirs:9.2f} "
                f"{len(ids) * found.gradient_evaluations / ours:11.0f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
