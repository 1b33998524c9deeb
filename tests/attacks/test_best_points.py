"""What an attack keeps of all it has seen, and what it computes only once."""

import pytest
import torch

from fkd.attacks import attack_config, base, make_attack
from fkd.attacks.best import keep_largest
from fkd.attacks.goals import ConfidenceGap
from fkd.core.ball import Ball
from fkd.core.precision import double_copy
from tests.support.networks import make_images, make_pair
from tests.support.short_search import SHORT


def _points(*values):
    return torch.tensor(values)[:, None, None, None]


def test_the_first_of_the_largest_replaces_what_it_exceeds():
    best, kept = torch.tensor([2.0, 0.0, -1.0]), _points(10.0, 11.0, 12.0)
    values, examples = torch.tensor([2.0, 3.0, 1.0, 3.0, -5.0]), torch.tensor([0, 1, 1, 1, 2])
    keep_largest(values, _points(0.0, 1.0, 2.0, 3.0, 4.0), examples, best, kept)
    # What is only as large as the best, or less, changes nothing.
    assert best.tolist() == [2.0, 3.0, -1.0]
    assert kept.flatten().tolist() == [10.0, 1.0, 12.0]


def test_both_ways_are_the_two_signs_of_one_gap():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.0, 3.0]])
    goal = ConfidenceGap.both_ways(torch.tensor([0, 1]))
    value, _ = goal(*(part.repeat_interleave(2, 0) for part in logits))
    gap = logits[0].softmax(1)[[0, 1], [0, 1]] - logits[1].softmax(1)[[0, 1], [0, 1]]
    wanted = torch.stack([gap, -gap], 1).flatten()
    assert value.tolist() == pytest.approx(wanted.tolist(), abs=1e-6)


def test_many_chunks_share_the_float64_copies(monkeypatch):
    teacher, student, shape, classes = make_pair("mlp")
    copied = []
    monkeypatch.setattr(base, "double_copy", lambda net: copied.append(net) or double_copy(net))
    region = Ball(epsilon=0.1).region(make_images(4, shape, 0), torch.arange(4))
    attack = make_attack(attack_config({"name": "search", **SHORT["search"], "rows": 1}))
    found = attack.run(teacher, student, region, torch.arange(4) % classes, seed=0)
    assert copied == [teacher, student]
    assert len(found.gap) == 4
