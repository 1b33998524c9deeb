"""The plane through an image and both worst points: places, marks, values, edge, regions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fkd.core.ball import Ball, Region
from fkd.core.errors import Cancelled, ConfigError
from fkd.core.precision import double_copy
from fkd.evaluation import AnalysisConfig, GapPlane, gap_plane, plane_of
from fkd.evaluation._worst_point import worst_point
from tests.support.networks import PAIRS, make_linear, make_network
from tests.support.pairs import save_digits_model


def _pair(name: str) -> tuple[torch.nn.Module, torch.nn.Module, tuple[int, int, int]]:
    *specs, shape, classes = PAIRS[name]
    teacher, student = (
        make_network(*spec, image_shape=shape, num_classes=classes, seed=seed)
        for seed, spec in enumerate(specs)
    )
    return teacher, student, shape


def _region(shape: tuple[int, int, int], ball: Ball, seed: int = 0) -> Region:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, *shape, generator=generator)
    # Some pixels at the end of the range, as most of a digit's are.
    image.flatten()[::3] = 0.0
    return ball.region(image, torch.tensor([7]))


def _grid(plane: GapPlane) -> torch.Tensor:
    """The grid's points from the record alone, float64 (n * n, C, H, W), row by row."""
    rows = [
        plane.image + across * plane.directions[0] + up * plane.directions[1]
        for up in plane.up
        for across in plane.across
    ]
    return torch.from_numpy(np.stack(rows))


BALLS = [Ball(epsilon=0.2), Ball(epsilon=0.8, norm="l2")]
CASES = [(name, ball) for name in ("mlp", "convolutional", "colour") for ball in BALLS]


@pytest.mark.parametrize(
    ("name", "ball"), [*CASES, ("colour", Ball.per_channel(0.4, (0.5, 0.25, 0.3), "l2"))]
)
def test_the_grid_is_what_the_record_says(name, ball):
    teacher, student, shape = _pair(name)
    region = _region(shape, ball)
    plane = plane_of(teacher, student, region, 1, seed=3, size=9)
    grid = _grid(plane)
    logits = [double_copy(network)(grid) for network in (teacher, student)]
    for found, of in zip((plane.teacher_pred, plane.student_pred), logits, strict=True):
        assert (found.ravel() == of.argmax(1).numpy()).all()
    for found, of in zip((plane.teacher_conf, plane.student_conf), logits, strict=True):
        np.testing.assert_allclose(found.ravel(), torch.softmax(of, 1)[:, 1], atol=1e-12)
    assert (plane.gap == plane.teacher_conf - plane.student_conf).all()
    distances = region.repeat(len(grid)).distance(grid)
    clear = (distances - ball.epsilon).abs() > 1e-9
    assert (plane.in_ball.ravel() == (distances <= ball.epsilon).numpy())[clear].all()
    outside = torch.maximum(-grid, grid - 1).flatten(1).amax(1)
    assert (plane.in_range.ravel() == (outside <= 1e-12).numpy()).all()
    assert 0 < plane.is_inside.sum() < plane.is_inside.size


@pytest.mark.parametrize(("name", "ball"), CASES)
def test_the_plane_holds_the_three_points_and_they_lie_inside(name, ball):
    teacher, student, shape = _pair(name)
    region = _region(shape, ball)
    plane = plane_of(teacher, student, region, 0, seed=3, size=9)
    basis = torch.from_numpy(plane.directions).flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(2).double(), atol=1e-12, rtol=0)
    assert plane.drawn_at_random == 0 and (plane.points[0] == 0).all()
    for network, place in zip((teacher, student), plane.points[1:], strict=True):
        point = worst_point(network, region, seed=3, tell=lambda: None)
        assert float(region.distance(point)) <= ball.epsilon
        rebuilt = plane.image + np.tensordot(place, plane.directions, 1)
        np.testing.assert_allclose(rebuilt, point[0].double(), atol=1e-9)
        assert plane.across[0] < place[0] < plane.across[-1]
        assert plane.up[0] < place[1] < plane.up[-1]


@pytest.mark.parametrize("ball", BALLS)
def test_the_worst_point_of_a_linear_network_of_two_classes_is_the_true_one(ball):
    network = make_linear((1, 3, 3), 2, seed=1)
    region = ball.region(torch.full((1, 1, 3, 3), 0.5), torch.tensor([0]))
    predicted = int(network(region.images).argmax())
    weight = network[1].weight
    slope = (weight[1 - predicted] - weight[predicted]).reshape(1, 1, 3, 3)
    step = slope.sign() if ball.norm == "linf" else slope / slope.norm()
    best = region.clamp(region.images + ball.epsilon * step)
    found = worst_point(network, region, seed=0, tell=lambda: None)
    torch.testing.assert_close(found, best, atol=2e-3, rtol=0)


@pytest.mark.parametrize("ball", [*BALLS, Ball.per_channel(0.4, (0.5, 0.25, 0.3), "l2")])
def test_the_edge_separates_inside_from_outside(ball):
    teacher, student, shape = _pair("colour")
    region = _region(shape, ball)
    plane = plane_of(teacher, student, region, 0, seed=3, size=5)
    assert (plane.edge[0] == plane.edge[-1]).all()
    middle = plane.edge[:-1].mean(0)
    for stretch, is_inside in ((1 - 1e-6, True), (1 + 1e-3, False)):
        places = middle + stretch * (plane.edge - middle)
        points = torch.from_numpy(plane.image + np.tensordot(places, plane.directions, 1))
        in_ball = region.repeat(len(points)).distance(points) <= ball.epsilon + 1e-9
        in_range = (points.flatten(1).amin(1) >= -1e-9) & (points.flatten(1).amax(1) <= 1 + 1e-9)
        assert ((in_ball & in_range) == is_inside).all()


