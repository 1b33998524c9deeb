"""Each group's figures by hand: calibration, detection, mistakes, divergence, cost, and the shifts."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import nn

from fkd.evaluation.scores import all_figures
from fkd.evaluation.scores._base import mean, share
from fkd.evaluation.scores._shifts import CONTRAST, CORRUPTIONS, NOISE
from fkd.evaluation.scores.calibration import (
    expected_calibration_error,
    relative_calibration,
    reliability,
)
from fkd.evaluation.scores.cost import flops, latency, training_cost
from fkd.evaluation.scores.fidelity import divergences
from fkd.evaluation.scores.ood import Reference, auroc, doubt
from fkd.evaluation.scores.retention import retention, share_of_mistakes
from fkd.models import ModelCard
from fkd.models.base import Normalisation

CARD = {
    "name": "net",
    "role": "student",
    "dataset": "digits",
    "method": "kd",
    "architecture": "mlp",
    "image_shape": (1, 8, 8),
    "num_classes": 10,
}


def logits_with(confidences, count=2):
    """Logits of two classes whose first has these probabilities."""
    p = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], 1)


def test_calibration_error_of_known_bins():
    # Two examples at 0.9, one of them right, and two at 0.7, both right: half of 0.4 and half of 0.3.
    logits = logits_with([0.9, 0.9, 0.7, 0.7])
    error = expected_calibration_error(logits, torch.tensor([0, 1, 0, 0]))
    assert error == pytest.approx(0.5 * 0.4 + 0.5 * 0.3, abs=1e-6)


def test_calibration_error_has_no_bin_for_certainty_alone():
    # Four sure examples, one of them wrong, share the last bin with four at 0.97 that are right.
    logits = torch.cat([torch.tensor([[60.0, 0.0]] * 4).double(), logits_with([0.97] * 4)])
    error = expected_calibration_error(logits, torch.tensor([1, 0, 0, 0, 0, 0, 0, 0]))
    assert error == pytest.approx(abs(7 / 8 - (1.0 + 0.97) / 2), abs=1e-6)


def test_bins_are_of_the_teacher_and_hold_every_example():
    teacher, student = np.array([0.0, 0.05, 0.5, 1.0]), np.array([0.2, 0.4, 0.5, 0.7])
    bins = reliability(teacher, student)
    assert bins["count"].tolist() == [2, *[0] * 6, 1, *[0] * 6, 1]
    assert bins.student_conf[0] == pytest.approx(0.3)
    assert bins.teacher_conf[14] == 1.0
    assert bins.teacher_conf.isna().sum() == 12
    # 2 of 4 examples 0.275 apart in the mean, one equal, one 0.3 apart.
    assert relative_calibration(bins) == pytest.approx((2 * 0.275 + 0.0 + 0.3) / 4)
    # What differs in both directions in one bin cancels there.
    mixed = reliability(np.array([0.5, 0.5]), np.array([0.3, 0.7]))
    assert relative_calibration(mixed) == pytest.approx(0.0)


def test_auroc_is_the_share_of_pairs_in_order():
    inside, outside = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0])
    assert auroc(inside, outside).value == 1.0
    assert auroc(outside, inside).value == 0.0
    assert auroc(inside, inside).value == pytest.approx(0.5)
    # Far beyond where a sigmoid tells numbers apart; of 4 pairs one is in order and one a tie.
    far = auroc(torch.tensor([1e6, 3e6]), torch.tensor([1e6, 2e6]))
    assert far.value == pytest.approx(1.5 / 4)
    assert far.count == 4


def test_auroc_and_its_interval_against_scipy():
    generator = torch.Generator().manual_seed(0)
    inside = torch.randn(200, generator=generator)
    outside = torch.randn(100, generator=generator) + 1
    found = auroc(inside, outside)
    area = mannwhitneyu(outside, inside).statistic / 20_000
    assert found.value == pytest.approx(area, abs=1e-6)
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + 99 * (first - area**2) + 199 * (second - area**2)
    assert found.upper - found.value == pytest.approx(1.95996 * math.sqrt(variance / 20_000), 1e-4)


def test_doubt_is_in_the_order_of_one_minus_the_confidence_where_that_is_0():
    logits = torch.tensor([[0.0, 0.0], [50.0, 0.0], [90.0, 0.0]], dtype=torch.float64)
    assert doubt(logits).tolist() == pytest.approx([0.0, -50.0, -90.0])
    generator = torch.Generator().manual_seed(0)
    mild = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    unsure = 1 - torch.softmax(mild, 1).amax(1)
    assert torch.equal(doubt(mild).argsort(), unsure.argsort())


def test_distances_to_train_examples():
    # Two classes at (+-2, 0), each spread evenly: variance 0.5 along each axis.
    offsets = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double()
    centres = torch.tensor([[2.0, 0.0], [-2.0, 0.0]]).double()
    latents = (centres[:, None] + offsets).reshape(8, 2)
    labels = torch.tensor([0] * 4 + [3] * 4)
    reference = Reference(latents, labels)
    points = torch.tensor([[2.0, 0.0], [2.0, 3.0], [-2.0, 1.0]]).double()
    expected = [0.0, 3 / math.sqrt(0.5), 1 / math.sqrt(0.5)]
    assert reference.mahalanobis(points).tolist() == pytest.approx(expected, rel=1e-4)
    # Fewer than ten directions: the farthest, which is opposite.
    assert reference.knn(torch.tensor([[5.0, 0.0]]).double()).item() == pytest.approx(2.0)


def test_a_unit_that_never_fires_leaves_distances_finite():
    latents = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 4.0]]).double()
    reference = Reference(latents, torch.tensor([0, 0, 1]))
    assert reference.mahalanobis(latents).isfinite().all()


def test_the_teachers_mistakes_by_hand():
    labels = torch.tensor([0, 0, 1, 1, 2])
    teacher = torch.tensor([0, 1, 0, 2, 0])
    student = torch.tensor([1, 1, 1, 0, 0])
    # Wrong on four: kept on two (1 and 0), right on one, another class on one.
    assert retention(teacher, student, labels) == (4, 2, 1)


def test_shares_of_few_mistakes_are_not_told():
    enough = share_of_mistakes(5, 20, "train")
    assert (enough.value, enough.count, enough.reason) == (0.25, 20, None)
    few = share_of_mistakes(5, 19, "train")
    assert (few.value, few.lower, few.upper, few.count) == (None, None, None, 19)
    assert few.reason == "The teacher gets only 19 train examples wrong, too few to tell."
    one = share_of_mistakes(1, 1, "test").reason
    assert one == "The teacher gets only 1 test example wrong, too few to tell."
    none = share_of_mistakes(0, 0, "test")
    assert (none.count, none.reason) == (0, "The teacher gets no test example wrong.")


def test_divergence_by_hand_and_of_equal_networks():
    teacher, student = logits_with([0.5]), logits_with([0.25])
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergences(teacher, student).item() == pytest.approx(expected)
    assert divergences(teacher, teacher + 3.0).item() == 0.0


def test_operations_of_one_linear_layer_and_one_convolution():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    assert flops(linear, torch.rand(1, 3, 2, 2)) == 2 * 12 * 5
    convolution = nn.Conv2d(3, 4, 2, bias=False)
    assert flops(convolution, torch.rand(1, 3, 5, 5)) == 2 * (3 * 2 * 2) * 4 * (4 * 4)
    normalised = nn.Sequential(Normalisation([0.5] * 3, [0.2] * 3), linear)
    assert flops(normalised, torch.rand(1, 3, 2, 2)) == 2 * 12 * 5 + 2 * 12


def test_latency_restores_the_threads():
    threads = torch.get_num_threads()
    seen = []
    network = nn.Linear(4, 2)
    network.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    seconds = latency(network, torch.rand(3, 4), repeats=5)
    assert (seconds > 0).all() and seconds.shape == (5,)
    assert set(seen) == {1} and torch.get_num_threads() == threads


def test_time_on_other_machines_makes_nobody_the_best():
    assert all_figures()["training_seconds"].better == "neither"
    assert "set to zero count too" in all_figures()["parameters"].meaning


def test_training_is_told_by_the_card():
    def told(**facts):
        scores = training_cost(ModelCard(**CARD, **facts), 1000)
        return scores["training_seconds"].value, scores["training_examples"].value

    epochs = [{"epoch": 1.0}, {"epoch": 2.0}]
    assert told(history=epochs, seconds=3.5) == (3.5, 2000.0)
    assert told(history=epochs, training_config={"train_count": 30}) == (None, 60.0)
    counted = [{"epoch": 1.0, "examples": 40.0}, {"epoch": 2.0, "examples": 70.0}]
    assert told(history=counted, seconds=1.0) == (1.0, 70.0)
    # A copy's seconds are not those of a training.
    assert told(seconds=1.2) == (None, None)


def test_intervals_by_hand():
    found = mean(np.array([0.0, 1.0, 0.0, 1.0]), least=0.0, most=1.0)
    assert (found.value, found.count) == (0.5, 4)
    assert found.lower == 0.0 and found.upper == 1.0  # +- 0.566 is cut
    wide = mean(np.array([0.0, 1.0, 0.0, 1.0]))
    assert wide.upper - 0.5 == pytest.approx(1.959964 * math.sqrt(1 / 3) / 2)
    alone = mean(np.array([0.3]))
    assert (alone.value, alone.lower) == (0.3, None)
    assert (share(3, 4).value, share(3, 4).count) == (0.75, 4)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 5), (2, 1, 2)])
@pytest.mark.parametrize("name", [*CORRUPTIONS, "noise"])
def test_a_shift_depends_on_seed_and_example_alone(name, shape):
    one = {**CORRUPTIONS, "noise": NOISE}[name]
    images, ids = torch.rand(6, *shape), torch.arange(6)
    moved = one.apply(images, ids, 0)
    assert moved.shape == images.shape and moved.dtype == images.dtype
    assert moved.min() >= 0 and moved.max() <= 1
    back = torch.tensor([4, 1])
    torch.testing.assert_close(one.apply(images[back], ids[back], 0), moved[back])
    # In place of what was given, never on it: splits are shared.
    torch.testing.assert_close(one.apply(images, ids, 0), moved)


def test_shifts_do_what_they_say():
    images = torch.zeros(50, 1, 8, 8)
    images[:, :, 4, 4] = 1.0
    ids = torch.arange(50)
    moved = CORRUPTIONS["shift"].apply(images, ids, 0)
    places = {tuple(place[2:]) for place in moved.nonzero().tolist()}
    assert places == {(y, x) for y in (3, 4, 5) for x in (3, 4, 5)} - {(4, 4)}
    covered = CORRUPTIONS["occlusion"].apply(torch.zeros(50, 1, 9, 9), ids, 0)
    assert (covered.flatten(1).sum(1) == 9 * 0.5).all()
    flat = CORRUPTIONS["contrast"].apply(images, ids, 0)
    middle = 1 / 64
    assert flat[0, 0, 4, 4].item() == pytest.approx(middle + CONTRAST * (1 - middle), abs=1e-6)
    noise = CORRUPTIONS["gaussian_noise"].apply(torch.full((50, 1, 8, 8), 0.5), ids, 0) - 0.5
    assert noise.std().item() == pytest.approx(0.2, rel=0.05)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.01)
    # A blur keeps what there is in all, away from the border, and spreads it.
    blurred = CORRUPTIONS["blur"].apply(images, ids, 0)
    assert blurred[0].sum().item() == pytest.approx(1.0, abs=1e-4) and blurred[0].max() < 0.9
