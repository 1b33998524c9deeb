"""The judges themselves: two exact methods that share nothing agree with each other and with samples."""

import math

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from fkd.attacks.objectives import confidence
from fkd.core.ball import Ball
from tests.support.cells import Disc, firmest_disagreement, largest_gap
from tests.support.dense import dense_form
from tests.support.exact import BAND, PairProgram, agreement_radius
from tests.support.networks import PAIRS, make_images, make_linear, make_pair
from tests.support.tiny_pairs import (
    QUICK,
    build_case,
    gap_truth,
    grid,
    samples,
    tiny_pairs,
    verdicts,
)
from tests.support.zonogon import gap_on_polygon, zonogon


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_dense_form_is_the_network(name):
    *networks, shape, _ = make_pair(name)
    images = make_images(20, shape).double()
    for network in networks:
        dense = dense_form(network, shape)
        expected = network.double()(images)
        torch.testing.assert_close(dense.logits(images.flatten(1)), expected, atol=1e-12, rtol=0)


def test_dense_form_writes_maximum_pooling_as_relus():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(2, 3)
    )
    images = make_images(20, (1, 4, 4)).double()
    dense = dense_form(network, (1, 4, 4))
    assert dense.hidden == 2 * 9 + 2 * 8
    expected = network.double()(images)
    torch.testing.assert_close(dense.logits(images.flatten(1)), expected, atol=1e-12, rtol=0)


@settings(QUICK, max_examples=15, derandomize=True)
@given(tiny_pairs(inputs=(2,)))
def test_cells_and_mixed_integer_programs_agree(pair):
    case = build_case(pair)
    for row in range(len(case.region)):
        lower, upper = case.box(row)
        points = grid(lower, upper, 101)
        z_teacher, z_student = case.dense_teacher.logits(points), case.dense_student.logits(points)
        # Agreement: the sign of the firmest disagreement, met by the grid to its resolution.
        firm = firmest_disagreement(case.dense_teacher, case.dense_student, lower, upper)
        verdict = verdicts(pair, row)
        if verdict.agrees and (firm.low > 1e-3 or firm.high < -1e-3):
            assert verdict.agrees == (-1 if firm.low > 0 else 1)
        differ = z_teacher.argmax(1) != z_student.argmax(1)
        assert not (verdict.agrees == 1 and differ.any())
        # One row of margins against the grid.
        rows = torch.zeros(2 * pair.classes, dtype=torch.float64)
        rows[0], rows[1], rows[pair.classes] = 1.0, -1.0, -0.7
        found = case.program(row).maximum(rows)
        seen = (torch.cat([z_teacher, z_student], 1) @ rows).max()
        assert found.value <= found.bound <= found.value + BAND
        assert seen <= found.bound + BAND
        for network, robust in ((0, verdict.teacher_robust), (1, verdict.student_robust)):
            logits = (z_teacher, z_student)[network]
            clean = case.program(row).logits(case.region.images[row].flatten().double())[network]
            assert not (robust == 1 and (logits.argmax(1) != clean.argmax()).any())


@settings(QUICK, max_examples=10, derandomize=True)
@given(tiny_pairs(inputs=(2,)))
def test_cells_bracket_the_gap_of_a_dense_grid(pair):
    case = build_case(pair)
    for row in range(len(case.region)):
        points = grid(*case.box(row), 401)
        each = case.labels[row].expand(len(points))
        gap = confidence(case.dense_teacher.logits(points), each) - confidence(
            case.dense_student.logits(points), each
        )
        for sign, truth in zip((1, -1), gap_truth(pair, row), strict=True):
            assert truth.low - 1e-12 <= truth.high <= truth.low + 1.01e-4
            assert (sign * gap).max() <= truth.high + 1e-12
            # What cells reach, a grid of 400 steps nearly reaches too.
            assert (sign * gap).max() >= truth.low - 0.05


@settings(QUICK, max_examples=10, derandomize=True)
@given(tiny_pairs(inputs=(3, 4)))
def test_cells_bracket_samples_in_more_dimensions(pair):
    case = build_case(pair)
    points = samples(*case.box(0), 4000, seed=pair.seed % 1000)
    each = case.labels[0].expand(len(points))
    gap = confidence(case.dense_teacher.logits(points), each) - confidence(
        case.dense_student.logits(points), each
    )
    for sign, truth in zip((1, -1), gap_truth(pair, 0), strict=True):
        assert (sign * gap).max() <= truth.high + 1e-12
        assert truth.high <= truth.low + 2.01e-3


