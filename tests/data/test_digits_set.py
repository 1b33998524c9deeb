from __future__ import annotations

import numpy as np
import pytest
import torch

from fkd.core.errors import ConfigError, DataError
from fkd.data import Split, get_data_set, load_split
from fkd.data import digits as digits_module
from fkd.data._memory import SPLITS


@pytest.fixture(scope="module")
def both() -> dict[str, Split]:
    return {split: load_split("digits", split) for split in ("train", "test")}


def test_sizes_types_and_range(both):
    assert len(both["train"]) == 1297
    assert len(both["test"]) == 500
    for split in both.values():
        assert split.images.shape == (len(split), 1, 8, 8)
        assert split.images.dtype == torch.float32
        assert split.labels.dtype == torch.int64
        assert split.images.min() == 0.0
        assert split.images.max() == 1.0


def test_both_splits_have_every_class_in_its_share(both):
    train, test = (torch.bincount(both[name].labels, minlength=10) for name in ("train", "test"))
    shares = test / (train + test)
    assert torch.allclose(shares, torch.full((10,), 500 / 1797), atol=0.5 / 174 + 1e-6)


def test_splits_are_scikit_learns_digits_without_loss_or_overlap(both):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    rows = [
        np.column_stack([(split.images * 16).flatten(1).numpy(), split.labels.numpy()])
        for split in both.values()
    ]
    ours = np.concatenate(rows)
    theirs = np.column_stack([bunch.data, bunch.target])
    assert np.array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_order_is_the_original_one():
    images, labels = digits_module._read_all()
    is_test = digits_module._test_members(labels)
    test = load_split("digits", "test")
    assert torch.equal(test.labels, torch.from_numpy(labels[is_test]))
    assert torch.equal(test.images[:, 0] * 16, torch.from_numpy(images[is_test]).float())


def test_the_package_itself_is_asked_where_its_table_has_moved(monkeypatch):
    expected = digits_module._read_all()
    monkeypatch.setattr(digits_module, "_table_path", lambda: None)
    found = digits_module._read_all()
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


def test_fingerprint_is_known_without_reading(monkeypatch, both):
    monkeypatch.setattr(digits_module, "_read_all", lambda: pytest.fail("read"))
    for name, split in both.items():
        assert get_data_set("digits").fingerprint(name) == split.fingerprint


def test_altered_digits_are_refused(monkeypatch):
    images, labels = digits_module._read_all()
    images[5, 3, 3] ^= 1
    monkeypatch.setattr(digits_module, "_read_all", lambda: (images, labels))
    SPLITS.clear()
    errors = 0
    for split in ("train", "test"):
        try:
            load_split("digits", split)
        except DataError as error:
            errors += 1
            assert "differ from the published ones" in str(error)
    assert errors == 1
    SPLITS.clear()


def test_other_shape_is_refused(monkeypatch):
    monkeypatch.setattr(digits_module, "_SHAPE", (1798, 8, 8))
    with pytest.raises(DataError, match=r"\(1797, 8, 8\) instead of \(1798, 8, 8\)"):
        digits_module._read_all()


def test_unknown_split_is_refused():
    for call in (get_data_set("digits").load, get_data_set("digits").fingerprint):
        with pytest.raises(ConfigError, match="no split called 'val'; use train or test"):
            call("val")


def test_channel_statistics_are_those_of_the_train_split(both):
    mean, std = get_data_set("digits").channel_statistics()
    pixels = both["train"].images.double()
    assert mean == [pytest.approx(pixels.mean().item(), abs=1e-6)]
    assert std == [pytest.approx(pixels.std().item(), abs=1e-6)]


def test_channel_statistics_are_computed_once(monkeypatch):
    data_set = get_data_set("digits")
    first = data_set.channel_statistics()
    monkeypatch.setattr(type(data_set), "load", lambda *_: pytest.fail("read again"))
    first[0].append(7.0)  # a caller's own list, not the remembered one
    assert len(data_set.channel_statistics()[0]) == 1


def test_digits_need_no_download():
    with pytest.raises(DataError, match="always there"):
        get_data_set("digits").download()


def test_take_gives_images_and_labels_by_position(both):
    images, labels = both["test"].take(torch.tensor([3, 1]))
    assert torch.equal(images[1], both["test"].images[1])
    assert labels[0] == both["test"].labels[3]
