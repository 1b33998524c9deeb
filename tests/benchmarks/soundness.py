"""Every shipped pair, every radius, every level: points checked and violations (there must be none).

Run ``python -m tests.benchmarks.soundness [--dataset NAME] [--count 500] [--threads 2]
[--levels crown fast] [--samples 64] [--set exact.seconds=5]``; exits 1 when there was a contradiction.
For each example the attack's points and random ones (uniform, corners) are held against the interval of
the gap, the proof of agreement and both proofs of robustness of each level.  The attack keeps the largest
gap and the firmest disagreement of all points it visits, so holding those against a level checks every
one of them.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from fkd.bounds import CERTIFICATES
from fkd.core.ball import Ball
from fkd.data import load_split
from tests.benchmarks import benchmark_parser, taught_pairs
from tests.support.soundness import attack, certify, count_violations, sample

#: From the loosest to the tightest, where they exist.
LEVELS = ("crown", "fast", "tight", "exact")


def _settings(options: list[str]) -> dict[str, dict[str, Any]]:
    """``level.name=value`` as settings of each level."""
    settings: dict[str, dict[str, Any]] = {}
    for option in options:
        place, value = option.split("=", 1)
        level, name = place.split(".", 1)
        settings.setdefault(level, {})[name] = json.loads(value)
    return settings


def main() -> int:
    """Print one line for each pair, radius and level."""
    parser = benchmark_parser(__doc__, count=500, epsilons=(0.02, 0.05, 0.1, 0.2))
    parser.add_argument("--norm", default="linf", choices=["linf", "l2"])
    parser.add_argument("--samples", type=int, default=64, help="random points of each example")
    parser.add_argument(
        "--levels", nargs="+", default=[name for name in LEVELS if name in CERTIFICATES]
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="LEVEL.NAME=VALUE", help="settings of a level"
    )
    options = parser.parse_args()
    settings = _settings(options.set)
    torch.set_num_threads(options.threads)
    split = load_split(options.dataset, "test")
    images, labels = split.images[: options.count], split.labels[: options.count]
    points = comparisons = violations = 0
    print(
        f"{'student':34} {'eps':>5} {'level':6} {'n':>4} {'seen':>7} {'certified':>9} {'agree':>6} "
        f"{'disagree':>8} {'violations':>10} {'max excess':>11} {'s':>6}"
    )
    for name, teacher, student in taught_pairs(options.dataset, options.students):
        for epsilon in options.epsilons:
            region = Ball(epsilon=epsilon, norm=options.norm).region(
                images, torch.arange(len(images))
            )
            attacked = attack(teacher, student, region, labels)
            seen = sample(teacher, student, region, labels, count=options.samples)
            here = seen.points + attacked.gradient_evaluations * len(images)
            points += here
            for level in options.levels:
                started = time.perf_counter()
                certified = certify(
                    teacher, student, region, labels, name=level, **settings.get(level, {})
                )
                seconds = time.perf_counter() - started
                count = count_violations(attacked, certified, seen)
                violations += count.violations
                comparisons += here
                print(
                    f"{name:34} {epsilon:5.2f} {level:6} {count.examples:4d} "
                    f"{attacked.gap.mean():7.4f} {certified.gap.mean():9.4f} "
                    f"{certified.agrees.double().mean():6.3f} "
                    f"{attacked.disagrees.double().mean():8.3f} {count.violations:10d} "
                    f"{count.largest_excess:11.2e} {seconds:6.1f}",
                    flush=True,
                )
    print(f"points: {points} (held against levels: {comparisons})")
    print(f"violations: {violations}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
