"""Square Attack: random search without gradients (Andriushchenko et al., 1912.00049).

Each query changes a square of the best point so far and is kept where it lowers the margin
``z_y - max_{j != y} z_j``.  In L-infinity (Algorithm 2) the square moves by ``+-2 epsilon`` a channel and
is clipped; in L2 (Algorithm 3) it gets a pattern whose norm is what is left over and that of a second
square, which is wiped.  Squares and signs are each example's own: its result does not depend on the
batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fkd.attacks.objectives import best_other_margin
from fkd.attacks.single.standing import Standing, Tell
from fkd.core.ball import Region
from fkd.core.seeding import uniform_noise

#: Share of the pixels in the first squares, and the shares of 10000 queries at which it is halved.
_FIRST_SHARE = 0.8
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
#: Numbers for so many queries are drawn at once; streams from here on are no other attack's.
_BLOCK = 100
_STREAM = 1 << 20

#: The best points, their balls' region, a square's side and uniform numbers (N, 5 + C): new points.
_Change = Callable[[Tensor, Region, int, Tensor], Tensor]


def run_square(standing: Standing, *, queries: int, seed: int, tell: Tell) -> None:
    """Attack the examples that stand; each leaves when it is fooled.

    Args:
        standing: the examples; those that are fooled fall.
        queries: forward passes an example.
        seed: chooses squares and signs together with the example ids.
        tell: told after each query.
    """
    rows = standing.left()
    if not len(rows):
        return
    is_l2 = standing.region.norm == "l2"
    change: _Change = _change_l2 if is_l2 else _change_linf
    points = (_start_l2 if is_l2 else _start_linf)(standing.region[rows], seed)
    channels = points.shape[1]
    best = _margins(standing, rows, points)
    noise = points.new_empty(0)
    for query in range(1, queries):
        fell = best < 0
        if bool(fell.any()):
            standing.take(rows[fell], points[fell], "square")
            # Where float64 disagrees the search is over all the same: its margin is none.
            rows, points, best = rows[~fell], points[~fell], best[~fell]
            noise = noise[~fell] if len(noise) else noise
        if not len(rows):
            return
        place = (query - 1) % _BLOCK
        if place == 0:
            ids, stream = standing.region.example_ids[rows], _STREAM + 1 + query // _BLOCK
            noise = uniform_noise(ids, (_BLOCK, 5 + channels), seed=seed, stream=stream)
        side = _side(query, queries, points.shape)
        tried = change(points, standing.region[rows], side, noise[:, place])
        margins = _margins(standing, rows, tried)
        better = margins < best
        points = torch.where(better[:, None, None, None], tried, points)
        best = torch.where(better, margins, best)
        tell(query / queries)
    standing.take(rows, points, "square")


def _margins(standing: Standing, rows: Tensor, points: Tensor) -> Tensor:
    with torch.no_grad():
        return -best_other_margin(standing.network(points), standing.labels[rows])


def _side(query: int, queries: int, shape: torch.Size) -> int:
    """A square's side in pixels, at most the image's shorter one."""
    share = _FIRST_SHARE / 2 ** sum(10_000 * query / queries > turn for turn in _HALVINGS)
    height, width = shape[2:]
    return min(max(1, round(math.sqrt(share * height * width))), height, width)


def _signs(noise: Tensor) -> Tensor:
    return torch.where(noise < 0.5, -1.0, 1.0)


def _start_linf(region: Region, seed: int) -> Tensor:
    """Vertical stripes of plus and minus epsilon."""
    _, channels, _, width = region.images.shape
    noise = uniform_noise(region.example_ids, (channels, 1, width), seed=seed, stream=_STREAM)
    return region.clamp(region.images + _radius(region) * _scale(region) * _signs(noise))


def _change_linf(points: Tensor, region: Region, side: int, noise: Tensor) -> Tensor:
    rows, columns = _places(noise[:, 0], noise[:, 1], side, points.shape)
    tried = points.clone()
    index = _index(rows, columns, points.shape)
    moves = 2 * _radius(region) * _scale(region) * _signs(noise[:, 5:])[:, :, None, None]
    tried[index] = tried[index] + moves
    return region.clamp(tried)


def _start_l2(region: Region, seed: int) -> Tensor:
    """Five by five tiles of the pattern, each with a sign of its own."""
    _, channels, height, width = region.images.shape
    moves = torch.zeros_like(region.images)
    side = max(1, min(height, width) // 5)
    down, across = height // side, width // side
    noise = uniform_noise(region.example_ids, (channels, down, across), seed=seed, stream=_STREAM)
    tile = _pattern(side).to(moves)
    tiles = _signs(noise)[..., :, None, :, None] * tile[:, None, :]
    top, left = (height - down * side) // 2, (width - across * side) // 2
    moves[:, :, top : top + down * side, left : left + across * side] = tiles.reshape(
        len(region), channels, down * side, across * side
    )
    return _on_the_sphere(moves, region)


def _change_l2(points: Tensor, region: Region, side: int, noise: Tensor) -> Tensor:
    shape = points.shape
    # An odd side, since the pattern has two halves around a middle.
    side = max(3, side + 1 - side % 2)
    while side > min(shape[2:]):
        side = max(1, side - 2)
    # In units of the channels' scales, as the radius is.
    moves = (points - region.images) / _scale(region)
    first = _index(*_places(noise[:, 0], noise[:, 1], side, shape), shape)
    second = _index(*_places(noise[:, 2], noise[:, 3], side, shape), shape)
    inside = torch.zeros_like(moves)
    inside[first] = 1.0
    inside[second] = 1.0
    spare = (_radius(region).square() - moves.square().sum((1, 2, 3), keepdim=True)).clamp(min=0.0)
    held = (moves * inside).square().sum((1, 2, 3), keepdim=True)
    pattern = _pattern(side).to(points)
    turned = torch.where(noise[:, 4, None, None] < 0.5, pattern, pattern.T)[:, None]
    old = moves[first]
    fresh = turned * _signs(noise[:, 5:])[:, :, None, None] + old / _norm(old)
    fresh = fresh / _norm(fresh) * (spare / shape[1] + held).sqrt()
    moves[second] = 0.0
    moves[first] = fresh
    return _on_the_sphere(moves, region)


def _norm(part: Tensor) -> Tensor:
    """Length of each channel, at least what may be divided by."""
    return part.square().sum((2, 3), keepdim=True).sqrt().clamp(min=1e-12)


def _on_the_sphere(moves: Tensor, region: Region) -> Tensor:
    """The images moved by a radius in directions given in units of the channels' scales."""
    length = moves.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
    return region.clamp(region.images + moves / length * _radius(region) * _scale(region))


