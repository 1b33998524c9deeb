"""Whether a figure is above another by more than chance: comparisons, and the verdict on several.

Chance here is that of the images drawn.  What another seed of the training would give is another noise,
which `fkd.evaluation.spread` shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

Verdict = Literal["holds", "does not hold", "within noise"]

#: Two-sided: half of it on each side.
LEVEL = 0.05
_RESAMPLES = 10_000
_SEED = 0
#: From so many images on a mean is normal, and drawing all of them again would take too much memory.
_MANY = 2_000
#: Shares are ratios of counts, averaged over seeds: equality must not be lost to rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Comparison:
    """How sure a sample of images makes that one mean is above another by more than a bar.

    Attributes:
        p_above: chance, in [0, 1], of a difference at least as large as that seen if the true one were
            the bar; small where the first is above.
        p_below: the same for a difference at most as large; small where it is below.
        noise: by which test, in a few words; empty for what is exact.
    """

    p_above: float
    p_below: float
    noise: str = ""


def exact(own: float, theirs: float) -> Comparison:
    """Whether ``own > theirs``, of numbers that depend on no sample."""
    return Comparison(0.0, 1.0) if own > theirs else Comparison(1.0, 0.0)


def of_shares(own: float, theirs: float, examples: int, bar: float = 0.0) -> Comparison:
    """Two means of values in [0, 1], each of ``examples`` images, by the normal limit.

    The variance taken is ``m (1 - m)`` of each mean m: that of a share, and the largest that any values
    in [0, 1] can have.  As Agresti and Caffo do (The American Statistician 54, 2000), each gets one hit
    and one miss more, so that 0 of 20 is not as sure as 0 of 20,000.  Images are taken as drawn anew for
    each: where both means are of the same ones the noise is mostly overstated.
    """
    noise = f"binomial, {examples:,} images"
    if abs(own - theirs - bar) <= _ROUNDING:
        return Comparison(1.0, 1.0, noise)
    first, second = ((mean * examples + 1.0) / (examples + 2.0) for mean in (own, theirs))
    deviation = math.sqrt((first * (1.0 - first) + second * (1.0 - second)) / (examples + 2.0))
    return _normal(first - second - bar, deviation, noise)


def _normal(apart: float, deviation: float, noise: str) -> Comparison:
    """A difference of so many deviations, which is more than 0."""
    steps = apart / (deviation * math.sqrt(2.0))
    return Comparison(0.5 * math.erfc(steps), 0.5 * math.erfc(-steps), noise)


def of_images(own: np.ndarray, theirs: np.ndarray, bar: float = 0.0) -> Comparison:
    """Two means over the same images, image by image.

    Yes or no of each image: McNemar's exact test, a fair coin thrown for each image on which the two
    differ (Psychometrika 12, 1947).  All else: percentiles of the mean difference over images drawn
    again, with a fixed seed; of many images, the normal limit of the mean difference.

    Args:
        own: (N,), N at least 1; means over seeds where there are several.
        theirs: (N,), of the same images.
        bar: what the difference is held against.
    """
    images = len(own)
    if bar == 0.0 and np.isin(np.concatenate([own, theirs]), (0.0, 1.0)).all():
        won, lost = int((own > theirs).sum()), int((own < theirs).sum())
        noise = f"McNemar, {images:,} images"
        return Comparison(_heads(won, won + lost), _heads(lost, won + lost), noise)
    apart = own - theirs - bar
    if images >= _MANY:
        noise = f"paired, {images:,} images"
        if abs(float(apart.mean())) <= _ROUNDING:
            return Comparison(1.0, 1.0, noise)
        # Where no image differs from the others, one that would is not impossible.
        deviation = max(float(apart.std(ddof=1)), 1.0 / images) / math.sqrt(images)
        return _normal(float(apart.mean()), deviation, noise)
    means = _drawn_again(images) @ apart
    above, below = int((means <= _ROUNDING).sum()), int((means >= -_ROUNDING).sum())
    # One more of each: nothing is impossible that was not drawn.
    return Comparison(
        (above + 1) / (_RESAMPLES + 1),
        (below + 1) / (_RESAMPLES + 1),
        f"bootstrap, {images:,} images",
    )


def _heads(least: int, throws: int) -> float:
    """Chance of at least so many heads of a fair coin."""
    return sum(math.comb(throws, heads) for heads in range(least, throws + 1)) / 2**throws


@lru_cache(maxsize=2)
def _drawn_again(images: int) -> np.ndarray:
    """Weights of the images in each of `_RESAMPLES` samples with replacement, (B, N), rows of sum 1."""
    generator = np.random.default_rng(_SEED)
    return generator.multinomial(images, np.full(images, 1 / images), _RESAMPLES) / images


def verdict(comparisons: Sequence[Comparison]) -> Verdict:
    """The verdict on a claim that every one of the comparisons (at least one) is above its bar.

    It holds where each is above at `LEVEL`; it does not where one is below at `LEVEL` divided by their
    number, for of many comparisons one is below by chance.
    """
    side = LEVEL / 2
    if any(one.p_below <= side / len(comparisons) for one in comparisons):
        return "does not hold"
    return "holds" if all(one.p_above <= side for one in comparisons) else "within noise"
