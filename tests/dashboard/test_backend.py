"""What pages ask fkd for: radii as people write them, forms from configurations, pairs that match."""

from __future__ import annotations

import pandas as pd
import pytest

from dashboard import backend, registry, views
from dashboard.backend import forms
from fkd.core.config import Config
from fkd.core.errors import ConfigError, RunError
from fkd.distillation import METHODS, TrainSpec
from fkd.models import ARCHITECTURES, read_card
from tests.support.pairs import save_digits_model


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.1", 0.1), ("8/255", 8 / 255), (" 1 / 10 ", 0.1), ("0", 0.0), ("1e-3", 1e-3)],
)
def test_a_radius_is_read_as_people_write_it(text, value):
    assert backend.parse_epsilon(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "abc", "8", "-0.1", "nan", "inf", "1/0", "300/255", "1/2/3"])
def test_what_is_no_radius_gets_a_sentence(text):
    with pytest.raises(ConfigError, match=r"^epsilon must .*\.?$"):
        backend.parse_epsilon(text)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_defaults_of_every_form_make_a_valid_specification(method, architecture):
    """Each field is drawn by one widget, and what the widgets hold at first can be trained with."""
    groups = backend.training_fields(method, architecture)
    values = {
        group: {field.name: field.default for field in fields if field.default is not None}
        for group, fields in groups.items()
    }
    role = METHODS.get(method).role
    spec = TrainSpec(
        name="new",
        method=method,
        architecture=architecture,
        teacher="somebody" if role == "student" else None,
        method_config=values["method"],
        architecture_config=values["architecture"],
        **values["training"],
        **values["details"],
    )
    METHODS.get(method).Config.parse(spec.method_config)
    ARCHITECTURES.get(architecture).Config.parse(spec.architecture_config)
    drawn = {field.name for fields in groups.values() for field in fields}
    assert set(METHODS.get(method).Config.model_fields) <= drawn
    assert set(ARCHITECTURES.get(architecture).Config.model_fields) <= drawn
    assert all(field.help for fields in groups.values() for field in fields)


def test_fields_know_their_kind_and_range():
    from typing import Literal

    from pydantic import Field

    class Sample(Config):
        steps: int = Field(default=5, ge=1, le=9, description="d")
        rate: float = Field(default=0.1, gt=0, description="d")
        limit: float | None = Field(default=None, description="d")
        kind: Literal["a", "b"] = Field(default="b", description="d")
        flag: bool = Field(default=True, description="d")
        sizes: tuple[int, ...] = Field(default=(3, 4), description="d")
        ibp_epsilon: float = Field(default=0.5, description="d")

    found = {field.name: field for field in forms.fields_of(Sample, leave_out=frozenset({"rate"}))}
    assert {name: field.kind for name, field in found.items()} == {
        "steps": "int",
        "limit": "float",
        "kind": "choice",
        "flag": "bool",
        "sizes": "numbers",
        "ibp_epsilon": "float",
    }
    assert (found["steps"].minimum, found["steps"].maximum) == (1, 9)
    assert found["limit"].is_optional and not found["steps"].is_optional
    assert found["kind"].choices == ("a", "b")
    assert found["ibp_epsilon"].label == "IBP ε"


def test_a_new_name_is_free():
    name = backend.free_name("digits", "kd", "mlp")
    save_digits_model(name, "student")
    assert backend.free_name("digits", "kd", "mlp") != name


def test_the_student_shown_for_another_teacher_uses_the_same_method(own_folders, monkeypatch):
    monkeypatch.setenv("FKD_PRETRAINED_DIR", str(own_folders / "nothing"))
    for teacher, seed in (("first", 1), ("second", 2)):
        hash_ = save_digits_model(teacher, "teacher", seed=seed).model_hash
        for method in ("kd", "rslad"):
            save_digits_model(
                f"{method}-of-{teacher}",
                "student",
                method=method,
                teacher={"name": teacher, "model_hash": hash_},
                history=[{"epoch": 1.0}],
            )
    assert backend.same_method_student("digits", "second", "rslad-of-first") == "rslad-of-second"
    assert backend.same_method_student("digits", "second", "kd-of-second") == "kd-of-second"
    assert backend.same_method_student("digits", "nobody", "kd-of-first") is None
    names = [card.name for card in backend.students("digits", "second")]
    assert set(names[:2]) == {"kd-of-second", "rslad-of-second"}

    # What was trained comes before copies of weights, whatever they are called.
    save_digits_model(
        "a-copy-of-second",
        "student",
        method="quantised",
        teacher={"name": "second", "model_hash": hash_},
    )
    names = [card.name for card in backend.students("digits", "second")]
    assert names.index("a-copy-of-second") == 2
    assert backend.same_method_student("digits", "second", "nobody") == "kd-of-second"

    different = backend.card_differences(["kd-of-first", "rslad-of-first"], "digits")
    assert list(different.loc["method"]) == ["kd", "rslad"]
    assert "architecture" not in different.index
    everything = backend.card_differences(
        ["kd-of-first", "rslad-of-first"], "digits", show_all=True
    )
    assert everything.loc["architecture"].nunique() == 1


