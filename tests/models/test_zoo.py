"""Finding models by name and path; damage is skipped and named; lists need no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from _small_models import change_card, save_tiny

from fkd.core.errors import CheckpointError, ConfigError
from fkd.core.paths import models_dir, pretrained_dir
from fkd.models import damaged_models, list_models, load_model, read_card


@pytest.fixture(autouse=True)
def own_shelf(tmp_path, monkeypatch):
    """Shipped models of the test's own."""
    monkeypatch.setenv("FKD_PRETRAINED_DIR", str(tmp_path / "shipped"))


def _names(**filters) -> list[str]:
    return [card.name for card in list_models(**filters)]


def test_nothing_there_is_an_empty_list():
    assert list_models() == []
    assert damaged_models() == {}


def test_the_shipped_tables_are_no_damaged_model():
    (pretrained_dir() / "analyses").mkdir(parents=True)
    assert list_models() == []
    assert damaged_models() == {}


def test_by_name_by_folder_and_by_file(tmp_path):
    shipped = save_tiny("star", parent=pretrained_dir(), weights=1)
    users = save_tiny("mine", weights=2)
    elsewhere = save_tiny("far", parent=tmp_path / "elsewhere", weights=3)
    for model, reference in (
        (shipped, "star"),
        (users, "mine"),
        (users, users.path.parent),
        (users, str(users.path.parent)),
        (users, users.path),
        (elsewhere, elsewhere.path.parent),
        (elsewhere, str(elsewhere.path)),
    ):
        assert load_model(reference).model_hash == model.model_hash
        assert load_model(reference).name == model.name
        assert read_card(reference) == model.card
    with pytest.raises(ConfigError):
        load_model("far")


def test_a_shipped_name_wins_over_a_folder_of_the_same_name(monkeypatch):
    users = save_tiny("star", weights=2)
    shipped = save_tiny("star", parent=pretrained_dir(), weights=1)
    monkeypatch.chdir(models_dir())
    assert load_model("star").model_hash == shipped.model_hash != users.model_hash
    assert load_model("./star").model_hash == users.model_hash
    assert _names() == ["star"]
    assert "has the name of a model shipped with fkd" in damaged_models()["star"]


def test_a_folder_of_the_working_directory(monkeypatch, tmp_path):
    model = save_tiny("here", parent=tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_model("here").model_hash == model.model_hash


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("mien", ConfigError, r"no model called 'mien'; did you mean 'mine'\? Known: mine, other"),
        ("", CheckpointError, "is no model"),
        ("a/b/c", ConfigError, "no model called 'a/b/c'"),
        ("nul\0byte", ConfigError, "no model called"),
        ("~nobody-has-this-name/x", ConfigError, "no model called"),
        ("x" * 5000, ConfigError, "no model called"),
        (Path("gone.onnx"), ConfigError, "no model called 'gone.onnx'"),
    ],
)
def test_what_does_not_exist_is_one_sentence(reference, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_tiny("mine")
    save_tiny("other")
    with pytest.raises(error, match=message):
        load_model(reference)


def test_a_path_that_is_no_model(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("x")
    for path in (tmp_path / "empty", tmp_path / "text.txt"):
        with pytest.raises(CheckpointError, match="is no model; give a folder with card"):
            load_model(path)
    lonely = tmp_path / "lonely.safetensors"
    lonely.write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="There is no model card"):
        load_model(lonely)


def test_lists_are_shipped_first_sorted_and_filtered():
    save_tiny("z", parent=pretrained_dir())
    save_tiny("m", parent=pretrained_dir(), role="student", dataset="mnist")
    save_tiny("b", role="student")
    save_tiny("a", dataset="mnist")
    assert _names() == ["m", "z", "a", "b"]
    assert _names(dataset="mnist") == ["m", "a"]
    assert _names(role="student") == ["m", "b"]
    assert _names(dataset="mnist", role="student") == ["m"]
    assert _names(dataset="none") == []


def test_damaged_folders_are_left_out_and_named():
    for name in ("good", "no_card", "no_weights", "both", "not_json", "future", "extra"):
        save_tiny(name)
    folder = models_dir()
    (folder / "no_card" / "card.json").unlink()
    (folder / "no_weights" / "model.safetensors").unlink()
    (folder / "both" / "model.onnx").write_bytes(b"x")
    (folder / "not_json" / "card.json").write_text("{")
    change_card(folder / "future", schema_version=2)
    change_card(folder / "extra", colour="red")
    save_tiny("fine").path.parent.rename(folder / "odd name")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / ".hidden").mkdir()
    (folder / "training.partial").mkdir()
    (folder / "note.txt").write_text("x")
    assert _names() == ["good"]
    found = damaged_models()
    assert set(found) == {
        *("no_card", "no_weights", "both", "not_json", "future", "extra", "odd name")
    }
    for name, message in (
        ("no_card", "There is no model card"),
        ("no_weights", "has neither model.safetensors nor model.onnx"),
        ("both", "has both"),
        ("not_json", "is no valid JSON"),
        ("future", "has version 2"),
        ("extra", "no setting called 'colour'"),
        ("odd name", "A model cannot be called 'odd name'"),
    ):
        assert message in found[name]
        assert "\n" not in found[name]


def test_lists_notice_every_change(monkeypatch):
    save_tiny("one")
    assert _names() == ["one"]
    save_tiny("two")
    assert _names() == ["one", "two"]
    weights = models_dir() / "one" / "model.safetensors"
    weights.rename(weights.with_name("away"))
    assert _names() == ["two"]
    weights.with_name("away").rename(weights)
    assert _names() == ["one", "two"]
    change_card(models_dir() / "two", role="student")
    assert _names(role="student") == ["two"]
    (models_dir() / "two").rename(models_dir() / "three")
    assert _names() == ["one", "three"]


def test_what_is_listed_under_a_links_name_can_be_loaded_by_it(tmp_path):
    real = save_tiny("real", parent=tmp_path / "elsewhere").path.parent
    (models_dir()).mkdir(parents=True)
    (models_dir() / "alias").symlink_to(real, target_is_directory=True)
    assert _names() == ["alias"]
    assert load_model("alias").name == "alias"


_LISTING = """
import json, sys
from fkd.models import damaged_models, list_models, read_card
names = [card.name for card in list_models()]
card = read_card("good")
heavy = sorted({"torch", "onnx", "safetensors", "auto_LiRPA"} & set(sys.modules))
print(json.dumps([names, sorted(damaged_models()), card.model_hash, heavy]))
"""


def test_listing_does_not_import_torch():
    model = save_tiny("good")
    (save_tiny("bad").path.parent / "card.json").unlink()
    done = subprocess.run(
        [sys.executable, "-c", _LISTING],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
        cwd=Path(__file__).resolve().parents[2],
    )
    assert json.loads(done.stdout) == [["good"], ["bad"], model.model_hash, []]
