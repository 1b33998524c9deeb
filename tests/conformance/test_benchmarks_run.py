"""The benchmarks still run: a few digits of a few shipped pairs, no timing asserted."""

import importlib
import json
import sys
from dataclasses import replace

import pytest
import torch

from fkd.bounds import CERTIFICATES, CertificateResult
from fkd.bounds.fast import Fast
from tests.benchmarks import aims

pytestmark = pytest.mark.slow

PAIRS = ["digits-rslad-of-pgd", "digits-faithful-of-ibp", "digits-8bit-of-ibp"]
FEW = ["--dataset", "digits", "--count", "3", "--threads", "2", "--students"]
SMALL = ["--epsilons", "0.05", *FEW, *PAIRS]


def run(name, arguments, monkeypatch):
    benchmark = importlib.import_module(f"tests.benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    threads = torch.get_num_threads()
    try:
        return benchmark.main()
    finally:
        torch.set_num_threads(threads)


def run_brackets(arguments, monkeypatch):
    more = ["--epsilons", "0.05", "--repeats", "1"]
    one = [*FEW, "digits-faithful-of-ibp"]
    return run("bench_brackets", [*one, *more, *arguments], monkeypatch)


@pytest.mark.parametrize(
    ("name", "more", "start"),
    [
        ("bench_attacks", ["--methods", "search"], ""),
        ("bench_brackets", ["--repeats", "1", "--levels", "crown", "fast"], "\n"),
        ("soundness", ["--levels", "fast", "exact", "--set", "exact.seconds=0"], ""),
    ],
)
def test_a_benchmark_prints_a_line_for_each_pair(name, more, start, monkeypatch, capsys):
    assert not run(name, [*SMALL, *more], monkeypatch)
    printed = capsys.readouterr().out
    for pair in PAIRS:
        # Brackets name every pair in the list first; a block begins after an empty line.
        assert f"{start}{pair} " in printed


def test_radii_are_printed_for_each_pair(monkeypatch, capsys):
    more = ["--tolerance", "0.3", "--norms", "l2", "--methods", "both"]
    assert run("bench_radius", [*FEW, *PAIRS, *more], monkeypatch) == 0
    printed = capsys.readouterr().out
    for name in (*PAIRS, "mean"):
        assert [
            line.split()[1:3] for line in printed.splitlines() if line.startswith(f"{name} ")
        ] == [["l2", "both"]]


def test_brackets_of_all_levels_are_kept_and_summarised(tmp_path, monkeypatch, capsys):
    kept = tmp_path / "rows.jsonl"
    few = ["--exact-seconds", "0.2", "--exact-count", "2", "--out", str(kept)]
    assert run_brackets(few, monkeypatch) == 0
    printed = capsys.readouterr().out
    rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    own = {row["level"]: row for row in rows if row["seconds"] is not None}
    assert set(own) == {"attack", "A", "B", "B float32", "crown", "fast", "tight", "exact 0.2"}
    assert own["fast"]["over_b"] <= 1e-6 and own["fast"]["width"] < own["B"]["width"]
    assert own["tight"]["width"] < own["fast"]["width"] < own["A"]["width"]
    assert (own["fast"]["examples"], own["exact 0.2"]["examples"]) == (3, 2)
    # What exact is compared with is measured on the same examples.
    beside = {row["level"]: row["examples"] for row in rows if row["seconds"] is None}
    assert beside == {"B": 2, "fast": 2, "tight": 2}
    assert all(row["peak_mib"] > 50 for row in rows)

    assert run("bench_brackets", ["--summarise", str(kept)], monkeypatch) == 0
    assert printed.split("\naims ")[1] == capsys.readouterr().out.split("aims ")[1]


def test_brackets_say_which_levels_are_missing(monkeypatch, capsys):
    assert run_brackets(["--levels", "fast", "tightest", "--no-baselines"], monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "no certificate called 'tightest'" in printed
    assert "not measured  fast / B, time <= 1" in printed


def test_the_memory_of_a_batch_is_printed(monkeypatch, capsys):
    assert run_brackets(["--memory", "--memory-count", "4", "--levels", "fast"], monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "4 examples of digits-faithful-of-ibp" in printed
    assert "met           peak memory of a batch of 512" in printed


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda r: replace(r, gap_upper=r.gap_upper * 0, gap_lower=r.gap_lower * 0), "UNSOUND"),
        (lambda r: replace(r, gap_upper=r.gap_upper + 1e-5), "LOOSER"),
        (lambda r: replace(r, agrees=torch.zeros_like(r.agrees)), "LOOSER"),
        # A witness that is none: the corner (1, ..., 1) is outside every ball.
        (lambda r: replace(r, points=torch.ones(len(r.agrees), 1, 8, 8)), None),
    ],
    ids=["below the attack", "looser", "agreement lost", "points of other levels are not read"],
)
def test_a_wrong_level_is_told(change, kind, monkeypatch, capsys):
    class Wrong(Fast):
        def bound(self, *args, **kwargs) -> CertificateResult:
            return change(super().bound(*args, **kwargs))

    monkeypatch.setitem(CERTIFICATES._entries, "tight", Wrong)
    code = run_brackets(["--levels", "fast", "tight", "--no-baselines"], monkeypatch)
    printed = capsys.readouterr().out
    assert code == (0 if kind is None else 1)
    for text in ("UNSOUND: tight", "LOOSER: tight"):
        assert (text in printed) == (kind is not None and text.startswith(kind)), printed


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 1, 8, 8)], ids=["one a ball", "several"])
def test_a_witness_outside_the_ball_is_told(shape, monkeypatch, capsys):
    class Outside(Fast):
        Config = CERTIFICATES.get("exact").Config

        def bound(self, *args, **kwargs) -> CertificateResult:
            result = super().bound(*args, **kwargs)
            return replace(result, points=torch.ones(len(result.agrees), *shape))

    monkeypatch.setitem(CERTIFICATES._entries, "exact", Outside)
    few = ["--exact-seconds", "1", "--exact-count", "2"]
    code = run_brackets(["--levels", "fast", "exact", "--no-baselines", *few], monkeypatch)
    assert code == 1
    assert "a witness lies outside its set by" in capsys.readouterr().out


