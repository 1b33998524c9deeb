"""One example's bracket, narrowed from both ends by branch and bound within a budget (stage 5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fkd.bounds._agreement import IMPOSSIBLE
from fkd.bounds._optimised import Optimised
from fkd.bounds._tree import Tree, has_few_pixels
from fkd.bounds._witness import Witness
from fkd.bounds.base import CertificateResult
from fkd.bounds.fast import Task

#: Classes that get rows of their own in each domain.
_LIKELY = 5
#: Search steps for each half, points of a round that witnesses are looked for from, and every how many
#: rounds.  In few dimensions most patterns of signs are empty, and it takes multipliers some steps to
#: prove that; in many, one step for more domains is better, and witnesses are found early or not at all.
_STEPS, _STARTS, _EVERY = 1, 2, 4
_STEPS_FEW, _STARTS_FEW, _EVERY_FEW = 12, 16, 1
#: Seconds between reports.
_TELL_SECONDS = 0.3
#: Most domains split in a round, and the numbers they may hold together: a round should take a fraction
#: of a second, but what is split must not depend on a clock.
_LARGEST_BATCH, _ROUND_NUMBERS = 512, 2_000_000
#: Of the budget, what goes to the gap first where agreement is open too.
_FIRST_SHARE = 0.5


@dataclass(frozen=True)
class Budget:
    """How long an example is branched on.

    Attributes:
        domains: bounded first for the gap, and as many again for agreement.
        seconds: of wall-clock time after that; 0 makes the result repeatable to the last bit.
        tolerance: a bracket of the gap this narrow needs no more.
        memory_mb: for the open domains of all examples in work.
    """

    domains: int
    seconds: float
    tolerance: float
    memory_mb: int


class Branching:
    """The bracket of one example.

    Args:
        budget: when to stop.
        task: the sets it belongs to.
        place: its number among the task's.
        optimised: what optimising proves of some of the task's sets.
        number: its number among those.
        known: the answer of ``optimised``.
        steps: of the search at a root.
    """

    def __init__(
        self,
        budget: Budget,
        task: Task,
        place: int,
        optimised: Optimised,
        number: int,
        known: CertificateResult,
        steps: int,
    ) -> None:
        self.budget, self.task, self.place = budget, task, place
        self.optimised, self.number, self.steps = optimised, number, steps
        row = slice(place, place + 1)
        is_few = has_few_pixels(task.region.images)
        self.node_steps, self.starts, self.every = (
            (_STEPS_FEW, _STARTS_FEW, _EVERY_FEW) if is_few else (_STEPS, _STARTS, _EVERY)
        )
        self.rounds = 0
        self.witness = Witness(*task.networks, task.region[row], int(task.classes[place]))
        row = slice(number, number + 1)
        self.known = CertificateResult(
            known.gap_upper[row],
            known.gap_lower[row],
            known.agrees[row],
            known.teacher_robust[row],
            known.student_robust[row],
        )
        self.ends = {
            "forth": _at_most_one(self.known.gap_upper),
            "back": _at_most_one(-self.known.gap_lower),
        }
        self.agrees = self.known.agrees
        self.trees: dict[str, Tree] = {}
        self.accord: Tree | None = None
        self.started, self.told = time.perf_counter(), 0.0
        #: When the time began and how much there is; None while domains are counted.
        self.until: tuple[float, float] | None = None

    @property
    def upper(self) -> float:
        """What is proved of |gap|."""
        return max(self.ends.values())

    @property
    def target(self) -> float:
        """Domains at most this need no splitting."""
        return max(self.witness.gap, 0.0) + self.budget.tolerance

    @property
    def _is_undecided(self) -> bool:
        """Whether agreement is neither proved nor refuted, where both predict the same class."""
        return (
            not bool(self.agrees)
            and bool(self.optimised.accord.same[self.number])
            and self.witness.disagreement is None
        )

    def run(self) -> None:
        """Narrow the gap and decide agreement; an open verdict gets half of each budget.

        First its number of domains, whatever they take, and then its time: what a number of domains
        proves is not lost where time is short.
        """
        self._tell()
        self.witness.climb(self.task.region.images[self.place : self.place + 1])
        self._spend()
        if self.budget.seconds > 0:
            self.until = time.perf_counter(), self.budget.seconds
            self._spend()
        self._tell()

    def _spend(self) -> None:
        """One of the budgets."""
        if self._is_undecided:
            self._narrow(_FIRST_SHARE)
            self._settle()
        self._narrow(1.0)

    def _narrow(self, share: float) -> None:
        """Split where the bracket of the gap is widest."""
        while self.upper > self.target:
            spent = sum(tree.evaluated for tree in self.trees.values())
            left = self._domains_left(spent, share)
            if left < 1:
                break
            self._tell()
            name = max(self.ends, key=lambda key: self.ends[key])
            if name not in self.trees:
                self.trees[name] = self._plant(name)
            tree = self.trees[name]
            has_more = tree.step(_batch(tree, left), self.node_steps, self.target)
            self._look(tree.points, self.witness.climb)
            self.ends[name] = min(self.ends[name], max(tree.upper, -1.0))
            if not has_more:
                break

    def _settle(self) -> None:
        """Decide agreement."""
        if not self._is_undecided or self._domains_left(0, 1.0) < 1:
            return
        predicted = int(self.optimised.accord.predicted[self.number])
        part = partial(self.witness.part, predicted=predicted)
        if self.accord is None:
            search, domains, state = self.optimised.accord.one(self.number)
            self.accord = Tree(search, search.exact[0], domains, state, self._memory)
            self.witness.look(self.accord.points)
            part(self.accord.points)
        tree = self.accord
        while tree.upper > IMPOSSIBLE and self._is_undecided:
            left = self._domains_left(tree.evaluated, 1.0)
            if left < 1:
                break
            self._tell()
            if not tree.step(_batch(tree, left), self.node_steps, IMPOSSIBLE):
                break
            self._look(tree.points, part)
        self.agrees = self.agrees | (tree.upper <= IMPOSSIBLE)

    def _look(self, points: Tensor, follow: Callable[[Tensor], None]) -> None:
        """Try a round's points as witnesses, and now and then look for better ones near them."""
        self.witness.look(points)
        self.rounds += 1
        if self.rounds % self.every == 0:
            follow(points[: self.starts])

    def _domains_left(self, spent: int, share: float) -> int:
        """How many domains may still be bounded; with a clock any number while this share of it lasts."""
        if self.until is None:
            return int(share * self.budget.domains) - spent
        since, seconds = self.until
        return 2 * _LARGEST_BATCH if time.perf_counter() < since + share * seconds else 0

    @property
    def _memory(self) -> int:
        """Bytes for each of an example's three trees, with as many examples beside it as are in work."""
        return self.budget.memory_mb * 2**20 // (3 * self.task.side_by_side)

    def _plant(self, name: str) -> Tree:
        every = self.optimised.forth if name == "forth" else self.optimised.back
        direction = every.one(self.number)
        search = direction.search(likely=_LIKELY)
        free = search.start(*direction.domains)
        known, free, _ = search.improve(direction.domains, direction.known, free, steps=self.steps)
        state = search.state(known, free)
        tree = Tree(search, direction.inputs, direction.domains, state, self._memory)
        self.witness.climb(tree.points)
        return tree

    def _tell(self) -> None:
        now = time.perf_counter()
        if now - self.told < _TELL_SECONDS:
            return
        self.told = now
        trees = [*self.trees.values(), *([] if self.accord is None else [self.accord])]
        self.task.tell(
            self.place,
            example=self.task.start + self.place,
            upper=self.upper,
            lower=max(self.witness.gap, 0.0),
            open=sum(tree.open for tree in trees),
            evaluated=sum(tree.evaluated for tree in trees),
            seconds=now - self.started,
        )

    def result(self) -> CertificateResult:
        """What is proved by now."""
        known, point = self.known, self.witness.point
        other = self.witness.disagreement
        return CertificateResult(
            gap_upper=known.gap_upper.clamp_max(self.ends["forth"]),
            gap_lower=known.gap_lower.clamp_min(-self.ends["back"]),
            agrees=self.agrees,
            teacher_robust=known.teacher_robust,
            student_robust=known.student_robust,
            points=torch.stack([point, point if other is None else other], 1),
        )


def _at_most_one(value: Tensor) -> float:
    """A bound of the gap as a number; NaN proves nothing."""
    return float(torch.nan_to_num(value, nan=1.0))


def _batch(tree: Tree, left: int) -> int:
    """Domains to split in a round; each makes two."""
    fitting = min(_LARGEST_BATCH, max(16, _ROUND_NUMBERS // tree.pool.row_numbers))
    return min(fitting, -(-left // 2))
