"""What the brackets should be, and whether the measured ones are: one line an aim."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from fkd.models import ModelCard

#: Most resident memory of a batch of 512, MiB.
MEMORY_MIB = 6 * 1024
#: Beyond rounding.
TOLERANCE = 1e-6

#: How teachers' methods train, as the aims distinguish them.
TRAINING = {
    "ibp": "certified",
    "crown_ibp": "certified",
    "pgd_at": "adversarial",
    "trades": "adversarial",
}


def is_same_shape(teacher: ModelCard, student: ModelCard) -> bool:
    """Whether every layer of the student has the teacher's shape, and neither is a file of its own."""
    return (teacher.architecture, teacher.architecture_config) == (
        student.architecture,
        student.architecture_config,
    ) and teacher.parameters == student.parameters


@dataclass(frozen=True)
class Row:
    """One method on one pair and radius; means over ``examples``.

    Attributes:
        training: of the teacher: certified, adversarial, or another method's name.
        method: the student's.
        level: the method measured: attack, A, B, B float32, a certificate's name, ``exact 10`` (seconds).
        subset: whether the examples are the few that *exact* is measured on.
        gap_attack: lower end, with what the method itself reached.
        width: mean of gap_certified - gap_attack.
        agrees: share proved to agree; None where the method says nothing of it.
        decided: share proved to agree or shown to disagree.
        seconds: median seconds an example; None where it is another row's measurement.
        cpu_seconds: the same on the CPU, where the row is CUDA's.
        peak_mib: most memory held, all of the process.
        added_mib: what of it came during the run.
        over_b: largest excess over B on any example.
        over_below: largest excess over the level below on any example.
    """

    dataset: str
    teacher: str
    student: str
    training: str
    method: str
    same_shape: bool
    epsilon: float
    level: str
    subset: bool
    examples: int
    device: str
    threads: int
    gap_attack: float
    gap_certified: float
    width: float
    agrees: float | None = None
    decided: float | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_mib: float | None = None
    added_mib: float | None = None
    over_b: float | None = None
    over_below: float | None = None
    violations: tuple[str, ...] = field(default=())

    @property
    def block(self) -> tuple[str, str, float, str]:
        """What is compared in one run: pair, radius, device."""
        return self.dataset, self.student, self.epsilon, self.device


@dataclass(frozen=True)
class MemoryRow:
    """One level on a large batch of the largest pair."""

    dataset: str
    student: str
    epsilon: float
    level: str
    examples: int
    device: str
    seconds: float
    peak_mib: float
    added_mib: float


def ratio(value: float | None, base: float | None) -> float:
    """``value / base``; 0 where there is nothing left to win (both 0), NaN where one is missing."""
    if value is None or base is None:
        return float("nan")
    if base <= 0.0:
        return 0.0 if value <= TOLERANCE else float("inf")
    return value / base


@dataclass(frozen=True)
class _Figure:
    value: float
    where: str


def _worst(
    name: str,
    figures: Iterable[_Figure],
    limit: float,
    *,
    strict: bool = False,
    most: bool = True,
) -> str:
    """One line: the worst of ``figures`` against ``limit``, and how many meet it."""
    figures = list(figures)
    if not figures:
        return f"{'not measured':13} {name}"
    if most:
        met = [f.value < limit if strict else f.value <= limit for f in figures]
    else:
        met = [f.value >= limit for f in figures]
    # NaN meets nothing and is the worst.
    worst = max(figures, key=lambda f: (f.value != f.value, f.value if most else -f.value))
    average = sum(f.value for f in figures) / len(figures)
    return (
        f"{'met' if all(met) else 'MISSED':13} {name}: worst {worst.value:.4g} ({worst.where}), "
        f"mean {average:.4g}, met in {sum(met)} of {len(met)}"
    )


class _Blocks:
    def __init__(self, rows: Sequence[Row]) -> None:
        self.found: dict[tuple, dict[tuple[str, bool], Row]] = {}
        for row in rows:
            self.found.setdefault(row.block, {})[row.level, row.subset] = row

    def single(
        self,
        level: str,
        figure: Callable[[Row], float | None],
        where: Callable[[Row], bool] = lambda row: True,
    ) -> list[_Figure]:
        """A figure of one level in every block that has it."""
        rows = [
            part[key]
            for part in self.found.values()
            for key in ((level, False), (level, True))
            # A level's own run: on all examples, but for exact.
            if key in part and part[key].seconds is not None
        ]
        return [
            _Figure(value, f"{row.student} at {row.epsilon:g}")
            for row in rows
            if where(row) and (value := figure(row)) is not None
        ]

    def ratios(
        self,
        levels: tuple[str, str],
        figure: Callable[[Row], float | None],
        where: Callable[[Row], bool] = lambda row: True,
    ) -> list[_Figure]:
        """A figure of one level over another's, in every block that has both on all examples."""
        figures = []
        for part in self.found.values():
            over, base = (part.get((level, False)) for level in levels)
            if over is not None and base is not None and where(over):
                value = ratio(figure(over), figure(base))
                figures.append(_Figure(value, f"{over.student} at {over.epsilon:g}"))
        return figures


