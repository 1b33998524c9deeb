"""The benchmarks still run: a few digits of each shipped pair, no timing asserted."""

import importlib
import sys

import pytest
import torch

SMALL = ["--dataset", "digits", "--count", "3", "--threads", "2", "--epsilons", "0.05"]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("bench_attacks", []),
        ("bench_bounds", ["--repeats", "1"]),
        ("soundness", ["--levels", "fast", "--samples", "8"]),
    ],
)
def test_a_benchmark_prints_a_line_for_each_pair(name, more, monkeypatch, capsys):
    benchmark = importlib.import_module(f"tests.benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, *SMALL, *more])
    threads = torch.get_num_threads()
    try:
        assert not benchmark.main()
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    for method in ("kd", "rslad", "faithful"):
        for teacher in ("pgd", "ibp"):
            assert f"digits-{method}-of-{teacher}" in printed
