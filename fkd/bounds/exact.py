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
from torch import Tensor, nn

from fkd.bounds._agreement import IMPOSSIBLE
from fkd.bounds._optimised import Accord, Direction, Optimised
from fkd.bounds._pair import Pair
from fkd.bounds._tree import Tree
from fkd.bounds._witness import Witness
from fkd.bounds.base import CertificateResult
from fkd.bounds.crown import JointCrown
from fkd.bounds.fast import Foundation
from fkd.bounds.registry import CERTIFICATES
from fkd.bounds.tight import Tight, TightConfig
from fkd.core.ball import Region
from fkd.core.errors import Cancelled, UnsupportedModelError
from fkd.core.progress import ProgressCallback, report

#: Classes that get rows of their own in each domain, search steps for each half.
_LIKELY, _STEPS = 5, 1
#: A round of splitting should take about this long: reports and cancelling wait for it.
_ROUND_SECONDS = 0.3
_LARGEST_BATCH = 512


class ExactConfig(TightConfig):
    """How long is branched."""

    name: str = Field(default="exact", description="Registry name of the certificate.")
    seconds: float = Field(
        default=10.0, ge=0.0, le=86400.0, description="Time budget an example, in seconds."
    )
    tolerance: float = Field(
        default=0.001, gt=0.0, le=1.0, description="Stop when the bracket is this narrow."
    )
    memory_mb: int = Field(default=2048, ge=64, description="Memory for the open domains, in MiB.")


@CERTIFICATES.register("exact")
class Exact(Tight):
    """Branch and bound on the joint relaxation."""

    Config = ExactConfig
    config: ExactConfig

    def bound(
        self,
        teacher: nn.Module,
        student: nn.Module,
        region: Region,
        classes: Tensor,
        *,
        progress: ProgressCallback | None = None,
    ) -> CertificateResult:
        """See `Certificate.bound`; values of its reports are the bracket of the example in work.

        Raises:
            Cancelled: with what was proved so far as ``partial`` (trivial bounds where nothing was).
        """
        try:
            pair = Pair(teacher, student, region.images[:1])
        except UnsupportedModelError:
            general = JointCrown(self.config)
            return general.bound(teacher, student, region, classes, progress=progress)
        parts: list[CertificateResult] = []
        try:
            for number in range(len(region)):
                row = slice(number, number + 1)
                example = _Example(self.config, pair, (teacher, student), region[row], classes[row])
                try:
                    example.run(progress, number, len(region))
                finally:
                    parts.append(example.result())
        except Cancelled as stop:
            parts += [_nothing(region[k : k + 1]) for k in range(len(parts), len(region))]
            stop.partial = CertificateResult.cat(parts)
            raise
        report(progress, "certificate", len(region), len(region))
        return CertificateResult.cat(parts)


