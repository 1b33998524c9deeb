"""Copies with altered weights: rounded and pruned as written down, measured and saved like a student."""

import copy
import errno
import shutil

import numpy as np
import pytest
import torch
from _tiny_training import Recorder, is_equal, tiny_spec, weights_of
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from pydantic import Field

from fkd.core.config import Config
from fkd.core.errors import Cancelled, CheckpointError, ConfigError, StoreError
from fkd.core.paths import models_dir
from fkd.data import load_split
from fkd.distillation import (
    COPIES,
    METHODS,
    CopySpec,
    check_copy,
    copy_model,
    teacher_agreement,
    train_model,
)
from fkd.distillation.copies import Copying
from fkd.distillation.copies.base import weighted_layers
from fkd.distillation.copies.make import altered
from fkd.models import import_model, load_model
from tests.support.networks import make_network

SHAPES = ((4, 3, 3, 3), (7, 36), (3, 7))


def make_copying(name, **config):
    entry = COPIES.get(name)
    return entry(entry.Config.parse(config))


def random_weights(seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for shape in SHAPES]


def make_spec(teacher, name="copy", **values):
    values = {"report_count": 20, "report_steps": 2, "device": "cpu", **values}
    return CopySpec.parse({"name": name, "teacher": str(teacher), **values})


@pytest.mark.parametrize("name", sorted(COPIES))
def test_every_way_of_copying_is_documented_pure_and_repeatable(name):
    entry = COPIES.get(name)
    assert entry.title and entry.source and COPIES.available()[name]
    # Cards, tables and pages know a student by its method's name alone.
    assert name not in METHODS
    assert all(field.description for field in entry.Config.model_fields.values())
    weights = random_weights()
    before = [weight.clone() for weight in weights]
    made, again = (make_copying(name).alter(weights) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))
    for weight, one, two in zip(weights, made, again, strict=True):
        assert (one.shape, one.dtype, one.requires_grad) == (weight.shape, torch.float32, False)
        assert torch.equal(one, two)
    assert any(not torch.equal(a, b) for a, b in zip(weights, made, strict=True))


@settings(max_examples=30, deadline=None)
@given(
    bits=st.integers(2, 10),
    granularity=st.sampled_from(["channel", "tensor"]),
    seed=st.integers(0, 99),
    scale=st.sampled_from([1e-6, 0.1, 30.0]),
)
def test_rounding_is_to_the_nearest_multiple_of_the_step(bits, granularity, seed, scale):
    weights = random_weights(seed, scale)
    made = make_copying("quantised", bits=bits, granularity=granularity).alter(weights)
    highest = 2 ** (bits - 1) - 1
    for weight, rounded in zip(weights, made, strict=True):
        rows = weight.flatten(1).numpy().astype(np.float64)
        step = np.abs(rows).max(1, keepdims=True) / highest
        if granularity == "tensor":
            step = np.full_like(step, step.max())
        found = rounded.flatten(1).numpy().astype(np.float64) / step
        wanted = np.clip(np.round(rows / step), -highest, highest)
        is_tie = np.abs(np.abs(rows / step - np.floor(rows / step)) - 0.5) < 1e-3
        assert np.abs(found - np.round(found)).max() < 1e-3
        assert np.abs(found).max() <= highest + 1e-3
        assert (np.abs(found - wanted) < 1e-3)[~is_tie].all()
        assert (np.abs(found - rows / step) <= 0.5 + 1e-3).all()


