from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from _tiny_sets import npz_arrays
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from fkd.core.errors import DataError
from fkd.data import _npz, get_data_set
from fkd.data._memory import SPLITS


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "blood.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3)])
def test_bytes_become_floats_with_channels_first(path, save, shape):
    arrays = npz_arrays(shape)
    save(path, **arrays)
    data_set = get_data_set("blood")
    channels = shape[2] if len(shape) == 3 else 1
    assert data_set.image_shape == (channels, 5, 4)
    assert data_set.classes == ("0", "1", "2")
    for split in ("train", "test"):
        found = data_set.load(split)
        values = arrays[f"{split}_images"].reshape(6, 5, 4, channels).transpose(0, 3, 1, 2)
        assert torch.equal(found.images, torch.from_numpy(values.copy()).float() / 255)
        assert found.labels.tolist() == arrays[f"{split}_labels"][:, 0].tolist()
        assert found.labels.dtype == torch.int64


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_are_taken_as_they_are(path, dtype):
    arrays = npz_arrays((5, 4, 3))
    images = {k: (v / 255).astype(dtype) for k, v in arrays.items() if k.endswith("images")}
    np.savez(path, **{**arrays, **images})
    found = get_data_set("blood").load("test").images
    expected = images["test_images"].astype(np.float32).transpose(0, 3, 1, 2)
    assert torch.equal(found, torch.from_numpy(expected.copy()))
    assert found.is_contiguous()


def test_labels_may_be_flat_and_validation_is_ignored(path):
    arrays = npz_arrays()
    for split in ("train", "test"):
        arrays[f"{split}_labels"] = arrays[f"{split}_labels"][:, 0].astype(np.int32)
    np.savez(path, **arrays, val_images=np.array([object()]), val_labels=np.zeros((3, 9)))
    assert len(get_data_set("blood").load("train")) == 6


def test_class_names(path):
    np.savez(path, **npz_arrays(), class_names=np.array(["a", "b", "c", "never seen"]))
    assert get_data_set("blood").classes == ("a", "b", "c", "never seen")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (np.array(["a", "b"]), "has 2 class names and labels up to 2"),
        (np.array(["a", "b", "b"]), "not a list of distinct texts"),
        (np.array([1, 2, 3]), "not a list of distinct texts"),
        (np.array(["a", "b", None]), "truncated or no .npz file of plain arrays"),
    ],
)
def test_wrong_class_names(path, names, message):
    np.savez(path, **npz_arrays(), class_names=names)
    with pytest.raises(DataError, match=message):
        get_data_set("blood")


def changed(**more: object) -> dict[str, np.ndarray]:
    """Good arrays with some replaced, or dropped where None."""
    arrays = {**npz_arrays((5, 4, 3)), **more}
    return {name: array for name, array in arrays.items() if array is not None}


_COUNT = 6
_LABELS = np.arange(6)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (changed(test_images=None), "has no array 'test_images' .it holds test_labels, train_i"),
        (changed(train_images=np.zeros((_COUNT, 5), np.uint8)), r"shape \(6, 5\) instead of"),
        (changed(train_images=np.zeros((_COUNT, 3, 8, 8), np.uint8)), "channels must come last"),
        (changed(train_images=np.zeros((_COUNT, 8, 8, 8), np.uint8)), "volumes are not supported"),
        (changed(train_images=np.zeros((0, 5, 4, 3), np.uint8)), r"shape \(0, 5, 4, 3\)"),
        (changed(test_images=np.zeros((_COUNT, 5, 4), np.uint8)), "test images of shape"),
        (changed(train_labels=np.zeros((_COUNT, 14), np.uint8)), "multi-label sets are not supp"),
        (changed(train_labels=np.zeros(0, np.uint8)), r"of type uint8 and shape \(0,\)"),
        (changed(train_labels=np.zeros((_COUNT, 1, 1), np.uint8)), r"shape \(6, 1, 1\) instead of"),
        (changed(train_labels=_LABELS.astype(float)), "of type float64"),
        (changed(train_labels=_LABELS - 1), "from -1 to 4 instead of 0 to K-1"),
        (changed(train_labels=_LABELS + 2**40), "instead of 0 to K-1"),
        (changed(train_labels=_LABELS + 7), "has the labels 0, 1, 2, 7, 8, 9, 10, 11, ..."),
        (changed(train_labels=_LABELS * 0, test_labels=_LABELS * 0), "every one of 0 to K-1 for K"),
    ],
)
def test_wrong_layout_is_refused_when_opened(path, arrays, message):
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        get_data_set("blood")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((_COUNT, 5, 4, 3), np.int64), "type int64 instead of uint8 or floats"),
        (np.zeros((_COUNT, 5, 4, 3), bool), "type bool instead of uint8 or floats"),
        (np.full((_COUNT, 5, 4, 3), 255.0), "values from 255 to 255 instead of"),
        (np.full((_COUNT, 5, 4, 3), -0.01), "values from -0.01"),
        (np.full((_COUNT, 5, 4, 3), np.nan), "values from nan to nan"),
        (np.zeros((_COUNT + 1, 5, 4, 3), np.uint8), "has 7 train images and 6 labels"),
    ],
)
def test_wrong_images_are_refused_when_read(path, images, message):
    np.savez(path, **changed(train_images=images))
    with pytest.raises(DataError, match=message):
        get_data_set("blood").load("train")


