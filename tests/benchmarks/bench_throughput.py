"""How many gradients of a pair the attacks evaluate in a second, and what share of the machine that is.

Run ``python -m tests.benchmarks.bench_throughput [--dataset NAME] [--students NAME ...]
[--batches 64 512 1024] [--attacks pgd search] [--device auto] [--compile] [--graphs] [--threads 2]``.

One gradient of the pair at one point counts as one: examples times steps.  Baseline ``bare``: forward
and backward of both networks on a batch of as many points, and nothing else; ratios are against it in
the same run.  The attacks are whole: starts, steps, projections, looking at each point, and the last
measurement in float64.  (On a CPU they cut larger batches to 512 points; examples leave the search's
batch as they are done.)  ``--compile`` also runs all with networks by torch.compile, ``--graphs`` (CUDA)
``bare`` as a captured graph; what a machine cannot do is said in one sentence.  Times are the shortest
of several.

Shares are of two limits measured here too: ``of peak`` of the rate of a large float32 product of matrices
(no TF32), ``of roofline`` of the lower of that and what main memory lets through: each layer's output is
written and read once, its gradient too, and the weights are read twice a batch.  What stays in the caches
can exceed the second.  Without ``--students`` it is the pair with the most parameters.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fkd.attacks import ATTACKS, attack_config, make_attack
from fkd.attacks.objectives import confidence
from fkd.core.ball import Ball
from fkd.core.device import choose_device
from fkd.core.errors import FkdError
from fkd.data import Split, load_split
from fkd.models import load_model
from tests.benchmarks import add_students, default_data_set, taught_cards

Network = Callable[[Tensor], Tensor]

#: Sides of the matrices of the peak, and values of the copied vector, by the kind of device.
_SIDE = {"cpu": 2048, "cuda": 8192}
_COPIED = {"cpu": 2**26, "cuda": 2**29}
_FLOAT = 4
#: Calls that are timed at least.
_LEAST_CALLS = 3
_EPSILON = 0.1


@dataclass(frozen=True)
class Machine:
    """What a device does at most, measured: float32 operations and bytes a second."""

    operations: float
    bandwidth: float


@dataclass(frozen=True)
class Work:
    """What one gradient of a pair at one point needs.

    Attributes:
        operations: floating-point operations, a multiplication and an addition counted as two.
        activations: values that its layers put out.
        weights: parameters of both networks.
    """

    operations: float
    activations: float
    weights: int

    def limit(self, machine: Machine, batch: int) -> float:
        """Operations a second that peak and main memory allow for a batch."""
        moved = _FLOAT * (4 * self.activations + 2 * self.weights / batch)
        return min(machine.operations, machine.bandwidth * self.operations / moved)


def shortest(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds of the shortest of several calls, as many as fit into ``seconds`` after one to warm up."""
    work()
    best, calls, started = float("inf"), 0, time.perf_counter()
    while calls < _LEAST_CALLS or time.perf_counter() - started < seconds:
        _finish(device)
        before = time.perf_counter()
        work()
        _finish(device)
        best = min(best, time.perf_counter() - before)
        calls += 1
    return best


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_machine(device: torch.device, seconds: float) -> Machine:
    """Peak of a large product of matrices, and bytes read and written by a large copy, a second."""
    side = _SIDE[device.type]
    left, right = torch.rand(2, side, side, device=device)
    product = torch.empty_like(left)
    multiplied = shortest(lambda: torch.mm(left, right, out=product), device, seconds)
    source = torch.ones(_COPIED[device.type], device=device)
    target = torch.empty_like(source)
    copied = shortest(lambda: target.copy_(source), device, seconds)
    return Machine(2 * side**3 / multiplied, 2 * _FLOAT * len(source) / copied)


def bare(networks: Sequence[Network], points: Tensor, classes: Tensor) -> Tensor:
    """Gradient of the gap at points (N, C, H, W)."""
    points = points.detach().requires_grad_(True)
    teacher, student = (confidence(network(points), classes) for network in networks)
    return torch.autograd.grad((teacher - student).abs().sum(), points)[0]


def measure_work(networks: Sequence[nn.Module], points: Tensor, classes: Tensor) -> Work:
    """What a gradient at one of ``points`` needs, counted while it is evaluated."""
    values = 0

    def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal values
        # A view of what came in moves nothing.
        if output.data_ptr() != given[0].data_ptr():
            values += output.numel()

    leaves = [m for network in networks for m in network.modules() if not list(m.children())]
    handles = [leaf.register_forward_hook(note) for leaf in leaves]
    # The counter cannot follow a module whose input is what is differentiated by.
    copying = [lambda given, network=network: network(given.clone()) for network in networks]
    try:
        with FlopCounterMode(display=False) as counter:
            bare(copying, points, classes)
    finally:
        for handle in handles:
            handle.remove()
    weights = sum(p.numel() for network in networks for p in network.parameters())
    return Work(counter.get_total_flops() / len(points), values / len(points), weights)


