"""Comparisons of two figures: exact coins, images drawn again, shares, and the verdict on several."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fkd.evaluation._verdicts import Comparison, exact, of_images, of_shares, verdict


def paired(won: int, lost: int, both: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    own = np.repeat([1.0, 0.0, 1.0, 0.0], [won, lost, both, neither])
    theirs = np.repeat([0.0, 1.0, 1.0, 0.0], [won, lost, both, neither])
    return own, theirs


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (5, 0), (6, 0), (2, 9), (30, 12)])
def test_mcnemar_is_a_coin_for_each_image_on_which_the_two_differ(won, lost):
    found = of_images(*paired(won, lost, 40, 7))
    if won + lost:
        for hits, value in ((won, found.p_above), (lost, found.p_below)):
            expected = stats.binomtest(hits, won + lost, alternative="greater").pvalue
            assert value == pytest.approx(expected, rel=1e-9)
    else:
        assert (found.p_above, found.p_below) == (1.0, 1.0)
    assert found.noise == f"McNemar, {won + lost + 47} images"


def test_images_drawn_again_agree_with_the_normal_limit():
    """A mean difference of two standard errors: 0.0228 lie beyond the bar."""
    generator = np.random.default_rng(1)
    noise = generator.normal(size=400)
    noise = (noise - noise.mean()) / noise.std() / math.sqrt(400)
    theirs = generator.uniform(size=400)
    for bar in (0.0, 0.3):
        found = of_images(theirs + 20 * noise + bar + 2 / math.sqrt(400), theirs, bar)
        assert found.p_above == pytest.approx(stats.norm.sf(2), abs=0.006)
        assert found.p_below == pytest.approx(1 - found.p_above, abs=0.001)
        assert found.noise == "bootstrap, 400 images"
        assert found == of_images(theirs + 20 * noise + bar + 2 / math.sqrt(400), theirs, bar)


def test_a_bar_other_than_zero_is_no_coin():
    """Six more of 200 images are three points: at the bar either way is as likely."""
    found = of_images(*paired(6, 0, 100, 94), bar=0.03)
    assert found.noise.startswith("bootstrap")
    assert 0.3 < found.p_above < 0.7 and 0.3 < found.p_below < 0.7
    assert of_images(*paired(0, 0, 100, 100), bar=0.03).p_below < 0.001


def test_equal_values_tell_nothing():
    for own in (np.full(50, 0.3), np.linspace(0, 1, 50)):
        assert verdict([of_images(own, own)]) == "within noise"
    assert verdict([of_shares(0.1 + 0.2, 0.3, 10**40)]) == "within noise"


def test_shares_are_told_apart_by_the_normal_limit():
    """120 and 100 of 200, one hit and one miss more each: 121 / 202 and 101 / 202."""
    found = of_shares(0.6, 0.5, 200)
    first, second = 121 / 202, 101 / 202
    deviation = math.sqrt((first * (1 - first) + second * (1 - second)) / 202)
    assert found.p_above == pytest.approx(stats.norm.sf((first - second) / deviation), rel=1e-9)
    assert found.p_above + found.p_below == pytest.approx(1.0)
    assert verdict([found]) == "holds"
    assert verdict([of_shares(0.6, 0.5, 180)]) == "within noise"
    # Of the bar of three points nobody knows.
    assert verdict([of_shares(0.6, 0.5, 200, 0.03)]) == "within noise"


def test_shares_of_0_and_1_are_as_sure_as_their_images_are_many():
    """Where 5 % is the truth, 0 of 20 has a chance of a third."""
    assert verdict([of_shares(0.0, 0.0, 20, 0.03)]) == "within noise"
    assert verdict([of_shares(0.0, 0.0, 2000, 0.03)]) == "does not hold"
    assert verdict([of_shares(1.0, 1.0, 20, -0.01)]) == "within noise"
    assert verdict([of_shares(1.0, 1.0, 2000, -0.01)]) == "holds"
    assert verdict([of_shares(1.0, 0.0, 5)]) == "holds"


def test_many_images_are_compared_pairwise_by_the_normal_limit():
    """97 % each, of which 60 of 10,000 images differ: nine deviations above a bar one point below."""
    own, theirs = paired(30, 30, 9670, 270)
    found = of_images(own, theirs, -0.01)
    error = np.std(own - theirs, ddof=1) / 100
    assert found.p_above == pytest.approx(stats.norm.sf(0.01 / error), rel=1e-9)
    assert found.p_above + found.p_below == pytest.approx(1.0)
    assert found.noise == "paired, 10,000 images"
    # Of as many images drawn anew for each nobody could say so of 1,000.
    assert verdict([of_images(*paired(6, 6, 1934, 54), -0.01)]) == "holds"
    assert verdict([of_shares(0.97, 0.97, 2000, -0.01)]) == "within noise"
    # At the bar, and where no image differs from the others.
    assert of_images(*paired(100, 200, 9000, 700), -0.01).p_above == 1.0
    assert verdict([of_images(own, own, -0.01)]) == "holds"
    # Without a bar yes and no are coins, however many.
    assert of_images(own, theirs).noise == "McNemar, 10,000 images"


def test_exact_numbers_have_no_noise():
    assert verdict([exact(2, 1)]) == "holds"
    assert verdict([exact(1, 1)]) == verdict([exact(1, 2)]) == "does not hold"


def test_all_must_be_above_and_one_of_many_below_may_be_chance():
    above, unclear, below = (
        Comparison(0.02, 0.98),
        Comparison(0.4, 0.6),
        Comparison(0.98, 0.02),
    )
    assert verdict([above, above]) == "holds"
    assert verdict([above, unclear]) == "within noise"
    assert verdict([below]) == "does not hold"
    # 0.02 is below half of 0.05, but not below a half of that.
    assert verdict([above, below]) == "within noise"
    assert verdict([above, Comparison(0.99, 0.012)]) == "does not hold"
