"""A checkpoint is there whole at every moment, and damage is one sentence."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from fkd.core.errors import CheckpointError, RunError
from fkd.distillation import _state
from fkd.distillation._state import TrainState, has_state, read_state, restore, save_state


def make_training(seed=0, steps=2):
    """A network with batch statistics and an optimiser that has state."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        network(torch.rand(5, 3)).square().mean().backward()
        optimiser.step()
    return network, optimiser


def make_state(step=0):
    return TrainState(
        spec={"name": "x"},
        teacher_hash=None,
        data_fingerprint="f",
        step=step,
        sums={"total": 0.1 + 0.2},
        history=[{"epoch": 1.0, "loss": 1 / 3}],
        seconds=1.5,
    )


def test_everything_comes_back_to_the_bit(tmp_path):
    network, optimiser = make_training(0)
    assert not has_state(tmp_path / "p")
    assert read_state(tmp_path / "p") is None
    save_state(tmp_path / "p", make_state(7), network, optimiser)
    assert has_state(tmp_path / "p")
    drawn = torch.rand(3)
    state, tensors, values = read_state(tmp_path / "p")
    assert state == make_state(7)
    other, other_optimiser = make_training(1)
    restore(tensors, values, other, other_optimiser)
    assert torch.equal(torch.rand(3), drawn)
    for key, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    images = torch.rand(5, 3)
    for net, opt in ((network, optimiser), (other, other_optimiser)):
        opt.zero_grad()
        net(images).square().mean().backward()
        opt.step()
    for key, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


class Interrupted(BaseException):
    """A process that ends: nothing in the code may catch it."""


def test_an_interruption_at_any_moment_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    """Every touch of the disk is the last one once; the second save starts from each such end."""
    network, optimiser = make_training()
    real = {
        "mkdir": Path.mkdir,
        "replace": Path.replace,
        # Waiting for the disk takes long and changes nothing that can be read back.
        "fsync": lambda _: None,
        "rmtree": shutil.rmtree,
    }

    def saving(folder, step, limit):
        count = 0

        def counted(name):
            def call(*arguments, **options):
                nonlocal count
                count += 1
                if count > limit:
                    raise Interrupted
                return real[name](*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(Path, "mkdir", counted("mkdir"))
            patch.setattr(Path, "replace", counted("replace"))
            patch.setattr(_state.os, "fsync", counted("fsync"))
            patch.setattr(_state.shutil, "rmtree", counted("rmtree"))
            try:
                save_state(folder, make_state(step), network, optimiser)
            except Interrupted:
                return False
        return True

    found = set()
    for first in range(9):
        for second in range(9):
            folder = tmp_path / f"{first}-{second}"
            saving(folder, 1, 99)
            saving(folder, 2, first)
            assert read_state(folder)[0].step in (1, 2)
            kept = read_state(folder)[0].step
            is_whole = saving(folder, 3, second)
            state, tensors, _ = read_state(folder)
            assert state.step == 3 or (not is_whole and state.step == kept), (first, second)
            assert "network.0.weight" in tensors
            found.add((kept, state.step))
            real["rmtree"](folder)
    assert found == {(1, 1), (1, 3), (2, 2), (2, 3)}


def test_a_full_disk_keeps_the_old_checkpoint_and_says_what_to_do(tmp_path, monkeypatch):
    network, optimiser = make_training()
    save_state(tmp_path, make_state(1), network, optimiser)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_state.os, "fsync", full)
    with pytest.raises(RunError) as caught:
        save_state(tmp_path, make_state(2), network, optimiser)
    assert str(caught.value) == (
        f"The training's checkpoint could not be written to {tmp_path} (No space left on device); "
        "free some space or choose another folder, then resume."
    )
    assert read_state(tmp_path)[0].step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


DAMAGES = {
    "truncated tensors": lambda f: (f / "state.safetensors").write_bytes(b"\x10"),
    "no tensors": lambda f: (f / "state.safetensors").unlink(),
    "no JSON": lambda f: (f / "state.json").write_text("{"),
    "a list": lambda f: (f / "state.json").write_text("[]"),
    "another version": lambda f: change(f / "state.json", format=99),
    "an unknown field": lambda f: change(f / "state.json", mood="good"),
    "a pickle": lambda f: (f / "state.safetensors").write_bytes(b"\x80\x04\x95" + bytes(50)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_one_sentence(damage, tmp_path):
    save_state(tmp_path, make_state(), *make_training())
    DAMAGES[damage](tmp_path / "checkpoint")
    with pytest.raises(
        CheckpointError, match=r"The unfinished training in .* is damaged"
    ) as caught:
        read_state(tmp_path)
    assert str(caught.value).endswith("; delete that folder or start again without resuming.")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_network_is_one_sentence(tmp_path):
    save_state(tmp_path, make_state(), *make_training())
    _, tensors, values = read_state(tmp_path)
    other = nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match="does not fit its network") as caught:
        restore(tensors, values, other, torch.optim.Adam(other.parameters()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lost", ["random.cpu", "state"])
def test_a_checkpoint_that_lacks_a_part_is_one_sentence(lost, tmp_path):
    network, optimiser = make_training()
    save_state(tmp_path, make_state(), network, optimiser)
    _, tensors, values = read_state(tmp_path)
    tensors.pop(lost, None)
    values = {} if lost == "state" else values
    with pytest.raises(CheckpointError, match=r"does not fit its network .*without resuming"):
        restore(tensors, values, network, optimiser)
