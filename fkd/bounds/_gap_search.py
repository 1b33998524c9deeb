"""One direction of the gap, ``sup p_P - p_Q``, optimised over many domains at once (stages 4 and 5).

Rows of each domain, all with their own slopes: Q's margins alone (a lower end of a_Q), P's ``lambda . m``
alone (an upper end of a_P), and one support line of slope rho made twice, by rows
``m^Q_j - rho lambda^j . m^P`` (F1, F2) and by the single chord row.  lambda is optimised with the slopes.
Only Q's likely classes get rows; what the others can add is bounded from what is known of them alone.

Searched in the search type (float32), then evaluated once in float64 with everything frozen and widened
by the proved rounding error: only that evaluation counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fkd.bounds._lines import Lines
from fkd.bounds._tree import THETA_PREFIXES as _THETA
from fkd.bounds._tree import Node
from fkd.bounds.engine.descent import minimise
from fkd.bounds.engine.domains import Back, Domains, Slopes, back, clamp_theta, highest
from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.intervals import margin_rows
from fkd.bounds.engine.reduced import Reduced
from fkd.bounds.engine.slack import rounding
from fkd.bounds.finish import chord, entropy, raised, tangent_slope

_LINE_NAMES = ("amin_p", "amax_p", "amin_q", "slopes", "shifts")
#: Cells of the finish for nodes of a tree.
NODE_CELLS = 192
#: Support lines that a node keeps: the first, at slope 1, and the latest.
_LINES = 4


@dataclass(frozen=True)
class Free:
    """What is optimised, in the search type.

    Attributes:
        above: theta of P's rows (own, one for each likely class, own joint), a tensor a stage.
        below: theta of Q's rows (alone, joint, chord).
        lean: logits of lambda^j of every class j, (E, D, K-1, K-1).
        own: logits of lambda for the two single rows, (E, D, 2, K-1).
    """

    above: tuple[Tensor, ...]
    below: tuple[Tensor, ...]
    lean: Tensor
    own: Tensor

    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [*self.above, *self.below, self.lean, self.own]

    def map(self, change: Callable[[Tensor], Tensor]) -> Free:
        """Every tensor changed."""
        return Free(
            tuple(change(part) for part in self.above),
            tuple(change(part) for part in self.below),
            change(self.lean),
            change(self.own),
        )


@dataclass(frozen=True)
class Known:
    """What is proved of a batch of domains.

    Attributes:
        lines: of all domains, flattened (E D,).
        margins: upper bounds of Q's margins, (E, D, K-1).
    """

    lines: Lines
    margins: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Known:
        """Of some problems, with one domain each."""
        return Known(self.lines[rows], self.margins[rows])

    def put(self, rows: Tensor, other: Known) -> Known:
        """With what is known now of problems ``rows``, with one domain each."""
        return Known(
            self.lines.put(rows, other.lines), self.margins.index_put((rows,), other.margins)
        )


class GapSearch:
    """Direction P over Q on E problems.

    Args:
        inputs: the sets.
        above: P.
        below: Q.
        classes: int64 (E,), c.
        margins_above: P's margins at the images, (E, K-1).
        margins_below: Q's.
        below_lower: proved lower bounds of Q's margins, (E, K-1).
        likely: J, how many of Q's classes get rows of their own in each domain.
        dtype: of the search.
    """

    def __init__(
        self,
        inputs: InputSet,
        above: Reduced,
        below: Reduced,
        classes: Tensor,
        margins_above: Tensor,
        margins_below: Tensor,
        below_lower: Tensor,
        *,
        likely: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.exact = (inputs, above, below)
        self.fast = (inputs.to(dtype), above.to(dtype), below.to(dtype))
        self.dtype = dtype
        count = above.bias.shape[1]
        self.rows = margin_rows(classes, count, inputs.lower)
        self.margins = margins_above, margins_below
        self.below_lower = below_lower
        self.likely = min(likely, count - 1)

    def node(
        self,
        domains: tuple[Domains, Domains],
        state: dict[str, Tensor],
        *,
        steps: int,
        rate: float,
        inputs: InputSet | None = None,
    ) -> Node:
        """`improve` for nodes of a tree: state in, state and values out; of one problem."""
        free = self._free(state)
        lines = Lines(*(state[name] for name in _LINE_NAMES))
        known = Known(lines, state["margins"][None])
        known, free, found = self.improve(
            domains, known, free, steps=steps, rate=rate, inputs=inputs
        )
        return Node(
            self.state(known, free),
            known.lines.gap(NODE_CELLS),
            found.weights(known),
            found.uppers.outputs,
            found.attained(),
        )

    def _free(self, state: dict[str, Tensor]) -> Free:
        counts = [sum(name.startswith(prefix) for name in state) for prefix in _THETA]
        above, below = (
            tuple(state[f"{prefix}{k}"][None] for k in range(count))
            for prefix, count in zip(_THETA, counts, strict=True)
        )
        return Free(above, below, state["lean"][None], state["own"][None])

    def state(self, known: Known, free: Free) -> dict[str, Tensor]:
        """What a node of a tree has to remember, one row a domain, of one problem."""
        lines = trimmed(known.lines)
        rows = {name: getattr(lines, name) for name in _LINE_NAMES}
        rows |= {"margins": known.margins[0], "lean": free.lean[0], "own": free.own[0]}
        for prefix, parts in zip(_THETA, (free.above, free.below), strict=True):
            rows |= {f"{prefix}{k}": part[0] for k, part in enumerate(parts)}
        return rows

    def start(self, above: Domains, below: Domains) -> Free:
        """Where a search starts: least-area slopes, lambda^j leaning towards j."""
        slopes = Slopes.of(above.to(self.dtype)), Slopes.of(below.to(self.dtype))
        counts = self.likely + 2, 2 * self.likely + 2
        theta = [
            tuple(slope.start(k).expand(-1, -1, rows, -1).clone() for k in range(len(slope.slope)))
            for slope, rows in zip(slopes, counts, strict=True)
        ]
        domains = _count(above, below)
        margins = self.margins[0].to(self.dtype)
        eye = 4.0 * torch.eye(margins.shape[1], dtype=self.dtype, device=margins.device)
        lean = margins[:, None, :] + eye
        own = margins[:, None, :].expand(-1, 2, -1)
        return Free(
            theta[0],
            theta[1],
            lean[:, None].expand(-1, domains, -1, -1).clone(),
            own[:, None].expand(-1, domains, -1, -1).clone(),
        )

    def _uppers(
        self,
        free: Free,
        slopes: tuple[Slopes, Slopes],
        rho: Tensor,
        chords: tuple[Tensor, Tensor],
        likely: Tensor,
        own_inputs: tuple[InputSet, InputSet] | None,
        *,
        exact: bool,
    ) -> Uppers:
        """Upper bounds of all rows of all domains (differentiable when searching)."""
        inputs, above, below = self.exact if exact else self.fast
        dtype = torch.float64 if exact else self.dtype
        if exact:
            free = free.map(lambda part: part.double())
        rho = rho.to(dtype)
        index = likely[..., None]
        lean = torch.softmax(free.lean.gather(2, index.expand(-1, -1, -1, free.lean.shape[3])), 3)
        own = torch.softmax(free.own, 3)
        rows = self.rows.to(dtype)[:, None]
        mine = torch.cat([-own[:, :, :1] @ rows, -lean @ rows, -own[:, :, 1:] @ rows], 2)
        each = rows.expand(-1, likely.shape[1], -1, -1)
        each = each.gather(2, index.expand(-1, -1, -1, rows.shape[3]))
        single = chords[0].to(dtype)[:, :, None] @ rows
        theirs = torch.cat([each, single, each, single], 2)
        count = likely.shape[2] + 1
        over = back(above, slopes[0], mine, list(free.above))
        under = back(below, slopes[1], theirs, list(free.below))
        steep = rho[:, :, None]
        joint_pixels = under.pixels[:, :, count:] + rho[:, :, None, None] * over.pixels[:, :, 1:]
        joint_constant = under.constant[:, :, count:] + steep * over.constant[:, :, 1:]
        pixels = torch.cat([over.pixels[:, :, :1], under.pixels[:, :, :count], joint_pixels], 2)
        constant = torch.cat(
            [over.constant[:, :, :1], under.constant[:, :, :count], joint_constant], 2
        )
        if exact:
            slack_mine = rounding(above, mine, free.above, slopes[0])
            slack_theirs = rounding(below, theirs, free.below, slopes[1])
            constant = constant + torch.cat(
                [
                    slack_mine[:, :, :1],
                    slack_theirs[:, :, :count],
                    slack_theirs[:, :, count:] + steep * slack_mine[:, :, 1:],
                ],
                2,
            )
        if own_inputs is not None:
            inputs = own_inputs[0 if exact else 1]
        upper = highest(inputs, pixels, constant)
        return Uppers(
            own=upper[:, :, 0] - entropy(own[:, :, 0]),
            alone=upper[:, :, 1:count],
            single=upper[:, :, count] + chords[1].to(dtype),
            leaning=upper[:, :, 1 + count : -1] - steep * entropy(lean),
            chord=upper[:, :, -1] - rho * entropy(own[:, :, 1]) + chords[1].to(dtype),
            pixels=pixels,
            outputs=(over, under),
        )

    def improve(
        self,
        domains: tuple[Domains, Domains],
        known: Known,
        free: Free,
        *,
        steps: int,
        rate: float = 0.1,
        inputs: InputSet | None = None,
    ) -> tuple[Known, Free, Found]:
        """Search ``steps`` steps, evaluate once, and add what that proves to ``known``.

        ``inputs``: a set for each domain of the only problem, where they differ.
        """
        own = None if inputs is None else (inputs, inputs.to(self.dtype))
        shape = known.margins.shape[:2]
        slopes = tuple(Slopes.of(part.to(self.dtype)) for part in domains)
        rho = tangent_slope(known.lines.where()).view(shape)
        chords = self._chords(known.margins)
        # In order of class, so that a row keeps its slopes while the choice stays.
        likely = known.margins.topk(self.likely, dim=2).indices.sort(dim=2).values
        if steps:
            free = self._descend(free, slopes, (rho, chords, likely, own), steps, rate)
        with torch.no_grad():
            exact = tuple(Slopes.of(part) for part in domains)
            uppers = self._uppers(free, exact, rho, chords, likely, own, exact=True)
            proved = self._conclude(known, uppers, rho, likely)
        return proved, free, Found(uppers, rho)

    def _descend(
        self,
        free: Free,
        slopes: tuple[Slopes, Slopes],
        rows: tuple[Tensor, tuple[Tensor, Tensor], Tensor, tuple[InputSet, InputSet] | None],
        steps: int,
        rate: float,
    ) -> Free:
        free = free.map(lambda part: part.detach().clone())
        thetas = [*free.above, *free.below]

        def settle() -> None:
            clamp_theta(list(free.above), slopes[0])
            clamp_theta(list(free.below), slopes[1])

        minimise(
            free.tensors(),
            [rate] * len(thetas) + [3 * rate] * 2,
            steps,
            lambda: self._uppers(free, slopes, *rows, exact=False).total(),
            settle,
        )
        return free

    def _chords(self, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (E, D, K-1) and constants (E, D) of chords of logsumexp on Q's margins' box."""
        lower = self.below_lower[:, None].expand_as(upper)
        at = self.margins[1][:, None].expand_as(upper)
        weights, constant = chord(torch.minimum(lower, upper), upper, at)
        usable = torch.isfinite(weights).all(2) & torch.isfinite(constant)
        # Where the box is too wide for float64 the line below says nothing.
        weights = torch.where(usable[:, :, None], weights, 0.0)
        return weights, torch.where(usable, constant, torch.inf)

    def _conclude(self, known: Known, uppers: Uppers, rho: Tensor, likely: Tensor) -> Known:
        margins = known.margins.scatter_reduce(2, likely, uppers.alone, "amin", include_self=True)
        amin_q = -raised(torch.fmin(torch.logsumexp(margins, 2), uppers.single))
        amax_p = torch.fmin(raised(uppers.own), known.lines.amax_p.view(rho.shape))
        # What the classes without rows can add: Q's margin and P's log-odds apart.
        rest = (margins + (rho * amax_p)[:, :, None]).scatter(2, likely, -torch.inf)
        by_rows = torch.logsumexp(torch.cat([uppers.leaning, rest], 2), 2)
        shift = raised(torch.fmin(by_rows, uppers.chord))
        lines = known.lines.narrowed(amax_p.flatten(), amin_q.flatten())
        return Known(lines.also(rho.flatten(), shift.flatten()), margins)


