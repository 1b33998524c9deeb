"""Settings are tried on train images that no candidate was trained on."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fkd.core.errors import ConfigError
from fkd.data import get_data_set
from fkd.distillation import training_examples
from pretrained import tune

STUDENT = "digits-kd-of-pgd"


def test_a_candidate_is_the_zoos_student_with_other_settings_on_fewer_images():
    spec = tune.candidate(STUDENT, {"temperature": 1.0}, epochs=3, seed=2)
    assert (spec.method_config["temperature"], spec.epochs, spec.seed) == (1.0, 3, 2)
    available = len(get_data_set("digits").load("train"))
    seen, left = training_examples(spec, available), tune.held_out(spec)
    assert torch.equal(torch.cat([seen, left]).sort().values, torch.arange(available))
    assert len(seen) == int(0.8 * available)


@pytest.mark.parametrize(
    ("student", "settings", "sentence"),
    [
        ("digits-kd-of-nobody", {}, "distils no student called 'digits-kd-of-nobody'"),
        ("digits-teacher-pgd", {}, "distils no student called"),
        (STUDENT, {"kappa": 1}, "kd has no setting called 'kappa'"),
        (STUDENT, {"temperature": -1}, "'temperature' is not usable"),
    ],
)
def test_what_cannot_be_tried_is_told(student, settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        tune.candidate(student, settings)


def test_words_become_settings():
    assert tune.pairs("try", ["kappa=1", "penalty=log", "self_regulation=true"]) == {
        "kappa": 1,
        "penalty": "log",
        "self_regulation": True,
    }
    with pytest.raises(ConfigError, match=r"--try takes KEY=VALUE pairs .* got 'kappa'"):
        tune.pairs("try", ["kappa"])


def test_candidates_are_trained_and_measured_side_by_side(own_folders, caplog, capsys):
    words = [STUDENT, "--epochs", "2", "--count", "6", "--jobs", "2"]
    assert tune.main([*words, "--try", "--try", "temperature=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "gap certified" in lines[0] and len(lines) == 3
    assert "as in the zoo, seed 0" in lines[1] and "temperature=1, seed 0" in lines[2]
    with caplog.at_level(logging.ERROR):
        assert tune.main([*words, "--try", "sharpness=1"]) == 1
        assert tune.main([*words, "--try", "temperature"]) == 1
    assert "has no setting called 'sharpness'" in caplog.text
    assert "--try takes KEY=VALUE pairs" in caplog.text and "got 'temperature'" in caplog.text


def test_figures_are_those_of_the_images_left_out(own_folders, tmp_path):
    spec = tune.candidate(STUDENT, {}, epochs=2)
    student = tune.train_model(spec, out=tmp_path / "m")
    found = tune.measure(spec, student, 5)
    split, ids = get_data_set("digits").load("train"), tune.held_out(spec)
    with torch.no_grad():
        right = student.network(split.images[ids]).argmax(1) == split.labels[ids]
    assert found["accuracy"] == pytest.approx(right.double().mean().item())
    assert 0 <= found["gap found"] <= found["gap certified"] + 1e-9 <= 1 + 1e-9
    assert found["agreement certified"] in (0, 0.2, 0.4, 0.6, 0.8, 1)


@pytest.mark.parametrize("option", ["--jobs", "--count"])
def test_less_than_one_is_refused(option, capsys):
    with pytest.raises(SystemExit):
        tune.main([STUDENT, option, "0"])
    assert f"{option}: a whole number of at least 1 is needed, got '0'" in capsys.readouterr().err


@pytest.mark.slow
def test_told_to_end_it_leaves_no_training_behind(own_folders):
    """Its trainings would go on alone for up to an hour."""
    root = Path(tune.__file__).resolve().parents[1]
    words = [sys.executable, "pretrained/tune.py", STUDENT, "--epochs", "5000"]
    process = subprocess.Popen(words, cwd=root)
    try:
        while not (trainers := children_of(process.pid)):
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(1.0)
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
        assert not any(Path(f"/proc/{pid}").is_dir() for pid in trainers)
    finally:
        process.kill()


def children_of(pid):
    """Processes that a spawning pool started, by the kernel's list."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        child for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
