"""Which witnesses carry over: a map of students found against and students tried on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import plotly.graph_objects as go

from dashboard.backend import TransferCell
from dashboard.figures import theme

_TITLES = {"carried": "share carried over", "ratio": "gap relative to own"}


def transfer_map(
    cells: Sequence[TransferCell],
    shown: str,
    *,
    order: Sequence[str] = (),
    height: int | None = None,
) -> theme.Chart:
    """Heat map, one square a source (row) and target (column), with its figure written in it.

    Args:
        cells: of every source and target.
        shown: ``carried``, share of disagreements that carry over, or ``ratio``, gap relative to own.
        order: students, first row and column first; as the cells come if absent.
        height: pixels; by the number of students if absent.
    """
    sources = dict.fromkeys(cell.source for cell in cells)
    names = [*(name for name in order if name in sources), *(n for n in sources if n not in order)]
    by_pair = {(cell.source, cell.target): cell for cell in cells}
    rows = [[by_pair[source, target] for target in names] for source in names]
    values = [[_value(cell, shown) for cell in row] for row in rows]
    labels, pattern = short_names(names)
    largest = max([1.0, *(v for row in values for v in row if v is not None)])
    figure = go.Figure(
        go.Heatmap(
            x=list(range(len(names))),
            y=list(range(len(names))),
            z=values,
            customdata=[[_hover(cell) for cell in row] for row in rows],
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=True,
            xgap=2,
            ygap=2,
            **theme.sequential(largest, _TITLES[shown]),
        )
    )
    figure.add_trace(_written(values, largest))
    named = f" ({pattern})" if pattern else ""
    theme.lay_out(
        figure,
        x=f"tried on{named}",
        y="found against",
        height=height or 170 + 44 * len(names),
        legend=False,
    )
    ticks = {"tickvals": list(range(len(names))), "ticktext": labels}
    figure.update_xaxes(showgrid=False, zeroline=False, **ticks)
    figure.update_yaxes(showgrid=False, zeroline=False, autorange="reversed", **ticks)
    told = "; ".join(
        f"from {cell.source} to {cell.target} {_told(_value(cell, shown))}"
        for cell in cells
        if cell.source != cell.target
    )
    return theme.Chart(
        figure, f"Map of witnesses tried on other students, {_TITLES[shown]}: {told}."
    )


def _written(values: list[list[float | None]], largest: float) -> go.Scatter:
    """Each square's figure, light on the dark half of the colours and dark on the light one."""
    places = [(x, y, value) for y, row in enumerate(values) for x, value in enumerate(row)]
    return go.Scatter(
        x=[x for x, _, _ in places],
        y=[y for _, y, _ in places],
        mode="text",
        text=["none" if value is None else theme.percent(value) for *_, value in places],
        textfont={"color": [_ink(value, largest) for *_, value in places]},
        hoverinfo="skip",
    )


def _ink(value: float | None, largest: float) -> str:
    if value is None:
        return theme.NEUTRAL
    return theme.INK if value > largest / 2 else "#ffffff"


def short_names(names: Sequence[str]) -> tuple[list[str], str]:
    """Names without the parts, between dashes, that most begin or end with; and what was left out.

    A name without these parts keeps what it has: a user's own student does not lengthen all the others.

    Example:
        >>> short_names(["digits-kd-of-pgd", "digits-rslad-of-pgd", "mine"])
        (['kd', 'rslad', 'mine'], 'digits-…-of-pgd')
    """
    parts = [name.split("-") for name in names]
    begin = _shared(parts)
    inside = [part[len(begin) :] if part[: len(begin)] == begin else part for part in parts]
    end = _shared([part[::-1] for part in inside])[::-1]
    kept = [
        "-".join(part[: len(part) - len(end)] if part[len(part) - len(end) :] == end else part)
        for part in inside
    ]
    if not (begin or end) or len(set(kept)) < len(set(names)):
        return list(names), ""
    return kept, "-".join([*begin, "…", *end])


def _shared(parts: Sequence[Sequence[str]]) -> list[str]:
    """The first parts of more than half of all, as far as these are alike; none of them is used up."""
    found: list[str] = []
    alike = list(parts)
    while alike:
        following = Counter(part[len(found)] for part in alike if len(part) > len(found) + 1)
        part, count = following.most_common(1)[0] if following else ("", 0)
        # Who begins in another way is left aside, who goes on in another way ends it.
        if count < 2 or (count < len(alike) if found else 2 * count <= len(alike)):
            break
        found.append(part)
        alike = [one for one in alike if list(one[: len(found)]) == found]
    return found


def _value(cell: TransferCell, shown: str) -> float | None:
    if shown == "ratio":
        return cell.gap_ratio
    return None if cell.carried is None else cell.carried.value


def _told(value: float | None) -> str:
    return "nothing to try" if value is None else theme.percent(value)


def _hover(cell: TransferCell) -> str:
    carried = "no disagreement was found against it"
    if cell.carried is not None:
        low, high = theme.percent(cell.carried.low), theme.percent(cell.carried.high)
        carried = (
            f"{theme.percent(cell.carried.value)} of {cell.witnesses} disagreements carry over "
            f"(95 % interval {low} to {high})"
        )
    return (
        f"found against {cell.source}<br>tried on {cell.target}<br>{carried}<br>"
        f"mean gap {theme.reached(cell.gap_mean)}, at its own witnesses "
        f"{theme.reached(cell.gap_own_mean)}, at the images {theme.reached(cell.gap_clean_mean)}<br>"
        f"larger than at its own on {theme.percent(cell.beats.value)} of {cell.count} images"
    )
