"""Every shipped pair, 500 examples, every radius of the grid: prints violations (there must be none).

Run ``python -m tests.benchmarks.soundness [--dataset NAME] [--count 500] [--threads 2]``; exits 1 at the
first contradiction.  The test suite spreads the radii over the examples; this crosses them.
"""

from __future__ import annotations

import sys
import time

import torch

from fkd.data import load_split
from tests.benchmarks import benchmark_parser, taught_pairs
from tests.support.soundness import attack_and_certify, count_violations, spread_region


def main() -> int:
    """Print one line for each pair and radius."""
    parser = benchmark_parser(__doc__, count=500, epsilons=(0.02, 0.05, 0.1, 0.2))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    split = load_split(options.dataset, "test")
    total = 0
    print(
        f"{'student':34} {'eps':>5} {'n':>4} {'attack':>7} {'certified':>9} {'agree':>6} "
        f"{'disagree':>8} {'violations':>10} {'max excess':>11} {'s':>6}"
    )
    for name, teacher, student in taught_pairs(options.dataset):
        for epsilon in options.epsilons:
            started = time.perf_counter()
            region = spread_region(split, options.count, [epsilon])
            labels = split.labels[: options.count]
            attacked, certified = attack_and_certify(teacher, student, region, labels)
            count = count_violations(attacked, certified)
            violations = count.gap_violations + count.agreement_violations
            total += violations
            print(
                f"{name:34} {epsilon:5.2f} {count.examples:4d} {attacked.gap.mean():7.4f} "
                f"{certified.gap.mean():9.4f} {certified.agrees.double().mean():6.3f} "
                f"{attacked.disagrees.double().mean():8.3f} {violations:10d} "
                f"{count.largest_excess:11.2e} {time.perf_counter() - started:6.1f}",
                flush=True,
            )
    print(f"violations: {total}")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
