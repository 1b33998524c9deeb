"""What cannot be trained is refused before anything is read or written, in one sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from _tiny_training import tiny_spec

from fkd.core.errors import CheckpointError, ConfigError, DataError
from fkd.core.paths import data_dir, models_dir
from fkd.distillation import METHODS, TrainSpec, check_spec, train_model
from fkd.models import ModelCard, build, save_model

STUDENTS = ", ".join(name for name in METHODS if METHODS.get(name).role == "student")
TEACHERS = ", ".join(name for name in METHODS if METHODS.get(name).role == "teacher")


def save_teacher(
    name: str, dataset: str = "digits", shape: tuple[int, int, int] = (1, 8, 8), classes: int = 10
) -> Path:
    """An untrained teacher in the user's folder."""
    network = build(
        "mlp", {"hidden": [4]}, image_shape=shape, num_classes=classes, mean=[], std=[], seed=0
    )
    card = ModelCard(
        name=name,
        role="teacher",
        dataset=dataset,
        method="standard",
        architecture="mlp",
        architecture_config={"hidden": [4]},
        image_shape=shape,
        num_classes=classes,
    )
    return save_model(models_dir() / name, network, card).path.parent


def refusal(error=ConfigError, **values) -> str:
    spec = TrainSpec.parse({**tiny_spec().model_dump(), **values})
    with pytest.raises(error) as caught:
        check_spec(spec)
    # The training says the same, and leaves nothing behind.
    with pytest.raises(error) as again:
        train_model(spec)
    assert str(again.value) == str(caught.value)
    assert not (models_dir() / f"{spec.name}.partial").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_plan_holds_what_was_looked_up():
    folder = save_teacher("t")
    spec = tiny_spec("rslad", method_config={"epsilon": 0.05})
    plan = check_spec(spec.model_copy(update={"teacher": "t"}))
    assert plan.method.name == "rslad"
    assert plan.teacher.path.parent == folder
    assert plan.data_set.name == "digits"
    assert plan.architecture_config == {"hidden": [8]}
    assert plan.epsilon == 0.05
    assert plan.report_epsilons == (0.05,)
    plain = check_spec(tiny_spec())
    assert (plain.teacher, plain.epsilon, plain.report_epsilons) == (None, None, ())
    assert check_spec(tiny_spec(report_epsilons=[0.1, 0.2])).report_epsilons == (0.1, 0.2)


def test_unknown_names_are_answered_with_the_nearest():
    assert refusal(method="rslat").startswith(
        "There is no training method called 'rslat'; did you mean 'rslad'?"
    )
    assert refusal(architecture="mpl").startswith(
        "There is no architecture called 'mpl'; did you mean 'mlp'?"
    )
    assert "called 'digit'" in refusal(dataset="digit")
    assert "did you mean 'digits'?" in refusal(dataset="digit")
    save_teacher("robust")
    assert refusal(method="kd", teacher="robus").startswith(
        "There is no model called 'robus'; did you mean 'robust'?"
    )


@pytest.mark.parametrize("name", ["", "a b", "../up", "x.partial", "-x", "a" * 81])
def test_unusable_names_are_refused(name):
    assert refusal(name=name).startswith(f"A model cannot be called {name!r}; use up to 80 letters")


def test_settings_are_checked_by_their_owners():
    assert refusal(method="trades", method_config={"beta": -1}).startswith(
        "training method trades: 'beta' is not usable,"
    )
    assert refusal(method_config={"final_mix": 1}) == (
        "training method standard has no setting called 'final_mix'; crown_ibp has."
    )
    assert refusal(architecture_config={"hidden": []}).startswith(
        "architecture mlp: 'hidden' is not usable,"
    )
    assert refusal(architecture_config={"width": 3}).startswith(
        "architecture mlp has no setting called"
    )
    assert refusal(report_epsilons=[8]) == (
        "epsilon must lie in [0, 1] (images are scaled to [0, 1]), got 8; did you mean 8/255?"
    )


def test_devices_are_checked_before_a_run_starts():
    assert refusal(device="tpu") == "There is no device called 'tpu'; use auto, cpu or cuda."
    if not torch.cuda.is_available():
        assert refusal(device="cuda") == (
            "No CUDA device is usable on this machine; use device auto or cpu."
        )


@pytest.mark.parametrize("method", [n for n in METHODS if METHODS.get(n).role == "student"])
def test_a_student_needs_a_teacher(method):
    assert refusal(method=method) == (
        f"The method '{method}' distils a teacher and was given none; name a model as teacher or "
        f"choose one of {TEACHERS}."
    )


@pytest.mark.parametrize("method", [n for n in METHODS if METHODS.get(n).role == "teacher"])
def test_a_teacher_takes_none(method):
    assert refusal(method=method, teacher="t") == (
        f"The method '{method}' trains without a teacher, got 't'; leave the teacher out or choose "
        f"one of {STUDENTS}."
    )


def test_a_teacher_of_other_data_is_refused():
    save_teacher("same-shape", dataset="other")
    assert refusal(method="kd", teacher="same-shape") == (
        "The teacher 'same-shape' was trained on other, not on digits; choose a teacher trained on "
        "digits or train on other."
    )
    save_teacher("larger", dataset="mnist", shape=(1, 28, 28))
    assert refusal(method="kd", teacher="larger") == (
        "The teacher 'larger' takes 1x28x28 images in 10 classes, but digits has 1x8x8 images in "
        "10; choose a teacher trained on digits or train on mnist."
    )
    save_teacher("fewer", classes=3)
    assert "takes 1x8x8 images in 3 classes, but digits has" in refusal(
        method="kd", teacher="fewer"
    )


def test_a_damaged_teacher_is_refused():
    folder = save_teacher("broken")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(content))
    assert "are not those its card speaks of" in refusal(
        CheckpointError, method="kd", teacher="broken"
    )


def test_absent_data_is_refused():
    message = refusal(DataError, dataset="mnist")
    assert "mnist" in message.lower()
    assert "download" in message


def test_an_architecture_that_does_not_fit_the_images_is_refused():
    random = np.random.default_rng(0)
    data_dir().mkdir(parents=True)
    arrays = {}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = random.integers(0, 256, (6, 3, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(6) % 2
    np.savez(data_dir() / "tiny3.npz", **arrays)
    message = refusal(dataset="tiny3", architecture="resnet_small", architecture_config={})
    assert "resnet_small" in message
    assert "3x3" in message


def test_a_loss_of_no_weight_at_all_is_refused(teacher):
    nothing = {"label_weight": 0.0, "distillation_weight": 0.0, "gradient_weight": 0.0}
    spec = tiny_spec("kdiga", teacher, method_config=nothing)
    with pytest.raises(
        ConfigError, match="of kdiga leave nothing to learn: every weight of its loss"
    ):
        train_model(spec)
    assert not (models_dir() / spec.name).exists()


def test_an_unusable_value_is_one_sentence_wherever_it_is_given():
    for values, sentence in (
        ({"epochs": "ten"}, "training: 'epochs' is not usable, .*got 'ten'"),
        ({"learning_rate": float("nan")}, "training: 'learning_rate' is not usable, .*got nan"),
        ({"foo": 1}, "training has no setting called 'foo'"),
    ):
        with pytest.raises(ConfigError, match=sentence) as caught:
            TrainSpec(**{**tiny_spec().model_dump(), **values})
        assert "\n" not in str(caught.value)
