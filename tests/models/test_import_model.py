"""Anyone's model into the user's folder, from both formats."""

from __future__ import annotations

import hashlib

import pytest
import torch
from _small_models import CLASSES, SHAPE, make_tiny, some_images
from onnx_graphs import cnn
from safetensors.torch import load_file, save_file

from fkd.core.errors import CheckpointError, ConfigError
from fkd.core.paths import models_dir
from fkd.models import ARCHITECTURES, damaged_models, import_model, list_models, load_model

FACTS = {"dataset": "digits", "role": "teacher", "image_shape": SHAPE, "num_classes": CLASSES}
MLP = {"architecture": "mlp", "architecture_config": {"hidden": [5]}, "mean": [0.3], "std": [0.4]}
ONNX = {"image_shape": (1, 8, 8), "num_classes": 4}


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(make_tiny().state_dict(), path)
    return path


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "graph.onnx"
    path.write_bytes(cnn(1, "one").SerializeToString())
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prefix", ["body.", ""])
def test_weights_of_every_precision_with_and_without_prefix(weights, dtype, prefix):
    state = {
        prefix + name.removeprefix("body."): value.to(dtype)
        for name, value in make_tiny().state_dict().items()
    }
    save_file(state, weights)
    model = import_model(weights, name="mine", **FACTS, **MLP)
    reference = make_tiny().eval()
    reference.load_state_dict({n: v.to(dtype).float() for n, v in reference.state_dict().items()})
    for found in (model, load_model("mine")):
        assert torch.equal(found.network(some_images()), reference(some_images()))
    card = model.card
    assert (card.name, card.method, card.role, card.dataset) == (
        "mine",
        "imported",
        "teacher",
        "digits",
    )
    assert card.training_config == {"imported_from": "weights.safetensors"}
    assert card.versions
    assert card.created
    assert "mine" in [found.name for found in list_models()]


def test_settings_may_be_a_config(weights):
    config = ARCHITECTURES.get("mlp").Config(hidden=(5,))
    model = import_model(weights, name="mine", **FACTS, **{**MLP, "architecture_config": config})
    assert model.card.architecture_config == {"hidden": [5]}


def test_an_onnx_file_is_kept_as_one_verified_file(graph):
    model = import_model(graph, name="net", **{**FACTS, **ONNX})
    assert model.path.name == "model.onnx"
    assert model.card.architecture == "onnx"
    assert model.card.parameters > 0
    assert model.card.weights_sha256 == hashlib.sha256(model.path.read_bytes()).hexdigest()
    images = some_images(5, (1, 8, 8))
    assert torch.equal(load_model("net").network(images), model.network(images))
    assert load_model(model.path).model_hash == model.model_hash
    content = bytearray(model.path.read_bytes())
    content[-1] ^= 1
    model.path.write_bytes(content)
    with pytest.raises(CheckpointError, match="are not those its card speaks of"):
        load_model("net")


def test_overwriting_must_be_asked_for(weights, graph):
    first = import_model(weights, name="mine", **FACTS, **MLP)
    with pytest.raises(ConfigError, match=r"already a model called 'mine' .*--overwrite"):
        import_model(graph, name="mine", **{**FACTS, **ONNX})
    assert load_model("mine").model_hash == first.model_hash
    import_model(graph, name="mine", overwrite=True, **{**FACTS, **ONNX})
    assert load_model("mine").path.name == "model.onnx"
    assert "mine" not in damaged_models()
    assert [entry.name for entry in models_dir().iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["", "../up", "a b", "x.partial", ".x", "a/b"])
def test_bad_names(weights, name):
    with pytest.raises(ConfigError, match="A model cannot be called"):
        import_model(weights, name=name, **FACTS, **MLP)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"architecture": None}, ConfigError, "need the name of their architecture"),
        (
            {"architecture_config": {"hidden": [6]}},
            CheckpointError,
            r"has shape .*, but mlp\(hidden=\[6\]\)",
        ),
        ({"role": "pupil"}, ConfigError, "'role' is not usable"),
        ({"num_classes": 4}, CheckpointError, "has shape"),
        ({"mean": [0.3, 0.3]}, CheckpointError, "needs 1 means"),
    ],
)
def test_facts_that_do_not_fit_the_weights(weights, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        import_model(weights, name="mine", **{**FACTS, **MLP, **changes})
    assert "\n" not in str(caught.value)
    assert not models_dir().exists()


def test_a_misfit_is_told_in_the_names_of_the_file(tmp_path, weights):
    inner = {name.removeprefix("body."): value for name, value in load_file(weights).items()}
    path = tmp_path / "inner.safetensors"
    save_file({f"module.{name}": value for name, value in inner.items()}, path)
    with pytest.raises(CheckpointError, match="nearest name is 'module") as caught:
        import_model(path, name="mine", **FACTS, **MLP)
    assert "body" not in str(caught.value)


def test_files_of_another_kind(tmp_path, graph):
    with pytest.raises(ConfigError, match=r"must be a \.safetensors or \.onnx file, got 'm\.pt'"):
        import_model(tmp_path / "m.pt", name="mine", **FACTS)
    with pytest.raises(ConfigError, match="leave out architecture='mlp'"):
        import_model(graph, name="mine", **FACTS, **MLP)
    with pytest.raises(CheckpointError, match="does not exist"):
        import_model(tmp_path / "gone.onnx", name="mine", **FACTS)
    (tmp_path / "dir.onnx").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_model(tmp_path / "dir.onnx", name="mine", **FACTS)
    (tmp_path / "fake.onnx").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match="ONNX model"):
        import_model(tmp_path / "fake.onnx", name="mine", **FACTS)
    assert not models_dir().exists()
