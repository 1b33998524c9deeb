"""One colour, mark and short name for each way of making a student, the same in every chart."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dashboard.figures import theme
from dashboard.figures.transfer import short_names

#: Okabe and Ito's without the blue of teachers, and two that stand out on white and on black.
_COLOURS = (theme.STUDENT, theme.CERTIFICATE, theme.ATTACK, "#E69F00", "#56B4E9", "#9467bd")
#: Seven marks for six colours: no two of 42 ways look alike, and neighbours differ in both.
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "pentagon", "hexagram")

#: Names that begin with so many letters alike are called by them.
_LETTERS = 3


@dataclass(frozen=True)
class Way:
    """A way of making students: all that made them but their seeds.

    Attributes:
        label: in a few letters.
        colour: of its marks.
        symbol: plotly's name of its mark.
        students: their names.
    """

    label: str
    colour: str
    symbol: str
    students: tuple[str, ...]


def ways(recipes: Mapping[str, str], own: Sequence[str]) -> dict[str, Way]:
    """Ways by their recipe.

    Args:
        recipes: student to a hash of all that made it but name and seed.
        own: the teacher's own students, whose labels leave out what all of them are called.

    Example:
        >>> found = ways({"d-kd-of-t": "1", "d-kd-of-t-s1": "1", "d-ard-of-t": "2"}, ["d-kd-of-t"])
        >>> [way.label for way in found.values()]
        ['d-kd-of-t', 'd-ard-of-t']
    """
    members: dict[str, list[str]] = {}
    for student, recipe in recipes.items():
        members.setdefault(recipe, []).append(student)
    names = {recipe: _shared_name(students) for recipe, students in members.items()}
    mine = [recipe for recipe, students in members.items() if set(students) & set(own)]
    labels = dict(zip(mine, short_names([names[recipe] for recipe in mine])[0], strict=True))
    labels = {recipe: labels.get(recipe, name) for recipe, name in names.items()}
    # Two recipes under one name: with other settings, say.
    seen: Counter[str] = Counter()
    for recipe, label in labels.items():
        seen[label] += 1
        if seen[label] > 1:
            labels[recipe] = f"{label} ({seen[label]})"
    order = sorted(labels, key=lambda recipe: (recipe not in mine, labels[recipe]))
    return {
        recipe: Way(
            labels[recipe],
            _COLOURS[place % len(_COLOURS)],
            _SYMBOLS[place % len(_SYMBOLS)],
            tuple(members[recipe]),
        )
        for place, recipe in enumerate(order)
    }


def _shared_name(students: Sequence[str]) -> str:
    """The parts between dashes with which all names begin; else what they begin with, or the first."""
    parts = _alike([name.split("-") for name in students])
    letters = "".join(_alike(students)).rstrip("_ ")
    # One letter in common says nothing.
    return "-".join(parts) or (letters if len(letters) >= _LETTERS else students[0])


def _alike(all_of_them: Sequence[Sequence[str]]) -> list[str]:
    """What all begin with."""
    places = zip(*all_of_them, strict=False)
    return [place[0] for place in itertools.takewhile(lambda place: len(set(place)) == 1, places)]
