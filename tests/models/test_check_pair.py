"""Pairs whose confidences cannot be compared are refused before anything is computed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from _small_models import make_card, save_tiny

from fkd.core.errors import ConfigError
from fkd.data import get_data_set
from fkd.models import check_pair


def _data(shape=(1, 4, 4), classes=3):
    return SimpleNamespace(name="toys", image_shape=shape, num_classes=classes)


def test_a_fitting_pair_passes_as_models_and_as_cards():
    teacher = save_tiny("t")
    student = make_card(name="s", role="student", dataset="elsewhere", architecture="cnn_small")
    for first, second in ((teacher, student), (teacher.card, student), (student, teacher)):
        assert check_pair(first, second, _data()) is None
    digits = make_card(image_shape=(1, 8, 8), num_classes=10)
    assert check_pair(digits, digits, get_data_set("digits")) is None


@pytest.mark.parametrize(
    ("student", "data", "message"),
    [
        ({"image_shape": (3, 4, 4)}, None, "'t' takes 1x4x4 images and the student 's' 3x4x4;"),
        ({"image_shape": (1, 4, 5)}, None, "1x4x4 images and the student 's' 1x4x5"),
        ({"num_classes": 4}, None, "'t' tells 3 classes apart and the student 's' 4;"),
        ({}, _data(shape=(1, 28, 28)), "'toys' has 1x28x28 images, but 't' and 's' take 1x4x4;"),
        ({}, _data(classes=10), "'toys' has 10 classes, but 't' and 's' tell 3 apart;"),
    ],
)
def test_what_does_not_fit_is_one_sentence(student, data, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_pair(make_card(name="t"), make_card(name="s", role="student", **student), data)
    assert "\n" not in str(caught.value)
    assert "choose" in str(caught.value)
