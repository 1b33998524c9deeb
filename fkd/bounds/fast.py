"""Level *fast*: one joint linear relaxation without optimisation, on the project's own engine.

What is propagated for a class c, with ``m^N_j = z^N_j - z^N_c`` (j != c), per network: its margins up and
down, ``lambda . m`` with lambda = softmax(m(x)), and ``lambda^j . m`` with lambda^j leaning towards j.
Everything joint is a sum of those, added in the image before absolute values are taken: differences of
margins and support lines of any slope.  The mathematics is that of `fkd.bounds.crown`, the hidden bounds
are CROWN's intersected with intervals, and every bound is widened by a proved rounding error.

Networks that the engine cannot pass through go to `fkd.bounds.crown`, by auto_LiRPA.

Sources: CROWN, Zhang et al. 1811.00866; relative calibration, Faithful Knowledge Distillation 2306.04431;
the log-odds form, its joint rows and support lines are this project's own.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fkd.bounds._crew import Chunk, Crew, Tell
from fkd.bounds._lines import Lines
from fkd.bounds._memory import fitting
from fkd.bounds._pair import Pair
from fkd.bounds._passes import agreement, known_lines
from fkd.bounds.base import Certificate, CertificateResult, ChunkStore
from fkd.bounds.crown import JointCrown
from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.intervals import margin_rows
from fkd.bounds.engine.paired import Paired, reduce_together
from fkd.bounds.engine.propagate import Hidden
from fkd.bounds.engine.reduced import Reduced, Reducer
from fkd.bounds.engine.tighten import tighten
from fkd.bounds.registry import CERTIFICATES
from fkd.core.ball import Region
from fkd.core.errors import UnsupportedModelError
from fkd.core.progress import ProgressCallback, report


@dataclass(frozen=True)
class Task:
    """Sets to bound together, and whom to tell.

    Attributes:
        pair: both networks, for the engine.
        networks: both networks as they are, for trying points.
        region: N sets.
        classes: int64 (N,), the compared class.
        start: number of the first of them among all.
        side_by_side: how many tasks are done at a time.
        tell: called with how many of these sets are bounded and any numbers worth showing; it raises
            `Cancelled` when asked to stop.
    """

    pair: Pair
    networks: tuple[nn.Module, nn.Module]
    region: Region
    classes: Tensor
    start: int
    side_by_side: int
    tell: Tell


class EngineCertificate(Certificate):
    """A certificate on the project's own engine; networks it cannot read go to auto_LiRPA.

    Attributes:
        is_optimised: whether bounds are optimised; auto_LiRPA's are too, where it can.
        at_once: sets that a thread bounds at once on a CPU; more would leave its caches.
    """

    is_optimised: ClassVar[bool] = True
    at_once: ClassVar[int] = 8

    def bound(
        self,
        teacher: nn.Module,
        student: nn.Module,
        region: Region,
        classes: Tensor,
        *,
        progress: ProgressCallback | None = None,
        chunks: ChunkStore | None = None,
    ) -> CertificateResult:
        """See `Certificate.bound`.

        Args:
            teacher: see there.
            student: see there.
            region: see there.
            classes: see there.
            progress: see there.
            chunks: what it has of these very sets is not bounded again, and what is finished it gets.

        Raises:
            Cancelled: ``progress`` asked to stop; what was proved is its ``partial`` (trivial bounds for
                examples that were not reached).
        """
        try:
            pair = Pair(teacher, student, region.images[:1])
        except UnsupportedModelError:
            general = JointCrown(self.config, is_optimised=self.is_optimised)
            return general.bound(teacher, student, region, classes, progress=progress)
        count, device = len(region), region.images.device
        is_cpu = device.type == "cpu"
        threads = torch.get_num_threads() if is_cpu else 1
        # Not by the number of threads: padding makes a search depend on its chunk, a little.
        largest = min(self.at_once, self.config.rows) if is_cpu else self.config.rows
        size = fitting(threads * pair.bytes_per_example, device, largest=largest)
        side_by_side = min(threads, -(-count // size))

        def work(rows: slice, tell: Tell) -> CertificateResult:
            known = None if chunks is None else chunks.get(rows)
            if known is not None:
                return known
            task = Task(
                pair,
                (teacher, student),
                region[rows],
                classes[rows],
                rows.start,
                side_by_side,
                tell,
            )
            result = self.bound_chunk(task)
            if chunks is not None:
                chunks.put(rows, result)
            return result

        def tell(done: int, **values: Any) -> None:
            report(progress, "certificate", done, count, **values)

        crew = Crew(work, tell, threads=threads, is_cpu=is_cpu)
        ended, stopped = crew.run(count, size)
        parts = [part for chunk in ended for part in chunk.parts]
        if stopped is None:
            report(progress, "certificate", count, count)
            return CertificateResult.cat(parts)
        stopped.partial = CertificateResult.cat(_whole(ended, region))
        raise stopped

    @abstractmethod
    def bound_chunk(self, task: Task) -> CertificateResult:
        """Bound sets that fit into memory at once."""


def _whole(chunks: Sequence[Chunk[CertificateResult]], region: Region) -> list[CertificateResult]:
    """Every set's result, trivial ones where nothing was reached."""
    found = [part for chunk in chunks for part in chunk.parts]
    like = found[0] if found else None
    parts: list[CertificateResult] = []
    for chunk in chunks:
        parts += chunk.parts
        reached = chunk.rows.start + sum(len(part.gap_upper) for part in chunk.parts)
        if reached < chunk.rows.stop:
            parts.append(nothing_proved(region[reached : chunk.rows.stop], like=like))
    return parts


