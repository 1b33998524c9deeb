"""Clean, attacked and certified accuracies of networks whose answers are known."""

import pytest
import torch
from torch import nn

from fkd.core.errors import Cancelled, ConfigError, UnsupportedModelError
from fkd.data import Split
from fkd.distillation import (
    certified_accuracy,
    evaluate_accuracy,
    robust_accuracy,
    teacher_agreement,
)
from fkd.distillation._report import final_metrics
from fkd.distillation.measure import mean_loss


def make_threshold(at: float = 0.5) -> nn.Module:
    """Class 1 where the only pixel exceeds ``at``, class 0 elsewhere; logits (0, pixel - at)."""
    layer = nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0], [1.0]]))
        layer.bias.copy_(torch.tensor([0.0, -at]))
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


def make_split(pixels: list[float], labels: list[int]) -> Split:
    images = torch.tensor(pixels).view(-1, 1, 1, 1)
    return Split(images, torch.tensor(labels), "x")


#: Distances from the threshold: 0.3, 0.1, 0.05, 0.2, and one that is wrong at the clean image.
SPLIT = make_split([0.2, 0.4, 0.55, 0.7, 0.9], [0, 0, 1, 1, 0])


def test_clean_accuracy_counts_right_predictions():
    assert evaluate_accuracy(make_threshold(), SPLIT) == 0.8
    assert evaluate_accuracy(make_threshold(), SPLIT, count=4) == 1.0
    assert evaluate_accuracy(make_threshold(), SPLIT, count=100) == 0.8


@pytest.mark.parametrize(
    ("epsilon", "expected"),
    [(0.0, 0.8), (0.04, 0.8), (0.07, 0.6), (0.15, 0.4), (0.25, 0.2), (0.31, 0)],
)
def test_attacked_and_certified_accuracy_meet_where_the_truth_is_known(epsilon, expected):
    network = make_threshold()
    assert robust_accuracy(network, SPLIT, epsilon=epsilon, steps=5) == pytest.approx(expected)
    for relaxation in ("ibp", "crown_ibp"):
        found = certified_accuracy(network, SPLIT, epsilon=epsilon, relaxation=relaxation)
        assert found == pytest.approx(expected)


def test_pixels_outside_of_images_are_no_attack():
    # The threshold lies at 1.05: no image of values up to 1 gets there.
    network, split = make_threshold(1.05), make_split([0.9, 0.99], [0, 0])
    assert robust_accuracy(network, split, epsilon=0.5, steps=5) == 1.0
    assert certified_accuracy(network, split, epsilon=0.5) == 1.0


def test_more_restarts_never_raise_the_accuracy_and_the_seed_decides():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 20), nn.ReLU(), nn.Linear(20, 3))
    network.eval().requires_grad_(False)
    images = torch.rand(60, 1, 3, 3)
    split = Split(images, network(images).argmax(1), "x")
    shares = [
        robust_accuracy(network, split, epsilon=0.1, steps=3, restarts=n, seed=1) for n in (1, 2, 5)
    ]
    assert shares == sorted(shares, reverse=True)
    assert 0 < shares[-1] < 1
    assert shares[0] == robust_accuracy(network, split, epsilon=0.1, steps=3, seed=1)
    # Proved shares are never above attacked ones, and tighter bounds never prove less.
    ibp = certified_accuracy(network, split, epsilon=0.1)
    crown = certified_accuracy(network, split, epsilon=0.1, relaxation="crown_ibp")
    assert ibp <= crown <= shares[-1]


def test_an_example_lost_once_stays_lost(monkeypatch):
    """Restarts end at the other class, at the image, and at a point that mends the wrong one."""
    ends = iter([1.0 - SPLIT.images, SPLIT.images, torch.zeros_like(SPLIT.images)])
    monkeypatch.setattr("fkd.distillation.measure.ascend", lambda *_, **__: next(ends))
    assert robust_accuracy(make_threshold(), SPLIT, epsilon=0.9, restarts=3) == 0.0
    ends = iter([SPLIT.images, torch.zeros_like(SPLIT.images)])
    # Only the first two are 0 at 0; the fifth was wrong before.
    assert robust_accuracy(make_threshold(), SPLIT, epsilon=0.9, restarts=2) == 0.4


def test_a_tie_or_a_nan_is_not_certified():
    zero = make_threshold()
    with torch.no_grad():
        zero[1].weight.zero_()
        zero[1].bias.zero_()
    assert certified_accuracy(zero, SPLIT, epsilon=0.01) == 0.0
    zero[1].bias.fill_(float("nan"))
    assert certified_accuracy(zero, SPLIT, epsilon=0.01) == 0.0


def test_certification_survives_what_float32_would_round_away():
    """Logits of 2^24 and 2^24 - 0.25: float32 cannot tell them apart in either direction."""
    network = make_threshold(0.5)
    with torch.no_grad():
        network[1].bias.copy_(torch.tensor([2.0**24, 2.0**24]))
        network[1].weight.copy_(torch.tensor([[0.0], [-1.0]]))
    # Class 1 is lower by the pixel's value, which float32 loses beside 2^24.
    split = make_split([0.25], [0])
    assert certified_accuracy(network, split, epsilon=0.1) == 1.0


def test_agreement_is_the_share_of_equal_predictions():
    first, second = make_threshold(0.5), make_threshold(0.6)
    assert teacher_agreement(first, second, SPLIT) == 0.8
    assert teacher_agreement(first, first, SPLIT) == 1.0