class _Example:
    """The bracket of one example, narrowed while there is time."""

    def __init__(
        self,
        config: ExactConfig,
        pair: Pair,
        networks: tuple[nn.Module, nn.Module],
        region: Region,
        classes: Tensor,
    ) -> None:
        self.started = time.perf_counter()
        self.config, self.region = config, region
        self.witness = Witness(*networks, region, int(classes[0]))
        self.witness.climb(region.images)
        self.foundation = Foundation(pair, region, classes, paired_steps=config.steps)
        self.known = self.foundation.result()
        self.agrees = self.known.agrees
        self.robust = self.known.teacher_robust, self.known.student_robust
        self.ends = {"forth": float(self.known.gap_upper), "back": -float(self.known.gap_lower)}
        self.trees: dict[str, Tree] = {}
        self.told = 0.0

    @property
    def upper(self) -> float:
        """What is proved of |gap|."""
        return max(self.ends.values())

    @property
    def target(self) -> float:
        """Domains at most this need no splitting."""
        return max(self.witness.gap, 0.0) + self.config.tolerance

    def run(self, progress: ProgressCallback | None, number: int, total: int) -> None:
        """Optimise, then branch."""
        end = self.started + self.config.seconds
        self._tell(progress, number, total)
        if self.upper <= self.target and bool(self.agrees):
            return
        optimised = Optimised(
            self.foundation, steps=self.config.steps, hidden_steps=self.config.hidden_steps
        )
        upper, lower = optimised.bracket()
        self.ends["forth"] = min(self.ends["forth"], float(upper))
        self.ends["back"] = min(self.ends["back"], -float(lower))
        self.robust = optimised.accord.teacher_robust, optimised.accord.student_robust
        self.agrees = optimised.accord.agrees
        directions = {"forth": optimised.forth, "back": optimised.back}
        batch = 16
        while self.upper > self.target and time.perf_counter() < end:
            self._tell(progress, number, total)
            name = max(self.ends, key=lambda key: self.ends[key])
            began = time.perf_counter()
            if name not in self.trees:
                self.trees[name] = self._plant(directions[name])
            tree = self.trees[name]
            has_more = tree.step(batch, _STEPS, self.target)
            self.witness.look(tree.points)
            self.ends[name] = min(self.ends[name], max(tree.upper, -1.0))
            if not has_more:
                break
            spent = time.perf_counter() - began
            batch = _next_batch(batch, spent)
        self._settle(optimised.accord, end, progress, number, total)
        self._tell(progress, number, total)

    def _settle(
        self,
        accord: Accord,
        end: float,
        progress: ProgressCallback | None,
        number: int,
        total: int,
    ) -> None:
        """Decide agreement with what time is left."""
        if bool(self.agrees) or not bool(accord.same) or self.witness.disagreement is not None:
            return
        state = {name: part[0] for name, part in accord.state.items()}
        tree = Tree(
            accord.search, accord.search.exact[0], accord.domains, state, self._capacity(state)
        )
        self.trees["agreement"] = tree
        self.witness.look(tree.points)
        batch = 16
        while tree.upper > IMPOSSIBLE and time.perf_counter() < end:
            self._tell(progress, number, total)
            began = time.perf_counter()
            if not tree.step(batch, _STEPS, IMPOSSIBLE):
                break
            self.witness.look(tree.points)
            if self.witness.disagreement is not None:
                return
            batch = _next_batch(batch, time.perf_counter() - began)
        self.agrees = self.agrees | (tree.upper <= IMPOSSIBLE)

    def _capacity(self, state: dict[str, Tensor]) -> int:
        """Open domains that fit into the memory allowed."""
        row = sum(part[0].numel() * part.element_size() for part in state.values())
        return max(64, int(self.config.memory_mb * 2**20 / (3 * row)))

    def _plant(self, direction: Direction) -> Tree:
        search = direction.search(likely=_LIKELY)
        free = search.start(*direction.domains)
        known, free, _ = search.improve(
            direction.domains, direction.known, free, steps=self.config.steps
        )
        state = search.state(known, free)
        tree = Tree(search, direction.inputs, direction.domains, state, self._capacity(state))
        self.witness.climb(tree.points)
        return tree

    def _tell(self, progress: ProgressCallback | None, number: int, total: int) -> None:
        now = time.perf_counter()
        if now - self.told < _ROUND_SECONDS:
            return
        self.told = now
        report(
            progress,
            "certificate",
            number,
            total,
            example=number,
            upper=self.upper,
            lower=max(self.witness.gap, 0.0),
            open=sum(tree.open for tree in self.trees.values()),
            evaluated=sum(tree.evaluated for tree in self.trees.values()),
            seconds=now - self.started,
        )

    def result(self) -> CertificateResult:
        """What is proved by now."""
        known = self.known
        return CertificateResult(
            gap_upper=known.gap_upper.clamp_max(self.ends["forth"]),
            gap_lower=known.gap_lower.clamp_min(-self.ends["back"]),
            agrees=self.agrees,
            teacher_robust=self.robust[0],
            student_robust=self.robust[1],
            points=self.witness.point,
        )


def _next_batch(batch: int, seconds: float) -> int:
    if seconds < _ROUND_SECONDS / 2:
        return min(2 * batch, _LARGEST_BATCH)
    return max(4, batch // 2) if seconds > 2 * _ROUND_SECONDS else batch


def _nothing(region: Region) -> CertificateResult:
    """Of one ball of which nothing was proved."""
    one = torch.ones(1, dtype=torch.float64, device=region.images.device)
    no = torch.zeros(1, dtype=torch.bool, device=region.images.device)
    return CertificateResult(one, -one, no, no.clone(), no.clone(), region.images)
