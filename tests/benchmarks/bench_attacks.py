"""What the attacks on a pair find and cost, against plain PGD on the confidence gap.

Run ``python -m tests.benchmarks.bench_attacks [--dataset NAME] [--students NAME ...] [--count 100]
[--epsilons ...] [--norm linf] [--methods pgd search both] [--libraries] [--exact SECONDS]``.

Baseline: steepest ascent (L-infinity: the gradient's sign) on ``|p_T(c) - p_S(c)|`` without momentum,
step epsilon / 10, 50 steps from each of 10 random starts: 500 gradients an example.  Ratios are against
it in the same run.  ``pgd`` is the default attack, ``search`` is the local search for the gap alone with
a certificate's corners (its seconds count those too), ``both`` the same for disagreements as well.
``--libraries`` adds attacks of Foolbox, adversarial-robustness-toolbox and adv-lib on the same examples,
with about as many gradients as the baseline (`tests.benchmarks.library_attacks` says how they are
installed and what they are given).  Everything looks at each point that it evaluates.  The mean over all
pairs and radii stands at the end, and then the share of all examples on which each attack is within 0.01
and within 0.001 of the best gap that any found in this run, and its largest shortfall; the row ``image``
says how much of that took no attack.

``--exact SECONDS`` branches on ``--exact-count`` examples of each pair for at most so long.  Where the
bracket closed to 0.001, the worst case is known, and the same shares of it are given for those examples
(easy ones: hard brackets do not close).  It exits with 1 if a gap exceeds its bound.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from fkd.attacks import PairAttackResult, attack_config
from fkd.attacks._steps import random_points, steepest
from fkd.attacks.objectives import confidence
from fkd.core.ball import NORMS, Ball, Region
from fkd.data import load_split
from fkd.evaluation._attacked import attack_pair
from tests.benchmarks import benchmark_parser, first_right, taught_pairs
from tests.benchmarks.library_attacks import attack_by_library, installed_libraries
from tests.benchmarks.measure import Problem
from tests.benchmarks.worst_cases import NEAR, WorstCases, shares, worst_cases

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


def _gap(logits: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
    return (confidence(logits[0], labels) - confidence(logits[1], labels)).abs()


def plain_pgd(
    teacher: nn.Module, student: nn.Module, region: Region, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Largest gap found by plain PGD, (N,), and whether predictions differed at a point on the way."""
    best = torch.zeros(len(region))
    differ = torch.zeros(len(region), dtype=torch.bool)
    wide = region.radius.to(region.images.dtype)[:, None, None, None]
    for restart in range(_RESTARTS):
        point = random_points(region, 0, restart)
        for _ in range(_STEPS):
            point = point.detach().requires_grad_(True)
            logits = teacher(point), student(point)
            gap = _gap(logits, labels)
            best = torch.maximum(best, gap.detach())
            differ |= logits[0].argmax(1) != logits[1].argmax(1)
            (gradient,) = torch.autograd.grad(gap.sum(), point)
            step = wide / 10 * steepest(gradient, point.detach(), region)
            point = region.clamp(point.detach() + step)
    return best, differ


def _timed(work: Callable[..., Any], *arguments: object) -> tuple[Any, float]:
    started = time.perf_counter()
    return work(*arguments), time.perf_counter() - started


def _own(
    method: str, networks: tuple[nn.Module, nn.Module], region: Region, labels: Tensor
) -> PairAttackResult:
    return attack_pair(attack_config(METHODS[method]), networks, region, labels, seed=0)


def _library(
    name: str, networks: tuple[nn.Module, nn.Module], region: Region, labels: Tensor
) -> PairAttackResult:
    return attack_by_library(name, networks, region, labels, seed=0)


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


def _print_shares(shortfalls: dict[str, list[Tensor]]) -> None:
    within = " ".join(f"{f'<={near:g}':>9}" for near in NEAR)
    print(f"{'attack':12} {within} {'most':>9}")
    for method, parts in shortfalls.items():
        print(f"{method:12} {shares(torch.cat(parts))}")


