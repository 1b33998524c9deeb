"""Training runs: repeatable to the bit, resumable wherever they stop, whole or not there at all."""

import io
import json
import math
import os
import pickletools
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from _tiny_training import is_equal, tiny_spec, weights_of

from fkd.core.errors import Cancelled, CheckpointError, ConfigError, RunError, UnsupportedModelError
from fkd.core.paths import data_dir, models_dir
from fkd.data import load_split
from fkd.distillation import METHODS, LossParts, Method, TrainSpec, train_model, trainer
from fkd.distillation._state import read_state
from fkd.models import load_model

#: Steps of `tiny_spec`: three epochs of three.
STEPS = 9


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A teacher's folder, made once."""
    folder = tmp_path_factory.mktemp("teachers") / "teacher"
    train_model(tiny_spec(name="teacher"), out=folder)
    return folder


@pytest.fixture
def each_step(monkeypatch):
    """Reports after every step instead of twice a second."""
    monkeypatch.setattr(trainer, "_REPORT_EVERY", -1.0)


class Recorder:
    """Keeps every report; asks to stop where told."""

    def __init__(self, stop=lambda report: False):
        self.reports = []
        self.stop = stop

    def __call__(self, report):
        self.reports.append(report)
        return self.stop(report)


SPECS = {
    "plain": {},
    "adaptive": {
        "method": "rslad",
        "optimiser": "adamw",
        "weight_decay": 0.01,
        "schedule": "cosine",
    },
    "momentum": {
        "method": "faithful",
        "method_config": {"epsilon": 0.05, "warm_up": 0.2, "ramp": 0.4},
        "optimiser": "sgd",
        "schedule": "steps",
    },
    "residual": {
        "method": "pgd_at",
        "method_config": {"steps": 2},
        "architecture": "resnet_small",
        "architecture_config": {"width": 2},
        "shift": 1,
        "flip": True,
    },
}


def make_spec(kind, teacher, **more):
    values = {**SPECS[kind], **more}
    needs_teacher = METHODS.get(values.get("method", "standard")).role == "student"
    return tiny_spec(teacher=teacher if needs_teacher else None, **values)


