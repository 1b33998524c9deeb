"""Cards: round trip, strictness, and the identity of what a model computes."""

from __future__ import annotations

import json

import pytest
from _small_models import FACTS, change_card, make_card, save_tiny
from pydantic import ValidationError

from fkd.core.errors import CheckpointError, ConfigError
from fkd.models import ModelCard, ParentTeacher, load_model, read_card


def test_what_was_written_is_read():
    facts = {
        "role": "student",
        "method": "kd",
        "method_config": {"temperature": 4.0, "nested": {"a": [1, None]}},
        "training_config": {"name": "ümlaut 学生"},
        "epsilon": 8 / 255,
        "seed": 3,
        "teacher": ParentTeacher(name="t", model_hash="ab"),
        "metrics": {"clean_accuracy": 0.1 + 0.2},
        "history": [{"epoch": 1.0, "total": 1e-17}],
        "created": "2025-01-01T00:00:00+00:00",
    }
    model = save_tiny(**facts)
    found = read_card("tiny")
    assert found == model.card
    for name, value in facts.items():
        assert getattr(found, name) == value
    assert found.parameters == sum(p.numel() for p in model.network.parameters()) == 16 * 5 + 23
    text = (model.path.parent / "card.json").read_text(encoding="utf-8")
    assert ModelCard(**json.loads(text)) == found
    assert "学生" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unheard": 1}, "no setting called 'unheard'"),
        ({"role": "pupil"}, "'role' is not usable"),
        ({"role": None}, "needs a value for 'role'"),
        ({"num_classes": 1}, "'num_classes' is not usable"),
        ({"image_shape": [1, 4]}, "'image_shape.2'"),
        ({"mean": ["x"]}, "'mean.0' is not usable"),
        ({"metrics": {"clean_accuracy": float("nan")}}, "'metrics.clean_accuracy' is not usable"),
        ({"epsilon": float("inf")}, "'epsilon' is not usable"),
        ({"schema_version": 99}, "has version 99, this fkd reads up to 1; update fkd"),
    ],
)
def test_a_card_with_unusable_values_is_one_sentence(changes, message):
    folder = save_tiny().path.parent
    change_card(folder, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_card("tiny" if "schema" in message else folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"name": ' + b"9" * 5000 + b"}"],
)
def test_a_card_that_is_no_json_object(content):
    folder = save_tiny().path.parent
    (folder / "card.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"The model card .*card\.json ") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_a_huge_card_is_not_read(monkeypatch):
    folder = save_tiny().path.parent
    with (folder / "card.json").open("ab") as file:
        file.truncate(17 * 1024 * 1024)
    with pytest.raises(CheckpointError, match="larger than 16 MB"):
        read_card(folder)


def test_cards_are_immutable_and_know_no_other_fields():
    card = make_card()
    with pytest.raises(ValidationError):
        card.name = "other"
    with pytest.raises(ConfigError, match=r"^card has no setting called 'colour'"):
        ModelCard(**FACTS, colour="red")


def test_the_hash_is_of_the_function_only():
    card = make_card(weights_sha256="ab")
    same = {"name": "x", "role": "student", "dataset": "y", "metrics": {"a": 0.5}, "seed": 9}
    assert card.model_copy(update=same).model_hash == card.model_hash
    for change in (
        {"weights_sha256": "cd"},
        {"mean": (0.31,)},
        {"std": (0.5,)},
        {"architecture": "cnn_small"},
        {"architecture_config": {"hidden": [6]}},
        {"image_shape": (1, 2, 8)},
        {"num_classes": 4},
    ):
        assert card.model_copy(update=change).model_hash != card.model_hash