def test_a_read_only_server_starts_nothing(monkeypatch):
    monkeypatch.setenv("FKD_READ_ONLY", "1")
    with pytest.raises(RunError, match="FKD_READ_ONLY"):
        backend.start_training({"name": "new"})
    with pytest.raises(RunError, match="FKD_READ_ONLY"):
        backend.start_analysis(backend.Choice("digits", "a", "b", 0.1))


def test_a_history_is_split_into_loss_and_shares(monkeypatch):
    history = pd.DataFrame(
        {
            "time": pd.to_datetime(["2026-01-01"] * 3, utc=True),
            "attempt": [1, 1, 1],
            "stage": ["training", "training", "measuring"],
            "done": [1, 2, 0],
            "total": [2, 2, 1],
            "epoch": [1.0, 1.0, None],
            "learning_rate": [0.1, 0.1, None],
            "loss": [2.0, 1.0, None],
            "certified_gap": [0.5, 0.4, None],
            "clean_accuracy": [None, 0.9, None],
            "never": [None, None, 1.0],
        }
    )
    monkeypatch.setattr("fkd.runs.run_history", lambda run_id: history)
    kept, shares, losses = backend.training_history("any")
    assert list(kept["done"]) == [1, 2]
    assert shares == ["certified_gap", "clean_accuracy"]
    assert losses == ["loss"]
    monkeypatch.setattr("fkd.runs.run_history", lambda run_id: pd.DataFrame())
    assert backend.training_history("any")[1:] == ([], [])


@pytest.mark.parametrize(
    ("accuracies", "kept"),
    [([None, None, None, 0.9], [9.0, 5.0, 3.0]), ([None, 0.8, 0.9, 0.9], [5.0, 3.0, 6.0])],
)
def test_values_of_steps_and_means_over_epochs_are_not_one_line(monkeypatch, accuracies, kept):
    history = pd.DataFrame(
        {
            "stage": "training",
            "done": [1, 5, 10, 10],
            "loss": [9.0, 5.0, 3.0, 6.0],
            "clean_accuracy": accuracies,
        }
    )
    monkeypatch.setattr("fkd.runs.run_history", lambda run_id: history)
    drawn, shares, losses = backend.training_history("any")
    assert (shares, losses) == (["clean_accuracy"], ["loss"])
    assert list(drawn["loss"].dropna()) == kept
    assert list(drawn["clean_accuracy"].dropna()) == [value for value in accuracies if value]


def test_pages_are_found_by_file_and_checked(tmp_path, monkeypatch):
    assert [view.order for view in registry.all_views()] == sorted(
        view.order for view in registry.all_views()
    )
    (tmp_path / "extra_page.py").write_text(
        "TITLE, ICON, SECTION, ORDER, NEEDS = 'Extra', ':material/add:', 'Help', 95, ()\n"
        "def render() -> None: ...\n"
    )
    monkeypatch.setattr(views, "__path__", [*views.__path__, str(tmp_path)])
    assert registry.all_views()[-1].title == "Extra"
    (tmp_path / "half_page.py").write_text("TITLE = 'Half'\n")
    with pytest.raises(ValueError, match="half_page does not declare ICON"):
        registry.all_views()


def test_a_card_read_by_the_sidebar_is_the_stored_one():
    save_digits_model("mine", "teacher")
    assert [card for card in backend.teachers("digits") if card.name == "mine"] == [
        read_card("mine")
    ]
