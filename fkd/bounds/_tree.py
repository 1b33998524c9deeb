"""Branch and bound on one example: best domain first, split at the sign of a hidden unit (stage 5)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from fkd.bounds._pool import Pool
from fkd.bounds.engine.domains import Back, Domains
from fkd.bounds.engine.inputs import InputSet

#: A state's slopes and multipliers, by network: ``theta.0.k`` belongs to stage k of the first one.
THETA_PREFIXES = ("theta.0.", "theta.1.")
_PARTS = ("lower", "upper", "signs")
#: Values of a choice's network where there is none.
_NOTHING, _PIXEL = -1, -2
#: Points tried as witnesses after each round.
_POINTS = 16
#: Images of at most this many pixels are split too, where all signs are known (stage 5).
_PIXELS = 16
#: Where nothing can be split any more: how often, and with how many steps, a domain is searched again.
_TRIES, _LAST_STEPS = 4, 40


@dataclass(frozen=True)
class Node:
    """What bounding D domains gives.

    Attributes:
        state: what to remember of each, tensors (D, ...).
        values: upper bounds, float64 (D,).
        weights: how the value moves with each row of both networks, (1, D, R) each.
        passes: both networks' backward passes.
        attained: coefficients on the image (D, C H W) of the weightiest row.
    """

    state: dict[str, Tensor]
    values: Tensor
    weights: tuple[Tensor, Tensor]
    passes: tuple[Back, Back]
    attained: Tensor


class Search(Protocol):
    """Bounds domains of one problem.

    Attributes:
        dtype: of its slopes and multipliers.
    """

    dtype: torch.dtype

    def node(
        self,
        domains: tuple[Domains, Domains],
        state: dict[str, Tensor],
        *,
        steps: int,
        rate: float,
        inputs: InputSet | None = None,
    ) -> Node:
        """Improve what is known of every domain by ``steps`` search steps.

        ``inputs``: a set for each domain where they differ, else all have the problem's.
        """


class Tree:
    """The open domains of one problem.

    Args:
        search: bounds domains.
        inputs: the set, of one example.
        domains: both networks' roots.
        state: the root's state.
        memory: most bytes of open domains.
    """

    def __init__(
        self,
        search: Search,
        inputs: InputSet,
        domains: tuple[Domains, Domains],
        state: dict[str, Tensor],
        memory: int,
    ) -> None:
        self.search, self.inputs = search, inputs
        self.stages = len(domains[0].lower), len(domains[1].lower)
        #: Largest value of a leaf that will not be split any more.
        self.closed = -torch.inf
        self.evaluated = 0
        node = search.node(domains, state, steps=0, rate=0.0)
        # NaN (an overflow) proves nothing: such a root is as bad as can be, and may still be split.
        node = replace(node, values=torch.nan_to_num(node.values, nan=torch.inf))
        rows = self._rows(domains, node, self._boxes(inputs))
        self.pool = Pool(rows, memory)
        self._keep(rows, node.values, -torch.inf)
        self.points = _corners(inputs, node)

    @property
    def upper(self) -> float:
        """What is proved now: the largest value of a leaf."""
        return max(self.pool.best(), self.closed)

    @property
    def open(self) -> int:
        """Leaves that may still be split."""
        return len(self.pool)

    def step(self, batch: int, steps: int, target: float, rate: float = 0.05) -> bool:
        """Split the best domains and bound both halves of each.

        Args:
            batch: domains to split at most.
            steps: search steps for the halves.
            target: domains at most this are closed.
            rate: first step of the search.

        Returns:
            Whether splitting could still lower the bound.
        """
        self.closed = max(self.closed, self.pool.drop_below(target))
        batch = min(batch, self.pool.capacity // 4)
        # Memory is full: the least of the open domains are given up, which costs nothing until the best
        # have come down to them.
        self.closed = max(self.closed, self.pool.drop_lowest(batch - self.pool.room))
        if self.pool.best() <= self.closed:
            return False
        rows, values = self.pool.take(batch)
        rows = {name: self._unpacked(name, part) for name, part in rows.items()}
        stuck = rows["choice"][:, 0] == _NOTHING
        if bool(stuck.any()):
            self._search_again(
                {name: part[stuck] for name, part in rows.items()}, values[stuck], target
            )
            rows = {name: part[~stuck] for name, part in rows.items()}
            values = values[~stuck]
            if not len(values):
                return self.open > 0
        domains, state = self._halves(rows)
        self._bound(domains, state, torch.cat([values, values]), target, steps=steps, rate=rate)
        return True

    def _search_again(self, rows: dict[str, Tensor], values: Tensor, target: float) -> None:
        """All signs are known: what is left is the output's relaxation, and the search's own slack."""
        rows["tries"] = rows["tries"] + 1
        over = rows["tries"] > _TRIES
        if bool(over.any()):
            self.closed = max(self.closed, float(values[over].max()))
            rows = {name: part[~over] for name, part in rows.items()}
            values = values[~over]
        if len(values):
            self._bound(self._sides(rows), rows, values, target, steps=_LAST_STEPS, rate=0.2)

    def _bound(
        self,
        domains: tuple[Domains, Domains],
        state: dict[str, Tensor],
        ceiling: Tensor,
        target: float,
        *,
        steps: int,
        rate: float,
    ) -> None:
        """Bound domains and keep those that are still open; none is above its ``ceiling``."""
        inputs = None
        if "box.lower" in state:
            inputs = replace_box(self.inputs, state["box.lower"], state["box.upper"])
        node = self.search.node(domains, state, steps=steps, rate=rate, inputs=inputs)
        # A half is a subset of what it came from; NaN proves nothing.
        node = replace(node, values=torch.fmin(node.values, ceiling))
        extra = {name: state[name] for name in ("box.lower", "box.upper", "tries") if name in state}
        self._keep(self._rows(domains, node, extra), node.values, target)
        self.points = _corners(self.inputs if inputs is None else inputs, node)

    def _boxes(self, inputs: InputSet) -> dict[str, Tensor]:
        """What a root knows beside its state: tries, and its box where images are small."""
        extra = {"tries": torch.zeros(1, dtype=torch.int64, device=inputs.lower.device)}
        if has_few_pixels(inputs.lower):
            extra |= {"box.lower": inputs.lower.flatten(1), "box.upper": inputs.upper.flatten(1)}
        return extra

    def _rows(
        self, domains: tuple[Domains, Domains], node: Node, extra: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        choice = choose(domains, node)
        if "box.lower" in extra:
            width = (extra["box.upper"] - extra["box.lower"]).clamp_min(0.0)
            reach = width * (node.attained.abs() + 1e-9)
            best, pixel = reach.max(1)
            split = (choice[:, 0] < 0) & (best > 1e-12)
            choice[split, 0] = _PIXEL
            choice[split, 2] = pixel[split]
        state = {name: _packed(name, part) for name, part in node.state.items()}
        return _domain_rows(domains) | state | extra | {"choice": choice}

    def _unpacked(self, name: str, part: Tensor) -> Tensor:
        return part.to(self.search.dtype) if name.startswith(THETA_PREFIXES) else part

    def _keep(self, rows: dict[str, Tensor], values: Tensor, target: float) -> None:
        self.evaluated += len(values)
        is_open = values > target
        if not bool(is_open.all()):
            self.closed = max(self.closed, float(values[~is_open].max()))
        self.pool.put({name: part[is_open] for name, part in rows.items()}, values[is_open])

    def _halves(self, rows: dict[str, Tensor]) -> tuple[tuple[Domains, Domains], dict[str, Tensor]]:
        """Every domain twice: its chosen unit active in the first half, inactive in the second.

        What was a lower slope of that unit is a multiplier in both halves, and starts at 0.
        """
        choice = rows["choice"]
        count = len(choice)
        rows = {name: torch.cat([part, part]) for name, part in rows.items()}
        which = (choice[:, 0] == _PIXEL).nonzero()[:, 0]
        if len(which):
            pixel = choice[which, 2]
            middle = (rows["box.lower"][which, pixel] + rows["box.upper"][which, pixel]) / 2
            rows["box.upper"][which, pixel] = middle
            rows["box.lower"][which + count, pixel] = middle
        for side in (0, 1):
            for k in range(self.stages[side]):
                which = ((choice[:, 0] == side) & (choice[:, 1] == k)).nonzero()[:, 0]
                unit = choice[which, 2]
                rows[f"{side}.lower.{k}"][which, unit] = 0.0
                rows[f"{side}.upper.{k}"][which + count, unit] = 0.0
                rows[f"{side}.signs.{k}"][which, unit] = 1
                rows[f"{side}.signs.{k}"][which + count, unit] = -1
                theta = rows[f"{THETA_PREFIXES[side]}{k}"]
                theta[which, :, unit] = 0.0
                theta[which + count, :, unit] = 0.0
        return self._sides(rows), rows

    def _sides(self, rows: dict[str, Tensor]) -> tuple[Domains, Domains]:
        sides = tuple(
            Domains(
                *(
                    tuple(rows[f"{side}.{name}.{k}"][None] for k in range(self.stages[side]))
                    for name in _PARTS
                )
            )
            for side in (0, 1)
        )
        return sides[0], sides[1]


def _packed(name: str, part: Tensor) -> Tensor:
    """Slopes and multipliers, nearly all of a domain, in half precision: any value of theirs is sound."""
    if not name.startswith(THETA_PREFIXES):
        return part
    return part.clamp(max=torch.finfo(torch.float16).max).to(torch.float16)


def has_few_pixels(images: Tensor) -> bool:
    """Whether images (N, C, H, W) are split too."""
    return images[0].numel() <= _PIXELS


def replace_box(inputs: InputSet, lower: Tensor, upper: Tensor) -> InputSet:
    """A set for each domain: the only problem's, cut with boxes (D, C H W)."""
    shape = inputs.lower.shape[1:]
    count = len(lower)
    lower, upper = lower.unflatten(1, shape), upper.unflatten(1, shape)
    if inputs.images is None:
        return InputSet(lower, upper)
    return InputSet(
        lower,
        upper,
        inputs.images.expand(count, -1, -1, -1),
        inputs.radius.expand(count),
        inputs.scale,
    )


