"""How near the nearest disagreement found is, and what it costs, against bisection with the attack.

Run ``python -m tests.benchmarks.bench_radius [--dataset NAME] [--count 50] [--norms linf l2]
[--methods walks both more] [--threads 2]``.  Baseline: the default attack (pgd) at the largest radius,
then bisected between the nearest witness and the largest radius without one, witnesses drawn towards
the image: what `fkd radius` did before it walked.  ``walks`` are the walks alone, ``both`` is what
`fkd radius` does (walks, then the attack just below them), ``more`` the same with 11 walks a network.

``ratio`` is the mean over examples with a disagreement in both, ``worst`` its largest, ``at_most`` the
share with a radius of at most the baseline's; ``best`` is the mean ratio to the nearest found by any
method of this run (``plain_best`` the baseline's).  ``lost`` were found by the baseline alone, ``new``
not by it.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fkd.attacks import attack_config
from fkd.attacks.nearest import nearest_disagreements
from fkd.core.precision import double_copy, logits_of
from fkd.evaluation import LARGEST_RADIUS, RadiusConfig, ResolvedPair
from fkd.evaluation._attacked import attack_pair
from fkd.evaluation.radius import find_agreement_radii
from tests.benchmarks import add_students, default_data_set, taught_cards

#: Halvings when the baseline draws a witness towards its image; what counts as no further.
_PULLS, _MORE = 12, 1e-4
METHODS = {"walks": {}, "both": {}, "more": {"starts": 11}}


@dataclass(frozen=True)
class Found:
    """Distances (N,), infinite where none was found, gradients of the pair an example, and seconds."""

    distance: Tensor
    gradients: float
    seconds: float


@dataclass(frozen=True)
class Line:
    """What a method found; ratios are to the baseline's."""

    plain: float
    mean: float
    median: float
    ratio: float
    worst: float
    at_most: float
    best: float
    plain_best: float
    lost: float
    new: float
    gradients: float
    gradients_ratio: float
    seconds: float
    seconds_ratio: float


class _Case:
    """A pair and images of which both predict the same class, in one norm."""

    def __init__(self, config: RadiusConfig) -> None:
        pair = ResolvedPair(config)
        self.config = config
        self.networks = tuple(model.network for model in pair.load("cpu"))
        doubles = [double_copy(network) for network in self.networks]
        ids = torch.arange(config.count)
        images, _ = pair.data_set.load(config.split).take(ids)
        teacher, student = (logits_of(network, images).argmax(1) for network in doubles)
        agree = teacher == student
        self.doubles, self.classes = doubles, teacher[agree]
        self.region = config.ball.region(images[agree], ids[agree])

    def within(self, radius: Tensor, rows: Tensor):
        region = self.region[rows]
        return self.config.ball.region_of(region.images, radius, region.example_ids)

    def differ(self, points: Tensor) -> Tensor:
        teacher, student = (logits_of(network, points).argmax(1) for network in self.doubles)
        return teacher != student


def bisected(case: _Case) -> Found:
    """The baseline."""
    started, gradients = time.perf_counter(), 0.0
    found = torch.full_like(case.region.radius, torch.inf)
    missed, radius = torch.zeros_like(found), case.region.radius.clone()
    width = case.config.tolerance * case.config.epsilon
    rows = torch.arange(len(found))
    while len(rows):
        result = attack_pair(
            attack_config({"name": "pgd"}),
            case.networks,
            case.within(radius[rows], rows),
            case.classes[rows],
            seed=0,
        )
        gradients += result.gradient_evaluations * len(rows)
        missed[rows] = torch.where(result.disagrees, missed[rows], radius[rows])
        hit, points = rows[result.disagrees], result.disagreement_witness[result.disagrees]
        far = case.region[hit].distance(points)
        found[hit] = torch.minimum(found[hit], far)
        near = torch.zeros_like(far)
        for _ in range(_PULLS if len(hit) else 0):
            middle = 0.5 * (near + far)
            pulled = case.within(middle, hit).clamp(points)
            differ = case.differ(pulled)
            length = torch.where(differ, case.region[hit].distance(pulled), torch.inf)
            found[hit] = torch.minimum(found[hit], length)
            far, near = torch.where(differ, middle, far), torch.where(differ, near, middle)
        rows = (found.isfinite() & (found - missed > width)).nonzero()[:, 0]
        radius = 0.5 * (found + missed)
    return Found(found, gradients / len(found), time.perf_counter() - started)


def measured(case: _Case, method: str) -> Found:
    """One of `METHODS`."""
    started = time.perf_counter()
    config = case.config.model_copy(update=METHODS[method])
    if method == "walks":
        nearest = nearest_disagreements(
            *case.networks, case.region, seed=config.seed, starts=config.starts
        )
        distance, gradients = nearest.distance, nearest.gradient_evaluations
    else:
        radii = find_agreement_radii(config, case.region.example_ids.tolist(), device="cpu")
        distance = torch.tensor(radii.table.radius_attack.to_numpy()).nan_to_num(math.inf)
        gradients = radii.gradient_evaluations
    return Found(distance, gradients, time.perf_counter() - started)


def _line(plain: Found, found: Found, best: Tensor) -> Line:
    has, had = found.distance.isfinite(), plain.distance.isfinite()
    both = has & had
    ratio = found.distance[both] / plain.distance[both]
    return Line(
        plain=float(plain.distance[had].mean()),
        mean=float(found.distance[has].mean()),
        median=float(found.distance.quantile(0.5, interpolation="higher")),
        ratio=float(ratio.mean()),
        worst=float(ratio.max()) if len(ratio) else math.nan,
        at_most=float((found.distance <= plain.distance * (1 + _MORE)).double().mean()),
        best=float((found.distance / best)[has].mean()),
        plain_best=float((plain.distance / best)[had].mean()),
        lost=float((had & ~has).sum()),
        new=float((has & ~had).sum()),
        gradients=found.gradients,
        gradients_ratio=found.gradients / plain.gradients,
        seconds=found.seconds,
        seconds_ratio=found.seconds / plain.seconds,
    )


def _text(line: Line) -> str:
    return " ".join(f"{getattr(line, field.name):10.4f}" for field in fields(Line))


def main() -> int:
    """Print one line for each shipped pair, norm and method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default=default_data_set())
    add_students(parser)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--norms", nargs="+", choices=LARGEST_RADIUS, default=list(LARGEST_RADIUS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = " ".join(f"{field.name[:10]:>10}" for field in fields(Line))
    print(f"{'student':26} {'norm':5} {'method':6} {names}")
    every: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for teacher, student in taught_cards(options.dataset, options.students):
        for norm in options.norms:
            case = _Case(
                RadiusConfig.parse(
                    {
                        "dataset": options.dataset,
                        "teacher": teacher.name,
                        "student": student.name,
                        "norm": norm,
                        "count": options.count,
                        "tolerance": options.tolerance,
                        "proofs": False,
                    }
                )
            )
            plain = bisected(case)
            found = {method: measured(case, method) for method in options.methods}
            best = torch.stack([plain.distance, *(f.distance for f in found.values())]).amin(0)
            for method, one in found.items():
                line = _line(plain, one, best)
                every[method, norm].append(line)
                print(f"{student.name:26} {norm:5} {method:6} {_text(line)}", flush=True)
    for (method, norm), lines in every.items():
        mean = torch.tensor([[getattr(line, f.name) for f in fields(Line)] for line in lines])
        print(f"{'mean':26} {norm:5} {method:6} {_text(Line(*mean.double().nanmean(0).tolist()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
