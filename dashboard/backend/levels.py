"""Levels of certificates: which there are, what they take, and what those stored have proved."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from dashboard.backend.analyses import find, stored
from dashboard.backend.catalogue import choice_of
from dashboard.backend.choice import DEFAULT_LEVEL, Choice
from dashboard.backend.forms import Field, fields_of
from fkd import evaluation, runs
from fkd.bounds import CERTIFICATES
from fkd.runs import RunRecord

#: Title and explanation of the certificates that are known here, from quick to thorough; one that is
#: not is shown under its registry name with its own first line.
_KNOWN = {
    "fast": (
        "Fast",
        "One linear relaxation of both networks together, nothing optimised: milliseconds an image.",
    ),
    "tight": (
        "Tight",
        "The same relaxation with its slopes and weights optimised for the gap itself, then the ball "
        "split into a few hundred pieces where that is not enough: slower, never looser than Fast.",
    ),
    "exact": (
        "Exact",
        "Branch and bound: goes on from Tight, splits the ball, bounds and attacks the pieces until the "
        "bracket is closed or the time an image is over. What it has then still holds.",
    ),
    "crown": (
        "auto_LiRPA",
        "The general path: one relaxation by the library auto_LiRPA, for any layout that it reads.",
    ),
    "crown_ibp": (
        "CROWN-IBP",
        "auto_LiRPA on interval bounds of the hidden layers: looser, for very large networks.",
    ),
}


@dataclass(frozen=True)
class Level:
    """One certificate as a choice.

    Attributes:
        name: in the registry.
        title: for people; also its name in the address.
        note: what it does, in a sentence or two.
        budget: its setting ``seconds``, the time it may take an image; None where it takes what it takes.
    """

    name: str
    title: str
    note: str
    budget: Field | None


def levels() -> dict[str, Level]:
    """Every certificate by its registry name, from quick to thorough, those unknown here last."""
    notes = CERTIFICATES.available()
    names = [name for name in _KNOWN if name in notes]
    names += [name for name in notes if name not in _KNOWN]
    found = {}
    for name in names:
        title, note = _KNOWN.get(name, (name, notes[name]))
        fields = {field.name: field for field in fields_of(CERTIFICATES.get(name).Config)}
        found[name] = Level(name, title, note, fields.get("seconds"))
    return found


def level_title(choice: Choice) -> str:
    """The choice's level in words: ``Fast``, ``Exact, 30 s``."""
    known = levels().get(choice.level)
    title = known.title if known is not None else choice.level
    return title if choice.seconds is None else f"{title}, {choice.seconds:g} s"


def at_level(choice: Choice, level: str) -> Choice:
    """The choice at another level, with that level's usual time budget where it has one."""
    if level == choice.level:
        return choice
    known = levels().get(level)
    budget = known.budget if known is not None else None
    return choice.but(level=level, seconds=None if budget is None else float(budget.default))


def time_budget(choice: Choice) -> float | None:
    """Seconds that the certificate may take for all images; None for levels without a budget."""
    return evaluation.time_budget(choice.config())


def default_level() -> str:
    """The level that is chosen first."""
    return DEFAULT_LEVEL


def stored_levels(choice: Choice) -> dict[Choice, pd.Series]:
    """What each level that is stored for the choice's pair, ball and images proves and costs.

    Returns:
        `fkd.evaluation.level_figures` by the choice that asks for it, from quick to thorough.
    """
    found = {}
    for other in stored(choice):
        if other.but(level=choice.level, seconds=choice.seconds) != choice:
            continue
        loaded = find(other)
        if loaded is not None:
            found[other] = pd.Series(evaluation.level_figures(loaded.analysis))
    order = list(levels())
    return dict(
        sorted(found.items(), key=lambda pair: (order.index(pair[0].level), pair[0].seconds or 0.0))
    )


def missing_levels(choice: Choice) -> list[Choice]:
    """The choice at each level of which nothing is stored, at its usual time budget."""
    present = {other.level for other in stored_levels(choice)}
    return [at_level(choice, name) for name in levels() if name not in present]


def live_levels(choice: Choice) -> list[RunRecord]:
    """Live runs that analyse the choice's pair, ball and images at another level."""
    found = []
    for record in runs.list_runs(50, "analyse"):
        if record.has_ended:
            continue
        other = choice_of(evaluation.parse_analysis(record.spec))
        is_other_level = (other.level, other.seconds) != (choice.level, choice.seconds)
        if is_other_level and other.but(level=choice.level, seconds=choice.seconds) == choice:
            found.append(record)
    return found