def _domain_rows(domains: tuple[Domains, Domains]) -> dict[str, Tensor]:
    return {
        f"{side}.{name}.{k}": tensor[0]
        for side, part in enumerate(domains)
        for name in _PARTS
        for k, tensor in enumerate(getattr(part, name))
    }


def choose(domains: tuple[Domains, Domains], node: Node) -> Tensor:
    """The unit to split in each domain: network, stage, unit, int64 (D, 3).

    Score: ``max(A_h, 0) (-l u) / (u - l)`` over the rows, as the bound moves with them: what the
    upper line's intercept costs.  (Lower lines are optimised, and counting them as stage 5's ``|A_h|``
    does was worse on every pair tried: 0.15 against 0.10 after the same time.  Trying the best 8 or 24
    units on the weightiest row first did not help either: 0.348 and 0.351 against 0.347 after 512
    domains.)  -1 where no unit is open.
    """
    scores, labels = [], []
    for side, (part, rows, passed) in enumerate(
        zip(domains, node.weights, node.passes, strict=True)
    ):
        for k, outputs in enumerate(passed.outputs):
            lower, upper = part.lower[k][0], part.upper[k][0]
            is_open = (lower < 0) & (upper > 0)
            area = torch.where(is_open, -lower * upper / (upper - lower).clamp_min(1e-30), 0.0)
            reach = torch.einsum("dr,drn->dn", rows[0], outputs[0].clamp_min(0.0))
            # Where no row tells, the widest triangle goes first.
            scores.append(reach * area + 1e-9 * area)
            unit = torch.arange(lower.shape[1], device=lower.device)
            place = torch.full_like(unit, side), torch.full_like(unit, k), unit
            labels.append(torch.stack(place, 1))
    if not scores:
        return torch.full((len(node.values), 3), _NOTHING, device=node.values.device)
    best, place = torch.cat(scores, 1).max(1)
    chosen = torch.cat(labels)[place]
    chosen[best <= 0] = _NOTHING
    return chosen


def _corners(inputs: InputSet, node: Node) -> Tensor:
    """Points (M, C, H, W) where the best halves' bounds are attained: candidates for a witness.

    ``inputs``: the only problem's set, or one a domain.
    """
    best = node.values.argsort(descending=True)[:_POINTS]
    own = inputs if len(inputs) == 1 else inputs[best]
    return own.attained(node.attained[best])
