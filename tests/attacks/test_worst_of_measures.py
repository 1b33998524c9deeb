"""The worst of every measure: against formulas and each other, and where there is nothing to find."""

import pytest
import torch
from torch import nn

from fkd.attacks.measures import MEASURES, measure_differences
from fkd.attacks.search import SearchConfig
from fkd.core.ball import Ball
from fkd.core.errors import Cancelled, ConfigError
from fkd.data import load_split
from fkd.models import load_model

EVERY = list(MEASURES.available())


def _digits(count=16, epsilon=0.1, norm="linf"):
    split = load_split("digits", "test")
    ids = torch.arange(count)
    images, labels = split.take(ids)
    networks = [load_model(name).network for name in ("digits-teacher-pgd", "digits-rslad-of-pgd")]
    return networks, Ball(epsilon=epsilon, norm=norm).region(images, ids), labels


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_values_are_what_the_networks_say_at_the_witnesses(norm):
    networks, region, labels = _digits(epsilon=0.1 if norm == "linf" else 0.6, norm=norm)
    found = measure_differences(*networks, region, labels, EVERY, seed=0)
    doubles = [network.double() for network in networks]
    for name, one in found.items():
        assert (region.distance(one.witness) <= region.radius).all()
        assert one.witness.min() >= 0
        assert one.witness.max() <= 1
        assert (one.value >= one.value_clean).all()
        with torch.no_grad():
            t, s = (network(one.witness.double()) for network in doubles)
        p, q = t.softmax(1), s.softmax(1)
        rows = torch.arange(len(labels))
        assert torch.equal(t.argmax(1), one.teacher_pred)
        assert torch.equal(s.argmax(1), one.student_pred)
        if name in ("label", "teacher_class", "any_class"):
            truth = (p - q).abs()[rows, one.compared]
        elif name == "total_variation":
            truth = 0.5 * (p - q).abs().sum(1)
        elif name == "kl":
            truth = (p * (p / q).log()).sum(1)
        else:
            stays, leaves = (t, s) if name == "teacher_right" else (s, t)
            happens = (stays.argmax(1) == labels) & (leaves.argmax(1) != labels)
            assert torch.equal(happens, one.value > 0)
            continue
        torch.testing.assert_close(one.value, truth, atol=1e-9, rtol=1e-7)
    for network in networks:
        network.float()
    assert (found["any_class"].value >= found["label"].value).all()
    assert (found["total_variation"].value >= found["any_class"].value).all()
    # Pinsker's inequality at every point, so at the worst of them too.
    assert (found["kl"].value >= 2 * found["total_variation"].value ** 2 - 1e-9).all()
    assert (found["teacher_right"].value > 0).any()


def test_an_example_does_not_depend_on_the_others():
    networks, region, labels = _digits(count=9)
    names = ["total_variation", "teacher_right"]
    whole = measure_differences(*networks, region, labels, names, seed=3)
    rows = torch.tensor([7, 2])
    part = measure_differences(*networks, region[rows], labels[rows], names, seed=3)
    for name in names:
        torch.testing.assert_close(whole[name].value[rows], part[name].value, atol=1e-3, rtol=0)


def test_identical_networks_never_differ():
    (teacher, _), region, labels = _digits(count=4)
    found = measure_differences(teacher, teacher, region, labels, EVERY, seed=0)
    for name, one in found.items():
        if MEASURES.get(name).is_event:
            assert (one.value <= 0).all()
        else:
            assert (one.value == 0).all()


def test_linear_networks_reach_the_corner_that_is_worst():
    # z = (w x, 0), and a student that never knows: everything grows with |w x|, at a corner.
    weights = torch.tensor([[3.0, -1.0, 2.0, 0.5], [0.0, 0.0, 0.0, 0.0]])
    networks = [_Linear(weight) for weight in weights]
    region = Ball(epsilon=0.1).region(torch.full((1, 1, 2, 2), 0.5), torch.arange(1))
    found = measure_differences(*networks, region, torch.tensor([0]), EVERY, seed=0)
    ends = torch.cartesian_prod(*[torch.tensor([0.4, 0.6])] * 4)
    p, q = (torch.sigmoid(ends @ weight) for weight in weights)
    worst = (p - q).abs().max().item()
    for name in ("label", "teacher_class", "any_class", "total_variation"):
        assert found[name].value.item() == pytest.approx(worst, abs=1e-6)
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert found["kl"].value.item() == pytest.approx(kl.max().item(), abs=1e-6)


class _Linear(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight[:, None].clone(), requires_grad=False)

    def forward(self, images):
        first = images.flatten(1) @ self.weight
        return torch.cat([first, torch.zeros_like(first)], 1)


@pytest.mark.parametrize("names", [[], ["label", "label"]])
def test_measures_are_named_once_each(names):
    networks, region, labels = _digits(count=2)
    with pytest.raises(ConfigError, match="each once"):
        measure_differences(*networks, region, labels, names, seed=0)
    with pytest.raises(ConfigError, match="no measure called"):
        measure_differences(*networks, region, labels, ["labels"], seed=0)


def test_it_tells_of_progress_and_can_be_stopped():
    networks, region, labels = _digits(count=4)
    seen = []

    def progress(event):
        seen.append((event.done, event.total))
        return len(seen) > 20

    with pytest.raises(Cancelled):
        measure_differences(
            *networks, region, labels, ["label"], seed=0, config=SearchConfig(), progress=progress
        )
    assert seen == sorted(seen)