class _Trap:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_nothing_is_ever_unpickled(path):
    np.savez(path, **changed(train_labels=np.array([_Trap()] * _COUNT, dtype=object)))
    with pytest.raises(DataError, match=r"no \.npz file of plain arrays"):
        get_data_set("blood")
    path.write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(DataError, match=r"no \.npz file of plain arrays"):
        get_data_set("blood")


def test_array_saved_alone_is_refused(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"no \.npz file of plain arrays"):
        get_data_set("blood")


def test_header_that_promises_too_much_is_refused_before_it_is_read(path, monkeypatch):
    """A small file may claim images of a terabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 1000, 1000)}
    )
    np.savez(path, **changed(train_images=None, test_images=None))
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("train_images", "test_images"):
            archive.writestr(f"{name}.npy", header.getvalue())
    data_set = get_data_set("blood")
    with pytest.raises(DataError, match=r"needs 4656\.6 GiB of memory for 1000000 images"):
        data_set.load("train")


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_never_gives_another_error_nor_other_pixels(path, data):
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    save(path, **npz_arrays((5, 4, 3)))
    intact = get_data_set("blood").load("train").fingerprint
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = get_data_set("blood").load("train").fingerprint
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert found == intact


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    images=arrays_of.arrays(
        np.uint8, arrays_of.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5)
    )
)
def test_images_come_back_exactly_and_in_range(path, images):
    labels = np.arange(len(images)) % 2
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=[0, 1])
    found = get_data_set("blood").load("train").images
    assert found.min() >= 0.0
    assert found.max() <= 1.0
    assert np.array_equal((found[:, 0] * 255).round().byte().numpy(), images)


def test_fingerprint_is_noted_so_that_images_are_not_read(path, monkeypatch):
    np.savez(path, **npz_arrays())
    fingerprint = get_data_set("blood").load("test").fingerprint
    SPLITS.clear()
    monkeypatch.setattr(_npz, "_array", lambda *_: pytest.fail("read"))
    assert get_data_set("blood").fingerprint("test") == fingerprint


def test_replaced_file_is_read_again(path):
    np.savez(path, **npz_arrays())
    before = get_data_set("blood").fingerprint("train")
    np.savez(path, **npz_arrays(seed=1))
    assert get_data_set("blood").fingerprint("train") != before


def test_an_open_set_whose_classes_change_says_so(path):
    np.savez(path, **npz_arrays())
    data_set = get_data_set("blood")
    np.savez(path, **npz_arrays(classes=4))
    with pytest.raises(DataError, match="now holds other classes or image sizes; open it again"):
        data_set.load("train")


def test_removed_file_is_a_sentence(path):
    np.savez(path, **npz_arrays())
    data_set = get_data_set("blood")
    path.unlink()
    assert not data_set.is_available()
    with pytest.raises(DataError, match=r"There is no file .*blood\.npz any more"):
        data_set.load("test")
