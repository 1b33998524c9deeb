"""Networks that share a boundary, refuse empty batches, or say what is not a number."""

import pytest
import torch
from torch import nn

from fkd.attacks import attack_config, make_attack
from fkd.attacks.measures import measure_differences
from fkd.attacks.nearest import nearest_disagreements
from fkd.core.ball import Ball


def _network(seed, classes=4):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, classes)).eval()


def _region(count=6, epsilon=0.25, norm="linf"):
    torch.manual_seed(5)
    return Ball(epsilon=epsilon, norm=norm).region(torch.rand(count, 1, 3, 3), torch.arange(count))


def _run(networks, region, **settings):
    classes = torch.zeros(len(region), dtype=torch.int64)
    attack = make_attack(attack_config({"name": "search", **settings}))
    return attack.run(*networks, region, classes, seed=0)


def test_a_copy_with_another_output_bias_is_found_to_differ_beyond_the_shared_boundary():
    known = found = 0
    for seed in range(12):
        teacher, student = _network(seed), _network(seed)
        with torch.no_grad():
            student[3].bias[2] += 0.3
        region = _region()
        both = _run((teacher, student), region, seek="disagreement").disagrees
        drawn = torch.rand(4000, 1, 1, 3, 3)
        points = region.lower + drawn * (region.upper - region.lower)
        with torch.no_grad():
            said = [
                each(points.flatten(0, 1)).argmax(1).view(4000, -1) for each in (teacher, student)
            ]
        by_chance = (said[0] != said[1]).any(0)
        known, found = known + int(by_chance.sum()), found + int((both & by_chance).sum())
    assert known >= 10
    # What is left is found for other classes than both began with.
    assert found >= 0.95 * known


def test_both_leave_together_and_part_later():
    """Class 1 from 0.52 on for both, class 2 from 0.55 on for the student alone."""

    class Steps(nn.Module):
        def __init__(self, late):
            super().__init__()
            self.late = late

        def forward(self, images):
            pixel = images.flatten(1).mean(1, keepdim=True)
            zero = torch.zeros_like(pixel)
            return torch.cat([zero, pixel - 0.52, 9 * (pixel - self.late)], 1)

    networks = Steps(9.0), Steps(0.55)
    images = torch.full((2, 1, 1, 2), 0.5)
    region = Ball(epsilon=0.1).region(images, torch.arange(2))
    assert _run(networks, region, seek="disagreement").disagrees.all()
    near = nearest_disagreements(*networks, region, seed=0)
    assert (near.distance >= 0.05 - 1e-6).all()


class _Viewed(nn.Module):
    """Refuses batches of no images, as ``view`` with -1 does."""

    def __init__(self, seed):
        super().__init__()
        self.body = _network(seed)[1:]

    def forward(self, images):
        return self.body(images.view(images.size(0), -1))


@pytest.mark.parametrize("seed", range(4))
def test_no_network_is_asked_about_no_images(seed):
    for epsilon in (0.05, 0.25):
        _run((_Viewed(seed), _Viewed(seed + 9)), _region(3, epsilon))


def test_a_network_that_depends_on_nothing_is_attacked_too():
    class Constant(nn.Module):
        def forward(self, images):
            return images.new_tensor([[0.3, 0.2, 0.1, 0.0]]).expand(len(images), -1)

    teacher, region = _network(1), _region(5, 0.5)
    near = nearest_disagreements(teacher, Constant(), region, seed=0)
    found = _run((teacher, Constant()), region)
    assert torch.equal(near.distance.isfinite(), found.disagrees)
    assert (near.distance <= 0.5).any()


def test_an_image_without_a_number_does_not_hide_the_gaps_around_it():
    class Hole(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, images):
            is_hole = (images == 0.5).flatten(1).all(1, keepdim=True)
            return self.body(images).masked_fill(is_hole, torch.nan)

    networks = Hole(_network(1)), _network(2)
    region = Ball(epsilon=0.2).region(torch.full((2, 1, 3, 3), 0.5), torch.arange(2))
    found = _run(networks, region)
    assert found.gap.isfinite().all()
    assert (found.gap > 0.01).all()


def test_a_class_that_is_never_said_adds_nothing_to_the_divergence():
    class Never(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, images):
            return torch.cat([self.body(images), images.new_full((len(images), 1), -torch.inf)], 1)

    networks, region = (Never(_network(1)), Never(_network(2))), _region(3)
    labels = torch.zeros(3, dtype=torch.int64)
    with_never = measure_differences(*networks, region, labels, ["kl"], seed=0)["kl"]
    bodies = [each.body for each in networks]
    without = measure_differences(*bodies, region, labels, ["kl"], seed=0)["kl"]
    torch.testing.assert_close(with_never.value_clean, without.value_clean)
    assert (with_never.value > with_never.value_clean).all()


@pytest.mark.parametrize("name", ["search", "pgd"])
def test_in_l2_an_example_does_not_depend_on_how_many_are_attacked_at_once(name):
    networks, region = (_network(1).double(), _network(2).double()), _region(12, 0.8, "l2")
    region = Ball(epsilon=0.8, norm="l2").region(region.images.double(), region.example_ids)
    classes = torch.zeros(12, dtype=torch.int64)
    gaps = [
        make_attack(attack_config({"name": name, "rows": rows}))
        .run(*networks, region, classes, seed=0)
        .gap
        for rows in (1024, 12)
    ]
    torch.testing.assert_close(*gaps, atol=1e-7, rtol=0)