def _hard(row: Row) -> bool:
    return (
        row.training == "adversarial" and row.method in ("rslad", "faithful") and row.epsilon == 0.1
    )


def summary(rows: Sequence[Row], memory: Sequence[MemoryRow]) -> list[str]:
    """The aims of the brackets, one line each: met, MISSED or not measured, with the worst figure."""
    blocks = _Blocks(rows)
    lines = [
        _worst(
            "fast over B on any example <= 1e-6",
            blocks.single("fast", lambda r: r.over_b),
            TOLERANCE,
        ),
        _worst(
            "fast / B, mean width < 1",
            blocks.ratios(("fast", "B"), lambda r: r.width),
            1,
            strict=True,
        ),
        _worst("fast / B, time <= 1", blocks.ratios(("fast", "B"), lambda r: r.seconds), 1),
        _worst(
            "fast / B in float32, time <= 1",
            blocks.ratios(("fast", "B float32"), lambda r: r.seconds),
            1,
        ),
        _worst(
            "fast / A, width at eps <= 0.05 <= 1/5",
            blocks.ratios(("fast", "A"), lambda r: r.width, lambda r: r.epsilon <= 0.05),
            0.2,
        ),
        _worst(
            "tight / fast, gap_certified (no aim of its own; <= 0.9 counted)",
            blocks.ratios(("tight", "fast"), lambda r: r.gap_certified),
            0.9,
        ),
        _worst("tight / fast, width <= 0.9", blocks.ratios(("tight", "fast"), _width), 0.9),
        _worst(
            "tight / fast, width of RSLAD and faithful of adversarial at 0.1 <= 1/2",
            blocks.ratios(("tight", "fast"), _width, _hard),
            0.5,
        ),
    ]
    budgets = sorted(
        {row.level for row in rows if row.level.startswith("exact ")},
        key=lambda level: float(level.split()[1]),
    )
    for level in budgets or ["exact 60"]:
        lines += [
            _worst(
                f"{level} s, width of certified pairs < 0.01",
                blocks.single(level, _width, lambda r: r.training == "certified"),
                0.01,
                strict=True,
            ),
            _worst(
                f"{level} s, width of adversarial pairs at eps <= 0.05 < 0.05",
                blocks.single(
                    level, _width, lambda r: r.training == "adversarial" and r.epsilon <= 0.05
                ),
                0.05,
                strict=True,
            ),
        ]
    for level in ("fast", "tight", *budgets):
        for training, share in (("certified", 0.99), ("adversarial", 0.8)):

            def at_tenth(row: Row, training: str = training) -> bool:
                return row.training == training and row.epsilon == 0.1

            lines.append(
                _worst(
                    f"{level}, decided at 0.1 of {training} pairs >= {share:g}",
                    blocks.single(level, lambda r: r.decided, at_tenth),
                    share,
                    most=False,
                )
            )
    for level in ("fast", "tight"):
        lines.append(
            _worst(
                f"{level} / crown (plain joint rows), gap of 8-bit copies at 0.1 <= 1/3",
                blocks.ratios(
                    (level, "crown"),
                    lambda r: r.gap_certified,
                    lambda r: r.method == "quantised" and r.epsilon == 0.1,
                ),
                1 / 3,
            )
        )
    lines.append(
        _worst(
            "peak memory of a batch of 512 < 6144 MiB",
            [_Figure(row.peak_mib, f"{row.level} on {row.student}") for row in memory],
            MEMORY_MIB,
            strict=True,
        )
    )
    broken = [text for row in rows for text in row.violations]
    lines.append(
        f"{'MISSED' if broken else 'met':13} nothing below an attack, no level looser than the one "
        f"below: {len(broken)} violations"
    )
    lines += [f"{'':13} {text}" for text in broken[:8]]
    faster = [r for r in rows if r.cpu_seconds is not None and r.seconds]
    if faster:
        most = max(faster, key=lambda r: ratio(r.cpu_seconds, r.seconds))
        least = min(faster, key=lambda r: ratio(r.cpu_seconds, r.seconds))
        lines.append(
            f"{'':13} examples a second, CUDA / CPU: {ratio(least.cpu_seconds, least.seconds):.1f} "
            f"({least.level}, {least.student}) to {ratio(most.cpu_seconds, most.seconds):.1f} "
            f"({most.level}, {most.student})"
        )
    return lines


def _width(row: Row) -> float:
    return row.width