def test_mean_loss_is_the_cross_entropy():
    expected = nn.functional.cross_entropy(make_threshold()(SPLIT.images), SPLIT.labels).item()
    assert mean_loss(make_threshold(), SPLIT) == pytest.approx(expected)


def make_cancelling() -> nn.Module:
    """Logits (0, a - b + 0.1) of hidden units a = b = pixel: the label is 1 everywhere, by 0.1.

    Intervals let a and b differ by twice epsilon; a linear relaxation knows that they are equal.
    """
    hidden, logits = nn.Linear(1, 2), nn.Linear(2, 2)
    with torch.no_grad():
        hidden.weight.copy_(torch.tensor([[1.0], [1.0]]))
        hidden.bias.zero_()
        logits.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
        logits.bias.copy_(torch.tensor([0.0, 0.1]))
    return nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), logits).eval().requires_grad_(False)


def test_linear_relaxation_proves_what_intervals_do_not(monkeypatch):
    """At 0.1 intervals know that a - b + 0.1 > 0 for no example; of labels 0 nothing can be proved."""
    network, split = make_cancelling(), make_split([0.3, 0.5, 0.6, 0.7], [1, 0, 1, 1])
    assert certified_accuracy(network, split, epsilon=0.04) == 0.75
    assert certified_accuracy(network, split, epsilon=0.1) == 0.0
    assert certified_accuracy(network, split, epsilon=0.1, relaxation="crown_ibp") == 0.75
    # Wide networks are relaxed an example at a time.
    monkeypatch.setattr("fkd.distillation.measure._COEFFICIENTS", 1)
    assert certified_accuracy(network, split, epsilon=0.1, relaxation="crown_ibp") == 0.75


def test_the_better_bound_stands_on_the_card_beside_that_of_intervals():
    split, settings = make_split([0.3, 0.5], [1, 0]), {"count": 2, "steps": 2, "seed": 0}
    metrics = final_metrics(make_cancelling(), None, split, epsilons=[0.04, 0.1], **settings)
    assert metrics.pop("interval_accuracy_0.1") == 0.0
    assert set(metrics.values()) == {0.5}
    kinds = [f"{kind}_accuracy" for kind in ("robust", "certified", "interval")]
    at = {f"{kind}_0.04" for kind in kinds} | {f"{kind}_0.1" for kind in kinds[:2]}
    assert set(metrics) == {"clean_accuracy", *at}


def test_a_card_says_as_much_as_bounds_pass_through():
    pooled = nn.Sequential(nn.MaxPool2d(1), make_threshold(0.2)).eval()
    metrics = final_metrics(pooled, None, SPLIT, epsilons=[0.15], count=5, steps=2, seed=0)
    # 0.55 and 0.7 stay above the threshold; 0.2 is on it, and the others are labelled 0.
    assert metrics["certified_accuracy_0.15"] == metrics["robust_accuracy_0.15"] == 0.4
    assert "interval_accuracy_0.15" not in metrics
    strange = nn.Sequential(make_threshold(), nn.Sigmoid()).eval()
    metrics = final_metrics(strange, None, SPLIT, epsilons=[0.1], count=5, steps=2, seed=0)
    assert set(metrics) == {"clean_accuracy", "robust_accuracy_0.1"}


def test_many_examples_are_measured_in_pieces(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2300, generator=generator)
    split = Split(pixels.view(-1, 1, 1, 1), (pixels > 0.5).long(), "x")
    network = make_threshold()
    assert evaluate_accuracy(network, split) == 1.0
    expected = ((pixels - 0.5).abs() > 0.1).float().mean().item()
    assert robust_accuracy(network, split, epsilon=0.1, steps=4) == pytest.approx(
        expected, abs=1e-3
    )
    assert certified_accuracy(network, split, epsilon=0.1) == pytest.approx(expected, abs=1e-3)


def test_measuring_reports_and_stops():
    seen = []

    def stop(report):
        seen.append(report)
        return True

    with pytest.raises(Cancelled, match="during attacking"):
        robust_accuracy(make_threshold(), SPLIT, epsilon=0.1, steps=2, progress=stop)
    assert seen[0].values == {"epsilon": 0.1}


def test_numbers_out_of_range_are_refused():
    network = make_threshold()
    for measure in (robust_accuracy, certified_accuracy):
        with pytest.raises(ConfigError, match=r"epsilon must lie in \[0, 1\].*did you mean 8/255"):
            measure(network, SPLIT, epsilon=8)
        with pytest.raises(ConfigError, match=r"number of examples must be at least 1, got 0\."):
            measure(network, SPLIT, epsilon=0.1, count=0)
    with pytest.raises(ConfigError, match=r"number of examples must be at least 1, got -1\."):
        evaluate_accuracy(network, SPLIT, count=-1)
    for values in ({"steps": 0}, {"restarts": 0}):
        with pytest.raises(ConfigError, match="at least one step and one restart, got"):
            robust_accuracy(network, SPLIT, epsilon=0.1, **values)


def test_a_network_without_bounds_is_refused():
    strange = nn.Sequential(make_threshold(), nn.Sigmoid()).eval()
    with pytest.raises(UnsupportedModelError, match="the module Sigmoid"):
        certified_accuracy(strange, SPLIT, epsilon=0.1)
