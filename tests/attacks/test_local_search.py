"""The attack that shakes and climbs again, and a certificate's corners as its starts."""

import pytest
import torch
from torch import nn

from fkd.attacks import attack_config, make_attack
from fkd.attacks.best import Best
from fkd.attacks.goals import ConfidenceGap, Divergence, Leaving, Parting, TotalVariation
from fkd.attacks.objectives import confidence
from fkd.bounds.corners import worst_corners
from fkd.core.ball import Ball
from fkd.core.errors import ConfigError
from fkd.data import load_split
from fkd.models import load_model
from tests.support.tiny_pairs import TinyPair, build_case, gap_truth


def _digits(student, count=24, epsilon=0.1, norm="linf"):
    split = load_split("digits", "test")
    ids = torch.arange(count)
    images, labels = split.take(ids)
    networks = [load_model(name).network for name in ("digits-teacher-pgd", student)]
    return networks, Ball(epsilon=epsilon, norm=norm).region(images, ids), labels


def _run(networks, region, classes, hints=None, **settings):
    attack = make_attack(attack_config({"name": "search", **settings}))
    return attack.run(*networks, region, classes, seed=0, hints=hints)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_finds_more_than_pgd_with_fewer_gradients(norm):
    networks, region, classes = _digits(
        "digits-rslad-of-pgd", epsilon=0.1 if norm == "linf" else 0.6, norm=norm
    )
    hints = worst_corners(*networks, region, classes)
    found = _run(networks, region, classes, hints, seek="gap")
    plain = make_attack(attack_config({"name": "pgd"})).run(*networks, region, classes, seed=0)
    assert found.gap.mean() >= plain.gap.mean() - 1e-6
    assert found.gradient_evaluations < plain.gradient_evaluations
    # With disagreements too, it finds every one of theirs.
    both = _run(networks, region, classes, hints)
    assert (both.disagrees | ~plain.disagrees).all()


@pytest.mark.parametrize("seed", [2, 6, 18, 60])
def test_it_reaches_the_true_gap_of_tiny_pairs(seed):
    pair = TinyPair(3, (6, 5), (5,), 3, 3.0, "independent", False, (0.1, 0.2, 0.3), seed)
    case = build_case(pair)
    hints = worst_corners(case.teacher, case.student, case.region, case.labels)
    found = _run((case.teacher, case.student), case.region, case.labels, hints)
    for row in range(3):
        forth, back = gap_truth(pair, row)
        reached, truth = max(forth.low, back.low), max(forth.high, back.high)
        assert found.gap[row] <= truth + 1e-6
        assert found.gap[row] >= reached - 0.01


def test_a_saturated_student_is_still_attacked():
    (teacher, student), region, classes = _digits("digits-rslad-of-pgd", count=12)
    loud = [nn.Sequential(network, _Times(200.0)).eval() for network in (teacher, student)]
    with torch.no_grad():
        logits = loud[1](region.images)
    # In float32 every confidence is 0 or 1 and the gap's own gradient is 0.
    shares = confidence(logits, classes)
    assert ((shares == 0) | (shares == 1)).float().mean() > 0.7
    found = _run(loud, region, classes)
    quiet = _run((teacher, student), region, classes)
    # Wherever predictions can part, saturated confidences part by 1.
    assert (found.gap[quiet.disagrees] > 0.99).all()
    assert quiet.disagrees.any()


class _Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, logits):
        return self.factor * logits


