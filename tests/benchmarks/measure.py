"""What a method gives on some examples, how long it takes and how much memory it holds at most."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil
import torch
from torch import Tensor, nn

from fkd.attacks import attack_config, make_attack
from fkd.attacks.objectives import confidence
from fkd.bounds import certificate_config, make_certificate
from fkd.core.ball import Region
from fkd.core.precision import double_copy, logits_of

#: Seconds between two looks at the resident memory.
_INTERVAL = 0.01


@dataclass(frozen=True)
class Bounded:
    """What a method says of N examples.

    Attributes:
        gap: upper bound of the gap, float64 (N,).
        agrees: where agreement is proved, bool (N,); None where the method says nothing of it.
        points: witnesses of the method's own, (N, C, H, W), or None.
    """

    gap: Tensor
    agrees: Tensor | None = None
    points: Tensor | None = None


@dataclass(frozen=True)
class Reached:
    """What is reached by points of the sets: the lower ends, (N,) each."""

    gap: Tensor
    disagrees: Tensor

    def also(self, other: Reached) -> Reached:
        """With what other points of the same sets reach."""
        return Reached(
            torch.maximum(self.gap, other.gap.to(self.gap)),
            self.disagrees | other.disagrees.to(self.disagrees.device),
        )

    def __getitem__(self, rows: Tensor) -> Reached:
        return Reached(self.gap[rows], self.disagrees[rows])


#: Bounds a pair on some sets: teacher, student, region, classes.
Method = Callable[[nn.Module, nn.Module, Region, Tensor], Bounded]


@dataclass(frozen=True)
class Problem:
    """One pair at one radius: what every method gets."""

    teacher: nn.Module
    student: nn.Module
    region: Region
    classes: Tensor

    def run(self, method: Method) -> Bounded:
        """What the method says."""
        return method(self.teacher, self.student, self.region, self.classes)

    def __getitem__(self, rows: Tensor) -> Problem:
        return Problem(self.teacher, self.student, self.region[rows], self.classes[rows])

    def to(self, device: torch.device | str) -> Problem:
        """On another device (networks are moved in place)."""
        region = self.region
        return Problem(
            self.teacher.to(device),
            self.student.to(device),
            Region(
                *(
                    part.to(device)
                    for part in (region.images, region.lower, region.upper, region.radius)
                ),
                region.example_ids.to(device),
                region.norm,
                None if region.scale is None else region.scale.to(device),
            ),
            self.classes.to(device),
        )

    def attacked(self) -> Reached:
        """What the default attack reaches."""
        attack = make_attack(attack_config({}))
        found = attack.run(self.teacher, self.student, self.region, self.classes, seed=0)
        return Reached(found.gap.double(), found.disagrees)

    def reached(self, points: Tensor) -> Reached:
        """What the pair does at a method's own points, by float64; nothing where one is not finite.

        Raises:
            ValueError: a point lies outside its set.
        """
        points = points.double()
        there = torch.isfinite(points).flatten(1).all(1)
        points = torch.where(there[:, None, None, None], points, self.region.images.double())
        lower, upper = self.region.double_limits()
        outside = torch.maximum(lower - points, points - upper).amax()
        if self.region.norm == "l2":
            outside = torch.maximum(
                outside, (self.region.distance(points) - self.region.radius).amax()
            )
        if outside > 1e-9:
            raise ValueError(f"a witness lies outside its set by {float(outside):.1e}")
        teacher, student = (
            logits_of(double_copy(network), points) for network in (self.teacher, self.student)
        )
        gap = (confidence(teacher, self.classes) - confidence(student, self.classes)).abs()
        differs = teacher.argmax(1) != student.argmax(1)
        return Reached(torch.where(there, gap, 0.0), there & differs)


def certificate(settings: Mapping[str, object]) -> Method:
    """A certificate of the project as a method."""
    made = make_certificate(certificate_config(dict(settings)))

    def run(teacher: nn.Module, student: nn.Module, region: Region, classes: Tensor) -> Bounded:
        result = made.bound(teacher, student, region, classes)
        return Bounded(
            result.gap.nan_to_num(nan=1.0).clamp(0.0, 1.0),
            result.agrees,
            getattr(result, "points", None),
        )

    return run


@dataclass
class Measured:
    """What a method said, with its cost."""

    bounded: Bounded
    seconds: list[float] = field(default_factory=list)
    #: Most memory held during a run, all of the process; on CUDA the device's, by torch (bytes).
    peak: int = 0
    #: What of it was there before.
    before: int = 0

    @property
    def median(self) -> float:
        """Median seconds of a run."""
        return statistics.median(self.seconds)


def measure(problem: Problem, methods: Mapping[str, Method], repeats: int) -> dict[str, Measured]:
    """Run every method ``repeats`` times, in turns, so that a busy minute touches all of them."""
    measured: dict[str, Measured] = {}
    for _ in range(repeats):
        for name, method in methods.items():
            with PeakMemory(problem.region.images.device) as memory:
                started = time.perf_counter()
                bounded = problem.run(method)
                _finish(problem.region.images.device)
                seconds = time.perf_counter() - started
            entry = measured.setdefault(name, Measured(bounded, before=memory.before))
            entry.seconds.append(seconds)
            entry.peak = max(entry.peak, memory.peak)
    return measured


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """Most memory held inside a ``with`` block: resident, sampled in a thread; on CUDA torch's count."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._process = psutil.Process()
        self._ended = threading.Event()
        self.before = self.peak = 0

    def __enter__(self) -> PeakMemory:
        if self._cuda is not None:
            torch.cuda.reset_peak_memory_stats(self._cuda)
            self.before = torch.cuda.memory_allocated(self._cuda)
            return self
        self.before = self.peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._ended.wait(_INTERVAL):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, *error: object) -> None:
        if self._cuda is not None:
            self.peak = torch.cuda.max_memory_allocated(self._cuda)
            return
        self._ended.set()
        self._thread.join()
        self.peak = max(self.peak, self._process.memory_info().rss)


def spread(count: int, total: int) -> Tensor:
    """``count`` places spread evenly over ``total``, int64."""
    return torch.linspace(0, total - 1, min(count, total)).round().long()


def mean(values: Sequence[float] | Tensor) -> float:
    """Mean of some numbers."""
    return float(torch.as_tensor(values, dtype=torch.float64).mean())
