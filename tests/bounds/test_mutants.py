"""Deliberate mistakes in the engine: the soundness checks have to see every one of them.

Each mutant changes one function of `fkd.bounds`; the check named beside it must then find a violation.
Most are caught by `answers`, from outside; where looseness elsewhere covers a mistake, the check of the
part itself has to see it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from fkd.bounds import _agreement, _gap_search, _optimised, _passes, _rows, _tree, finish
from fkd.bounds.engine import domains, layers, tighten, windows
from fkd.bounds.engine.inputs import InputSet
from fkd.bounds.engine.propagate import Propagator
from fkd.bounds.engine.relaxation import Relaxation
from tests.support.engine_checks import PARTS, answers, worst_violation

_ROUNDING = 1e-9


def _answers(watched):
    return answers("fast", watched)


def _tight(watched):
    return answers("tight", watched)


def _exact(watched):
    return answers("exact", watched)


#: Too slow for maps as well.
DEAR = ("tight", "exact")
CHECKS = {"answers": _answers, "tight": _tight, "exact": _exact, **PARTS}


@dataclass(frozen=True)
class Mutant:
    """``make`` gets the original of ``owner.attribute`` and gives the mistaken one."""

    name: str
    owner: Any
    attribute: str
    make: Callable[[Any], Any]
    check: str = "answers"


def _changed(original, **changes):
    """A class method that changes fields of the relaxation it makes."""

    def of(cls, *arguments, **named):
        made = original.__func__(cls, *arguments, **named)
        return replace(made, **{key: change(made) for key, change in changes.items()})

    return classmethod(of)


def _scaled(factor, part=None):
    """Multiplies what a function gives, or one part of it."""

    def make(original):
        def scaled(*arguments, **named):
            found = original(*arguments, **named)
            if part is None:
                return found * factor
            return tuple(value * factor if k == part else value for k, value in enumerate(found))

        return scaled

    return make


def _shifted(change):
    def make(original):
        return lambda *arguments, **named: change(original(*arguments, **named), *arguments)

    return make


def _open(of):
    return lambda relaxation, value: torch.where(relaxation.is_open, value, of(relaxation))


def _flipped_upper_slope(made):
    falling = -made.lower / (made.upper - made.lower)
    return torch.where(made.is_open, falling, made.slope)


def _back_with_lines_swapped(original):
    def back(self, coefficients, alpha):
        passed, constant = original(self, -coefficients, alpha)
        return -passed, -constant

    return back


def _tightened(share):
    def make(original):
        def tighten(self, *arguments):
            lower, upper, *rest = original(self, *arguments)
            is_open = (lower < 0) & (upper > 0)
            width = share * (upper - lower)
            return (
                torch.where(is_open, lower + width, lower),
                torch.where(is_open, upper - width, upper),
                *rest,
            )

        return tighten

    return make


def _swapped(original):
    def tighten(self, *arguments):
        lower, upper, *rest = original(self, *arguments)
        return -upper, -lower, *rest

    return tighten


def _highest_before_adding(original):
    """Half of the joint row bounded on a smaller box: the reach of the image is lost by a tenth."""

    def highest(self, coefficients):
        middle = (self.lower + self.upper) / 2
        inner = replace(
            self, lower=0.9 * self.lower + 0.1 * middle, upper=0.9 * self.upper + 0.1 * middle
        )
        return original(inner, coefficients)

    return highest


def _pairs_forgotten(original):
    """Agreement when each network alone could leave the class, whatever the other does."""

    def agreement(self):
        teacher, student, _ = original(self)
        return teacher, student, teacher | student

    return agreement


def _nothing(*_arguments):
    """Does not do what it should."""


def _signs_turned(original):
    """Multipliers that reward leaving the half instead of staying in it."""

    def back(reduced, slopes, *rest):
        return original(reduced, replace(slopes, signs=tuple(-s for s in slopes.signs)), *rest)

    return back


def _one_half_forgotten(original):
    def halves(self, rows):
        (above, below), state = original(self, rows)
        count = len(next(iter(state.values()))) // 2
        keep = torch.arange(count).repeat(2) + count
        return (above.pick(keep), below.pick(keep)), {k: v[keep] for k, v in state.items()}

    return halves


def _half_the_pairs(original):
    def of(cls, teacher_can, student_can):
        found = original.__func__(cls, teacher_can, student_can)
        return replace(found, is_real=found.is_real & (found.teacher < found.student))

    return classmethod(of)


MUTANTS = [
    Mutant("slopes not held in range", _gap_search, "clamp_theta", lambda f: _nothing, "tight"),
    Mutant("pairs taken for impossible", _optimised, "IMPOSSIBLE", lambda f: 0.3, "tight"),
    Mutant("slopes of hidden bounds not held", tighten, "clamp_theta", lambda f: _nothing, "tight"),
    Mutant("entropy of rows too large", _gap_search, "entropy", _scaled(1.2), "tight"),
    Mutant(
        "chord of domains too low",
        _gap_search,
        "chord",
        lambda f: lambda *a: (f(*a)[0], f(*a)[1] - 0.05),
        "tight",
    ),
    Mutant(
        "intercept of domains halved",
        domains.Slopes,
        "of",
        lambda f: _changed(f, intercept=lambda s: tuple(part / 2 for part in s.intercept)),
        "tight",
    ),
    Mutant(
        "half the pairs of classes forgotten", _agreement.Threats, "of", _half_the_pairs, "tight"
    ),
    Mutant("multipliers of the wrong sign", _gap_search, "back", _signs_turned, "exact"),
    Mutant("one half of a split forgotten", _tree.Tree, "_halves", _one_half_forgotten, "exact"),
    Mutant(
        "closed leaves forgotten",
        _tree.Tree,
        "upper",
        lambda f: property(lambda self: self.pool.best()),
        "exact",
    ),
    Mutant(
        "upper slope flipped", Relaxation, "of", lambda f: _changed(f, slope=_flipped_upper_slope)
    ),
    Mutant(
        "upper slope too small",
        Relaxation,
        "of",
        lambda f: _changed(f, slope=lambda r: torch.where(r.is_open, 0.9 * r.slope, r.slope)),
    ),
    Mutant(
        "intercept dropped",
        Relaxation,
        "of",
        lambda f: _changed(f, intercept=lambda r: torch.zeros_like(r.intercept)),
    ),
    Mutant(
        "intercept halved",
        Relaxation,
        "of",
        lambda f: _changed(f, intercept=lambda r: r.intercept / 2),
    ),
    Mutant(
        "lower slope above one",
        Relaxation,
        "of",
        lambda f: _changed(f, default=lambda r: torch.where(r.is_open, 1.5, r.default)),
    ),
    Mutant(
        "lower slope negative",
        Relaxation,
        "of",
        lambda f: _changed(f, default=lambda r: torch.where(r.is_open, -0.5, r.default)),
    ),
    Mutant(
        "nearly active taken for active",
        Relaxation,
        "of",
        lambda f: classmethod(
            lambda cls, lower, upper, *rest: f.__func__(
                cls, torch.where(upper > -2 * lower, lower.clamp_min(0.0), lower), upper, *rest
            )
        ),
    ),
    Mutant(
        "nearly inactive taken for inactive",
        Relaxation,
        "of",
        lambda f: classmethod(
            lambda cls, lower, upper, *rest: f.__func__(
                cls, lower, torch.where(-lower > 2 * upper, upper.clamp_max(0.0), upper), *rest
            )
        ),
    ),
    Mutant("constant of the upper line dropped", Relaxation, "back", _scaled(0.0, 1)),
    Mutant("upper and lower line swapped", Relaxation, "back", _back_with_lines_swapped),
    Mutant("hidden bounds tightened by a tenth", Propagator, "_tighten", _tightened(0.1)),
    Mutant(
        "hidden bounds tightened by a hundredth",
        Propagator,
        "_tighten",
        _tightened(0.01),
        check="hidden_bounds",
    ),
    Mutant("hidden bounds swapped", Propagator, "_tighten", _swapped),
    Mutant("image box shrunk", InputSet, "highest", _highest_before_adding),
    Mutant(
        "image box shrunk for windows",
        InputSet,
        "highest_seen",
        lambda f: lambda self, *rest: f(replace(self, lower=(self.lower + self.upper) / 2), *rest),
        check="hidden_bounds",
    ),
    Mutant(
        "windows reach beyond the map",
        windows.Slide,
        "_inside",
        lambda f: lambda *a: torch.ones_like(f(*a)),
        check="hidden_bounds",
    ),
    Mutant(
        "windows of joining branches not aligned",
        windows.Window,
        "padded_to",
        lambda f: lambda self, padding, size: f(self, self.padding, size),
        check="hidden_bounds",
    ),
    Mutant("bias of convolutions dropped", layers.Convolution, "offset", _scaled(0.0)),
    Mutant("bias of dense layers dropped", layers.FullyConnected, "offset", _scaled(0.0)),
    Mutant("shift of batch normalisation dropped", layers.ChannelAffine, "offset", _scaled(0.0)),
    Mutant("average pooling sums", layers.AveragePooling, "transpose", _scaled(4.0)),
    Mutant(
        "radius of intervals halved",
        layers.FullyConnected,
        "magnitude",
        _scaled(0.5),
        "hidden_bounds",
    ),
    Mutant("entropy too large", _passes, "entropy", _scaled(1.2)),
    Mutant(
        "ends of the log-odds swapped",
        _passes,
        "odds_range",
        lambda f: lambda low, high: tuple(reversed(f(low, high))),
    ),
    Mutant(
        "chord too low",
        _passes,
        "chord",
        lambda f: lambda *a: (f(*a)[0], f(*a)[1] - 0.05),
    ),
    Mutant("chord too flat", _passes, "chord", _scaled(0.9, 0), check="support_lines"),
    Mutant(
        "differences of margins too small", _passes, "difference", _shifted(lambda v, *_: v - 0.05)
    ),
    Mutant("joint rows halved", _passes, "_joint", _scaled(0.5)),
    Mutant("pairs of classes forgotten", _rows.MarginBounds, "agreement", _pairs_forgotten),
    Mutant(
        "robust in the wrong direction",
        _rows.MarginBounds,
        "agreement",
        lambda f: lambda self: (self.teacher[0].amax(1) < 0, *f(self)[1:]),
    ),
    Mutant(
        "finish forgets the lower end",
        finish,
        "_cell_bound",
        _shifted(lambda v, *_: v - 0.02),
    ),
]


def _worst(check):
    return worst_violation(CHECKS[check], pairs_only=check in DEAR)


# That tight and exact violate nothing is tested with their answers.
@pytest.mark.parametrize("check", sorted(set(CHECKS) - set(DEAR)))
def test_the_engine_itself_violates_nothing(check):
    assert _worst(check) <= _ROUNDING


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))
def test_a_mutant_is_caught(mutant, monkeypatch):
    original = mutant.owner.__dict__[mutant.attribute]
    monkeypatch.setattr(mutant.owner, mutant.attribute, mutant.make(original))
    assert _worst(mutant.check) > 1e-6