def test_equal_networks_have_no_gap_and_a_random_direction():
    teacher, _, shape = _pair("mlp")
    region = _region(shape, BALLS[0])
    plane = plane_of(teacher, teacher, region, 1, seed=0, size=7)
    assert (plane.gap == 0).all() and plane.gap_range == (0.0, 0.0)
    assert plane.disagreement_share == 0.0 and plane.drawn_at_random == 1
    np.testing.assert_allclose(plane.points[1], plane.points[2], atol=1e-12)
    # Of networks that say the same everywhere the image is the worst point.
    constant = make_linear(shape, 3, seed=0)
    constant[1].weight.zero_()
    plane = plane_of(constant, constant, region, 1, seed=0, size=7)
    assert plane.drawn_at_random == 2 and (plane.points == 0).all()
    assert plane.is_inside.any() and plane.teacher_margins.shape == (0, 7, 7)


def test_the_seed_alone_decides():
    teacher, _, shape = _pair("mlp")
    region = _region(shape, BALLS[0])
    first, same, other = (
        plane_of(teacher, teacher, region, 1, seed=seed, size=5) for seed in (4, 4, 5)
    )
    assert (first.directions == same.directions).all() and (first.gap == same.gap).all()
    assert (first.directions != other.directions).any()


def test_two_pixels_span_a_plane_and_one_does_not():
    networks = [make_linear((1, 1, 2), 2, seed=seed) for seed in (0, 1)]
    region = Ball(epsilon=0.1).region(torch.tensor([[[[0.4, 0.6]]]]), torch.tensor([0]))
    plane = plane_of(*networks, region, 0, seed=0, size=5)
    # All of the ball lies in it: a square.
    assert math.isclose(_area(plane.edge), 0.04, rel_tol=2e-3)
    networks = [make_linear((1, 1, 1), 2, seed=seed) for seed in (0, 1)]
    region = Ball(epsilon=0.1).region(torch.tensor([[[[0.4]]]]), torch.tensor([0]))
    with pytest.raises(ConfigError, match="No plane goes through this ball"):
        plane_of(*networks, region, 0, seed=0, size=5)


def _area(edge: np.ndarray) -> float:
    across, up = edge[:-1].T
    return 0.5 * abs(float(across @ np.roll(up, -1) - up @ np.roll(across, -1)))


def test_regions_and_margins_tell_of_the_predictions():
    teacher, student, shape = _pair("mlp")
    region = _region(shape, Ball(epsilon=0.4), seed=1)
    plane = plane_of(teacher, student, region, 1, seed=0, size=21)
    assert math.isclose(sum(part.share for part in plane.regions), 1.0)
    assert math.isclose(sum(part.share_inside for part in plane.regions), 1.0)
    differing = sum(p.share_inside for p in plane.regions if p.teacher_pred != p.student_pred)
    assert math.isclose(differing, plane.disagreement_share)
    for part in plane.regions:
        row, column = (
            int(np.abs(places - at).argmin())
            for places, at in ((plane.up, part.up), (plane.across, part.across))
        )
        assert plane.teacher_pred[row, column] == part.teacher_pred
        assert plane.student_pred[row, column] == part.student_pred
    for predicted, margins in (
        (plane.teacher_pred, plane.teacher_margins),
        (plane.student_pred, plane.student_margins),
    ):
        classes, counts = np.unique(predicted, return_counts=True)
        assert len(margins) == len(classes) - 1
        if len(margins):
            assert ((margins[0] > 0) == (predicted == classes[counts.argmax()])).all()


def test_a_plane_reports_and_can_be_stopped():
    teacher, student, shape = _pair("mlp")
    region = _region(shape, BALLS[0])
    reports = []
    plane_of(teacher, student, region, 1, seed=0, size=20, progress=reports.append)
    for stage in ("worst points", "plane"):
        own = [r for r in reports if r.stage == stage]
        assert own[-1].done == own[-1].total > 1
        with pytest.raises(Cancelled, match=stage):
            plane_of(
                teacher,
                student,
                region,
                1,
                seed=0,
                size=20,
                progress=lambda step, stage=stage: step.stage == stage,
            )


def test_the_plane_of_an_example(own_folders):
    save_digits_model("big", "teacher", hidden=(24, 16), seed=0)
    save_digits_model("small", "student", hidden=(10,), seed=1)
    pair = {"dataset": "digits", "teacher": "big", "student": "small"}
    plane = gap_plane(AnalysisConfig(**pair, epsilon=0.1, count=5), 3, size=11)
    assert plane.gap.shape == (11, 11) and plane.image.shape == (1, 8, 8)
    low, high = plane.gap_range
    assert -1 <= low <= high <= 1
    with pytest.raises(ConfigError, match="radius 0"):
        gap_plane(AnalysisConfig(**pair, epsilon=0.0), 3)
    with pytest.raises(ConfigError, match="cannot be analysed"):
        gap_plane(AnalysisConfig(**pair, epsilon=0.1), 10**6)
    with pytest.raises(ConfigError, match="got -1"):
        gap_plane(AnalysisConfig(**pair, epsilon=0.1), -1)