def nothing_proved(region: Region, *, like: CertificateResult | None = None) -> CertificateResult:
    """The bounds that always hold; with the images as points where ``like`` has points."""
    one = torch.ones(len(region), dtype=torch.float64, device=region.images.device)
    no = torch.zeros(len(region), dtype=torch.bool, device=region.images.device)
    points = None
    if like is not None and like.points is not None:
        points = region.images[:, None].expand(-1, like.points.shape[1], -1, -1, -1)
    return CertificateResult(one, -one, no, no.clone(), no.clone(), points)


@CERTIFICATES.register("fast")
class Fast(EngineCertificate):
    """Joint linear relaxation, no optimisation."""

    is_optimised = False

    def bound_chunk(self, task: Task) -> CertificateResult:
        """See `EngineCertificate.bound_chunk`."""
        return Foundation(task.pair, task.region, task.classes).result()


class Foundation:
    """What the fast level proves of some sets: where the other levels start from.

    Attributes:
        logits: both networks' float64 logits at the images.
        hidden: both networks' hidden bounds.
        passes: both networks' passes about the compared class, a pair for each choice of slopes.
        forth: what is known of p_T - p_S.
        back: what is known of p_S - p_T.
        teacher_robust: bool (N,).
        student_robust: bool (N,).
        agrees: bool (N,).
    """

    def __init__(
        self, pair: Pair, region: Region, classes: Tensor, *, paired_steps: int = 0
    ) -> None:
        self.pair, self.region, self.classes = pair, region, classes
        self.logits = pair.logits(region.images)
        self.hidden = pair.hidden(region)
        self.passes = pair.passes(self.hidden, self.logits, classes)
        self._paired_steps = paired_steps
        apart = self._apart(classes, slice(None))
        forth = [known_lines(teacher, student, apart[1]) for teacher, student in self.passes]
        back = [known_lines(student, teacher, apart[0]) for teacher, student in self.passes]
        self.forth, self.back = reduce(Lines.meet, forth), reduce(Lines.meet, back)
        self._agreement(apart)

    def _apart(
        self, classes: Tensor, sets: Tensor | slice
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Upper bounds of ``m^T_j - m^S_j`` and of ``m^S_j - m^T_j`` of copies, (N, K-1) each."""
        if not self.pair.is_copy:
            return None, None
        if self.pair.is_identical:
            shape = (len(classes[sets]), self.logits[0].shape[1] - 1)
            nothing = torch.zeros(shape, dtype=torch.float64, device=classes.device)
            return nothing, nothing
        part = self.hidden[0][sets], self.hidden[1][sets]
        rows = margin_rows(classes[sets], self.logits[0].shape[1], self.logits[0])
        ends = []
        for piece in pieces(part):
            both = part[0][piece], part[1][piece]
            networks = reduce_together((self.pair.teacher, self.pair.student), both)
            paired = Paired(both[0].inputs, *networks, steps=self._paired_steps)
            every = torch.cat([rows[piece], -rows[piece]], 1)
            ends.append(paired.differences(every, steps=self._paired_steps))
        others = rows.shape[1]
        upper = torch.cat(ends)
        return upper[:, :others], upper[:, others:]

    @property
    def predictions(self) -> tuple[Tensor, Tensor]:
        """Both networks' predictions at the images, int64 (N,)."""
        return self.logits[0].argmax(1), self.logits[1].argmax(1)

    def _agreement(self, apart: tuple[Tensor, Tensor] | tuple[None, None]) -> None:
        robust_teacher, robust_student, agrees = agreement(self.passes, apart)
        predicted, other = self.predictions
        # Agreement is about the predicted class, which nearly always is the compared one.
        away = (predicted != self.classes).nonzero()[:, 0]
        if len(away):
            parts = agreement(
                self.pair.passes(self.hidden, self.logits, predicted, away),
                self._apart(predicted, away),
            )
            for every, some in zip((robust_teacher, robust_student, agrees), parts, strict=True):
                every[away] = some
        same = predicted == other
        self.teacher_robust = robust_teacher
        # The student's margins are against the teacher's class: they speak only where both predict it.
        self.student_robust, self.agrees = robust_student & same, agrees & same
        if self.pair.is_identical:
            self.agrees = torch.ones_like(agrees)

    @property
    def gap_here(self) -> Tensor:
        """|p_T - p_S| at the images: a bound can't be lower; float64 (N,)."""
        here = [torch.softmax(part, 1).gather(1, self.classes[:, None]) for part in self.logits]
        return (here[0] - here[1]).abs()[:, 0]

    @property
    def is_decided(self) -> Tensor:
        """Where nothing is open about predictions: all proved, or different at the image; bool (N,)."""
        predicted, other = self.predictions
        return (predicted != other) | (self.agrees & self.teacher_robust & self.student_robust)

    def is_settled(self, tolerance: float) -> Tensor:
        """Where the bracket is as narrow as ``tolerance`` and nothing is open, bool (N,)."""
        bound = torch.maximum(self.forth.gap(), self.back.gap())
        return self.is_decided & (bound <= self.gap_here + tolerance)

    def part(self, rows: slice | Tensor) -> Foundation:
        """Of some of the sets."""
        part = copy.copy(self)
        part.region, part.classes = self.region[rows], self.classes[rows]
        part.logits = self.logits[0][rows], self.logits[1][rows]
        part.hidden = self.hidden[0][rows], self.hidden[1][rows]
        part.passes = [(teacher[rows], student[rows]) for teacher, student in self.passes]
        part.forth, part.back = self.forth[rows], self.back[rows]
        part.teacher_robust = self.teacher_robust[rows]
        part.student_robust = self.student_robust[rows]
        part.agrees = self.agrees[rows]
        return part

    def pieces(self) -> Iterator[slice]:
        """Consecutive sets whose reduced networks fit into memory together."""
        return pieces(self.hidden)

    def reduced(self, hidden_steps: int) -> tuple[InputSet, Reduced, Reduced]:
        """Both networks written down for their open units, hidden bounds optimised."""
        propagators = self.pair.teacher, self.pair.student
        inputs = self.hidden[0].inputs
        parts = (
            tighten(inputs, Reducer(propagator, hidden).run(), steps=hidden_steps)
            for propagator, hidden in zip(propagators, self.hidden, strict=True)
        )
        return inputs, *parts

    def result(self) -> CertificateResult:
        """The fast level's answer."""
        return CertificateResult(
            gap_upper=self.forth.gap(),
            gap_lower=0.0 - self.back.gap(),
            agrees=self.agrees,
            teacher_robust=self.teacher_robust,
            student_robust=self.student_robust,
        )


def pieces(hidden: tuple[Hidden, Hidden]) -> Iterator[slice]:
    """Consecutive sets whose reduced networks fit into memory together."""
    lower = hidden[0].inputs.lower
    pixels, needed = lower[0].numel(), 0
    for part in hidden:
        units = part.open_units.amax(0).tolist()
        columns = [pixels + sum(units[:k]) for k in range(len(units))]
        needed += sum(n * c for n, c in zip(units, columns, strict=True))
    # Weights in both types, and as much again while they are made.
    size = fitting(3 * 12 * int(needed), lower.device, largest=32)
    for start in range(0, len(lower), size):
        yield slice(start, min(start + size, len(lower)))
