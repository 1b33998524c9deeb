"""What a run reports, writes and leaves behind: whole, or not there at all."""

import io
import json
import math
import pickletools

import filelock
import numpy as np
import pytest
import torch
from _tiny_training import (
    STEPS,
    Recorder,
    interrupted,
    make_spec,
    stop_after,
    tiny_spec,
)

from fkd.core.errors import Cancelled, CheckpointError, RunError, UnsupportedModelError
from fkd.core.paths import models_dir
from fkd.data import load_split
from fkd.distillation import METHODS, LossParts, TrainSpec, train_model, trainer
from fkd.distillation._state import read_state
from fkd.models import load_model


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
        "interval_accuracy_0.05",
    }
    assert all(0.0 <= value <= 1.0 for value in card.metrics.values())
    proved = [card.metrics[f"{kind}_accuracy_0.05"] for kind in ("interval", "certified")]
    assert proved == sorted(proved) and proved[1] <= card.metrics["robust_accuracy_0.05"]
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
        f"{kind}_accuracy_{epsilon}"
        for kind in ("robust", "certified", "interval")
        for epsilon in (0.02, 0.3)
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
    assert str(caught.value).endswith("check that folder or choose another folder.")
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
    def prepare(self, setting):
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
