"""Shipped figures of students against a computation of their own: numpy on the weights' numbers."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import log_softmax

from fkd.core.paths import pretrained_dir
from fkd.data import load_split
from fkd.evaluation import ScoresConfig, find_analysis, find_scores
from fkd.models import read_card
from pretrained.specs import is_current, zoo
from pretrained.tables import scores_of
from pretrained.zoo import DATA

PAIR = ("digits-teacher-pgd", "digits-rslad-of-pgd")
BINS = 15


def convolved(images: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """4x4 kernels, stride 2, padding 1, then ReLU."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (4, 4), axis=(2, 3))[:, :, ::2, ::2]
    made = np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]
    return np.maximum(made, 0.0)


def log_probabilities(name: str, images: np.ndarray) -> np.ndarray:
    """Of the small convolutional network, (N, K), from its file."""
    card = read_card(name)
    assert card.architecture == "cnn_small"
    weights = load_file(pretrained_dir() / name / "model.safetensors")
    layer = {
        part: [weights[f"body.{part}.{kind}"].astype(np.float64) for kind in ("weight", "bias")]
        for part in ("conv1", "conv2", "fc1", "logits")
    }
    values = (images - card.mean[0]) / card.std[0]
    values = convolved(convolved(values, *layer["conv1"]), *layer["conv2"]).reshape(len(images), -1)
    hidden = np.maximum(values @ layer["fc1"][0].T + layer["fc1"][1], 0.0)
    return log_softmax(hidden @ layer["logits"][0].T + layer["logits"][1], axis=1)


def binned(place: np.ndarray, difference: np.ndarray) -> float:
    """Sum over bins of (share of the examples) times |mean difference|."""
    return sum(abs(difference[place == one].sum()) for one in np.unique(place)) / len(place)


def test_figures_at_images_and_at_the_attacked_points():
    split = load_split("digits", "test")
    images, labels = split.images.double().numpy(), split.labels.numpy()
    teacher, student = (log_probabilities(name, images) for name in PAIR)
    rows = np.arange(len(labels))
    sure, predicted = np.exp(student).max(1), student.argmax(1)
    config = ScoresConfig(
        dataset="digits", teacher=PAIR[0], student=PAIR[1], epsilon=0.1, count=200
    )
    table = find_analysis(config.analysis()).table
    attacked = (table["student_conf_attack"] - table["teacher_conf_attack"]).to_numpy()
    signed = (np.exp(student) - np.exp(teacher))[rows, labels][:200]
    of_teacher = np.exp(teacher)[rows, labels][:200]
    expected = {
        "clean_accuracy": (predicted == labels).mean(),
        "agreement_clean": (predicted == teacher.argmax(1)).mean(),
        "kl_inside": (np.exp(teacher) * (teacher - student)).sum(1).mean(),
        "ece": binned(np.ceil(sure * BINS), (predicted == labels) - sure),
        "relative_clean": binned(np.floor(of_teacher * BINS), signed),
        "relative_clean_signed": signed.mean(),
        "relative_attack": binned(
            np.floor(table["teacher_conf_attack"].to_numpy() * BINS), attacked
        ),
        "gap_attack_mean": abs(attacked).mean(),
    }
    scores = find_scores(config)
    found = {name: scores.value(name) for name in expected}
    assert found == pytest.approx(expected, abs=1e-6)


def operations(name: str, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Numbers and operations an image of the small convolutional network, from the weights' shapes."""
    weights = load_file(pretrained_dir() / name / "model.safetensors")
    channels, height, width = image_shape
    # A product and a sum for each number of the image, then of every weight at every place.
    total = channels * height * width
    for part in ("conv1", "conv2"):
        height, width = height // 2, width // 2
        total += weights[f"body.{part}.weight"].size * height * width
    total += sum(weights[f"body.{part}.weight"].size for part in ("fc1", "logits"))
    return sum(numbers.size for numbers in weights.values()), 2 * total


def test_size_and_operations_are_those_of_the_networks():
    """Also of figures that were measured by an older version of the program."""
    counted: dict[str, tuple[int, int]] = {}
    for member in (one for dataset in DATA for one in zoo(dataset) if one.teacher is not None):
        if not (pretrained_dir() / member.name).is_dir():
            continue
        config = scores_of(member).model_copy(update={"groups": ("cost",)})
        found, card = find_scores(config), read_card(member.name)
        if found is None or card.architecture != "cnn_small":
            continue
        shape = f"{card.architecture_config} {card.image_shape}"
        if shape not in counted:
            counted[shape] = operations(member.name, card.image_shape)
        assert (found.value("parameters"), found.value("flops")) == counted[shape], member.name
    assert len(counted) > 2


def test_what_cards_tell_is_what_was_measured():
    """A leaderboard takes these from the card where its ball was not measured."""
    for dataset in DATA:
        students = [m for m in zoo(dataset) if m.teacher is not None and is_current(m.spec)]
        for member in students[::5]:
            scores = find_scores(scores_of(member))
            card = read_card(member.name)
            assert scores.value("clean_accuracy") == card.metrics["clean_accuracy"], member.name
            assert scores.value("parameters") == card.parameters, member.name
