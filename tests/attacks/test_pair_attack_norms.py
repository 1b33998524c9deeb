"""The attack in L2 balls and in balls with a scale a channel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fkd.attacks import ATTACKS, attack_config, make_attack
from fkd.attacks._steps import steepest_l2
from fkd.attacks.objectives import confidence
from fkd.core.ball import NORMS, Ball
from tests.support.networks import PAIRS, make_images, make_linear, make_pair
from tests.support.short_search import SHORT

STD = {1: (0.4,), 3: (0.2, 0.5, 0.35)}


def _attack(teacher, student, region, classes, seed=0, **settings_):
    return make_attack(attack_config({"name": "pgd", "steps": 20, **settings_})).run(
        teacher, student, region, classes, seed=seed
    )


def _region(images, epsilon, norm="l2", *, scaled=False):
    scale = STD[images.shape[1]] if scaled else None
    ball = Ball(epsilon=epsilon, norm=norm, channel_scale=scale)
    return ball.region(images, torch.arange(len(images)))


def _gaps(teacher, student, points, labels):
    return (confidence(teacher(points), labels) - confidence(student(points), labels)).abs()


@pytest.mark.parametrize("name", sorted(ATTACKS))
@pytest.mark.parametrize("pair", ["mlp", "colour"])
@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=6, deadline=None)
@given(epsilon=st.sampled_from([0.0, 0.01, 0.3, 1.0]), scaled=st.booleans(), seed=st.integers(0, 9))
def test_witnesses_lie_in_the_real_set(pair, norm, name, epsilon, scaled, seed):
    teacher, student, shape, classes = make_pair(pair)
    region = _region(make_images(4, shape, seed), epsilon, norm, scaled=scaled)
    labels = torch.arange(4) % classes
    short = {"restarts": 3, **SHORT.get(name, {})}
    result = _attack(teacher, student, region, labels, seed, name=name, steps=6, **short)
    for witness in (result.gap_witness, result.disagreement_witness):
        assert witness.min() >= 0 and witness.max() <= 1
        rounding = 1e-15 if norm == "linf" else 0.0
        assert (region.distance(witness) <= region.radius + rounding).all()
    if epsilon == 0:
        assert torch.equal(result.gap_witness, region.images)
        torch.testing.assert_close(
            result.gap.float(), _gaps(teacher, student, region.images, labels)
        )


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("pair", sorted(PAIRS))
def test_no_random_point_of_the_l2_ball_beats_the_attack(pair, scaled):
    teacher, student, shape, classes = make_pair(pair)
    region = _region(make_images(6, shape), 0.8, scaled=scaled)
    labels = torch.arange(6) % classes
    # Of four pixels 300 random points miss little, and a climb may end on a lower hill.
    found = _attack(teacher, student, region, labels, steps=40, restarts=6)
    many = region.repeat(300)
    noise = torch.randn(many.images.shape, generator=torch.Generator().manual_seed(1))
    points = many.clamp(many.images + noise * many.radius[:, None, None, None].float())
    sampled = _gaps(teacher, student, points, labels.repeat_interleave(300))
    assert (found.gap >= sampled.view(6, 300).amax(1) - 1e-3).all()
    if len(region.images[0].flatten()) > 50:
        assert found.gap.mean() > 1.1 * sampled.view(6, 300).amax(1).mean()


@pytest.mark.parametrize("scaled", [False, True])
def test_the_optimum_of_a_linear_pair_is_reached(scaled):
    """Two classes, nothing clipped: a_T - a_S is linear with gradient g; its maximum adds r ||s g||."""
    shape = (3, 2, 2)
    teacher, student = make_linear(shape, 2, seed=0), make_linear(shape, 2, seed=3)
    region = _region(0.4 + 0.2 * make_images(5, shape), 0.3, scaled=scaled)
    labels = torch.zeros(5, dtype=torch.long)
    weight = teacher[1].weight - student[1].weight
    gradient = (weight[0] - weight[1]).view(shape)
    scale = region.pixel_scale().float()
    step = 0.3 * scale**2 * gradient / (scale * gradient).norm()
    best = torch.stack(
        [_gaps(teacher, student, region.images + way * step, labels) for way in (-1, 1)]
    ).amax(0)
    # The gap is no monotone function of a_T - a_S alone, so the attack may find more.
    found = _attack(teacher, student, region, labels, steps=60)
    assert (found.gap >= best - 1e-4).all()
    assert (region.distance(found.gap_witness) > 0.299).all()


def test_random_starts_fill_the_ball():
    """In two dimensions half of them lie within the radius's share sqrt(1/2), in any direction."""
    images = torch.full((2000, 1, 1, 2), 0.5)
    region = _region(images, 0.2)
    starts = (
        make_attack(attack_config({"name": "pgd"}))
        .starts(region, 2, seed=0)
        .view(2000, 2, 1, 1, 2)[:, 1]
    )
    share = region.distance(starts) / 0.2
    assert share.max() <= 1
    assert abs((share < 0.5**0.5).double().mean() - 0.5) < 0.05
    quadrant = (starts > 0.5).flatten(1).long() @ torch.tensor([1, 2])
    assert (quadrant.bincount(minlength=4) > 400).all()


@pytest.mark.parametrize("scaled", [False, True])
def test_a_ball_as_wide_as_the_image_range_is_the_whole_box_in_both_norms(scaled):
    shape = (3, 4, 4)
    images = make_images(4, shape)
    regions = []
    for norm in NORMS:
        ball = Ball(epsilon=0, norm=norm, channel_scale=STD[3] if scaled else None)
        diameter = torch.full((4,), ball.diameter(shape), dtype=torch.float64)
        regions.append(ball.region_of(images, diameter, torch.arange(4)))
    for region in regions:
        assert (region.lower == 0).all() and (region.upper == 1).all()
    corners = (torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    assert torch.equal(regions[1].clamp(corners), corners)


def test_an_example_does_not_depend_on_its_batch():
    teacher, student, shape, classes = make_pair("colour")
    region = _region(make_images(7, shape), 0.7, scaled=True)
    labels = torch.arange(7) % classes
    whole = _attack(teacher, student, region, labels, restarts=3)
    alone = _attack(teacher, student, region[torch.tensor([5])], labels[5:6], restarts=3)
    torch.testing.assert_close(whole.gap[5:6], alone.gap, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1.0, 1e-30])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_step_climbs_steepest_for_its_length_in_the_balls_metric(scaled, size):
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(5, 3, 2, 2, generator=generator)
    scale = torch.tensor(STD[3])[:, None, None] if scaled else None
    unit = 1.0 if scale is None else scale
    step = steepest_l2(size * gradient, scale)
    torch.testing.assert_close((step / unit).flatten(1).norm(dim=1), torch.ones(5))
    other = torch.randn(500, 5, 3, 2, 2, generator=generator) + gradient
    other = other / (other / unit).flatten(2).norm(dim=2)[:, :, None, None, None]
    climbed, climbed_other = ((gradient * s).flatten(-3).sum(-1) for s in (step, other))
    assert (climbed >= climbed_other.amax(0)).all()
    torch.testing.assert_close(climbed, (gradient * unit).flatten(1).norm(dim=1))
    assert (steepest_l2(0 * gradient, scale) == 0).all()
