"""Where labels of marks stand so that they cover neither marks nor each other, at any width."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pandas as pd

from dashboard.figures.ways import Way

#: What a plot has room for on a phone and on half a desk's page, in pixels: labels fit on both.
_WIDTHS = (270.0, 450.0)
_LETTER, _LINE = 7.4, 15.0
#: A line to keep clear of is as many points, a few pixels apart.
_LINE_POINTS = 30
#: How far a label's middle may be from its mark, and in which directions, nearest and level first.
_REACHES = (13.0, 26.0, 40.0, 56.0, 74.0)
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )


def label_places(
    rows: pd.DataFrame,
    dots: pd.DataFrame,
    is_front: pd.Series,
    ways: Mapping[str, Way],
    x: str,
    y: str,
    scales: tuple[str, str],
    height: int,
) -> list[tuple[float, float, bool] | None]:
    """Where each mark's label stands without covering a mark or another label; None where nowhere.

    The front's labels are placed first.

    Returns:
        Pixels to the right and up from the mark to the label's middle, and whether it is so far off that
        a line must join them.
    """
    everything = pd.concat([rows[[x, y]], dots[[x, y]]])
    up = _pixels(everything[y], scales[1], height - 90.0)
    reach = [7.0] * len(rows) + [3.0] * len(dots)
    # A place must be free however wide the plot is drawn.
    spots, taken = [], []
    for width in _WIDTHS:
        across = _pixels(everything[x], scales[0], width)
        spots.append(across)
        taken.append(
            [_Box(a - r, b - r, a + r, b + r) for a, b, r in zip(across, up, reach, strict=True)]
        )
    lines = [_points_between(across, up, is_front) for across in spots]
    found: list[tuple[float, float, bool] | None] = [None] * len(rows)
    for place in sorted(range(len(rows)), key=lambda one: not is_front.iloc[one]):
        width = _LETTER * len(ways[rows["recipe"].iloc[place]].label)
        for far, right, above in _steps(width):
            boxes = [_around(across[place] + right, up[place] + above, width) for across in spots]
            if not 0 < up[place] + above < height - 80 or any(
                box.left <= -25
                or box.right >= room + 25
                or any(box.meets(other) for other in [*marks[:place], *marks[place + 1 :], *line])
                for box, room, marks, line in zip(boxes, _WIDTHS, taken, lines, strict=True)
            ):
                continue
            # The line from a mark to a label far off must cross no other label.
            arms = [
                _points((across[place], up[place]), right, above) if far else [] for across in spots
            ]
            if any(
                point.meets(label)
                for arm, marks in zip(arms, taken, strict=True)
                for point in arm
                for label in marks[len(up) :]
            ):
                continue
            found[place] = (right, above, far)
            for marks, line, box, arm in zip(taken, lines, boxes, arms, strict=True):
                marks.append(box)
                line.extend(arm)
            break
    return found


def _around(middle: float, level: float, width: float) -> _Box:
    """A label's box."""
    return _Box(middle - width / 2, level - _LINE / 2, middle + width / 2, level + _LINE / 2)


def _points(start: tuple[float, float], right: float, above: float) -> list[_Box]:
    """Points of a line, as small boxes."""
    steps = (step / _LINE_POINTS for step in range(_LINE_POINTS + 1))
    spots = [(start[0] + t * right, start[1] + t * above) for t in steps]
    return [_Box(a - 1, b - 1, a + 1, b + 1) for a, b in spots]


def _points_between(across: list[float], up: list[float], is_front: pd.Series) -> list[_Box]:
    """Points of the line through the front."""
    corners = sorted((across[i], up[i]) for i, on in enumerate(is_front) if on)
    ends = itertools.pairwise(corners)
    return [point for (a, b), (c, d) in ends for point in _points((a, b), c - a, d - b)]


def _steps(width: float) -> Iterator[tuple[bool, float, float]]:
    """Whether a place is far from the mark, and the way there, nearest first."""
    for reach, (right, above) in itertools.product(_REACHES, _DIRECTIONS):
        far = reach > _REACHES[0]
        # A label to the side begins at the reach, whatever its length.
        yield (
            far,
            right * (reach + (width / 2 if above == 0 or far else 0.3 * width)),
            above * reach,
        )


def place_on(value: float, scale: str) -> float:
    """A value's place on an axis, as plotly wants it: on a logarithmic one the power of ten."""
    return math.log10(value) if scale == "log" else float(value)


def _pixels(values: pd.Series, scale: str, length: float) -> list[float]:
    """Places on an axis of ``length`` pixels; plotly leaves about a twentieth on either side."""
    numbers = [place_on(value, scale) for value in values]
    if not numbers:
        return []
    low, high = min(numbers), max(numbers)
    return [(0.05 + 0.9 * (number - low) / ((high - low) or 1.0)) * length for number in numbers]
