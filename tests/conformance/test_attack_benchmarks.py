"""Libraries are given the gap, their gradients are counted, worst cases are held against bounds."""

import sys

import pytest
import torch
from torch.nn import functional

from fkd.attacks.objectives import confidence
from fkd.core.ball import Ball
from fkd.data import load_split
from fkd.models import load_model
from tests.benchmarks import bench_attacks, bench_throughput, library_attacks
from tests.benchmarks.library_attacks import PairAsClassifier, attack_by_library
from tests.benchmarks.measure import Problem
from tests.benchmarks.worst_cases import shares, worst_cases


def _pair():
    return tuple(load_model(name).network for name in ("digits-teacher-pgd", "digits-rslad-of-pgd"))


def _case(count=4, epsilon=0.1, norm="linf"):
    ids = torch.arange(count)
    images, labels = load_split("digits", "test").take(ids)
    return _pair(), Ball(epsilon=epsilon, norm=norm).region(images, ids), labels


def _gap(networks, points, labels):
    teacher, student = (confidence(network(points), labels) for network in networks)
    return (teacher - student).abs()


def _cross_entropy(model, points):
    zeros = torch.zeros(len(points), dtype=torch.int64)
    return functional.cross_entropy(model(points), zeros, reduction="none")


def test_the_cross_entropy_with_class_0_is_the_gap_and_so_is_its_gradient():
    networks, region, labels = _case(16, epsilon=0.3)
    model = PairAsClassifier(networks, region, labels).eval()
    noise = torch.rand(region.images.shape, generator=torch.Generator().manual_seed(0))
    points = (region.lower + noise * (region.upper - region.lower)).requires_grad_(True)
    loss, gap = _cross_entropy(model, points), _gap(networks, points, labels)
    assert gap.max() > 0.1 and gap.min() < 0.01
    torch.testing.assert_close(loss, gap, atol=5e-7, rtol=1e-5)
    slopes = [torch.autograd.grad(value.sum(), points)[0] for value in (loss, gap)]
    torch.testing.assert_close(*slopes, atol=1e-6, rtol=1e-3)
    assert model(points).argmax(1).eq(0).all()


class _Sure(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, points):
        return 1e3 * functional.one_hot(self.classes, 10).float()


def test_even_the_largest_gap_is_class_0():
    _, region, labels = _case()
    model = PairAsClassifier((_Sure(labels), _Sure((labels + 1) % 10)), region, labels)
    assert model(region.images).argmax(1).eq(0).all()
    torch.testing.assert_close(_cross_entropy(model, region.images), torch.ones(4))


def test_gradients_are_counted_where_they_are_evaluated():
    networks, region, labels = _case()
    model = PairAsClassifier(networks, region, labels)
    for _ in range(3):
        points = region.images.clone().requires_grad_(True)
        _cross_entropy(model, points).mean().backward()
    model(region.images)
    model(region.images.clone().requires_grad_(True))
    assert model.gradients == 3 * len(region)


def test_points_outside_the_balls_are_not_noted():
    networks, region, labels = _case()
    model = PairAsClassifier(networks, region, labels)
    model(torch.ones(1, 1, 8, 8))
    assert model.best.gap.eq(-1).all()
    model(region.upper)
    torch.testing.assert_close(model.best.gap, _gap(networks, region.upper, labels))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_by_a_library_is_measured_in_the_balls(norm, monkeypatch):
    monkeypatch.setattr(library_attacks, "_AUTO_RESTARTS", 1)
    networks, region, labels = _case(epsilon=0.1 if norm == "linf" else 0.5, norm=norm)
    found = attack_by_library("advlib-apgd", networks, region, labels, seed=0)
    # One at the start and one after each step.
    assert found.gradient_evaluations == 101
    assert (region.distance(found.gap_witness) <= region.radius).all()
    doubles = [network.double() for network in _pair()]
    gap = _gap(doubles, found.gap_witness.double(), labels)
    torch.testing.assert_close(found.gap, gap)
    assert (found.gap > _gap(networks, region.images, labels) + 1e-4).any()


def test_a_library_that_is_not_installed_is_left_out_in_one_sentence(monkeypatch, capsys):
    absent = ("no_such_module", "no-such-package", None)
    have = library_attacks.LIBRARIES["advlib-apgd"]
    monkeypatch.setattr(library_attacks, "LIBRARIES", {"one": absent, "two": absent, "own": have})
    assert library_attacks.installed_libraries() == ["own"]
    assert capsys.readouterr().out == (
        "left out: one and two, since no-such-package is not installed; "
        "tests/benchmarks/library_attacks.py says how.\n"
    )


def test_worst_cases_are_known_on_small_balls_and_contradictions_are_counted():
    networks, region, labels = _case(count=3, epsilon=0.002)
    clean = _gap(networks, region.images, labels).detach()
    known = worst_cases(Problem(*networks, region, labels), {"clean": clean}, seconds=1.0, count=2)
    assert known.tried == 2 and known.rows.tolist() == [0, 2] and known.contradictions == 0
    short = known.shortfalls(clean)
    assert (short >= 0).all() and (short > 0).any() and (short < 0.02).all()
    wrong = worst_cases(
        Problem(*networks, region, labels), {"wrong": clean + 0.5}, seconds=1.0, count=2
    )
    assert wrong.contradictions == 2


def test_shares_of_shortfalls_are_printed():
    assert shares(torch.tensor([0.0, 0.005, 0.02, 0.0009])).split() == ["0.750", "0.500", "0.020"]
    assert shares(torch.empty(0)).split() == ["-", "-", "-"]


def _run(benchmark, arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", [benchmark.__name__, "--dataset", "digits", *arguments])
    threads = torch.get_num_threads()
    try:
        return benchmark.main()
    finally:
        torch.set_num_threads(threads)


def test_the_attacks_benchmark_ends_with_the_exact_table(monkeypatch, capsys):
    few = [
        "--count",
        "2",
        "--epsilons",
        "0.002",
        "--students",
        "digits-kd-of-ibp",
        "--methods",
        "search",
    ]
    assert _run(bench_attacks, [*few, "--exact", "1", "--exact-count", "2"], monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "exact worst case known of 2 of 2 examples" in printed
    methods = [line.split()[0] for line in printed.splitlines()[-3:]]
    assert methods == ["image", "plain", "search"]


def test_the_throughput_of_bare_and_attacks_is_printed(monkeypatch, capsys):
    few = [
        "--batches",
        "8",
        "--seconds",
        "0",
        "--attacks",
        "pgd",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    assert _run(bench_throughput, few, monkeypatch) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[-2:]]
    assert [line[:2] for line in lines] == [["bare", "8"], ["pgd", "8"]]
    assert float(lines[0][3]) == 1.0
    assert all(float(value) > 0 for line in lines for value in line[2:4])


def test_operations_are_counted_as_by_hand():
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    points, classes = torch.rand(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64)
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    work = bench_throughput.measure_work((teacher, teacher), points, classes)
    # A product forward and one backward, for each of two networks; the views of Flatten move nothing.
    assert work.operations == 2 * 2 * (2 * 64 * 10)
    assert work.weights == 2 * 650
