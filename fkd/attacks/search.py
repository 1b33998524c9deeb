"""Iterated local search for the largest gap and for a disagreement (`_hunt`).

The gap is climbed in both directions.  For a disagreement each network is asked alone to leave the class
that both predict at the image: on the way to where one has left it, the first to leave parts from the
other (`fkd.attacks.nearest`).  Where both left together, one is asked to stay while the other leaves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fkd.attacks._hunt import Effort, Hunt, Looked
from fkd.attacks.base import PairAttack, PairAttackConfig, Task
from fkd.attacks.best import Best
from fkd.attacks.goals import ConfidenceGap, Leaving, Parting, both_signs
from fkd.attacks.nearest import pulled
from fkd.attacks.registry import ATTACKS
from fkd.core.precision import logits_of

#: Streams of random numbers.
_GAP_STREAM, _PART_STREAM, _BEYOND_STREAM = 10_000, 30_000, 50_000


class SearchConfig(PairAttackConfig):
    """How long is searched."""

    name: str = Field(default="search", description="Registry name of the attack.")
    steps: int = Field(default=8, ge=1, le=2000, description="Gradient steps of a climb.")
    restarts: int = Field(
        default=8,
        ge=0,
        le=50,
        description="Random points looked at beside the image and relaxed corners.",
    )
    starts: int = Field(
        default=4,
        ge=1,
        le=50,
        description="How many of the best points looked at are climbed from, for each direction of the "
        "gap and each network.",
    )
    copies: int = Field(
        default=3,
        ge=1,
        le=64,
        description="Shaken copies of an example's best point that are climbed in a round.",
    )
    patience: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Rounds without a gain after which an example is done; more finds more.",
    )
    budget: int = Field(
        default=400,
        ge=1,
        le=1_000_000,
        description="Gradient evaluations of an example after which no further round begins, for the "
        "gap and for a disagreement each; more finds more where patience is raised too.",
    )
    seek: Literal["both", "gap", "disagreement"] = Field(
        default="both", description="What is searched: both, gap or disagreement."
    )
    corners: Literal["estimated", "certificate"] = Field(
        default="estimated",
        description="Ranges of hidden units behind the corners where relaxed networks differ most: "
        "estimated by what was seen, or those of a certificate, which takes several times as long.",
    )

    @property
    def effort(self) -> Effort:
        """The settings that say how long is searched."""
        names = Effort.__dataclass_fields__
        return Effort(**{name: getattr(self, name) for name in names})


@ATTACKS.register("search")
class LocalSearch(PairAttack):
    """Short climbs from where relaxed networks differ most, shaken and climbed again while that pays."""

    Config = SearchConfig
    config: SearchConfig
    takes_hints = True

    def _part_effort(self) -> Effort:
        """Half of starts and copies: one network alone is easily led astray, or not at all."""
        effort = self.config.effort
        return replace(effort, starts=-(-effort.starts // 2), copies=-(-effort.copies // 2))

    @property
    def wants_corners(self) -> bool:
        """See `PairAttack.wants_corners`."""
        return self.config.corners == "certificate"

    @property
    def rows_per_example(self) -> int:
        """Climbs at once."""
        return max(2 * self.config.starts, self.config.copies)

    def search(self, task: Task, best: Best) -> float:
        """See `PairAttack.search`."""
        seeks_gap = self.config.seek != "disagreement"
        seeks_disagreement = self.config.seek != "gap"

        def look(points: Tensor, teacher: Tensor, student: Tensor, examples: Tensor) -> None:
            if seeks_gap:
                best.look_at_gap(points, teacher, student, examples)
            if seeks_disagreement:
                best.look_at_margin(points, teacher, student, examples)

        hunt = Hunt(
            (task.teacher, task.student),
            task.region,
            seed=task.seed,
            effort=self.config.effort,
            tell=task.tell,
            look=look,
        )
        seen = hunt.candidates(task.classes, task.hints)
        if seeks_gap:
            goal = ConfidenceGap.both_ways(task.classes)
            hunt.run(goal, seen, stream=_GAP_STREAM, until=0.6 if seeks_disagreement else 1.0)
        if seeks_disagreement:
            _part(hunt, task, best, seen, self._part_effort())
        return hunt.gradients


def _part(hunt: Hunt, task: Task, best: Best, seen: Looked, effort: Effort) -> None:
    """A disagreement of the examples that have shown none in float64."""
    best.forget_margins(lambda points: [logits_of(each, points).argmax(1) for each in task.doubles])
    wanted = (best.margin == -torch.inf).nonzero()[:, 0]
    if not len(wanted):
        return
    predicted = task.clean[0].argmax(1)[wanted]
    of_teacher = torch.tensor([True, False], device=hunt.device).repeat(len(wanted))
    goal = Leaving(of_teacher, predicted.repeat_interleave(2))
    found = hunt.run(goal, seen[wanted], stream=_PART_STREAM, examples=wanted, effort=effort)
    # The first to leave on the way there parts from the other.
    left = (found.value > 0).nonzero()[:, 0]
    if not len(left):
        return
    rows = wanted[left]
    points, distance = pulled(task.doubles, task.region[rows], predicted[left], found.point[left])
    parts = distance.isfinite()
    best.take_margin(points[parts], rows[parts])
    if bool(parts.all()):
        return
    # Networks that share a boundary left together, for one class: beyond it they may still part.
    rows, left = rows[~parts], left[~parts]
    with torch.no_grad():
        beyond = task.teacher(found.point[left]).argmax(1)
    classes = torch.stack([predicted[left], beyond], 1).flatten()
    goal = Parting(both_signs(classes), classes.repeat_interleave(2))
    hunt.run(goal, seen[rows], stream=_BEYOND_STREAM, examples=rows)