def test_rounding_is_symmetric_and_changes_nothing_twice():
    weights = random_weights(3)
    rounding = make_copying("quantised", bits=5)
    made = rounding.alter(weights)
    mirrored = rounding.alter([-weight for weight in weights])
    assert all(torch.equal(a, -b) for a, b in zip(made, mirrored, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(made, rounding.alter(made), strict=True))


def test_channels_have_steps_of_their_own_and_zeros_stay():
    weight = torch.tensor([[0.0, 0.0], [1.0, 0.004], [100.0, 40.0], [1e-42, -1e-42]])
    (channel,) = make_copying("quantised", bits=8).alter([weight])
    (whole,) = make_copying("quantised", bits=8, granularity="tensor").alter([weight])
    assert torch.equal(channel[0], torch.zeros(2)) and torch.equal(channel[3], torch.zeros(2))
    # 0.004 is half a step of its own channel (1 / 127), and far below half a step of the whole.
    assert channel[1].tolist() == pytest.approx([1.0, 1 / 127])
    assert whole[1].tolist() == pytest.approx([100 / 127, 0.0])


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_pruning_takes_the_smallest_weights_of_the_whole_network(share, seed):
    # Layers of different sizes of weights: ranked each by itself, other weights would go.
    weights = [w * size for w, size in zip(random_weights(seed), (1.0, 0.1, 5.0), strict=True)]
    made = make_copying("pruned", share=share).alter(weights)
    before = torch.cat([weight.flatten() for weight in weights])
    after = torch.cat([weight.flatten() for weight in made])
    gone = after == 0
    assert int(gone.sum()) == round(share * len(before))
    assert torch.equal(after[~gone], before[~gone])
    if gone.any() and not gone.all():
        assert before[gone].abs().max() <= before[~gone].abs().min()


@pytest.mark.parametrize("name", sorted(COPIES))
def test_only_weights_are_altered(name):
    network = make_network(
        "resnet_small", {"width": 3}, image_shape=(1, 8, 8), num_classes=3, seed=1
    )
    with torch.no_grad():
        for parameter_name, parameter in network.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.uniform_(-1, 1)
    before = copy.deepcopy(network.state_dict())
    twin = altered(network, make_copying(name))
    assert is_equal(network.state_dict(), before)
    weights = {id(layer.weight) for layer in weighted_layers(twin)}
    assert len(weights) >= 5
    changed = {n for n, value in twin.state_dict().items() if not torch.equal(value, before[n])}
    allowed = {n for n, parameter in twin.named_parameters() if id(parameter) in weights}
    assert changed and changed <= allowed
    # Gains of batch norm are "weights" by name only.
    assert all(before[n].ndim >= 2 for n in changed)


@pytest.fixture(scope="module")
def robust_teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copied") / "teacher"
    spec = tiny_spec("pgd_at", name="teacher", method_config={"epsilon": 0.07, "steps": 2})
    train_model(spec, out=folder)
    return folder


@pytest.mark.parametrize("name", sorted(COPIES))
def test_a_copy_is_a_measured_student_of_its_teacher(name, robust_teacher, tmp_path):
    reports = Recorder()
    spec = make_spec(robust_teacher, method=name)
    model = copy_model(spec, out=tmp_path / "copy", progress=reports)
    teacher = load_model(robust_teacher)
    card = model.card
    assert (card.name, card.role, card.method, card.dataset) == ("copy", "student", name, "digits")
    assert (card.teacher.name, card.teacher.model_hash) == ("teacher", teacher.model_hash)
    assert card.model_hash != teacher.model_hash
    assert card.method_config == COPIES.get(name).Config().model_dump(mode="json")
    assert card.training_config == spec.model_dump(mode="json")
    for part in ("architecture", "architecture_config", "image_shape", "mean", "std", "parameters"):
        assert getattr(card, part) == getattr(teacher.card, part)
    assert (card.seed, card.history, card.data_fingerprint) == (0, [], None)
    # No radius given: the teacher's, measured like any other student.
    assert set(card.metrics) == {
        *("clean_accuracy", "teacher_agreement"),
        *("robust_accuracy_0.07", "certified_accuracy_0.07", "interval_accuracy_0.07"),
    }
    split = load_split("digits", "test")
    agreement = teacher_agreement(teacher.network, model.network, split)
    assert card.metrics["teacher_agreement"] == agreement > 0.8
    assert {report.stage for report in reports.reports} >= {"preparing", "measuring"}

    again = copy_model(spec, out=tmp_path / "again")
    assert is_equal(weights_of(model), weights_of(again))
    assert model.path.read_bytes() == again.path.read_bytes()


def test_finer_rounding_is_nearer_to_the_teacher(robust_teacher, tmp_path):
    images = load_split("digits", "test").images[:100]
    teacher = load_model(robust_teacher).network
    distances = []
    for bits in (3, 8, 16):
        spec = make_spec(robust_teacher, method_config={"bits": bits})
        made = copy_model(spec, out=tmp_path / str(bits))
        distances.append(float((made.network(images) - teacher(images)).abs().max()))
    assert distances[0] > 5 * distances[1] > 100 * distances[2] > 0


def test_what_was_made_is_found_and_a_taken_name_is_refused(robust_teacher, tmp_path):
    spec = make_spec(robust_teacher, report_epsilons=(0.02,))
    first = copy_model(spec, out=tmp_path / "copy")
    assert copy_model(spec, out=tmp_path / "copy").card.created == first.card.created
    assert "robust_accuracy_0.02" in first.card.metrics
    with pytest.raises(ConfigError, match="already a model called 'copy'"):
        copy_model(make_spec(robust_teacher, method="pruned"), out=tmp_path / "copy")


def test_a_copy_of_a_teacher_that_was_replaced_is_not_taken_for_the_new_ones(
    robust_teacher, tmp_path
):
    teacher = tmp_path / "teacher"
    shutil.copytree(robust_teacher, teacher)
    spec = make_spec(teacher)
    made = copy_model(spec, out=tmp_path / "copy")
    shutil.rmtree(teacher)
    shutil.copytree(made.path.parent, teacher)
    with pytest.raises(ConfigError, match="already a model called 'copy'"):
        copy_model(spec, out=tmp_path / "copy")


def test_a_cancelled_copy_leaves_nothing(robust_teacher, tmp_path):
    stop = Recorder(lambda report: report.stage == "measuring")
    with pytest.raises(Cancelled):
        copy_model(make_spec(robust_teacher), out=tmp_path / "copy", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_of_a_copy_is_its_student(robust_teacher, tmp_path):
    copy_model(make_spec(robust_teacher), out=tmp_path / "copy")
    spec = make_spec(tmp_path / "copy", "second", method="pruned")
    second = copy_model(spec, out=tmp_path / "second")
    assert second.card.teacher.name == "copy"
    # Copies have no radius of their own to be measured at.
    assert set(second.card.metrics) == {"clean_accuracy", "teacher_agreement"}


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        ({"method": "kd"}, ConfigError, "no way of copying called 'kd'.*pruned, quantised"),
        ({"method_config": {"bits": 1}}, ConfigError, "'bits'.*greater than or equal to 2, got 1"),
        ({"method_config": {"share": 0.3}}, ConfigError, "no setting called 'share'"),
        (
            {"method": "pruned", "method_config": {"share": 1.0}},
            ConfigError,
            "'share'.*less than 1",
        ),
        ({"name": "a/b"}, ConfigError, "a/b"),
        ({"report_epsilons": (8,)}, ConfigError, "8"),
        ({"teacher": "nobody"}, ConfigError, "no model called 'nobody'"),
        ({"device": "tpu"}, ConfigError, "tpu"),
    ],
)
def test_what_cannot_be_copied_is_a_sentence(values, error, sentence, robust_teacher):
    with pytest.raises(error, match=sentence):
        check_copy(CopySpec.parse({"name": "copy", "teacher": str(robust_teacher), **values}))


