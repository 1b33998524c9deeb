"""The zoo's table: names, settings, and what it means for a model to be there already."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from fkd.core.paths import pretrained_dir
from fkd.distillation import COPIES, METHODS, CopySpec, TrainSpec
from fkd.models import ARCHITECTURES, check_name, list_models
from pretrained import specs, zoo
from pretrained.specs import is_current, registered

SHIPPED = [card.name for card in list_models() if (pretrained_dir() / card.name).is_dir()]
MEMBERS = {name: specs.zoo(name) for name in zoo.DATA}
EVERYTHING = [member for members in MEMBERS.values() for member in members]


def member(name: str):
    return next(member for member in EVERYTHING if member.name == name)


def test_names_can_be_models_names_and_are_unique():
    names = [check_name(member.name) for member in EVERYTHING]
    assert len(set(names)) == len(names)


def test_what_is_shipped_is_current_and_is_all_there_is_of_it():
    """Nothing shipped would be trained again, and nothing is shipped that the table does not name."""
    assert set(SHIPPED) <= {member.name for member in EVERYTHING}
    stale = [m.name for m in EVERYTHING if m.name in SHIPPED and not is_current(m.spec)]
    assert not stale


def test_every_row_fits_its_method():
    for one in registered(EVERYTHING):
        entry = (METHODS if isinstance(one.spec, TrainSpec) else COPIES).get(one.method)
        config = entry.Config.parse(one.spec.method_config)
        if isinstance(one.spec, TrainSpec):
            assert entry.role == ("teacher" if one.teacher is None else "student")
            ARCHITECTURES.get(one.spec.architecture).Config.parse(one.spec.architecture_config)
        assert config is not None


@pytest.mark.parametrize("dataset", ["digits", "mnist", "fashion_mnist"])
def test_every_method_distils_both_robust_teachers_and_kd_the_standard_one(dataset):
    first = {m.name for m in MEMBERS[dataset] if m.teacher is not None and m.spec.seed == 0}
    expected = {f"{dataset}-{label}-of-{t}" for label in zoo.STUDENTS for t in ("pgd", "mtl")}
    assert expected | {f"{dataset}-kd-of-standard"} <= first
    assert not [n for n in first if n.endswith("of-standard") and n != f"{dataset}-kd-of-standard"]
    by_intervals = {n for n in first if n.endswith("of-ibp")}
    few = {"kd", "rslad", "faithful", *zoo.COPIES} if dataset in zoo.COPIED else set()
    assert by_intervals == {f"{dataset}-{label}-of-ibp" for label in few}


def test_seeds_are_in_the_name_from_the_second_on():
    of_method = [m for m in MEMBERS["mnist"] if m.label == "rslad" and m.name.startswith("mnist-")]
    named = {m.name: m.spec.seed for m in of_method if m.teacher == "mnist-teacher-mtl"}
    first = "mnist-rslad-of-mtl"
    assert named == {first: 0, f"{first}-s1": 1, f"{first}-s2": 2}
    one, other = (member(name).spec.model_dump() for name in (first, f"{first}-s1"))
    assert {key for key in one if one[key] != other[key]} == {"name", "seed"}
    assert {m.spec.seed for m in MEMBERS["mnist"] if m.teacher is None} == {0}


def test_variants_of_a_method_are_its_settings():
    assert member("digits-cckd_l_sr-of-pgd").spec.method == "cckd_l"
    assert member("digits-cckd_l_sr-of-pgd").spec.method_config == {"self_regulation": True}
    found = member("mnist-kdiga_a-of-mtl").spec
    assert found.method == "kdiga"
    assert found.method_config == {"adversarial": True, **zoo.DATA["mnist"].attack}


def test_cifar_has_its_own_rows_and_radii():
    members = MEMBERS["cifar10_jpeg"]
    assert {m.label for m in members if m.teacher == "cifar10_jpeg-teacher-mtl"} == {
        "kd",
        "rslad",
        "kdiga",
        "tintem",
        "faithful",
        "certified_gap",
    }
    student = member("cifar10_jpeg-rslad-of-pgd")
    assert student.spec.method_config["epsilon"] == 8 / 255
    assert member("cifar10_jpeg-faithful-of-pgd").spec.method_config["epsilon"] == 2 / 255
    assert student.table_epsilons == (1 / 255, 2 / 255, 8 / 255)


def test_tables_of_other_seeds_are_of_fewer_radii_and_teachers_have_none():
    assert member("mnist-kd-of-pgd").table_epsilons == (0.02, 0.05, 0.1)
    assert member("mnist-kd-of-pgd-s1").table_epsilons == (0.1,)
    assert member("mnist-teacher-pgd").table_epsilons == ()


def test_a_method_that_does_not_exist_yet_is_left_out_with_a_warning(monkeypatch, caplog):
    monkeypatch.setitem(zoo.STUDENTS, "later", zoo.StudentRow("not_written_yet"))
    members = specs.zoo("digits")
    with caplog.at_level(logging.WARNING):
        kept = registered(members)
    assert {m.name for m in members} - {m.name for m in kept} >= {
        "digits-later-of-pgd",
        "digits-later-of-mtl",
    }
    assert "no method is called 'not_written_yet' yet: 2 models are left out" in caplog.text


def test_a_new_method_is_one_row(monkeypatch):
    monkeypatch.setitem(zoo.STUDENTS, "kd_hot", zoo.StudentRow("kd", {"temperature": 20.0}))
    added = {m.name for m in specs.zoo("mnist")} - {m.name for m in MEMBERS["mnist"]}
    seeds = ("", "-s1", "-s2")
    assert added == {f"mnist-kd_hot-of-{t}{seed}" for t in ("pgd", "mtl") for seed in seeds}


@pytest.fixture
def pair(tmp_path, monkeypatch) -> Path:
    """Folders of a shipped teacher and its student that a test may change."""
    folder = tmp_path / "pretrained"
    for name in ("digits-teacher-pgd", "digits-teacher-ibp", "digits-kd-of-pgd"):
        shutil.copytree(pretrained_dir() / name, folder / name)
    monkeypatch.setenv("FKD_PRETRAINED_DIR", str(folder))
    return folder


def rewrite(folder: Path, name: str, change) -> None:
    path = folder / name / "card.json"
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


def test_where_it_was_trained_does_not_make_a_model_stale(pair):
    spec = member("digits-kd-of-pgd").spec
    assert is_current(spec)
    assert is_current(spec.model_copy(update={"device": "cuda", "mixed_precision": False}))
    rewrite(pair, spec.name, lambda card: card["training_config"].update(device="cuda:1"))
    assert is_current(spec)


def test_a_setting_younger_than_the_card_has_its_default(pair):
    spec = member("digits-kd-of-pgd").spec
    rewrite(pair, spec.name, lambda card: card["training_config"].pop("gradient_clip"))
    assert is_current(spec)
    assert not is_current(spec.model_copy(update={"gradient_clip": 1.0}))


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card["training_config"].update(epochs=99),
        lambda card: card["training_config"].update(no_such_setting=1),
        lambda card: card["teacher"].update(model_hash="0" * 64),
        lambda card: card.update(teacher=None),
    ],
    ids=["epochs", "unknown setting", "another teacher", "no teacher"],
)
def test_another_training_or_teacher_makes_it_stale(pair, change):
    rewrite(pair, "digits-kd-of-pgd", change)
    assert not is_current(member("digits-kd-of-pgd").spec)


def test_without_its_teacher_or_card_it_is_not_there(pair):
    spec = member("digits-kd-of-pgd").spec
    shutil.rmtree(pair / "digits-teacher-pgd")
    assert not is_current(spec)
    (pair / spec.name / "card.json").write_text("{")
    assert not is_current(spec)


def test_a_copy_of_another_teacher_or_setting_is_out_of_date():
    spec = member("digits-8bit-of-pgd").spec
    assert isinstance(spec, CopySpec)
    assert is_current(spec)
    assert not is_current(spec.model_copy(update={"method_config": {"bits": 4}}))
    assert not is_current(spec.model_copy(update={"teacher": "digits-teacher-ibp"}))
