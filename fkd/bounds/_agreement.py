"""Agreement, proved jointly over pairs of classes (the Farkas test of the mathematics' notes).

"T says i and S says j" happens at a point only if ``z^T_i >= z^T_k`` and ``z^S_j >= z^S_k`` for all k.
So it is impossible on a set when for some weights mu, nu >= 0 of sum 1

    sup  sum_k mu_k (z^T_i - z^T_k) + sum_k nu_k (z^S_j - z^S_k)  <  0,

a single joint row, whose weights are optimised together with the slopes.  The predictions are equal on
the set when every pair i != j is impossible: strictly more than both networks being robust.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fkd.bounds._tree import THETA_PREFIXES, Node
from fkd.bounds.engine.descent import minimise
from fkd.bounds.engine.domains import Back, Domains, Slopes, back, clamp_theta, highest
from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.reduced import Reduced
from fkd.bounds.engine.slack import rounding

#: A pair is impossible when its row's bound is at most this: below 0 by more than nothing.
IMPOSSIBLE = -1e-9
_START_LOGIT = 4.0


@dataclass(frozen=True)
class Threats:
    """Pairs of classes that the two networks might predict, padded to R a problem.

    Attributes:
        teacher: i, int64 (E, R).
        student: j, int64 (E, R).
        is_real: False for padding, bool (E, R).
    """

    teacher: Tensor
    student: Tensor
    is_real: Tensor

    @classmethod
    def of(cls, teacher_can: Tensor, student_can: Tensor) -> Threats:
        """From which classes each network might predict, bool (E, K) each."""
        count = teacher_can.shape[1]
        possible = teacher_can[:, :, None] & student_can[:, None, :]
        possible &= ~torch.eye(count, dtype=torch.bool, device=possible.device)
        flat = possible.flatten(1)
        most = max(1, int(flat.sum(1).max()))
        order = flat.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        return cls(order // count, order % count, flat.gather(1, order))


class AgreementSearch:
    """Bounds the rows of all threats on E problems.

    Args:
        inputs: the sets.
        teacher: reduced on them.
        student: the same.
        predicted: int64 (E,), the class that both predict at the image.
        threats: the pairs.
        dtype: of the search.
    """

    def __init__(
        self,
        inputs: InputSet,
        teacher: Reduced,
        student: Reduced,
        predicted: Tensor,
        threats: Threats,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.exact = inputs, teacher, student
        self.fast = inputs.to(dtype), teacher.to(dtype), student.to(dtype)
        self.dtype, self.predicted, self.threats = dtype, predicted, threats
        self.count = teacher.bias.shape[1]

    def start(self, domains: tuple[Domains, Domains]) -> dict[str, Tensor]:
        """State of the roots, tensors (E, 1, ...): least-area slopes, weights on the likely rows."""
        state: dict[str, Tensor] = {}
        rows = self.threats.teacher.shape[1]
        for prefix, part in zip(THETA_PREFIXES, domains, strict=True):
            slopes = Slopes.of(part.to(self.dtype))
            for k in range(len(part.lower)):
                state[f"{prefix}{k}"] = slopes.start(k).expand(-1, -1, rows, -1).clone()
        state["mix"] = self._likely_weights()[:, None]
        worst = torch.where(self.threats.is_real, torch.inf, -torch.inf).double()
        state["worst"] = worst[:, None]
        return state

    def _likely_weights(self) -> Tensor:
        """Logits of (mu, nu), (E, R, 2 K): on the margin against the prediction, and on each other."""
        teacher, student = self.threats.teacher, self.threats.student
        predicted = self.predicted[:, None].expand_as(teacher)
        logits = torch.zeros(
            *teacher.shape, 2 * self.count, dtype=self.dtype, device=teacher.device
        )
        for own, other, offset in ((teacher, student, 0), (student, teacher, self.count)):
            rival = torch.where(own == predicted, other, predicted)
            place = torch.full_like(rival, _START_LOGIT, dtype=self.dtype)
            logits.scatter_(2, (rival + offset)[..., None], place[..., None])
        return logits

    def _rows(self, mix: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of both networks, (E, D, R, K) each."""
        weights = torch.softmax(mix, 3)
        rows = []
        for chosen, part in (
            (self.threats.teacher, weights[..., : self.count]),
            (self.threats.student, weights[..., self.count :]),
        ):
            own = torch.nn.functional.one_hot(chosen, self.count).to(mix.dtype)[:, None]
            rows.append(own * part.sum(3, keepdim=True) - part)
        return rows[0], rows[1]

    def _bound(
        self,
        slopes: tuple[Slopes, Slopes],
        thetas: tuple[list[Tensor], list[Tensor]],
        mix: Tensor,
        own_inputs: tuple[InputSet, InputSet] | None,
        *,
        exact: bool,
    ) -> tuple[Tensor, tuple[Back, Back], Tensor]:
        inputs, *networks = self.exact if exact else self.fast
        if own_inputs is not None:
            inputs = own_inputs[0 if exact else 1]
        rows = self._rows(mix)
        passes = tuple(
            back(network, slope, row, theta)
            for network, slope, row, theta in zip(networks, slopes, rows, thetas, strict=True)
        )
        constant = passes[0].constant + passes[1].constant
        if exact:
            for network, slope, row, theta in zip(networks, slopes, rows, thetas, strict=True):
                constant = constant + rounding(network, row, theta, slope)
        pixels = passes[0].pixels + passes[1].pixels
        return highest(inputs, pixels, constant), (passes[0], passes[1]), pixels

    def improve(
        self,
        domains: tuple[Domains, Domains],
        state: dict[str, Tensor],
        *,
        steps: int,
        rate: float = 0.1,
        inputs: InputSet | None = None,
    ) -> tuple[dict[str, Tensor], tuple[Back, Back], Tensor]:
        """Search, then evaluate once in float64; the state holds the best bound of each threat.

        ``inputs``: a set for each domain of the only problem, where they differ.
        """
        own = None if inputs is None else (inputs, inputs.to(self.dtype))
        slopes = tuple(Slopes.of(part.to(self.dtype)) for part in domains)
        thetas, mix = self._free(state)
        free = [*thetas[0], *thetas[1], mix]

        def total() -> Tensor:
            return self._bound((slopes[0], slopes[1]), thetas, mix, own, exact=False)[0].sum()

        def settle() -> None:
            for theta, slope in zip(thetas, slopes, strict=True):
                clamp_theta(theta, slope)

        minimise(free, [rate] * (len(free) - 1) + [3 * rate], steps, total, settle)
        with torch.no_grad():
            exact = Slopes.of(domains[0]), Slopes.of(domains[1])
            double = ([t.double() for t in thetas[0]], [t.double() for t in thetas[1]])
            upper, passes, pixels = self._bound(exact, double, mix.double(), own, exact=True)
        after = dict(state)
        for prefix, theta in zip(THETA_PREFIXES, thetas, strict=True):
            after |= {f"{prefix}{k}": part for k, part in enumerate(theta)}
        after["mix"] = mix
        # fmin: an overflow proves nothing and takes nothing away.
        after["worst"] = torch.fmin(state["worst"], upper)
        return after, passes, pixels

    def _free(self, state: dict[str, Tensor]) -> tuple[tuple[list[Tensor], list[Tensor]], Tensor]:
        thetas = []
        for prefix in THETA_PREFIXES:
            count = sum(name.startswith(prefix) for name in state)
            thetas.append([state[f"{prefix}{k}"].clone() for k in range(count)])
        return (thetas[0], thetas[1]), state["mix"].clone()

    def node(
        self,
        domains: tuple[Domains, Domains],
        state: dict[str, Tensor],
        *,
        steps: int,
        rate: float,
        inputs: InputSet | None = None,
    ) -> Node:
        """`improve` for nodes of a tree (one problem); a node's value is its worst threat."""
        mine = {name: part[None] for name, part in state.items() if name in _names(state)}
        after, passes, pixels = self.improve(domains, mine, steps=steps, rate=rate, inputs=inputs)
        worst = after["worst"]
        values, row = worst[0].max(1)
        # Threats that are already impossible need no split.
        alive = (worst > IMPOSSIBLE).double()
        weights = alive * torch.softmax(torch.where(alive > 0, worst, -torch.inf), 2)
        weights = torch.nan_to_num(weights)
        attained = pixels[0, torch.arange(len(row), device=row.device), row]
        return Node(
            {name: part[0] for name, part in after.items()},
            values,
            (weights, weights),
            passes,
            attained,
        )


def _names(state: dict[str, Tensor]) -> list[str]:
    return [name for name in state if name in ("mix", "worst") or name.startswith(THETA_PREFIXES)]