@dataclass
class _Tables:
    """What is printed at the end.

    Attributes:
        lines: of each method, one a pair and radius.
        behind: of each method from the best found here, a tensor a pair and radius.
        shortfalls: the same from the worst case, where it is known.
        known: worst cases, one entry a pair and radius.
    """

    lines: dict[str, list[Line]] = field(default_factory=lambda: defaultdict(list))
    behind: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    shortfalls: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    known: list[WorstCases] = field(default_factory=list)

    def rank(self, found: dict[str, Tensor]) -> None:
        """Keep how far each method stays behind the best of them."""
        best = torch.stack([gap.double() for gap in found.values()]).amax(0)
        for method, gap in found.items():
            self.behind[method].append(best - gap)

    def compare(self, name: str, known: WorstCases, found: dict[str, Tensor]) -> None:
        """Keep and print how near each method comes to the worst cases of a pair and radius."""
        self.known.append(known)
        print(f"{name} exact: known of {len(known.rows)} of {known.tried} examples", flush=True)
        for method, gap in found.items():
            self.shortfalls[method].append(known.shortfalls(gap))

    def show(self) -> int:
        """Print means and shares; 1 where something found contradicts a bound."""
        for method, lines in self.lines.items():
            mean = Line(
                *(
                    sum(getattr(line, part.name) for line in lines) / len(lines)
                    for part in fields(Line)
                )
            )
            print(f"{'mean':28} {'':5} {method:12} {_text(mean)}")
        print("\nbehind the best found here, all examples")
        _print_shares(self.behind)
        if not self.known:
            return 0
        count, tried = sum(len(k.rows) for k in self.known), sum(k.tried for k in self.known)
        print(f"\nexact worst case known of {count} of {tried} examples")
        _print_shares(self.shortfalls)
        wrong = sum(known.contradictions for known in self.known)
        if wrong:
            print(f"UNSOUND: on {wrong} examples a gap was found above its bound")
        return int(wrong > 0)


def main() -> int:
    """Print one line for each shipped pair, epsilon and method."""
    parser = benchmark_parser(__doc__, count=100, epsilons=(0.05, 0.1))
    add = parser.add_argument
    add("--norm", choices=NORMS, default="linf", help="of the balls")
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    add("--libraries", action="store_true", help="attacks of other libraries, too")
    add("--exact", type=float, metavar="SECONDS", help="branch on examples, each so long at most")
    add("--exact-count", type=int, default=50, help="examples of each pair that are branched on")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    split = load_split(options.dataset, "test")
    attacks: dict[str, Callable[..., PairAttackResult]] = dict.fromkeys(options.methods, _own)
    attacks |= dict.fromkeys(installed_libraries() if options.libraries else [], _library)
    names = " ".join(f"{part.name:>15}" for part in fields(Line))
    print(f"{'student':28} {'eps':>5} {'attack':12} {names}")
    tables = _Tables()
    for name, *networks in taught_pairs(options.dataset, options.students):
        ids = first_right(*networks, split, options.count)
        images, labels = split.take(ids)
        for epsilon in options.epsilons:
            region = Ball(epsilon=epsilon, norm=options.norm).region(images, ids)
            plain, seconds = _timed(plain_pgd, *networks, region, labels)
            with torch.no_grad():
                clean = _gap(tuple(network(images) for network in networks), labels)
            found = {"image": clean, "plain": plain[0]}
            for method, attack in attacks.items():
                result, took = _timed(attack, method, tuple(networks), region, labels)
                found[method] = result.gap
                line = _line(plain, seconds, result, took)
                tables.lines[method].append(line)
                print(f"{name:28} {epsilon:5.2f} {method:12} {_text(line)}", flush=True)
            tables.rank(found)
            if options.exact is not None:
                known = worst_cases(
                    Problem(*networks, region, labels),
                    found,
                    seconds=options.exact,
                    count=options.exact_count,
                )
                tables.compare(f"{name:28} {epsilon:5.2f}", known, found)
    return tables.show()


if __name__ == "__main__":
    sys.exit(main())