def test_a_damaged_teacher_is_not_copied(robust_teacher, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in robust_teacher.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="not those its card speaks of"):
        check_copy(make_spec(folder))


def test_a_folder_that_cannot_be_written_costs_no_measuring(robust_teacher, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    reports = []
    with pytest.raises(StoreError) as caught:
        copy_model(make_spec(robust_teacher), out=tmp_path / "copy", progress=reports.append)
    assert str(caught.value) == (
        f"The model 'copy' could not be written in '{tmp_path}' (Permission denied); make that folder "
        "writable or choose another folder. Nothing was changed there."
    )
    # A line of progress before the sentence would only confuse.
    assert reports == []
    assert not (tmp_path / "copy").exists()


def test_a_new_way_of_copying_is_one_class(robust_teacher, tmp_path):
    class NegatedConfig(Config):
        factor: float = Field(default=-1.0, description="What weights are multiplied by.")

    @COPIES.register("negated")
    class Negated(Copying):
        """Weights with the other sign."""

        title = "Negation"
        source = "this test"
        Config = NegatedConfig

        def alter(self, weights):
            return [self.config.factor * weight for weight in weights]

    try:
        model = copy_model(make_spec(robust_teacher, method="negated"), out=tmp_path / "copy")
    finally:
        COPIES.unregister("negated")
    teacher = load_model(robust_teacher).network.state_dict()
    for name, value in weights_of(model).items():
        assert torch.equal(value, -teacher[name] if name.endswith("weight") else teacher[name])
    assert model.card.method_config == {"factor": -1.0}
    assert not (models_dir() / "copy").exists()


@pytest.mark.parametrize("name", sorted(COPIES))
def test_an_imported_onnx_graph_is_copied_as_a_graph(name, tmp_path):
    generator = np.random.default_rng(0)
    weights = {"w1": (64, 12), "w2": (12, 10), "b": (12,)}
    values = {key: generator.normal(size=shape) / 4 for key, shape in weights.items()}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w1"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["positive"]),
            helper.make_node("MatMul", ["positive", "w2"], ["logits"]),
        ],
        "by_hand",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ("batch", 1, 8, 8))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 10))],
        [numpy_helper.from_array(v.astype(np.float32), key) for key, v in values.items()],
    )
    file = tmp_path / "net.onnx"
    opset = [helper.make_opsetid("", 17)]
    file.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    )
    facts = {"dataset": "digits", "role": "teacher", "image_shape": (1, 8, 8), "num_classes": 10}
    teacher = import_model(file, name="theirs", mean=[0.3], std=[0.4], **facts)
    model = copy_model(make_spec("theirs", method=name))
    assert model.path == models_dir() / "copy" / "model.onnx"
    assert (model.card.architecture, model.card.teacher.name) == ("onnx", "theirs")
    assert (model.card.mean, model.card.std) == ((0.3,), (0.4,))
    # The same as altering the converted network.
    images = load_split("digits", "test").images[:50]
    wanted = altered(teacher.network, make_copying(name))(images)
    assert torch.allclose(model.network(images), wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(model.network(images), teacher.network(images), atol=1e-4)
    assert set(model.card.metrics) == {"clean_accuracy", "teacher_agreement"}
    assert load_model("copy").model_hash == model.model_hash != teacher.model_hash