def captured(networks: Sequence[nn.Module], points: Tensor, classes: Tensor) -> Callable[[], None]:
    """`bare` as a CUDA graph: one launch instead of one for each kernel."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            bare(networks, points, classes)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        bare(networks, points, classes)
    return graph.replay


class _Bench:
    """One pair on one device.

    Args:
        networks: teacher and student.
        split: where images are from.
        device: where they run.
        seconds: that each measurement takes.
    """

    def __init__(
        self,
        networks: tuple[nn.Module, nn.Module],
        split: Split,
        device: torch.device,
        seconds: float,
    ) -> None:
        self.networks, self.split = networks, split
        self.device, self.seconds = device, seconds
        self.machine = measure_machine(device, seconds)
        self.work = measure_work(networks, *self._examples(64)[1:])

    def head(self) -> None:
        """Print what was measured of machine and pair, and the columns' names."""
        print(
            f"{self.device}: {self.machine.operations / 1e9:.1f} GFLOP/s, "
            f"{self.machine.bandwidth / 1e9:.1f} GB/s; a gradient: "
            f"{self.work.operations / 1e6:.3f} MFLOP, {self.work.activations:.0f} activations"
        )
        names = (
            f"{'gradients/s':>12} {'ratio':>8} {'GFLOP/s':>10} {'of peak':>8} {'of roofline':>12}"
        )
        print(f"{'':18} {'batch':>7} {names}")

    def rates(self, batch: int, options: argparse.Namespace) -> None:
        """Print a line for everything that is run on a batch."""
        base = self._bare(batch, self.networks)
        rates = {name: self._attack(name, batch, self.networks) for name in options.attacks}
        # Before and after the others: a busy moment should not be the baseline's alone.
        base = max(base, self._bare(batch, self.networks))
        for name, rate in {"bare": base, **rates}.items():
            self._print(name, batch, rate, base)
        if options.compile:
            made = tuple(torch.compile(network) for network in self.networks)
            self._try("bare, compiled", batch, base, partial(self._bare, batch, made))
            for name in options.attacks:
                rate = partial(self._attack, name, batch, made)
                self._try(f"{name}, compiled", batch, base, rate)
        if options.graphs:
            self._try("bare, graph", batch, base, partial(self._graph, batch))

    def _examples(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, images and labels of so many examples, again from the first where there are fewer."""
        ids = torch.arange(count) % len(self.split.labels)
        images, labels = self.split.take(ids)
        return ids.to(self.device), images.to(self.device), labels.to(self.device)

    def _bare(self, batch: int, networks: tuple[nn.Module, nn.Module]) -> float:
        _, images, classes = self._examples(batch)
        work = partial(bare, networks, images, classes)
        return batch / shortest(work, self.device, self.seconds)

    def _graph(self, batch: int) -> float:
        _, images, classes = self._examples(batch)
        replay = captured(self.networks, images, classes)
        return batch / shortest(replay, self.device, self.seconds)

    def _attack(self, name: str, batch: int, networks: tuple[nn.Module, nn.Module]) -> float:
        """Gradients a second of an attack on as many examples as fill a batch at its start."""
        attack = make_attack(attack_config({"name": name, "rows": batch}))
        ids, images, classes = self._examples(max(1, batch // attack.rows_per_example))
        region = Ball(epsilon=_EPSILON).region(images, ids)
        run = partial(attack.run, *networks, region, classes, seed=0)
        gradients = run().gradient_evaluations * len(ids)
        return gradients / shortest(run, self.device, self.seconds)

    def _try(self, name: str, batch: int, base: float, rate: Callable[[], float]) -> None:
        try:
            self._print(name, batch, rate(), base)
        except (RuntimeError, AssertionError, OSError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            print(f"{name}: not possible here: {reason[0]}", flush=True)

    def _print(self, name: str, batch: int, rate: float, base: float) -> None:
        operations = rate * self.work.operations
        print(
            f"{name:18} {batch:7d} {rate:12.0f} {rate / base:8.2f} {operations / 1e9:10.1f} "
            f"{operations / self.machine.operations:8.3f} "
            f"{operations / self.work.limit(self.machine, batch):12.3f}",
            flush=True,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", default=default_data_set())
    add_students(parser)
    add("--batches", type=int, nargs="+", default=[64, 512, 1024], help="points at once")
    add("--attacks", nargs="+", choices=ATTACKS.available(), default=["pgd", "search"])
    add("--device", default="auto", help="cpu, cuda or auto: both where there are both")
    add("--compile", action="store_true", help="also with networks by torch.compile")
    add("--graphs", action="store_true", help="also as a CUDA graph")
    add("--seconds", type=float, default=1.0, help="of each measurement")
    add("--threads", type=int, default=2)
    return parser


def _students(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Names of teachers and students: those asked for, or the pair with the most parameters."""
    asked = list(taught_cards(options.dataset, options.students))
    if not options.students:
        asked = [max(asked, key=lambda pair: pair[0].parameters + pair[1].parameters)]
    return [(teacher.name, student.name) for teacher, student in asked]


def main() -> int:
    """Print a table for each device and pair."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    # Products of matrices are float32 unless told otherwise; convolutions on CUDA are not.
    torch.backends.cudnn.allow_tf32 = False
    try:
        devices = [choose_device(options.device)]
    except FkdError as error:
        print(error, file=sys.stderr)
        return 2
    if options.device == "auto" and devices[0].type == "cuda":
        devices.insert(0, torch.device("cpu"))
    split = load_split(options.dataset, "test")
    for teacher, student in _students(options):
        for device in devices:
            networks = tuple(load_model(name, device=device).network for name in (teacher, student))
            bench = _Bench(networks, split, device, options.seconds)
            print(f"{student} of {teacher}, {options.threads} threads")
            bench.head()
            for batch in options.batches:
                bench.rates(batch, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
