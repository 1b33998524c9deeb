"""Training runs: repeatable to the bit, and resumable wherever they stop."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from _tiny_training import (
    SPECS,
    STEPS,
    Recorder,
    interrupted,
    is_equal,
    make_spec,
    stop_after,
    tiny_spec,
    weights_of,
    without_times,
)

from fkd.core.errors import Cancelled, ConfigError, RunError
from fkd.core.paths import data_dir
from fkd.distillation import TrainSpec, train_model, trainer
from fkd.distillation._state import read_state


@pytest.mark.parametrize("kind", SPECS)
def test_the_same_seed_gives_the_same_weights(kind, teacher, uninterrupted, tmp_path):
    # Whatever the global generators were before.
    torch.manual_seed(999)
    np.random.seed(999)
    again = train_model(make_spec(kind, teacher), out=tmp_path / "again")
    assert is_equal(weights_of(uninterrupted(kind)), weights_of(again))
    assert without_times(uninterrupted(kind).card) == without_times(again.card)


def test_another_seed_gives_other_weights(teacher, uninterrupted, tmp_path):
    other = train_model(make_spec("plain", teacher, seed=1), out=tmp_path / "other")
    first = weights_of(uninterrupted("plain"))
    assert all(not torch.equal(value, first[name]) for name, value in weights_of(other).items())


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("step", [1, 3, 5])
def test_cancelled_and_resumed_equals_uninterrupted(
    kind, step, teacher, uninterrupted, tmp_path, each_step
):
    """Step 3 is an epoch's last, not yet recorded in the history; the others lie within one."""
    spec, out = make_spec(kind, teacher), tmp_path / "resumed"
    with pytest.raises(
        Cancelled, match=f"Stopped during training after {step} of {STEPS}, as asked"
    ):
        train_model(spec, out=out, progress=Recorder(stop_after(step)))
    assert not out.exists()
    state, _, _ = read_state(tmp_path / "resumed.partial")
    assert state.step == step
    assert len(state.history) == (step - 1) // 3
    torch.manual_seed(123)
    recorder = Recorder()
    resumed = train_model(spec, out=out, progress=recorder)
    steps = [report.done for report in recorder.reports if report.stage == "training"]
    # After an epoch's last step only its measurement was missing.
    assert min(steps) == (step if step == 3 else step + 1)
    assert is_equal(weights_of(uninterrupted(kind)), weights_of(resumed))
    assert without_times(uninterrupted(kind).card) == without_times(resumed.card)
    assert not (tmp_path / "resumed.partial").exists()


def test_cancelled_at_every_step_still_equals_uninterrupted(
    teacher, uninterrupted, tmp_path, each_step
):
    spec, out = make_spec("adaptive", teacher), tmp_path / "s"
    for done in range(1, STEPS + 1):
        with pytest.raises(Cancelled):
            train_model(spec, out=out, progress=Recorder(stop_after(done)))
    with pytest.raises(Cancelled, match="during measuring"):
        train_model(spec, out=out, progress=Recorder(lambda r: r.stage == "measuring"))
    assert is_equal(weights_of(uninterrupted("adaptive")), weights_of(train_model(spec, out=out)))


def test_a_checkpoint_without_the_epochs_length_is_resumed_at_an_epochs_end(
    teacher, uninterrupted, tmp_path
):
    spec, out = make_spec("plain", teacher), tmp_path / "older"
    interrupted(spec, out, step=3)
    path = tmp_path / "older.partial" / "checkpoint" / "state.json"
    values = json.loads(path.read_text())
    assert values["sums"] and values.pop("batches") == 3
    path.write_text(json.dumps(values))
    resumed = train_model(spec, out=out)
    assert resumed.card.history == uninterrupted("plain").card.history


KILLED = """
import os, signal, sys
from _tiny_training import tiny_spec
from fkd.core.errors import Cancelled
from fkd.distillation import TrainSpec, trainer, train_model
trainer._REPORT_EVERY = -1.0
spec = TrainSpec.model_validate_json(sys.argv[1])
def progress(report):
    if report.stage == "training" and report.done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
train_model(spec, out=sys.argv[2], progress=progress)
"""


def test_a_killed_process_is_resumed_from_its_last_epoch(
    teacher, uninterrupted, tmp_path, each_step
):
    spec, out = make_spec("plain", teacher), tmp_path / "killed"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path.cwd())]),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, spec.model_dump_json(), str(out)],
        env=environment,
        timeout=120,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert not out.exists()
    state, _, _ = read_state(tmp_path / "killed.partial")
    assert state.step == 3
    # The dead process's lock is no obstacle.
    resumed = train_model(spec, out=out)
    assert is_equal(weights_of(uninterrupted("plain")), weights_of(resumed))
    assert resumed.card.history == uninterrupted("plain").card.history


