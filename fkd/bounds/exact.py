"""Level *exact*: branch and bound, anytime, within a time budget an example (stage 5).

After the tight level the set is split at signs of hidden units of either network, best domain first,
until the bracket is as narrow as asked or the time is up.  Both ends move: each round tries the points
where its bounds are attained as witnesses.  Every interruption leaves a valid bracket.

Sources: beta-CROWN, Wang et al. 2103.06624; branching score of Bunel et al. 1909.06588.
"""

from __future__ import annotations

import time

import torch
from pydantic import Field
from torch import Tensor

from fkd.bounds._agreement import IMPOSSIBLE
from fkd.bounds._optimised import Optimised
from fkd.bounds._tree import Tree
from fkd.bounds._witness import Witness
from fkd.bounds.base import CertificateResult
from fkd.bounds.fast import Task
from fkd.bounds.registry import CERTIFICATES
from fkd.bounds.tight import Tight, TightConfig
from fkd.core.errors import Cancelled

#: Classes that get rows of their own in each domain, search steps for each half.
_LIKELY, _STEPS = 5, 1
#: A round of splitting should take about this long: reports and cancelling wait for it.
_ROUND_SECONDS = 0.3
_FIRST_BATCH, _LARGEST_BATCH = 16, 512


class ExactConfig(TightConfig):
    """How long is branched."""

    name: str = Field(default="exact", description="Registry name of the certificate.")
    seconds: float = Field(
        default=10.0, ge=0.0, le=86400.0, description="Time budget of branching on an example."
    )
    tolerance: float = Field(
        default=0.001, gt=0.0, le=1.0, description="Stop when the bracket is this narrow."
    )
    memory_mb: int = Field(default=2048, ge=64, description="Memory for the open domains, in MiB.")


@CERTIFICATES.register("exact")
class Exact(Tight):
    """Branch and bound on the joint relaxation; values of its reports are the bracket in work."""

    Config = ExactConfig
    config: ExactConfig

    def finish(self, task: Task, start: int, optimised: Optimised) -> CertificateResult:
        """Branch on each example; one that is interrupted keeps what was proved."""
        known = optimised.result()
        parts: list[CertificateResult] = []
        for number in range(len(known.gap_upper)):
            example = _Example(self.config, task, start, optimised, known, number)
            try:
                example.run()
            except Cancelled as stop:
                rest = [
                    _Example(self.config, task, start, optimised, known, later).result()
                    for later in range(number + 1, len(known.gap_upper))
                ]
                stop.partial = CertificateResult.cat([*parts, example.result(), *rest])
                raise
            parts.append(example.result())
        return CertificateResult.cat(parts)


class _Example:
    """The bracket of one example, narrowed while there is time."""

    def __init__(
        self,
        config: ExactConfig,
        task: Task,
        start: int,
        optimised: Optimised,
        known: CertificateResult,
        number: int,
    ) -> None:
        self.config, self.task, self.optimised, self.number = config, task, optimised, number
        self.place = start + number
        row = slice(self.place, self.place + 1)
        self.witness = Witness(*task.networks, task.region[row], int(task.classes[self.place]))
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
        self.started, self.told = time.perf_counter(), 0.0

    @property
    def upper(self) -> float:
        """What is proved of |gap|."""
        return max(self.ends.values())

    @property
    def target(self) -> float:
        """Domains at most this need no splitting."""
        return max(self.witness.gap, 0.0) + self.config.tolerance

    def _time_left(self, share: float = 1.0) -> bool:
        """Whether this share of the budget lasts."""
        return time.perf_counter() < self.started + share * self.config.seconds

    @property
    def _is_undecided(self) -> bool:
        """Whether agreement is neither proved nor refuted, where both predict the same class."""
        return (
            not bool(self.agrees)
            and bool(self.optimised.accord.same[self.number])
            and self.witness.disagreement is None
        )

    def run(self) -> None:
        """Narrow the gap and decide agreement while there is time; an open verdict gets half of it."""
        self._tell()
        self.witness.climb(self.task.region.images[self.place : self.place + 1])
        if self._is_undecided:
            self._narrow(0.5)
            self._settle()
        self._narrow(1.0)
        self._tell()

    def _narrow(self, share: float) -> None:
        """Split where the bracket of the gap is widest."""
        batch = _FIRST_BATCH
        while self.upper > self.target and self._time_left(share):
            self._tell()
            name = max(self.ends, key=lambda key: self.ends[key])
            began = time.perf_counter()
            if name not in self.trees:
                self.trees[name] = self._plant(name)
            tree = self.trees[name]
            has_more = tree.step(batch, _STEPS, self.target)
            self.witness.look(tree.points)
            self.ends[name] = min(self.ends[name], max(tree.upper, -1.0))
            if not has_more:
                break
            batch = _next_batch(batch, time.perf_counter() - began)

    def _settle(self) -> None:
        """Decide agreement with what time is left."""
        if not self._is_undecided or not self._time_left():
            return
        search, domains, state = self.optimised.accord.one(self.number)
        tree = Tree(search, search.exact[0], domains, state, self._capacity(state))
        self.trees["agreement"] = tree
        self.witness.look(tree.points)
        batch = _FIRST_BATCH
        while tree.upper > IMPOSSIBLE and self._is_undecided and self._time_left():
            self._tell()
            began = time.perf_counter()
            if not tree.step(batch, _STEPS, IMPOSSIBLE):
                break
            self.witness.look(tree.points)
            batch = _next_batch(batch, time.perf_counter() - began)
        self.agrees = self.agrees | (tree.upper <= IMPOSSIBLE)

    def _capacity(self, state: dict[str, Tensor]) -> int:
        """Open domains that fit into the memory allowed."""
        row = sum(part[0].numel() * part.element_size() for part in state.values())
        return max(64, int(self.config.memory_mb * 2**20 / (3 * max(1, row))))

    def _plant(self, name: str) -> Tree:
        every = self.optimised.forth if name == "forth" else self.optimised.back
        direction = every.one(self.number)
        search = direction.search(likely=_LIKELY)
        free = search.start(*direction.domains)
        known, free, _ = search.improve(
            direction.domains, direction.known, free, steps=self.config.steps
        )
        state = search.state(known, free)
        tree = Tree(search, direction.inputs, direction.domains, state, self._capacity(state))
        self.witness.climb(tree.points)
        return tree

    def _tell(self) -> None:
        now = time.perf_counter()
        if now - self.told < _ROUND_SECONDS:
            return
        self.told = now
        self.task.tell(
            self.place,
            example=self.task.start + self.place,
            upper=self.upper,
            lower=max(self.witness.gap, 0.0),
            open=sum(tree.open for tree in self.trees.values()),
            evaluated=sum(tree.evaluated for tree in self.trees.values()),
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


def _next_batch(batch: int, seconds: float) -> int:
    if seconds < _ROUND_SECONDS / 2:
        return min(2 * batch, _LARGEST_BATCH)
    return max(4, batch // 2) if seconds > 2 * _ROUND_SECONDS else batch