@pytest.fixture(scope="module")
def uninterrupted(teacher, tmp_path_factory):
    """The model of each kind of specification, trained in one go, once."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = train_model(
                make_spec(kind, teacher), out=tmp_path_factory.mktemp("whole") / kind
            )
        return made[kind]

    return get


def without_times(card):
    return card.model_dump(exclude={"name", "seconds", "created"})


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


def stop_after(step):
    return lambda report: report.stage == "training" and report.done >= step


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


def interrupted(spec, out, step=4):
    with pytest.raises(Cancelled), pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_REPORT_EVERY", -1.0)
        train_model(spec, out=out, progress=Recorder(stop_after(step)))


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


def test_two_processes_do_not_train_the_same_model(tmp_path):
    spec, out = tiny_spec(), tmp_path / "m"
    seen = []

    def second(report):
        if report.stage == "training" and not seen:
            seen.append(report)
            with pytest.raises(RunError, match="Another process is training into") as caught:
                train_model(spec, out=out)
            assert "wait for it or choose another name." in str(caught.value)

    train_model(spec, out=out, progress=second)
    assert seen
    # A cancelled one gives its lock back although its exception is still held.
    with pytest.raises(Cancelled) as held:
        train_model(tiny_spec(seed=2), out=tmp_path / "n", progress=Recorder(stop_after(1)))
    assert held.value.__traceback__ is not None
    filelock.FileLock(tmp_path / "n.partial" / "lock").acquire(timeout=0).lock.release()


def test_progress_is_early_and_names_everything(teacher, tmp_path, each_step):
    recorder = Recorder()
    model = train_model(tiny_spec("rslad", teacher), out=tmp_path / "m", progress=recorder)
    stages = [report.stage for report in recorder.reports]
    assert stages[0] == "preparing"
    assert stages[1] == "training"
    assert stages[-1] in ("measuring", "attacking")
    training = [report for report in recorder.reports if report.stage == "training"]
    assert [report.done for report in training] == [1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9]
    assert all(report.total == STEPS for report in training)
    for report in training:
        values = report.values
        assert {"epoch", "epochs", "learning_rate", "loss", "adversarial", "clean"} <= set(values)
        assert values["loss"] == pytest.approx(values["adversarial"] + values["clean"], rel=1e-5)
        assert (values["epoch"], values["epochs"]) == ((report.done - 1) // 3 + 1, 3)
    ends = [report.values for report in training if "clean_accuracy" in report.values]
    assert [values["epoch"] for values in ends] == [1, 2, 3]
    # An epoch's figures are the mean of its steps', and are the card's history.
    for number, entry in enumerate(model.card.history):
        steps = [r.values for r in training if "clean_accuracy" not in r.values]
        of_epoch = steps[3 * number : 3 * number + 3]
        for name in ("loss", "adversarial", "clean"):
            assert entry[name] == pytest.approx(np.mean([v[name] for v in of_epoch]), rel=1e-6)
        assert entry["clean_accuracy"] == ends[number]["clean_accuracy"]
        assert entry["epoch"] == number + 1


def test_the_first_report_comes_without_throttling(tmp_path):
    recorder = Recorder()
    train_model(tiny_spec(epochs=1), out=tmp_path / "m", progress=recorder)
    assert [(r.stage, r.done) for r in recorder.reports[:2]] == [("preparing", 0), ("training", 1)]


def test_stopping_before_the_start_leaves_nothing(tmp_path):
    with pytest.raises(Cancelled, match="during preparing"):
        train_model(tiny_spec(), out=tmp_path / "m", progress=Recorder(lambda r: True))
    assert not list(tmp_path.glob("m*"))


def test_the_card_says_all(teacher, uninterrupted):
    spec, model = make_spec("momentum", teacher), uninterrupted("momentum")
    card = model.card
    assert card.training_config == spec.model_dump(mode="json")
    assert TrainSpec.parse(card.training_config) == spec
    assert (card.role, card.method, card.dataset, card.seed) == ("student", "faithful", "digits", 0)
    config = METHODS.get("faithful").Config.parse(spec.method_config)
    assert card.method_config == config.model_dump(mode="json")
    assert card.epsilon == 0.05
    parent = load_model(teacher)
    assert (card.teacher.name, card.teacher.model_hash) == (parent.name, parent.model_hash)
    assert card.data_fingerprint == load_split("digits", "train").fingerprint
    assert {"fkd", "python", "torch", "numpy"} <= set(card.versions)
    assert torch.__version__.startswith(card.versions["torch"])
    assert card.device == "cpu"
    assert 0 < card.seconds < 60
    assert card.created.endswith("+00:00")
    assert card.parameters == 64 * 8 + 8 + 8 * 10 + 10
    assert set(card.metrics) == {
        "clean_accuracy",
        "teacher_agreement",
        "robust_accuracy_0.05",
        "certified_accuracy_0.05",
    }
    assert all(0.0 <= value <= 1.0 for value in card.metrics.values())
    assert card.metrics["certified_accuracy_0.05"] <= card.metrics["robust_accuracy_0.05"]
    assert len(card.history) == 3
    assert card.history[-1]["clean_accuracy"] == card.metrics["clean_accuracy"]
    assert [entry["epsilon"] for entry in card.history] == sorted(
        e["epsilon"] for e in card.history
    )
    assert card.history[-1]["epsilon"] == pytest.approx(0.05)
    mean, std = (np.array(v) for v in (card.mean, card.std))
    images = load_split("digits", "train").images.numpy()
    assert mean[0] == pytest.approx(images.mean(), abs=1e-4)
    assert std[0] == pytest.approx(images.std(), abs=1e-4)


def test_radii_to_report_can_be_chosen(tmp_path):
    model = train_model(tiny_spec(epochs=1, report_epsilons=[0.02, 0.3]), out=tmp_path / "m")
    metrics = model.card.metrics
    assert {name for name in metrics if "accuracy_" in name} == {
        f"{kind}_accuracy_{epsilon}" for kind in ("robust", "certified") for epsilon in (0.02, 0.3)
    }
    assert metrics["robust_accuracy_0.3"] <= metrics["robust_accuracy_0.02"]
    assert model.card.epsilon is None
    assert model.card.teacher is None


def test_the_models_folder_is_the_default(tmp_path):
    model = train_model(tiny_spec(epochs=1))
    assert model.path.parent == models_dir() / "tiny"
    assert sorted(path.name for path in models_dir().iterdir()) == ["tiny"]


def test_an_unwritable_folder_costs_no_training_and_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(trainer._Run, "_step", lambda *_: pytest.fail("a step was trained"))
    with pytest.raises(RunError, match=r"The folder .*m\.partial cannot be written \(") as caught:
        train_model(tiny_spec(), out=tmp_path / "file" / "m")
    assert str(caught.value).endswith("choose another folder or check its permissions.")
    assert (tmp_path / "file").read_text() == ""


def test_a_full_disk_before_the_first_step_leaves_no_folder(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fkd.distillation._state.os.fsync", full)
    with pytest.raises(RunError, match=r"could not be written .*No space left on device"):
        train_model(tiny_spec(), out=tmp_path / "m")
    assert not list(tmp_path.glob("m*"))


def test_a_full_disk_at_the_end_keeps_the_checkpoint_and_no_half_model(tmp_path, monkeypatch):
    spec, out = tiny_spec(), tmp_path / "m"
    with pytest.MonkeyPatch.context() as patch:

        def full(*_):
            raise OSError(28, "No space left on device")

        patch.setattr("fkd.models._folders._write_file", full)
        with pytest.raises(CheckpointError, match=r"could not be written .*No space left"):
            train_model(spec, out=out)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "data") == ["m.partial"]
    recorder = Recorder()
    assert train_model(spec, out=out, progress=recorder).name == "m"
    # Nothing was trained twice.
    assert "training" not in [report.stage for report in recorder.reports]


@pytest.fixture
def throw_away():
    """Registers a method for the test's time."""
    names = []

    def add(name, **attributes):
        entry = type(name, (Method,), {"__doc__": f"{name} for a test.", **attributes})
        METHODS.register(name)(entry)
        names.append(name)
        return entry

    yield add
    for name in names:
        METHODS.unregister(name)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    tmp_path, throw_away
):
    def loss(self, batch, teacher, student, clock):
        value = student(batch.images).square().mean()
        return LossParts.weighted({"part": (math.nan if clock.step == 4 else 1.0, value)})

    throw_away(
        "bursting",
        role="teacher",
        title="t",
        source="s",
        loss=loss,
        Config=METHODS.get("kd").Config,
    )
    with pytest.raises(RunError) as caught:
        train_model(tiny_spec("bursting"), out=tmp_path / "m")
    assert str(caught.value) == (
        "The loss stopped being a finite number in epoch 2 (step 5 of 9); lower the learning rate "
        f"(it was 0.01), the last good checkpoint is kept in {tmp_path / 'm.partial'}."
    )
    state, tensors, _ = read_state(tmp_path / "m.partial")
    assert state.step == 3
    assert all(torch.isfinite(v).all() for v in tensors.values() if v.is_floating_point())