def test_what_is_climbed_has_the_direction_of_the_gap():
    torch.manual_seed(0)
    logits = [torch.randn(20, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    classes, signs = torch.arange(20) % 4, torch.tensor([1.0, -1.0]).repeat(10).double()
    value, rise = ConfidenceGap(signs, classes)(*logits)
    gap = signs * (confidence(logits[0], classes) - confidence(logits[1], classes))
    torch.testing.assert_close(value, gap.detach())
    ours = torch.cat(torch.autograd.grad(rise.sum(), logits, retain_graph=True), 1)
    true = torch.cat(torch.autograd.grad(gap.sum(), logits), 1)
    torch.testing.assert_close(nn.functional.cosine_similarity(ours, true), torch.ones(20).double())


def test_total_variation_rises_with_its_own_gradient_and_saturates_nowhere():
    torch.manual_seed(1)
    logits = [torch.randn(20, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    value, rise = TotalVariation(torch.zeros(20))(*logits)
    true = 0.5 * (logits[0].softmax(1) - logits[1].softmax(1)).abs().sum(1)
    torch.testing.assert_close(value, true.detach())
    ours = torch.cat(torch.autograd.grad(rise.sum(), logits), 1)
    theirs = torch.cat(torch.autograd.grad(true.sum(), logits), 1)
    torch.testing.assert_close(
        nn.functional.cosine_similarity(ours, theirs), torch.ones(20).double()
    )
    # Sure of different classes: the gradient of the value itself is 0 in float32.
    sure = [torch.tensor([[300.0, 0.0, 0.0]]), torch.tensor([[0.0, 300.0, 0.0]])]
    sure = [part.requires_grad_(True) for part in sure]
    (slope,) = torch.autograd.grad(TotalVariation(torch.zeros(1))(*sure)[1].sum(), sure[0])
    assert slope.abs().sum() > 0.1
    # Equal outputs differ in no set of classes.
    assert TotalVariation(torch.zeros(1))(sure[0], sure[0])[0].item() == 0


def test_divergence_and_the_events_are_what_their_formulas_say():
    teacher, student = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.5]])
    p, q = teacher.softmax(1), student.softmax(1)
    value, _ = Divergence(torch.zeros(1))(teacher, student)
    torch.testing.assert_close(value, (p * (p / q).log()).sum(1))
    # The teacher stays at 0 with a margin of 2, the student leaves it with one of 1.
    zero = torch.tensor([0])
    assert Parting(torch.ones(1), zero)(teacher, student)[0].item() == 1.0
    assert Parting(-torch.ones(1), zero)(teacher, student)[0].item() == -2.0
    assert Leaving(torch.tensor([True]), zero)(teacher, student)[0].item() == -2.0
    assert Leaving(torch.tensor([False]), zero)(teacher, student)[0].item() == 1.0


def test_no_example_is_given_more_than_its_budget_but_for_the_last_touch():
    networks, region, classes = _digits("digits-rslad-of-pgd", count=16)
    costs = [
        _run(networks, region, classes, seek="gap", budget=budget).gradient_evaluations
        for budget in (1, 100, 400)
    ]
    assert costs[0] < costs[1] < costs[2]
    # 10 relaxed rows and 8 climbs of 8 steps come first, 20 small steps and 4 rounds of flips last.
    assert costs[0] <= 10 + 64 + 20 + 4 * 17
    assert costs[2] <= 400 + 10 + 20 + 4 * 17


def test_a_disagreement_is_found_where_both_leave_at_one_point():
    # Both leave class 0 for class 1, the teacher a little earlier: at the far end they agree again.
    teacher, student = (_Threshold(at) for at in (0.7, 0.72))
    images = torch.full((1, 1, 1, 1), 0.5)
    region = Ball(epsilon=0.5).region(images, torch.arange(1))
    found = _run((teacher, student), region, torch.tensor([0]), seek="disagreement")
    assert found.disagrees.all()
    assert 0.7 <= found.disagreement_witness.item() <= 0.72


class _Threshold(nn.Module):
    """Class 1 where the only pixel is above ``at``."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def forward(self, images):
        pixel = images.flatten(1)
        return torch.cat([torch.zeros_like(pixel), 10 * (pixel - self.at)], 1)


def test_identical_networks_have_no_gap_and_cost_little():
    (teacher, _), region, classes = _digits("digits-rslad-of-pgd", count=8)
    found = _run((teacher, teacher), region, classes)
    assert (found.gap == 0).all()
    assert not found.disagrees.any()
    assert found.gradient_evaluations < 250


def test_swapped_networks_show_the_same_gap():
    networks, region, classes = _digits("digits-rslad-of-pgd", count=4)
    one = _run(networks, region, classes, seek="gap")
    other = _run(networks[::-1], region, classes, seek="gap")
    torch.testing.assert_close(one.gap, other.gap, atol=1e-4, rtol=0)


def test_corners_lie_in_the_ball_and_tell_of_both_directions():
    for norm, epsilon in (("linf", 0.1), ("l2", 0.6)):
        networks, region, classes = _digits("digits-rslad-of-pgd", 6, epsilon, norm)
        points = worst_corners(*networks, region, classes)
        assert points.shape == (6, 20, *region.images.shape[1:])
        for number in range(points.shape[1]):
            assert (region.distance(points[:, number]) <= epsilon).all()
        assert points.min() >= 0 and points.max() <= 1
        logits = [network(points.flatten(0, 1)) for network in networks]
        gaps = confidence(logits[0], classes.repeat_interleave(20)) - confidence(
            logits[1], classes.repeat_interleave(20)
        )
        gaps = gaps.unflatten(0, (6, 20)).detach()
        assert gaps[:, :10].mean() > gaps[:, 10:].mean()


def test_networks_without_corners_are_attacked_all_the_same():
    (_, student), region, classes = _digits("digits-rslad-of-pgd", count=3)
    odd = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Sigmoid()).eval()
    assert worst_corners(odd, student, region, classes) is None
    assert (_run((odd, student), region, classes).gap >= 0).all()


def test_hints_that_are_no_points_of_the_ball_do_no_harm():
    networks, region, classes = _digits("digits-rslad-of-pgd", count=4)
    hints = torch.full((4, 3, *region.images.shape[1:]), torch.nan)
    hints[:, 1] = 7.0
    found = _run(networks, region, classes, hints)
    assert (region.distance(found.gap_witness) <= 0.1).all()
    assert found.gap_witness.isfinite().all()


def test_the_best_points_are_the_first_of_equal_ones():
    region = Ball(epsilon=0.5).region(torch.full((2, 1, 1, 1), 0.5), torch.arange(2))
    best = Best(region, torch.tensor([0, 0]))
    points = torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None, None]
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [2.0, 0.0], [torch.nan, 0.0]])
    best.look(points, logits, torch.zeros(4, 2), torch.tensor([1, 1, 1, 0]))
    assert best.gap_point.flatten().tolist() == pytest.approx([0.5, 0.1])
    assert best.gap.tolist() == pytest.approx([-1.0, 0.380797])
    assert best.margin[0] == -torch.inf
    assert best.margin_point.flatten().tolist() == pytest.approx([0.5, 0.2])


def test_settings_out_of_range_are_refused_in_a_sentence():
    for setting in ({"patience": 0}, {"seek": "everything"}, {"starts": 0}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            attack_config({"name": "search", **setting})
