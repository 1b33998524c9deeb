"""What optimising proves of some sets: the tight level, and the roots of the exact level's trees."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from fkd.bounds._agreement import IMPOSSIBLE, AgreementSearch, Threats
from fkd.bounds._gap_search import GapSearch, Known
from fkd.bounds._lines import Lines
from fkd.bounds._passes import Passes
from fkd.bounds.base import CertificateResult
from fkd.bounds.engine.domains import Domains
from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.intervals import other_classes
from fkd.bounds.engine.reduced import Reduced
from fkd.bounds.fast import Foundation

#: An example's first half of the search that lowered its bound by less than this is its last.
_STALLED = 1e-4


class Direction:
    """One direction of the gap, P over Q, optimised on the whole sets.

    Each set is searched until its bound is as low as asked or stalls, sets of open agreement to the end:
    their margins matter as well.

    Args:
        inputs: the sets.
        reduced: P and Q.
        passes: of P and Q.
        classes: int64 (N,), the compared class.
        lines: what is known already.
        target: bounds at most this, (N,), are low enough.
        is_open: sets whose agreement is open, bool (N,).
        steps: of the search.
    """

    def __init__(
        self,
        inputs: InputSet,
        reduced: tuple[Reduced, Reduced],
        passes: tuple[Passes, Passes],
        classes: Tensor,
        lines: Lines,
        target: Tensor,
        is_open: Tensor,
        steps: int,
    ) -> None:
        self.inputs, self.reduced, self.passes, self.classes = inputs, reduced, passes, classes
        self.domains = Domains.root(reduced[0]), Domains.root(reduced[1])
        self.known = Known(lines, passes[1].margins[1][:, None].clone())
        free, bound = None, self.gap()
        rows = (is_open | ~(bound <= target)).nonzero()[:, 0]
        # Twice: the second search's support line touches where the first one's bound is attained.
        for _ in range(2):
            if not len(rows):
                break
            part = self[rows]
            search = part.search(likely=reduced[0].bias.shape[1])
            free = search.start(*part.domains) if free is None else free
            found, free, _ = search.improve(part.domains, part.known, free, steps=steps // 2)
            self.known = self.known.put(rows, found)
            before, bound = bound[rows], self.gap()
            has_moved = ~(before - bound[rows] < _STALLED)
            again = is_open[rows] | (has_moved & ~(bound[rows] <= target[rows]))
            rows, free = rows[again], free.map(lambda tensor, again=again: tensor[again])

    def __getitem__(self, rows: Tensor | slice) -> Direction:
        """Of some of the sets."""
        part = copy.copy(self)
        part.inputs, part.classes = self.inputs[rows], self.classes[rows]
        part.reduced = self.reduced[0][rows], self.reduced[1][rows]
        part.passes = self.passes[0][rows], self.passes[1][rows]
        part.known = self.known[rows]
        part.domains = Domains.root(part.reduced[0]), Domains.root(part.reduced[1])
        return part

    def one(self, number: int) -> Direction:
        """Of one of the sets alone, without the padding that the others asked for."""
        part = self[slice(number, number + 1)]
        part.reduced = part.reduced[0].trimmed(), part.reduced[1].trimmed()
        part.domains = Domains.root(part.reduced[0]), Domains.root(part.reduced[1])
        return part

    def search(self, *, likely: int) -> GapSearch:
        """A search over domains of these sets, with rows for ``likely`` classes of Q."""
        above, below = self.passes
        return GapSearch(
            self.inputs,
            *self.reduced,
            self.classes,
            above.side.margins,
            below.side.margins,
            below.margins[0],
            likely=likely,
        )

    def gap(self) -> Tensor:
        """Upper bound of p_P - p_Q, (N,)."""
        return self.known.lines.gap()


class Accord:
    """Agreement, optimised on the whole sets; for all sets, decided ones included.

    Args:
        foundation: what the fast level proves.
        inputs: the sets.
        reduced: teacher and student.
        directions: both directions, which know more of the margins.
        steps: of the search.
    """

    def __init__(
        self,
        foundation: Foundation,
        inputs: InputSet,
        reduced: tuple[Reduced, Reduced],
        directions: tuple[Direction, Direction],
        steps: int,
    ) -> None:
        predicted, other = foundation.predictions
        self.same = predicted == other
        can = [_can_predict(foundation, predicted, side, directions[1 - side]) for side in (0, 1)]
        self.teacher_robust = foundation.teacher_robust | (can[0].sum(1) == 1)
        self.student_robust = foundation.student_robust | ((can[1].sum(1) == 1) & self.same)
        self.threats = Threats.of(*can)
        self.inputs, self.reduced, self.predicted = inputs, reduced, predicted
        search = AgreementSearch(inputs, *reduced, predicted, self.threats)
        domains = Domains.root(reduced[0]), Domains.root(reduced[1])
        state = search.start(domains)
        wanted = self.threats.is_real.any(1) & self.same & ~foundation.agrees
        if bool(wanted.any()):
            state, _, _ = search.improve(domains, state, steps=steps)
        self.state = state
        impossible = (state["worst"][:, 0] <= IMPOSSIBLE).all(1)
        self.agrees = self.same & (foundation.agrees | impossible)

    def one(
        self, number: int
    ) -> tuple[AgreementSearch, tuple[Domains, Domains], dict[str, Tensor]]:
        """A search, roots and state for one of the sets alone, with the threats still open there."""
        row = slice(number, number + 1)
        reduced = self.reduced[0][row].trimmed(), self.reduced[1][row].trimmed()
        worst = self.state["worst"][number, 0]
        alive = worst > IMPOSSIBLE
        threats = Threats(
            self.threats.teacher[row][:, alive],
            self.threats.student[row][:, alive],
            self.threats.is_real[row][:, alive],
        )
        search = AgreementSearch(self.inputs[row], *reduced, self.predicted[row], threats)
        domains = Domains.root(reduced[0]), Domains.root(reduced[1])
        state = search.start(domains)
        state["mix"] = self.state["mix"][row][:, :, alive].clone()
        state["worst"] = self.state["worst"][row][:, :, alive]
        return search, domains, {name: part[0] for name, part in state.items()}


def _can_predict(
    foundation: Foundation, predicted: Tensor, side: int, direction: Direction
) -> Tensor:
    """Classes that one network might predict somewhere in the sets, bool (N, K)."""
    count = foundation.logits[0].shape[1]
    can = torch.ones(len(predicted), count, dtype=torch.bool, device=predicted.device)
    # Margins are about the compared class; of sets where another class is predicted nothing is known.
    about = predicted == foundation.classes
    never = (direction.known.margins[:, 0] < 0) & about[:, None]
    can.scatter_(1, other_classes(foundation.classes, count), ~never)
    robust = (foundation.teacher_robust, foundation.student_robust)[side]
    only = torch.nn.functional.one_hot(predicted, count).bool()
    return torch.where(robust[:, None], only, can)


class Optimised:
    """Hidden bounds, then both directions and agreement, optimised.

    Args:
        foundation: what the fast level proves.
        tolerance: brackets of the gap this narrow need no search.
        steps: of the search for each direction.
        hidden_steps: of the search for each hidden layer.
    """

    def __init__(
        self, foundation: Foundation, *, tolerance: float, steps: int, hidden_steps: int
    ) -> None:
        self.foundation = foundation
        inputs, teacher, student = foundation.reduced(hidden_steps)
        passes = foundation.passes[0]
        target, is_open = foundation.gap_here + tolerance, ~foundation.is_decided
        self.forth = Direction(
            inputs,
            (teacher, student),
            passes,
            foundation.classes,
            foundation.forth,
            target,
            is_open,
            steps,
        )
        self.back = Direction(
            inputs,
            (student, teacher),
            (passes[1], passes[0]),
            foundation.classes,
            foundation.back,
            target,
            is_open,
            steps,
        )
        self.accord = Accord(foundation, inputs, (teacher, student), (self.forth, self.back), steps)

    def result(self) -> CertificateResult:
        """The tight level's answer."""
        known = self.foundation.result()
        return CertificateResult(
            gap_upper=torch.fmin(self.forth.gap(), known.gap_upper),
            gap_lower=torch.fmax(-self.back.gap(), known.gap_lower),
            agrees=self.accord.agrees,
            teacher_robust=self.accord.teacher_robust,
            student_robust=self.accord.student_robust,
        )