def test_a_method_that_cannot_handle_a_network_leaves_no_folder(tmp_path, throw_away):
    def prepare(self, teacher, student, seed):
        raise UnsupportedModelError("No.")

    throw_away("picky", role="teacher", title="t", source="s", prepare=prepare)
    entry = METHODS.get("picky")
    entry.loss = METHODS.get("standard").loss
    entry.__abstractmethods__ = frozenset()
    entry.Config = METHODS.get("standard").Config
    with pytest.raises(UnsupportedModelError):
        train_model(tiny_spec("picky"), out=tmp_path / "m")
    assert not list(tmp_path.glob("m*"))


def test_examples_of_a_subset_are_a_random_choice_by_seed(tmp_path, throw_away):
    seen = {}

    def loss(self, batch, teacher, student, clock):
        seen.setdefault((batch.seed, clock.epoch), []).extend(batch.example_ids.tolist())
        return LossParts.weighted({"part": (1.0, student(batch.images).square().mean())})

    entry = throw_away(
        "counting", role="teacher", title="t", source="s", Config=METHODS.get("standard").Config
    )
    entry.loss = loss
    entry.__abstractmethods__ = frozenset()
    for seed in (0, 1):
        train_model(tiny_spec("counting", seed=seed), out=tmp_path / f"m{seed}")
    assert all(len(ids) == len(set(ids)) == 90 for ids in seen.values())
    assert set(seen[0, 0]) == set(seen[0, 1]) == set(seen[0, 2])
    assert seen[0, 0] != seen[0, 1]
    assert set(seen[0, 0]) != set(seen[1, 0])
    assert max(seen[0, 0]) > 500
    small = train_model(
        tiny_spec(train_count=50_000, epochs=1, batch_size=500), out=tmp_path / "all"
    )
    assert small.card.history


def test_checkpoints_hold_no_pickle(teacher, tmp_path):
    interrupted(make_spec("adaptive", teacher), tmp_path / "m")
    files = [p for p in (tmp_path / "m.partial").rglob("*") if p.is_file() and p.name != "lock"]
    assert sorted(path.name for path in files) == ["state.json", "state.safetensors"]
    for path in files:
        content = path.read_bytes()
        assert not content.startswith((b"PK", b"\x80"))
        with pytest.raises(ValueError, match="opcode"):
            pickletools.dis(content, out=io.StringIO())
        if path.suffix == ".json":
            json.loads(content)
