from __future__ import annotations

import doctest
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _tiny_sets import npz_arrays, write_folder

import fkd.data
from fkd.core.errors import ConfigError, DataError
from fkd.data import (
    DATA_SETS,
    DataSet,
    DataSetInfo,
    get_data_set,
    list_data_sets,
    load_split,
)


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def infos() -> dict[str, DataSetInfo]:
    listed = list_data_sets()
    by_name = {info.name: info for info in listed}
    assert len(by_name) == len(listed)
    return by_name


def test_built_in_sets_are_listed_with_digits_first():
    names = [info.name for info in list_data_sets()]
    assert names == ["digits", "cifar10", "cifar10_jpeg", "fashion_mnist", "mnist"]
    digits, *others = list_data_sets()
    assert digits.is_available
    assert digits.is_embedded
    assert digits.problem is None
    for info in others:
        assert not info.is_available
        # Nobody publishes the lossy copy.
        assert info.can_download == (info.name != "cifar10_jpeg")
        assert info.problem is None


@pytest.mark.parametrize("name", list(DATA_SETS))
def test_every_built_in_set_describes_itself(name):
    data_set = get_data_set(name)
    assert data_set.name == name
    assert DATA_SETS.available()[name]
    assert data_set.title
    assert data_set.licence
    assert data_set.source
    assert len(set(data_set.classes)) == data_set.num_classes >= 2
    channels, height, width = data_set.image_shape
    assert channels in (1, 3)
    assert min(height, width) >= 8
    assert all(0 < epsilon <= 1 for epsilon in data_set.epsilons)
    assert list(data_set.epsilons) == sorted(data_set.epsilons)


def test_dropped_in_sets_are_found(folder):
    write_folder(folder / "pets")
    np.savez(folder / "blood.npz", **npz_arrays())
    (folder / "notes.txt").write_text("x")
    found = infos()
    assert set(found) - set(DATA_SETS) == {"pets", "blood"}
    assert found["pets"].classes == ("cat", "dog")
    assert found["pets"].image_shape == (3, 4, 6)
    assert found["pets"].source == str(folder / "pets")
    assert found["blood"].image_shape == (1, 5, 4)
    for name in ("pets", "blood"):
        assert found[name].is_available
        assert not found[name].can_download
        assert not found[name].is_embedded
        assert load_split(name, "test").images.shape[1:] == found[name].image_shape
        assert found[name].epsilons


def test_one_bad_entry_is_listed_with_its_problem_and_stops_nothing(folder):
    write_folder(folder / "pets")
    (folder / "empty").mkdir()
    (folder / "broken.npz").write_bytes(b"PK")
    (folder / "dangling").symlink_to(folder / "nowhere")
    found = infos()
    assert found["pets"].is_available
    for name, word in (("empty", "needs at least two"), ("broken", "no .npz file")):
        assert not found[name].is_available
        assert word in found[name].problem
        assert found[name].classes == ()
        assert found[name].image_shape is None
        with pytest.raises(DataError, match=word):
            get_data_set(name)


def test_files_of_built_in_sets_are_no_sets_of_their_own(folder):
    for name in ("MNIST", "FashionMNIST", "cifar-10-batches-py", ".download-mnist-x"):
        (folder / name / "raw").mkdir(parents=True)
    assert set(infos()) == set(DATA_SETS)
    with pytest.raises(ConfigError, match="no data set called 'MNIST'"):
        get_data_set("MNIST")


def test_built_in_names_cannot_be_taken_over(folder):
    write_folder(folder / "digits")
    np.savez(folder / "mnist.npz", **npz_arrays())
    found = infos()
    assert found["digits"].is_available
    assert found["digits"].is_embedded
    for clash, name in (("digits/", "digits"), ("mnist.npz/", "mnist")):
        assert f"the name '{name}' of a built-in data set" in found[clash].problem
        assert not found[clash].is_available
    assert get_data_set("digits").image_shape == (1, 8, 8)


def test_two_of_one_name(folder):
    write_folder(folder / "pets")
    np.savez(folder / "pets.npz", **npz_arrays())
    found = infos()
    assert found["pets"].source == str(folder / "pets")
    assert "has the name 'pets' of pets and is left out; rename it" in found["pets.npz/"].problem
    assert get_data_set("pets").image_shape == (3, 4, 6)