def row(**values):
    about = {
        "dataset": "digits",
        "teacher": "teacher",
        "student": "student",
        "training": "certified",
        "method": "kd",
        "same_shape": False,
        "epsilon": 0.1,
        "subset": False,
        "examples": 3,
        "device": "cpu",
        "threads": 1,
        "gap_attack": 0.1,
        "gap_certified": 0.2,
        "width": 0.1,
        "seconds": 1.0,
    }
    return aims.Row(**about | values)


def test_an_aim_is_met_only_by_every_pair():
    rows = [
        row(level="fast", width=0.2, student="a"),
        row(level="tight", width=0.1, student="a"),
        row(level="fast", width=0.2, student="b"),
        row(level="tight", width=0.19, student="b"),
    ]

    def line(rows):
        return next(text for text in aims.summary(rows, []) if "tight / fast, width <=" in text)

    assert line(rows[:2]).startswith("met ")
    assert line(rows).startswith("MISSED")
    assert "worst 0.95 (b at 0.1), mean 0.725, met in 1 of 2" in line(rows)
    assert line(rows[:1]).startswith("not measured")


def test_the_share_decided_must_be_reached():
    def line(share):
        rows = [row(level="tight", decided=share, agrees=share)]
        return next(text for text in aims.summary(rows, []) if "tight, decided at 0.1 of c" in text)

    assert line(0.99).startswith("met ") and line(0.98).startswith("MISSED")


def test_nothing_left_to_win_is_no_loss():
    assert aims.ratio(0.0, 0.0) == 0.0
    assert aims.ratio(0.1, 0.0) == float("inf")
    assert aims.ratio(0.1, None) != aims.ratio(0.1, None)
