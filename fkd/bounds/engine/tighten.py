"""Optimised bounds of hidden units: every open unit's own best lower slopes in the layers below.

With the bounds below held fixed each unit's bound is a problem of its own, so minimising their sum is
minimising each (alpha-CROWN, 2011.13824, with alpha of intermediate bounds).  Layers go in order: each
profits from what was proved below.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fkd.bounds.engine.descent import minimise
from fkd.bounds.engine.domains import Domains, Slopes, clamp_theta, highest, pass_stages
from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.reduced import Reduced, Stage

#: Rows and units of theta optimised at once (memory).
_NUMBERS = 2**23
#: Layers of more open units than this are searched for a third of the steps.
_WIDE = 256


def tighten(inputs: InputSet, reduced: Reduced, *, steps: int, rate: float = 0.2) -> Reduced:
    """The same network with tighter hidden bounds, never wider ones.

    Args:
        inputs: the sets.
        reduced: the network on them, float64.
        steps: of the search, for each layer; 0 leaves everything as it is.
        rate: first step of the slopes.
    """
    if steps == 0:
        return reduced
    fast_inputs, fast = inputs.to(torch.float32), reduced.to(torch.float32)
    for k in range(1, len(reduced.stages)):
        stage = reduced.stages[k]
        below = sum(part.units for part in reduced.stages[:k])
        at_once = max(1, _NUMBERS // (2 * below * max(1, len(inputs))))
        # Wide layers are dear and gain little: most of their looseness is the first layer's.
        few = steps if stage.units <= _WIDE else max(1, steps // 3)
        lower, upper = [], []
        for start in range(0, stage.units, at_once):
            rows = slice(start, start + at_once)
            low, high = _bounds(
                (inputs, reduced), (fast_inputs, fast), k, rows, steps=few, rate=rate
            )
            # NaN (an overflow of the search) proves nothing.
            lower.append(torch.fmax(stage.lower[:, rows], low))
            upper.append(torch.fmin(stage.upper[:, rows], high))
        better = replace(
            stage,
            lower=torch.where(stage.is_real, torch.cat(lower, 1), 0.0),
            upper=torch.where(stage.is_real, torch.cat(upper, 1), 0.0),
        )
        stages = (*reduced.stages[:k], better, *reduced.stages[k + 1 :])
        reduced = replace(reduced, stages=stages)
        fast = replace(fast, stages=tuple(part.to(torch.float32) for part in stages))
    return reduced


def _bounds(
    exact: tuple[InputSet, Reduced],
    fast: tuple[InputSet, Reduced],
    k: int,
    rows: slice,
    *,
    steps: int,
    rate: float,
) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds (E, n) of some units of stage ``k``."""
    root = Domains.root(fast[1])
    slopes = Slopes.of(root)
    count = fast[1].stages[k].bias[:, rows].shape[1]
    theta = [slopes.start(i).expand(-1, -1, 2 * count, -1).clone() for i in range(k)]

    def upper(inputs: InputSet, reduced: Reduced, slopes: Slopes, theta: list[Tensor]) -> Tensor:
        weight, bias = _both_signs(reduced.stages[k], rows)
        passed = pass_stages(reduced.stages[:k], slopes, weight[:, None], bias[:, None], theta)
        return highest(inputs, passed.pixels, passed.constant)[:, 0]

    minimise(
        theta,
        [rate] * k,
        steps,
        lambda: upper(*fast, slopes, theta).sum(),
        lambda: clamp_theta(theta, slopes),
    )
    with torch.no_grad():
        final = [part.detach().double() for part in theta]
        found = upper(*exact, Slopes.of(Domains.root(exact[1])), final)
        slack = exact[1].slack * exact[1].stages[k].size[:, rows]
        return -(found[:, count:] + slack), found[:, :count] + slack


def _both_signs(stage: Stage, rows: slice) -> tuple[Tensor, Tensor]:
    weight, bias = stage.weight[:, rows], stage.bias[:, rows]
    return torch.cat([weight, -weight], 1), torch.cat([bias, -bias], 1)