def _radius(region: Region) -> Tensor:
    return region.radius.to(region.images.dtype)[:, None, None, None]


def _scale(region: Region) -> Tensor:
    return region.pixel_scale().to(region.images.dtype)


def _places(down: Tensor, across: Tensor, side: int, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Rows and columns of the squares, int64 (N, side) each, from uniform numbers (N,)."""
    steps = torch.arange(side, device=down.device)
    top = (down * (shape[2] - side + 1)).long()[:, None]
    left = (across * (shape[3] - side + 1)).long()[:, None]
    return top + steps, left + steps


def _index(rows: Tensor, columns: Tensor, shape: torch.Size) -> tuple[Tensor, ...]:
    """What picks (N, C, side, side) out of images of ``shape``."""
    examples = torch.arange(shape[0], device=rows.device)[:, None, None, None]
    channels = torch.arange(shape[1], device=rows.device)[None, :, None, None]
    return examples, channels, rows[:, None, :, None], columns[:, None, None, :]


def _pattern(side: int) -> Tensor:
    """Two hills of opposite sign, one above the other, of length 1: float32 (side, side)."""
    half = side // 2
    pattern = torch.cat([_hill(half, side), -_hill(side - half, side)])
    return pattern / pattern.norm()


def _hill(height: int, width: int) -> Tensor:
    """Nested rectangles, each adding 1 / (n + 1)^2; of length 1 where there is any."""
    hill = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for n in range(max(height, width) // 2 + 1):
        above, before = max(top - n, 0), max(left - n, 0)
        hill[above : max(top + n + 1, 0), before : left + n + 1] += 1.0 / (n + 1) ** 2
    return hill / hill.norm().clamp(min=1e-12)
