"""How wide and how dear the certificate is, against what auto_LiRPA gives by itself.

Run ``python -m tests.benchmarks.bench_bounds [--dataset mnist] [--count 32] [--threads 2]``.
Baselines: (A) CROWN with the softmax in the graph, (B) each network's margins alone with exact
softmax.  Every ratio is against (A) in the same run; times are medians of three.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fkd.attacks import attack_config, make_attack
from fkd.bounds import certificate_config, make_certificate
from fkd.core.ball import Ball
from fkd.data import load_split
from fkd.models import list_models, load_model
from tests.benchmarks.baselines import margins_alone, softmax_in_graph


def _timed(run: Callable[[], Tensor], repeats: int) -> tuple[Tensor, float]:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - started)
    return result, statistics.median(seconds)


def _joint(name: str, teacher, student, region, labels) -> Tensor:
    certificate = make_certificate(certificate_config({"name": name}))
    return certificate.bound(teacher, student, region, labels).gap.clamp(0.0, 1.0)


def main() -> int:
    """Print one line for each shipped pair, epsilon and method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    split = load_split(options.dataset, "test")
    students = list_models(dataset=options.dataset, role="student")
    print(f"{options.dataset}, first test examples both networks classify right, n={options.count}")
    print(
        f"{'student':38} {'eps':>5} {'method':12} {'gap':>7} {'width/A':>8} {'s/A s':>7} {'ms/ex':>7}"
    )
    for card in students:
        if card.teacher is None:
            continue
        teacher, student = load_model(card.teacher.name).network, load_model(card.name).network
        with torch.no_grad():
            head = split.images[:1000]
            right = (teacher(head).argmax(1) == split.labels[:1000]) & (
                student(head).argmax(1) == split.labels[:1000]
            )
        ids = right.nonzero().squeeze(1)[: options.count]
        images, labels = split.take(ids)
        for epsilon in options.epsilons:
            region = Ball(epsilon=epsilon).region(images, ids)
            attack = make_attack(attack_config({}))
            found, seconds = _timed(
                lambda a=attack, r=region, y=labels: a.run(teacher, student, r, y, seed=0).gap, 1
            )
            print(
                f"{card.name:38} {epsilon:5.2f} {'attack':12} {found.mean():7.4f} {'':8} {'':7} "
                f"{1e3 * seconds / len(ids):7.1f}"
            )
            methods: dict[str, Callable[[], Tensor]] = {
                "A softmax": lambda r=region, y=labels: softmax_in_graph(teacher, student, r, y),
                "B margins": lambda r=region, y=labels: margins_alone(teacher, student, r, y),
                "crown": lambda r=region, y=labels: _joint("crown", teacher, student, r, y),
                "crown_ibp": lambda r=region, y=labels: _joint("crown_ibp", teacher, student, r, y),
            }
            base_width = base_seconds = float("nan")
            for name, run in methods.items():
                bound, seconds = _timed(run, options.repeats)
                if (found > bound + 1e-6).any():
                    print(f"UNSOUND: {name} on {card.name} at {epsilon}", file=sys.stderr)
                    return 1
                width = float((bound - found).mean())
                if name.startswith("A"):
                    base_width, base_seconds = width, seconds
                print(
                    f"{'':38} {'':5} {name:12} {bound.mean():7.4f} {width / base_width:8.3f} "
                    f"{seconds / base_seconds:7.2f} {1e3 * seconds / len(ids):7.1f}"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
