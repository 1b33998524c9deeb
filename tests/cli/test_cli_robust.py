"""``python -m fkd robust``."""

import importlib.util

import pandas as pd
import pytest

import fkd.cli
from fkd.attacks.single import load_attacks
from fkd.evaluation import ROBUSTNESS_COLUMNS
from fkd.records import read_metadata
from fkd.runs import KINDS
from tests.support.pairs import save_digits_model

QUICK = ["--count", "6", "--steps", "3", "--restarts", "2"]
QUICK += ["--autoattack-steps", "3", "--autoattack-queries", "10"]


@pytest.fixture
def robust(own_folders, capsys):
    """Run the command on a small model: ``(exit code, stdout, stderr)``."""
    save_digits_model("net", "teacher")

    def command(*words):
        code = fkd.cli.main(["robust", "--dataset", "digits", *QUICK, *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_shares_are_shown_with_intervals_and_stored(robust, tmp_path):
    words = ["--model", "net", "--epsilon", "8/255"]
    code, out, err = robust(*words)
    assert (code, "apgd-ce: " in err) == (0, True)
    lines = out.splitlines()
    assert lines[0] == "net on digits (test), epsilon 0.0313725, 6 examples, seed 0"
    starts = ["the image itself ", "PGD-3-2 ", "AutoAttack ", "both (worst case) "]
    assert all(line.startswith(start) for line, start in zip(lines[3:7], starts, strict=True))
    assert all(" % to " in line for line in lines[3:7])

    path = tmp_path / "robust.parquet"
    code, out, err = robust(*words, "--out", path)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"Table: {path}"
    assert list(pd.read_parquet(path)) == [column.name for column in ROBUSTNESS_COLUMNS]
    assert read_metadata(path)["config"]["epsilon"] == 8 / 255


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "nets", "--epsilon", "0.1"], "There is no model called 'nets'"),
        (["--model", "net", "--epsilon", "8"], "did you mean 8/255?"),
        (["--model", "net", "--epsilon", "9", "--norm", "l2"], "epsilon must lie in [0, 8] here"),
        (["--model", "net", "--epsilon", "0.1", "--channel-scale", "1", "2"], "has 2 values"),
        (["--model", "net", "--epsilon", "0.1", "--background", "--fresh"], "leave --out, --fresh"),
        (["--model", "net", "--epsilon", "0.1", "--out", "t.csv"], "--out must end in .parquet"),
        (["--model", "net", "--epsilon", "0.1", "--count", "9999"], "9999 cannot be analysed"),
    ],
)
def test_bad_input_is_one_sentence(robust, words, sentence):
    code, out, err = robust(*words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_in_the_background_it_is_a_run(robust, monkeypatch):
    asked = []
    monkeypatch.setattr("fkd.runs.start_run", lambda *words: asked.append(words) or "robust-1")
    words = ["--model", "net", "--epsilon", "0.1", "--channel-scale", "0.5", "--background"]
    assert robust(*words)[:2] == (0, "robust-1\n")
    [(kind, spec)] = asked
    assert (kind, spec["model"], spec["steps"], spec["channel_scale"]) == (
        "robust",
        "net",
        3,
        [0.5],
    )
    assert KINDS.get(kind)().check(spec) == spec


def test_a_missing_library_is_one_sentence(robust, monkeypatch):
    load_attacks.cache_clear()
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "adv_lib" else found(name)
    )
    code, out, err = robust("--model", "net", "--epsilon", "0.1")
    assert (code, out) == (2, "")
    assert err.startswith("AutoAttack needs the package adv-lib") and err.count("\n") == 1
