"""Each pixel's part in the gap: against closed formulas, finite differences, and its own sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fkd.core.ball import Ball
from fkd.core.errors import Cancelled
from fkd.core.precision import double_copy
from fkd.evaluation import (
    AnalysisConfig,
    analyse,
    gap_saliency,
    per_pixel,
    saliency_of,
)
from fkd.evaluation._worst_point import random_points
from tests.support.networks import PAIRS, make_linear, make_network
from tests.support.pairs import save_digits_model


def _image(shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 4, 4), (3, 3, 2)])
@pytest.mark.parametrize("ball", [Ball(epsilon=0.2), Ball(epsilon=0.5, norm="l2")])
def test_shares_add_up_and_slopes_are_those_of_a_linear_softmax_pair(shape, ball):
    teacher, student = (make_linear(shape, 3, seed=seed) for seed in (0, 1))
    region = ball.region(_image(shape), torch.tensor([0]))
    witness = random_points(region, 1, seed=0)
    found = saliency_of(teacher, student, region, witness, 1)
    assert abs(found.completeness_error) < 1e-6
    change = found.gap_witness - found.gap_image
    assert abs(found.along.sum() - change - found.completeness_error) < 1e-12
    assert per_pixel(found.along).shape == shape[1:]
    assert abs(per_pixel(found.along).sum() - found.along.sum()) < 1e-12

    def slopes(network: torch.nn.Module, point: torch.Tensor) -> np.ndarray:
        """Of a softmax of linear logits: p_c (w_c - sum_j p_j w_j)."""
        exact = double_copy(network)
        probabilities = torch.softmax(exact(point.double()), 1)[0]
        weight = exact[1].weight
        return (probabilities[1] * (weight[1] - probabilities @ weight)).reshape(shape).numpy()

    room = (region.upper.double() - region.lower.double())[0].numpy()
    for seen, point in ((found.at_image, region.images), (found.at_witness, witness)):
        expected = (slopes(teacher, point) - slopes(student, point)) * room
        np.testing.assert_allclose(seen, expected, atol=1e-12)


def test_kinks_cost_evaluations_and_the_error_is_told():
    *specs, shape, classes = PAIRS["colour"]
    teacher, student = (
        make_network(*spec, image_shape=shape, num_classes=classes, seed=seed)
        for seed, spec in enumerate(specs)
    )
    region = Ball(epsilon=0.3).region(_image(shape), torch.tensor([0]))
    witness = random_points(region, 1, seed=1)
    rough, fine = (
        saliency_of(teacher, student, region, witness, 0, tolerance=tolerance)
        for tolerance in (1.0, 1e-5)
    )
    assert abs(fine.completeness_error) <= 1e-5
    assert fine.gradient_evaluations >= rough.gradient_evaluations
    np.testing.assert_allclose(rough.along, fine.along, atol=5e-3)


def test_equal_networks_have_no_salient_pixels():
    network = make_linear((1, 3, 3), 3, seed=0)
    region = Ball(epsilon=0.1).region(_image((1, 3, 3)), torch.tensor([0]))
    found = saliency_of(network, network, region, random_points(region, 1, seed=0), 0)
    assert found.gap_image == found.gap_witness == found.completeness_error == 0.0
    assert not found.along.any() and not found.at_image.any() and not found.at_witness.any()


def test_it_can_be_stopped():
    network = make_linear((1, 3, 3), 3, seed=0)
    region = Ball(epsilon=0.1).region(_image((1, 3, 3)), torch.tensor([0]))
    with pytest.raises(Cancelled, match="saliency"):
        saliency_of(network, network, region, region.images, 0, progress=lambda step: True)


def test_the_pixels_of_an_analysed_example(own_folders):
    save_digits_model("big", "teacher", hidden=(24, 16), seed=0)
    save_digits_model("small", "student", hidden=(10,), seed=1)
    config = AnalysisConfig(dataset="digits", teacher="big", student="small", epsilon=0.1, count=4)
    row = analyse(config).table.iloc[2]
    found = gap_saliency(config, 2)
    assert abs(found.gap_witness) == pytest.approx(row.gap_attack, abs=1e-9)
    assert abs(found.gap_image) == pytest.approx(row.gap_clean, abs=1e-9)
    assert abs(found.completeness_error) <= 1e-4
    assert found.along.shape == (1, 8, 8)