def _odds_planes(teacher, student):
    """Slopes (2, n) and constants (2,) of both log-odds of class 0 of linear two-class networks."""
    weights = torch.stack([d.weights[0] - d.weights[1] for d in (teacher, student)])
    return weights, torch.stack([d.bias[0] - d.bias[1] for d in (teacher, student)])


@pytest.mark.parametrize("seed", range(6))
def test_cells_meet_the_zonogon_of_linear_networks(seed):
    teacher, student = (
        dense_form(make_linear((1, 1, 3), 2, seed=2 * seed + k), (1, 1, 3)) for k in (0, 1)
    )
    lower, upper = torch.zeros(3).double(), torch.tensor([0.4, 1.0, 0.7]).double()
    weights, constant = _odds_planes(teacher, student)
    vertices = zonogon(weights, lower, upper, constant)
    # Every corner of the box lies inside the polygon, and every vertex comes from a corner.
    corners = torch.cartesian_prod(*torch.stack([lower, upper], 1)) @ weights.T + constant
    assert (torch.cdist(vertices, corners).amin(1) < 1e-9).all()
    along = vertices.roll(-1, 0) - vertices
    away = corners[:, None, :] - vertices
    assert (along[:, 0] * away[..., 1] - along[:, 1] * away[..., 0] >= -1e-9).all()
    low, high = gap_on_polygon(vertices)
    truth = largest_gap(teacher, student, lower, upper, 0, tolerance=1e-5)
    assert truth.low <= high + 1e-12 and low <= truth.high + 1e-12
    assert high - low < 1e-3


def test_a_disc_cuts_the_box():
    teacher, student = (dense_form(make_linear((1, 1, 2), 2, seed=k), (1, 1, 2)) for k in (3, 4))
    image = torch.tensor([[[[0.5, 0.55]]]])
    region = Ball(epsilon=0.2, norm="l2").region(image, torch.arange(1))
    centre, ones = image.flatten().double(), torch.ones(2).double()
    lower, upper = (limit.flatten() for limit in region.double_limits())
    disc = Disc(centre, 0.2, ones)
    truth = largest_gap(teacher, student, lower, upper, 0, tolerance=1e-4, disc=disc)
    angle = torch.linspace(0, 2 * math.pi, 20001, dtype=torch.float64)
    around = centre + 0.2 * torch.stack([angle.cos(), angle.sin()], 1)
    weights, constant = _odds_planes(teacher, student)
    odds = around @ weights.T + constant
    # Linear log-odds: the extreme is on the circle.
    expected = (torch.sigmoid(odds[:, 0]) - torch.sigmoid(odds[:, 1])).max()
    assert truth.low - 1e-6 <= expected <= truth.high + 1e-6
    assert truth.high - truth.low <= 1.01e-4
    assert largest_gap(teacher, student, lower, upper, 0).low > truth.high + 1e-3


def test_agreement_radius_of_two_thresholds():
    """One pixel, class 1 above 0.7 (teacher) and above 0.6 (student): from 0.4 that is 0.2."""

    def threshold(at):
        layer = nn.Linear(1, 2)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[0.0], [1.0]]))
            layer.bias.copy_(torch.tensor([at, 0.0]))
        return dense_form(nn.Sequential(nn.Flatten(), layer), (1, 1, 1))

    low, high = agreement_radius(
        threshold(0.7), threshold(0.6), torch.tensor([0.4]).double(), tolerance=1e-4
    )
    assert low <= 0.2 + 1e-4 and high >= 0.2 - 1e-4 and high - low <= 1e-4
    assert agreement_radius(
        threshold(0.7), threshold(0.7), torch.tensor([0.4]).double(), largest=0.2
    ) == (0.2, 0.2)


def test_a_program_without_open_units_is_linear():
    network = dense_form(make_linear((1, 1, 2), 2, seed=1), (1, 1, 2))
    lower, upper = torch.zeros(2).double(), torch.ones(2).double()
    row = torch.tensor([1.0, -1.0, 0.0, 0.0]).double()
    found = PairProgram(network, network, lower, upper).maximum(row)
    weight = network.weights[0] - network.weights[1]
    expected = weight.clamp_min(0).sum() + network.bias[0] - network.bias[1]
    assert found.value == pytest.approx(float(expected), abs=1e-9)
    assert found.bound == pytest.approx(float(expected), abs=1e-9)
