"""Pictures of one example on request: the plane through its worst points, and its pixels' parts."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from dashboard import backend, figures
from fkd.core.ball import Ball
from fkd.evaluation import AnalysisConfig, analyse, gap_plane, gap_saliency, plane_of
from tests.dashboard.conftest import COUNT, EPSILON, TINY
from tests.support.networks import make_linear

CLASSES = tuple("abc")


def _plane(shape: tuple[int, int, int] = (3, 2, 2), seeds: tuple[int, int] = (0, 1)):
    teacher, student = (make_linear(shape, 3, seed=seed) for seed in seeds)
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(4))
    region = Ball(epsilon=0.4).region(image, torch.tensor([0]))
    return plane_of(teacher, student, region, 1, seed=0, size=15)


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 2, 2)])
def test_the_plane_is_drawn_as_the_record_says(shape):
    plane = _plane(shape)
    chart = figures.plane(plane, CLASSES, index=3)
    heat = chart.figure.data[0]
    assert heat.type == "heatmap" and (heat.zmin, heat.zmid, heat.zmax) == (-1, 0, 1)
    np.testing.assert_array_equal(heat.z, plane.gap)
    scatters = [trace for trace in chart.figure.data if trace.type == "scatter"]
    marks = [trace for trace in scatters if trace.mode == "markers"]
    assert [(t.x[0], t.y[0]) for t in marks] == [tuple(place) for place in plane.points]
    assert len({t.marker.symbol for t in marks}) == 3
    # A light line below each border, and the two networks' apart also without colour.
    borders = [trace.line.dash for trace in chart.figure.data if trace.type == "contour"]
    both = len(plane.teacher_margins) + len(plane.student_margins)
    assert len(borders) == 2 * both
    assert borders.count("dash") == len(plane.student_margins)
    texts = np.array(heat.text)
    assert texts.shape == plane.gap.shape
    assert (np.char.find(texts, "outside the ball") >= 0).tolist() == (~plane.is_inside).tolist()
    assert "Plane through image 3" in chart.alt


def test_a_disagreement_at_a_corner_alone_is_said():
    plane = _plane((1, 1, 2), seeds=(0, 0))
    assert figures.plane_disagreement(plane) == "no disagreement was found on it"
    at_a_corner = plane.predictions_at_points.copy()
    at_a_corner[2] = (0, 1)
    plane = replace(plane, predictions_at_points=at_a_corner)
    assert figures.plane_disagreement(plane).endswith("at a marked point alone")
    plane = replace(plane, teacher_pred=plane.student_pred + 1)
    assert figures.plane_disagreement(plane).endswith("different classes on 100\u00a0% of it")


def test_only_a_gap_of_another_sign_is_written_with_one():
    assert figures.signed(0.9999) == "0.999"
    assert figures.signed(-0.9999) == "\u22120.999"
    assert figures.signed(-1e-9) == figures.signed(0.0) == "0.000"


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pixels_are_drawn_beside_their_image(channels):
    image = np.linspace(0, 1, channels * 6).reshape(channels, 2, 3)
    parts = np.array([[0.1, -0.4, 0.0], [0.2, 0.0, 0.3]])
    chart = figures.saliency(image, parts, title="shares", index=5)
    shown, heat = chart.figure.data
    assert np.asarray(shown.z).shape == (2, 3, 3)
    np.testing.assert_array_equal(heat.z, parts)
    assert (heat.zmin, heat.zmid, heat.zmax) == (-0.4, 0, 0.4)
    assert "row 0, column 1" in chart.alt and "-0.4" in chart.alt
    blank = figures.saliency(image, np.zeros((2, 3)), title="shares", index=5)
    assert blank.figure.data[1].zmax > 0


def test_pictures_are_drawn_on_request_only(opened, pair):
    session = opened("gaps", **pair, example=2).check()
    before = session.charts()
    assert "slice of the ball" not in session.text
    session = opened("gaps", **pair, example=2, plane="true").check()
    assert session.charts() == before + 1
    plane = gap_plane(AnalysisConfig(**pair), 2)
    low, high = plane.gap_range
    assert f"runs from {figures.signed(low)} to {figures.signed(high)}" in session.text
    assert re.search(r"\| student's worst \| \d \(0\.\d{3}\) \|", session.text)
    session = opened("gaps", **pair, example=2, plane="true", pixels="true").check()
    assert session.charts() == before + 2
    found = gap_saliency(AnalysisConfig(**pair), 2)
    ends = f"from {figures.signed(found.gap_image)} to {figures.signed(found.gap_witness)}"
    assert ends in session.text
    assert session.errors == []


@pytest.mark.parametrize("seen", ["At the image", "At the witness"])
def test_slopes_are_shown_at_either_end(seen, opened, pair):
    session = opened("gaps", **pair, example=1, pixels="true", seen=seen).check()
    assert f"{seen}: by how much" in session.text
    assert session.errors == []


def test_a_ball_of_radius_zero_has_no_pictures(opened, pair):
    analyse(AnalysisConfig(**{**pair, "epsilon": 0.0}))
    session = opened("gaps", **{**pair, "epsilon": 0}, plane="true", pixels="true").check()
    assert session.errors == []
    labels = [toggle.label for toggle in session.app.toggle]
    assert "Gap against ε for this image" in labels
    assert not [label for label in labels if "Plane" in label or "Pixels" in label]


def test_pictures_are_kept(opened, pair):
    choice = backend.Choice(**TINY, epsilon=EPSILON, count=COUNT)
    loaded = backend.find(choice)
    first, second = (backend.plane(choice, loaded, 0) for _ in range(2))
    assert (first.gap == second.gap).all()
    assert backend.saliency(choice, loaded, 0).gap_class == first.gap_class
