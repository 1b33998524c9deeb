"""One pair at one radius: all methods measured, checked against each other and printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.benchmarks.aims import TOLERANCE, Row, ratio
from tests.benchmarks.measure import (
    Bounded,
    Measured,
    Method,
    Problem,
    Reached,
    mean,
    measure,
    spread,
)

#: Levels where each must be no looser than the one before; budgets of exact are one level.
_ORDER = ("fast", "tight", "exact")
#: Its bounds are no proofs, so they are held against nothing.
_NO_PROOF = "B float32"


class Block:
    """Measurements of one pair at one radius.

    Args:
        problem: the pair and its sets, on the device to measure.
        about: the fields of `Row` that say what is measured.
    """

    def __init__(self, problem: Problem, about: Mapping[str, Any]) -> None:
        self.problem, self.about = problem, dict(about)
        self.device = problem.region.images.device
        self._few = spread(0, 1)
        self._all: dict[str, Measured] = {}
        self._exact: dict[str, Measured] = {}
        self._cpu: dict[str, Measured] = {}
        self._violations: dict[str, list[str]] = {}
        found: list[Reached] = []

        def attack(*_: object) -> Bounded:
            found.append(problem.attacked())
            return Bounded(found[-1].gap, None)

        self._attack = measure(problem, {"attack": attack}, 1)["attack"]
        #: What the attack reached, and with the points of exact.
        self.attacked = self.known = found[-1]

    def measure(self, methods: Mapping[str, Method], repeats: int) -> None:
        """Measure methods on all examples; on CUDA the levels also on the CPU."""
        self._all = measure(self.problem, methods, repeats)
        if self.device.type == "cuda":
            levels = {name: m for name, m in methods.items() if name not in ("A", "B", _NO_PROOF)}
            self._cpu = measure(self.problem.to("cpu"), levels, repeats)
            self.problem = self.problem.to(self.device)

    def measure_few(self, methods: Mapping[str, Method], count: int) -> None:
        """Measure *exact* once on a few examples, and note what its own points reach."""
        if not methods:
            return
        self._few = spread(count, len(self.problem.classes)).to(self.device)
        few = self.problem[self._few]
        self._exact = measure(few, methods, 1)
        for name, part in self._exact.items():
            points = part.bounded.points
            if points is None:
                continue
            # One a ball (N, C, H, W), or several of each (N, P, C, H, W).
            for some in (points,) if points.ndim == 4 else points.unbind(1):
                try:
                    self._note(few.reached(some))
                except ValueError as error:
                    self._violate(name, "UNSOUND", str(error))

    def _note(self, reached: Reached) -> None:
        both = self.known[self._few].also(reached)
        self.known = Reached(self.known.gap.clone(), self.known.disagrees.clone())
        self.known.gap[self._few], self.known.disagrees[self._few] = both.gap, both.disagrees

    def rows(self) -> list[Row]:
        """What was measured, each row with the violations found."""
        self._check()
        rows = [self._row("attack", self._attack, None)]
        rows += [self._row(name, part, None) for name, part in self._all.items()]
        if self._exact:
            beside = [name for name in ("B", *_ORDER) if name in self._all]
            rows += [self._row(name, self._all[name], self._few, own=False) for name in beside]
            rows += [self._row(name, part, self._few) for name, part in self._exact.items()]
        return rows

    def _row(self, name: str, part: Measured, few: Tensor | None, *, own: bool = True) -> Row:
        """A level's row; ``own`` is False where it repeats a measurement for the few examples."""
        gap, agrees = part.bounded.gap, part.bounded.agrees
        reached = self.attacked
        is_exact = name in self._exact
        if few is not None:
            reached = (self.known if is_exact else self.attacked)[few]
            if not is_exact:
                gap, agrees = gap[few], None if agrees is None else agrees[few]
        count = len(gap)
        decided = reached.disagrees if agrees is None else agrees | reached.disagrees
        below = self._below(name)
        is_attack = name == "attack"
        cpu = self._cpu.get(name)
        return Row(
            **self.about,
            level=name,
            subset=few is not None,
            examples=count,
            device=self.device.type,
            gap_attack=mean(reached.gap),
            gap_certified=mean(gap),
            width=mean(gap - reached.gap),
            agrees=None if agrees is None else mean(agrees),
            decided=mean(decided) if is_attack or agrees is not None else None,
            seconds=part.median / count if own else None,
            cpu_seconds=cpu.median / count if cpu and own else None,
            peak_mib=part.peak / 2**20,
            added_mib=(part.peak - part.before) / 2**20,
            over_b=None if is_attack else self._over(name, "B"),
            over_below=None if below is None else self._over(name, below),
            violations=tuple(self._violations.get(name, ())) if own else (),
        )

    def _gap(self, name: str, few: bool) -> Tensor:
        if name in self._exact:
            return self._exact[name].bounded.gap
        gap = self._all[name].bounded.gap
        return gap[self._few] if few else gap

    def _over(self, name: str, base: str) -> float | None:
        if base not in self._all or name == base:
            return None
        few = name in self._exact
        return float((self._gap(name, few) - self._gap(base, few)).max())

    def _below(self, name: str) -> str | None:
        """The level that ``name`` must not be looser than; crown, for fast, is only looked at."""
        kind = name.split()[0]
        if kind not in _ORDER:
            return None
        lower = [level for level in ("crown", *_ORDER[: _ORDER.index(kind)]) if level in self._all]
        return lower[-1] if lower else None

    def _violate(self, name: str, kind: str, text: str) -> None:
        where = f"{self.about['student']} at {self.about['epsilon']:g}"
        self._violations.setdefault(name, []).append(f"{kind}: {name} on {where}: {text}")

    def _check(self) -> None:
        for name, part in (self._all | self._exact).items():
            if name == _NO_PROOF:
                continue
            few = name in self._exact
            known = self.known[self._few] if few else self.known
            excess = known.gap - part.bounded.gap
            # Written so that NaN is a violation.
            if bad := int((~(excess <= TOLERANCE)).sum()):
                text = f"below a witness on {bad} examples, by up to {float(excess.max()):.1e}"
                self._violate(name, "UNSOUND", text)
            agrees = part.bounded.agrees
            if agrees is not None and (bad := int((agrees & known.disagrees).sum())):
                self._violate(name, "UNSOUND", f"agreement refuted on {bad} examples")
            below = self._below(name)
            if below is None or below not in _ORDER:
                continue
            over = self._gap(name, few) - self._gap(below, few)
            if bad := int((~(over <= TOLERANCE)).sum()):
                text = f"than {below} on {bad} examples, by up to {float(over.max()):.1e}"
                self._violate(name, "LOOSER", text)
            lower = self._all[below].bounded.agrees
            lower = lower[self._few] if few else lower
            if bad := int((lower & ~agrees).sum()):
                self._violate(name, "LOOSER", f"agreement proved by {below} lost on {bad} examples")

    def show(self, rows: list[Row]) -> None:
        """Print the block."""
        a, b = (next((r for r in rows if r.level == name and not r.subset), None) for name in "AB")
        first = rows[0]
        print(
            f"\n{first.student} of {first.teacher} ({first.training}), epsilon {first.epsilon:g}, "
            f"{first.examples} examples, {first.device}: attack {first.gap_attack:.4f}, "
            f"{100 * (first.decided or 0):.0f} % disagree"
        )
        print(
            f"{'method':11} {'n':>4} {'attack':>7} {'certif.':>7} {'width':>7} {'/A':>6} {'/B':>6} "
            f"{'over B':>9} {'over below':>10} {'agree':>6} {'decided':>7} {'ms/ex':>9} {'t/A':>6} "
            f"{'t/B':>6} {'MiB':>6} {'added':>6}" + (f" {'/CPU':>5}" if self._cpu else "")
        )
        for row in rows:
            bases = (a, b) if not row.subset and row.level != "attack" else (None, None)
            widths = [ratio(row.width, base and base.width) for base in bases]
            times = [ratio(row.seconds, base and base.seconds) for base in (a, b)]
            print(
                f"{row.level:11} {row.examples:4d} {row.gap_attack:7.4f} {row.gap_certified:7.4f} "
                f"{row.width:7.4f} {_cell(widths[0], 6)} {_cell(widths[1], 6)} "
                f"{_cell(row.over_b, 9, '.1e')} {_cell(row.over_below, 10, '.1e')} "
                f"{_cell(row.agrees, 6)} {_cell(row.decided, 7)} "
                f"{_cell(None if row.seconds is None else 1e3 * row.seconds, 9, '.1f')} "
                f"{_cell(times[0], 6, '.2f')} {_cell(times[1], 6, '.2f')} "
                f"{row.peak_mib:6.0f} {row.added_mib:6.0f}"
                + (f" {_cell(ratio(row.cpu_seconds, row.seconds), 5, '.1f')}" if self._cpu else "")
            )
        for row in rows:
            for text in row.violations:
                print(text)
        print(end="", flush=True)


def _cell(value: float | None, width: int, form: str = ".3f") -> str:
    """A figure, or blank where there is none."""
    if value is None or value != value:
        return " " * width
    return f"{value:{width}{form}}"