def test_folder_whose_name_ends_like_a_file(folder):
    write_folder(folder / "odd.npz")
    assert get_data_set("odd.npz").image_shape == (3, 4, 6)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../outside",
        "inner/set",
        "inner\\set",
        ".hidden",
        "a\0b",
        "a\nb",
        "x" * 5000,
        None,
    ],
)
def test_names_never_lead_out_of_the_folder(folder, name):
    for place in (folder.parent / "outside", folder / "inner" / "set", folder / ".hidden"):
        write_folder(place)
    with pytest.raises(ConfigError, match="There is no data set called"):
        get_data_set(name)


def test_absolute_path_is_no_name(folder, tmp_path):
    write_folder(tmp_path / "outside")
    with pytest.raises(ConfigError, match="There is no data set called"):
        get_data_set(str(tmp_path / "outside"))


def test_unknown_name_gets_a_hint(folder):
    write_folder(folder / "pets")
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        get_data_set("digit")
    with pytest.raises(ConfigError, match="did you mean 'pets'"):
        get_data_set("petz")


def test_packed_set_is_a_sentence(folder):
    (folder / "photos.zip").write_bytes(b"x")
    with pytest.raises(DataError, match=r"'photos' is still packed in .*photos\.zip; unpack it"):
        get_data_set("photos")


def test_data_folder_that_is_a_file(folder, monkeypatch):
    (folder / "file").write_text("x")
    monkeypatch.setenv("FKD_DATA_DIR", str(folder / "file"))
    found = infos()
    assert found["digits"].is_available
    assert found["digits"].problem is None
    assert "is a file; set FKD_DATA_DIR to a folder" in found["mnist"].problem
    assert load_split("digits", "test")
    for name in ("mnist", "cifar10", "pets"):
        with pytest.raises(DataError, match="is a file; set FKD_DATA_DIR to a folder"):
            load_split(name, "test")


def test_data_folder_that_may_not_be_read(folder, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path) == str(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert infos()["digits"].is_available
    for name in ("mnist", "cifar10"):
        assert "cannot be read (Permission denied)" in infos()[name].problem
    for name in ("mnist", "cifar10", "pets"):
        with pytest.raises(DataError, match=r"data folder .* cannot be read \(Permission denied\)"):
            load_split(name, "test")


def test_data_folder_that_does_not_exist_is_no_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("FKD_DATA_DIR", str(tmp_path / "not" / "there"))
    assert set(infos()) == set(DATA_SETS)
    assert all(info.problem is None for info in list_data_sets())


def test_second_list_looks_at_no_content(folder, monkeypatch):
    write_folder(folder / "pets")
    np.savez(folder / "blood.npz", **npz_arrays())
    first = list_data_sets()
    monkeypatch.setattr("PIL.Image.open", lambda *_: pytest.fail("image opened"))
    monkeypatch.setattr("zipfile.ZipFile.open", lambda *_: pytest.fail("archive opened"))
    assert list_data_sets() == first


def test_list_notices_what_changes(folder):
    write_folder(folder / "pets")
    np.savez(folder / "blood.npz", **npz_arrays())
    list_data_sets()
    write_folder(folder / "pets", classes=("emu",))
    np.savez(folder / "blood.npz", **npz_arrays((7, 7)))
    assert infos()["pets"].classes == ("cat", "dog", "emu")
    assert infos()["blood"].image_shape == (1, 7, 7)
    write_folder(folder / "pets", classes=("cat", "dog", "emu"), shape=(9, 9), seed=1)
    assert infos()["pets"].image_shape == (1, 9, 9)


def test_set_added_at_run_time_is_found_everywhere():
    @DATA_SETS.register("throw_away")
    class ThrowAway(type(get_data_set("digits"))):
        """For this test."""

    try:
        assert "throw_away" in infos()
        assert len(load_split("throw_away", "test")) == 500
    finally:
        DATA_SETS.unregister("throw_away")
    assert "throw_away" not in infos()


def test_one_module_can_be_imported_first_and_no_heavy_package_is():
    """In a fresh process: torchvision and scikit-learn take seconds to import."""
    code = (
        "import sys, fkd.data.mnist; from fkd.data import list_data_sets, load_split;"
        "list_data_sets(); load_split('digits', 'test');"
        "assert not {'torchvision', 'sklearn', 'streamlit'} & set(sys.modules)"
    )
    root = Path(fkd.data.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=120)


def test_public_names_exist():
    for name in fkd.data.__all__:
        assert hasattr(fkd.data, name)
    assert issubclass(DATA_SETS.get("mnist"), DataSet)


def test_examples_in_docstrings():
    module = importlib.import_module("fkd.data._catalogue")
    assert doctest.testmod(module).failed == 0