def test_checkpoints_within_an_epoch_lose_no_steps(teacher, tmp_path, monkeypatch, each_step):
    monkeypatch.setattr(trainer, "_CHECKPOINT_EVERY", -1.0)

    class Lost(Exception):
        pass

    def crash(report):
        if report.stage == "training" and report.done == 5:
            raise Lost

    with pytest.raises(Lost):
        train_model(make_spec("plain", teacher), out=tmp_path / "m", progress=crash)
    assert read_state(tmp_path / "m.partial")[0].step == 5


CHANGES = {
    "epochs": (4, "epochs 3 instead of 4"),
    "learning_rate": (0.02, "learning_rate 0.01 instead of 0.02"),
    "seed": (7, "seed 0 instead of 7"),
    "architecture_config": ({"hidden": [9]}, r"architecture_config .*8.* instead of .*9"),
    "method_config": ({"alpha": 0.5}, r"method_config \{\} instead of .*alpha"),
}


@pytest.mark.parametrize("field", CHANGES)
def test_another_specification_is_not_resumed(field, teacher, tmp_path):
    value, words = CHANGES[field]
    spec, out = tiny_spec("kd", teacher), tmp_path / "m"
    interrupted(spec, out)
    before = sorted(path.name for path in (tmp_path / "m.partial").rglob("*"))
    changed = TrainSpec.parse({**spec.model_dump(), field: value})
    with pytest.raises(RunError, match=f"holds an unfinished training with {words}") as caught:
        train_model(changed, out=out)
    assert str(caught.value).endswith(
        "; start without resuming to discard it, or choose another name."
    )
    assert "\n" not in str(caught.value)
    # The refused one is untouched; discarding it works.
    assert sorted(path.name for path in (tmp_path / "m.partial").rglob("*")) == before
    assert (
        train_model(changed, out=out, resume=False).card.training_config[field]
        == json.loads(changed.model_dump_json())[field]
    )


def test_another_teacher_under_the_same_name_is_not_resumed(teacher, tmp_path):
    own = tmp_path / "teacher"
    shutil.copytree(teacher, own)
    spec, out = tiny_spec("kd", own), tmp_path / "m"
    interrupted(spec, out)
    shutil.rmtree(own)
    train_model(tiny_spec(name="teacher", seed=5), out=own)
    with pytest.raises(RunError, match="holds an unfinished training with another teacher; start"):
        train_model(spec, out=out)


def write_npz(seed=0):
    random = np.random.default_rng(seed)
    arrays = {}
    for split, count in (("train", 40), ("test", 20)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 4, 4), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 3
    data_dir().mkdir(parents=True, exist_ok=True)
    np.savez(data_dir() / "noise.npz", **arrays)


def test_other_training_data_is_not_resumed(tmp_path):
    write_npz(0)
    spec, out = tiny_spec(dataset="noise", train_count=None, batch_size=10), tmp_path / "m"
    interrupted(spec, out)
    write_npz(1)
    with pytest.raises(
        RunError, match="holds an unfinished training with other training data; start"
    ):
        train_model(spec, out=out)


def test_a_finished_model_is_returned_and_never_trained_twice(teacher, tmp_path):
    spec, out = tiny_spec("kd", teacher), tmp_path / "m"
    first = train_model(spec, out=out)
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    recorder = Recorder()
    again = train_model(spec, out=out, progress=recorder)
    assert again.card == first.card
    assert [report.stage for report in recorder.reports] == ["preparing"]
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp
    for other, resume in ((tiny_spec("kd", teacher, seed=3), True), (spec, False)):
        with pytest.raises(ConfigError, match="There is already a model called 'm' in"):
            train_model(other, out=out, resume=resume)


def test_a_finished_model_of_another_teacher_is_not_taken_for_this_one(teacher, tmp_path):
    own = tmp_path / "teacher"
    shutil.copytree(teacher, own)
    spec, out = tiny_spec("kd", own), tmp_path / "m"
    train_model(spec, out=out)
    shutil.rmtree(own)
    train_model(tiny_spec(name="teacher", seed=5), out=own)
    with pytest.raises(ConfigError, match="There is already a model called 'm' in"):
        train_model(spec, out=out)
