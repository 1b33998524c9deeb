"""Saving and loading: whole or absent, verified, and never running what a file brings along."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
from pathlib import Path

import pytest
import torch
from _small_models import (
    change_card,
    make_card,
    make_tiny,
    save_tiny,
    some_images,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from fkd.core.errors import CheckpointError, ConfigError, FkdError
from fkd.core.paths import models_dir, pretrained_dir
from fkd.models import _folders, check_name, load_model, save_model


def _put(folder: Path, content: bytes, *, vouched: bool = True) -> None:
    """Replace the weights; ``vouched`` writes their hash into the card, as a careful forger would."""
    (folder / "model.safetensors").write_bytes(content)
    if vouched:
        change_card(folder, weights_sha256=hashlib.sha256(content).hexdigest())


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture
def folder():
    return save_tiny().path.parent


def _refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize(
    ("architecture", "config", "shape"),
    [
        ("mlp", {"hidden": [5]}, (1, 4, 4)),
        ("cnn_small", {"width": 2}, (3, 8, 8)),
        ("resnet_small", {"width": 2}, (1, 8, 8)),
    ],
)
def test_a_loaded_model_computes_what_was_saved(tmp_path, architecture, config, shape):
    channels = shape[0]
    card = make_card(
        architecture=architecture,
        architecture_config=config,
        image_shape=shape,
        mean=(0.3,) * channels,
        std=(0.4,) * channels,
    )
    network = make_tiny(card)
    images = some_images(6, shape)
    network.train()(images)  # moves batch statistics
    expected = network.eval()(images)
    saved = save_model(tmp_path / "some" / "deep" / "one", network.train(), card)
    for model in (saved, load_model(saved.path.parent)):
        assert torch.equal(model.network(images), expected)
        assert not model.network.training
        assert not any(parameter.requires_grad for parameter in model.network.parameters())
        assert model.name == "one"
        assert model.role == "teacher"
        assert model.model_hash == model.card.model_hash
    assert network.training, "the caller's network is left as it was"
    content = saved.path.read_bytes()
    assert saved.card.weights_sha256 == hashlib.sha256(content).hexdigest()


def test_saving_double_precision_keeps_float32(tmp_path):
    network = make_tiny().double()
    saved = save_model(tmp_path / "one", network, make_card())
    assert {value.dtype for value in saved.network.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("step", ["write", "rename"])
def test_a_failed_save_leaves_nothing_and_keeps_the_old(monkeypatch, step):
    old = save_tiny(weights=1)
    calls = []

    def full(*arguments, **more):
        calls.append(arguments)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((_folders, "_write_file") if step == "write" else (Path, "rename")), full)
        for name, overwrite in (("tiny", True), ("fresh", False)):
            with pytest.raises(CheckpointError, match=r"could not be written .*No space left"):
                save_model(models_dir() / name, make_tiny(), make_card(), overwrite=overwrite)
    assert len(calls) == 2
    assert [entry.name for entry in old.path.parents[1].iterdir()] == ["tiny"]
    assert torch.equal(
        load_model(old.path.parent).network(some_images()), old.network(some_images())
    )


def test_a_failure_between_the_two_renames_puts_the_old_one_back(monkeypatch):
    old = save_tiny(weights=1)
    rename = Path.rename

    def second_fails(self, target):
        if ".new-" in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(CheckpointError, match="Input/output error"):
        save_tiny_again()
    assert [entry.name for entry in models_dir().iterdir()] == ["tiny"]
    assert load_model("tiny").model_hash == old.model_hash


def save_tiny_again():
    return save_model(models_dir() / "tiny", make_tiny(seed=2), make_card(), overwrite=True)


def test_overwriting_must_be_asked_for(folder):
    before = load_model(folder).model_hash
    with pytest.raises(ConfigError, match="already a model called 'tiny'"):
        save_model(folder, make_tiny(seed=2), make_card())
    assert load_model(folder).model_hash == before
    assert save_tiny_again().model_hash != before
    assert [entry.name for entry in models_dir().iterdir()] == ["tiny"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_overwritten_leaves_no_hidden_rest(folder, tmp_path, kind):
    target = models_dir() / "other"
    if kind == "file":
        target.write_text("x")
    else:
        target.symlink_to(folder, target_is_directory=True)
    save_model(target, make_tiny(), make_card(), overwrite=True)
    assert sorted(entry.name for entry in models_dir().iterdir()) == ["other", "tiny"]
    assert not target.is_symlink()
    assert load_model("other").name == "other"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../x", ".hidden", "-x", "a b", "x.partial", "x" * 81, "ü", "a\n", "a."],
)
def test_odd_names_are_refused(name):
    with pytest.raises(ConfigError, match="A model cannot be called"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "x" * 80, "7"])
def test_plain_names_are_taken(name):
    assert check_name(name) == name


def test_a_shipped_models_name_is_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("FKD_PRETRAINED_DIR", str(tmp_path / "shipped"))
    save_tiny("star", parent=pretrained_dir())
    with pytest.raises(ConfigError, match="'star' is the name of a model shipped with fkd"):
        save_tiny("star")
    assert save_tiny("star", parent=tmp_path / "elsewhere").name == "star"


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"architecture_config": {"hidden": [6]}}, "does not describe the network: The weight"),
        ({"num_classes": 4}, "does not describe the network"),
        ({"mean": (0.31,)}, "mean and std are not those of the network's"),
        ({"mean": (), "std": ()}, "mean and std are not those of the network's"),
        ({"architecture": "mlq"}, "no architecture called 'mlq'"),
    ],
)
def test_a_card_of_another_network_is_refused(tmp_path, facts, message):
    with pytest.raises(ConfigError, match=message):
        save_model(tmp_path / "m", make_tiny(), make_card(**facts))
    assert not (tmp_path / "m").exists()


def test_nan_weights_are_not_saved(tmp_path):
    network = make_tiny()
    with torch.no_grad():
        network.body.logits.bias[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in .*'body\.logits\.bias'"):
        save_model(tmp_path / "m", network, make_card())
    assert not list(tmp_path.glob("*m*"))


# --- what is read -------------------------------------------------------------------------------


def test_other_weights_than_the_cards_are_refused(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    _put(folder, bytes(content), vouched=False)
    assert "are not those its card speaks of" in _refusal(folder)
    change_card(folder, weights_sha256=None)
    assert "the card says nothing" in _refusal(folder)


def test_every_truncation_is_refused(folder):
    content = (folder / "model.safetensors").read_bytes()
    for length in {0, 1, 8, 9, 10, 40, len(content) // 2, len(content) - 1}:
        _put(folder, content[:length])
        text = _refusal(folder)
        assert "truncated" in text or "not a safetensors file" in text
        # Every model's file is called the same, and no advice for files one brings helps here.
        assert str(folder) in text and text.endswith("; copy or train the model again.")


def test_damage_to_the_header_names_the_model(folder):
    content = (folder / "model.safetensors").read_bytes()
    for damaged in (
        b"f" * 8 + content[8:],
        content[:8] + b"?" + content[9:],
        b"\x80\x04" + content,
    ):
        _put(folder, damaged)
        text = _refusal(folder)
        assert str(folder) in text and text.endswith("; copy or train the model again.")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_gives_no_other_error(folder, data):
    content = bytearray(save(make_tiny().state_dict()))
    # Mostly the header, where structure is.
    place = data.draw(st.integers(0, data.draw(st.sampled_from([400, len(content) - 1]))))
    content[place] ^= data.draw(st.integers(1, 255))
    _put(folder, bytes(content))
    try:
        load_model(folder)
    except FkdError as error:
        assert "\n" not in str(error)


class _Trap:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


@pytest.mark.parametrize("kind", ["pickle0", "pickle2", "pickle5", "torch", "torch_old"])
def test_a_pickle_called_safetensors_is_never_executed(folder, tmp_path, kind):
    mark = tmp_path / "mark"
    if kind.startswith("torch"):
        torch.save(_Trap(mark), tmp_path / "x", _use_new_zipfile_serialization=kind == "torch")
        content = (tmp_path / "x").read_bytes()
    else:
        content = pickle.dumps(_Trap(mark), protocol=int(kind[-1]))
        pickle.loads(content)
        assert mark.read_text() == "executed", "the trap works"
        mark.unlink()
    _put(folder, content)
    text = _refusal(folder)
    assert "is not a safetensors file" in text
    assert ("but a pickle" in text) == (kind != "pickle0")
    assert not mark.exists()


def test_a_header_whose_length_looks_like_a_pickle_is_read(folder):
    weights = _tensors(folder)
    for pad in range(2048):
        content = save(weights, {"pad": "x" * pad})
        if content[0] == 0x80 and content[1] in (2, 3, 4, 5):
            break
    else:
        pytest.fail("no such length")
    _put(folder, content)
    assert load_model(folder).name == "tiny"


@pytest.mark.parametrize("length", [17 * 1024**2, 2**40, 2**64 - 1])
def test_a_huge_header_is_refused_before_anything_is_allocated(folder, length):
    _put(folder, struct.pack("<Q", length) + b"{}" + b" " * 100)
    assert f"its header would take {length} bytes" in _refusal(folder)


@pytest.mark.parametrize("header", [b"[]", b"{", b"nonsense", b"[" * 50_000, b"\xff\xfe\xfd"])
def test_a_header_that_is_no_json_object(folder, header):
    _put(folder, struct.pack("<Q", len(header)) + header + b" " * 16)
    assert "its header is no JSON" in _refusal(folder)


def test_a_tensor_that_claims_more_than_the_file_has(folder):
    claim = {"dtype": "F32", "shape": [10**9, 10**3], "data_offsets": [0, 4 * 10**12]}
    header = json.dumps({"body.fc1.weight": claim}).encode()
    _put(folder, struct.pack("<Q", len(header)) + header + b" " * 16)
    assert "truncated or damaged" in _refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(folder, value):
    weights = _tensors(folder)
    weights["body.fc1.weight"][1, 2] = value
    _put(folder, save(weights))
    assert "NaN or infinite values in the weight 'body.fc1.weight'" in _refusal(folder)


def test_weights_so_large_that_logits_overflow(folder):
    weights = {name: torch.full_like(value, 3e38) for name, value in _tensors(folder).items()}
    _put(folder, save(weights))
    assert "gives NaN or infinite logits for a grey image" in _refusal(folder)


def _without(weights, name):
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: _without(w, "body.fc1.bias"),
            r"lacks the weight 'body.fc1.bias' of shape \(5,\) that mlp\(hidden=\[5\]\) for 1x4x4",
        ),
        (lambda w: {**w, "body.fc2.bias": torch.zeros(5)}, "'body.fc2.bias', which mlp.* does not"),
        (
            lambda w: {**_without(w, "body.fc1.bias"), "body.fc1.bais": w["body.fc1.bias"]},
            "nearest name is 'body.fc1.bais', rename it",
        ),
        (lambda w: {**w, "body.fc1.bias": torch.zeros(6)}, r"has shape \(6,\), but mlp.*\(5,\)"),
        (lambda w: {**w, "body.fc1.weight": torch.zeros(16, 5)}, r"has shape \(16, 5\)"),
        (lambda w: {**w, "body.fc1.bias": torch.zeros(5).long()}, "is int64, but .* float32"),
        (lambda w: {}, "lacks the weight"),
    ],
)
def test_weights_of_another_architecture(folder, change, message):
    _put(folder, save(change(_tensors(folder))))
    assert re.search(message, _refusal(folder))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(folder, dtype):
    weights = {name: value.to(dtype) for name, value in _tensors(folder).items()}
    _put(folder, save(weights))
    loaded = load_model(folder).network.state_dict()
    assert all(torch.equal(loaded[name], weights[name].float()) for name in weights)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"architecture": "mlq"}, "names the architecture 'mlq', which fkd does not have"),
        ({"architecture": "onnx"}, "names the architecture 'onnx', which fkd does not have"),
        ({"architecture": "cnn_small"}, "is not usable: architecture cnn_small has no setting"),
        ({"architecture_config": {"hidden": [8192] * 8}}, "lacks|has shape"),
        ({"architecture_config": {"hidden": "x"}}, "is not usable"),
        ({"image_shape": [1, 4, 5]}, "has shape"),
        ({"image_shape": [1, 2**40, 2**40]}, "more than any network"),
        ({"image_shape": [1, -4, -4]}, "image_shape must be"),
        ({"num_classes": 2**20}, "has shape"),
        ({"num_classes": 10**30}, "more than any network"),
        ({"mean": [0.3, 0.3]}, "needs 1 means and stds"),
        ({"std": [0.0]}, "one positive std"),
        ({"std": [-1.0]}, "one positive std"),
    ],
)
def test_an_altered_card_is_refused(folder, facts, message):
    change_card(folder, **facts)
    assert re.search(message, _refusal(folder))


def test_an_altered_normalisation_is_another_model(folder):
    before = load_model(folder).model_hash
    change_card(folder, mean=[0.5])
    assert load_model(folder).model_hash != before


def test_no_weights_both_kinds_and_a_folder_in_their_place(folder):
    weights = folder / "model.safetensors"
    (folder / "model.onnx").write_bytes(b"x")
    assert "has both model.safetensors and model.onnx" in _refusal(folder)
    (folder / "model.onnx").unlink()
    weights.rename(folder / "weights")
    assert "has neither model.safetensors nor model.onnx" in _refusal(folder)
    weights.mkdir()
    assert "has neither" in _refusal(folder)


def test_an_unknown_device_is_a_sentence(folder):
    with pytest.raises(ConfigError, match="device"):
        load_model(folder, device="toaster")


def test_links_keep_the_name_they_are_found_under(folder, tmp_path):
    """A folder's name counts, also where it or its card is only a link to elsewhere."""
    real = save_tiny("real", parent=tmp_path / "elsewhere").path.parent
    (models_dir() / "alias").symlink_to(real, target_is_directory=True)
    assert load_model("alias").name == "alias"
    linked = models_dir() / "linked"
    linked.mkdir()
    for name in ("card.json", "model.safetensors"):
        (linked / name).symlink_to(real / name)
    assert load_model("linked").name == "linked"
    (linked / "card.json").unlink()
    (linked / "card.json").symlink_to(linked / "card.json")
    with pytest.raises(CheckpointError, match="model card"):
        load_model("linked")


def test_a_folder_reached_by_a_relative_path_has_its_name(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert load_model(Path("model.safetensors")).name == "tiny"
    assert load_model(".").name == "tiny"
    monkeypatch.chdir(folder.parent)
    assert load_model("./tiny").name == "tiny"
    assert load_model("tiny/../tiny/model.safetensors").name == "tiny"


def test_save_file_of_the_library_is_read(folder):
    weights = _tensors(folder)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    change_card(
        folder,
        weights_sha256=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    )
    assert load_model(folder).name == "tiny"
