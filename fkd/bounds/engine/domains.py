"""Backward passes through reduced networks for many domains at once.

A domain is a set together with the signs of some hidden units (a node of branch and bound): the unit's
bound on the other side becomes 0, and each backward pass may add ``beta s h`` with beta >= 0 and s the
sign, since ``s h >= 0`` there (beta-CROWN, 2103.06624).  One free number theta belongs to each row and
unit: the lower slope alpha = theta where the unit is open, beta = theta where it was split.

Shapes: E problems (examples), D domains of each, R rows, n units of a stage.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.reduced import Reduced, Stage
from fkd.bounds.engine.relaxation import may_have_either_sign


@dataclass(frozen=True)
class Domains:
    """Bounds and splits of one network's stages.

    Attributes:
        lower: one tensor a stage, (E, D, n).
        upper: the same.
        signs: 1, -1 or 0 (not split), int8.
    """

    lower: tuple[Tensor, ...]
    upper: tuple[Tensor, ...]
    signs: tuple[Tensor, ...]

    @classmethod
    def root(cls, reduced: Reduced) -> Domains:
        """One domain a problem: the whole set."""
        lower = tuple(stage.lower[:, None] for stage in reduced.stages)
        upper = tuple(stage.upper[:, None] for stage in reduced.stages)
        signs = tuple(torch.zeros_like(part, dtype=torch.int8) for part in lower)
        return cls(lower, upper, signs)

    def to(self, dtype: torch.dtype) -> Domains:
        """In another precision, for searches."""
        return Domains(
            tuple(part.to(dtype) for part in self.lower),
            tuple(part.to(dtype) for part in self.upper),
            self.signs,
        )

    def pick(self, which: Tensor) -> Domains:
        """Domains ``which`` (int64 (M,)) of the only problem."""
        return Domains(
            *(
                tuple(part[:, which] for part in parts)
                for parts in (self.lower, self.upper, self.signs)
            )
        )


@dataclass(frozen=True)
class Slopes:
    """Relaxation of every stage in every domain; tensors (E, D, 1, n)."""

    slope: tuple[Tensor, ...]
    intercept: tuple[Tensor, ...]
    fixed: tuple[Tensor, ...]
    is_open: tuple[Tensor, ...]
    signs: tuple[Tensor, ...]

    @classmethod
    def of(cls, domains: Domains) -> Slopes:
        """The triangle of every open unit."""
        parts: list[list[Tensor]] = [[], [], [], [], []]
        for lower, upper, signs in zip(domains.lower, domains.upper, domains.signs, strict=True):
            is_open = may_have_either_sign(lower, upper)
            fixed = (lower >= 0).to(lower.dtype) * (upper > 0)
            width = torch.where(is_open, upper - lower, torch.ones_like(lower))
            slope = torch.where(is_open, upper / width, fixed)
            intercept = torch.where(is_open, -slope * lower, torch.zeros_like(lower))
            values = (slope, intercept, fixed, is_open, signs.to(lower.dtype))
            for place, value in zip(parts, values, strict=True):
                place.append(value.unsqueeze(2))
        return cls(*(tuple(part) for part in parts))

    def start(self, stage: int) -> Tensor:
        """Lower slopes of the smaller triangle, and no multipliers, (E, D, 1, n)."""
        return ((self.slope[stage] > 0.5) & self.is_open[stage]).to(self.slope[stage].dtype)


@dataclass(frozen=True)
class Back:
    """What a backward pass leaves.

    Attributes:
        pixels: coefficients on the image, (E, D, R, C H W).
        constant: (E, D, R).
        outputs: coefficients that reached each stage's relu, (E, D, R, n).
    """

    pixels: Tensor
    constant: Tensor
    outputs: tuple[Tensor, ...]


def back(reduced: Reduced, slopes: Slopes, rows: Tensor, theta: list[Tensor]) -> Back:
    """Linear upper bounds, in the image, of rows of the logits.

    Args:
        reduced: E problems.
        slopes: of its domains.
        rows: (E, D, R, K).
        theta: one tensor a stage, (E, D, R, n): alpha in [0, 1] at open units, beta >= 0 at split ones.
    """
    shape = rows.shape[:3]
    flat = rows.flatten(1, 2)
    held = (flat @ reduced.weight).view(*shape, -1)
    constant = (flat @ reduced.bias.unsqueeze(2)).view(shape)
    return pass_stages(reduced.stages, slopes, held, constant, theta)


def pass_stages(
    stages: tuple[Stage, ...],
    slopes: Slopes,
    held: Tensor,
    constant: Tensor,
    theta: list[Tensor],
) -> Back:
    """The same from coefficients ``held`` (E, D, R, pixels and units of ``stages``) downwards."""
    shape = constant.shape
    outputs: list[Tensor] = []
    for k in range(len(stages) - 1, -1, -1):
        stage = stages[k]
        first = held.shape[3] - stage.units
        held, on_output = held[..., :first], held[..., first:]
        outputs.append(on_output)
        positive = on_output.clamp_min(0.0)
        lower_slope = torch.where(slopes.is_open[k], theta[k], slopes.fixed[k])
        on_input = on_output * lower_slope + positive * (slopes.slope[k] - lower_slope)
        # Signs are 0 but at split units.
        on_input = on_input + theta[k] * slopes.signs[k]
        constant = constant + (positive * slopes.intercept[k]).sum(3)
        flat = on_input.flatten(1, 2)
        held = held + (flat @ stage.weight).view(*shape, -1)
        constant = constant + (flat @ stage.bias.unsqueeze(2)).view(shape)
    return Back(held, constant, tuple(reversed(outputs)))


def highest(inputs: InputSet, pixels: Tensor, constant: Tensor) -> Tensor:
    """Largest values (E, D, R) of linear functions on each problem's set.

    With as many sets as domains of a single problem each domain has its own.
    """
    if pixels.shape[0] == 1 and len(inputs) == pixels.shape[1]:
        return inputs.highest(pixels[0])[None] + constant
    return inputs.highest(pixels.flatten(1, 2)).view(constant.shape) + constant


def clamp_theta(theta: list[Tensor], slopes: Slopes) -> None:
    """Bring every theta back to where it is sound: [0, 1] at open units, >= 0 at split ones."""
    for k, part in enumerate(theta):
        ceiling = torch.where(slopes.is_open[k], 1.0, torch.inf).to(part.dtype)
        torch.minimum(part.clamp_min_(0.0), ceiling, out=part)