@dataclass(frozen=True)
class Uppers:
    """Upper bounds of all rows of all domains.

    Attributes:
        own: of a_P, (E, D).
        alone: of Q's likely margins, (E, D, J).
        single: of -a_Q by the chord row, (E, D).
        leaning: h_j, (E, D, J).
        chord: of rho a_P - a_Q by the chord row, (E, D).
        pixels: coefficients on the image of all rows, (E, D, 2 J + 3, C H W).
        outputs: the two backward passes.
    """

    own: Tensor
    alone: Tensor
    single: Tensor
    leaning: Tensor
    chord: Tensor
    pixels: Tensor
    outputs: tuple[Back, Back]

    def total(self) -> Tensor:
        """The sum of all rows: each has slopes of its own, so each is minimised."""
        chords = torch.stack([self.chord, self.single])
        chords = torch.where(torch.isfinite(chords), chords, 0.0)
        return self.own.sum() + self.alone.sum() + self.leaning.sum() + chords.sum()


@dataclass(frozen=True)
class Found:
    """By-products of an evaluation: what rows are worth, and what reached which unit."""

    uppers: Uppers
    rho: Tensor

    def weights(self, known: Known) -> tuple[Tensor, Tensor]:
        """How the bound moves with each row of P (E, D, J + 2) and of Q (E, D, 2 J + 2)."""
        shape = self.rho.shape
        top, floor, shift = (part.view(shape) for part in known.lines.sensitivity(NODE_CELLS))
        uppers = self.uppers
        by_rows = torch.logsumexp(uppers.leaning, 2) < uppers.chord
        by_single = uppers.single < torch.logsumexp(known.margins, 2)
        alone = (floor * ~by_single)[:, :, None] * torch.softmax(uppers.alone, 2)
        leaning = (shift * by_rows)[:, :, None] * torch.softmax(uppers.leaning, 2)
        chord = (shift * ~by_rows)[:, :, None]
        rho = self.rho[:, :, None]
        over = torch.cat([top[:, :, None], rho * leaning, rho * chord], 2)
        under = torch.cat([alone, (floor * by_single)[:, :, None], leaning, chord], 2)
        return over, under

    def attained(self) -> Tensor:
        """Coefficients on the image of the support line's weightiest row, (D, C H W), of one problem."""
        uppers = self.uppers
        joint = uppers.pixels[0, :, 2 + uppers.alone.shape[2] :]
        by_rows = torch.logsumexp(uppers.leaning[0], 1) < uppers.chord[0]
        last = uppers.leaning.shape[2]
        row = torch.where(by_rows, uppers.leaning[0].argmax(1), last)
        return joint[torch.arange(len(row), device=row.device), row]


def _count(above: Domains, below: Domains) -> int:
    """Domains of each problem (a network without open units has no stages to tell)."""
    parts = (*above.lower, *below.lower)
    return parts[0].shape[1] if parts else 1


def trimmed(lines: Lines) -> Lines:
    """The first line and the latest ones, always the same number."""
    missing = max(0, _LINES - lines.slopes.shape[1])
    parts = []
    for part in (lines.slopes, lines.shifts):
        first = part[:, :1]
        latest = part[:, max(1, part.shape[1] - _LINES + 1) :]
        parts.append(torch.cat([first, first.expand(-1, missing), latest], 1))
    return Lines(lines.amin_p, lines.amax_p, lines.amin_q, *parts)
