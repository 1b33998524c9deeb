from __future__ import annotations

import logging
import threading
import time

import numpy as np
import pytest
import torch
from _tiny_sets import write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from fkd.core.paths import home_dir
from fkd.data import Split, _disk, _folder, get_data_set
from fkd.data._memory import SPLITS, SplitCache
from fkd.data._pixels import Pixels


def split_of(size: int, fingerprint: str = "x") -> Split:
    """A split of 4 * size bytes of images and 8 of labels."""
    return Split(torch.zeros(size, 1, 1, 1), torch.zeros(1, dtype=torch.int64), fingerprint)


def test_split_is_read_once():
    cache = SplitCache()
    first = cache.get("a", 1, lambda: split_of(1))
    assert cache.get("a", 1, lambda: pytest.fail("read again")) is first


def test_changed_state_is_read_again_and_replaces_the_old():
    cache = SplitCache()
    first = cache.get("a", 1, lambda: split_of(1))
    second = cache.get("a", 2, lambda: split_of(1))
    assert second is not first
    assert cache.find("a", 1) is None
    assert cache.find("a", 2) is second


def test_least_recently_used_splits_go_first():
    cache = SplitCache(max_bytes=68)
    for key in "abc":
        cache.get(key, 0, lambda: split_of(3))  # 20 bytes each
    cache.find("a", 0)
    cache.get("d", 0, lambda: split_of(3))
    assert [key for key in "abcd" if cache.find(key, 0)] == ["a", "c", "d"]


def test_a_split_larger_than_the_bound_is_kept_alone():
    cache = SplitCache(max_bytes=10)
    cache.get("a", 0, lambda: split_of(1))
    cache.get("b", 0, lambda: split_of(100))
    assert cache.find("a", 0) is None
    assert cache.find("b", 0) is not None


def test_failure_is_not_remembered():
    cache = SplitCache()

    def fail() -> Split:
        raise ValueError("once")

    with pytest.raises(ValueError, match="once"):
        cache.get("a", 0, fail)
    assert cache.get("a", 0, lambda: split_of(1))
    assert cache._readers == {}


def test_many_threads_read_once():
    cache = SplitCache()
    reads, results = [], []
    gate = threading.Barrier(8)

    def read() -> Split:
        reads.append(1)
        time.sleep(0.02)
        return split_of(1)

    def ask() -> None:
        gate.wait()
        results.append(cache.get("a", 0, read))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    assert len(results) == 8
    assert all(result is results[0] for result in results)
    assert cache._readers == {}


def test_reading_one_split_does_not_hold_up_another():
    cache = SplitCache()
    is_reading, may_end = threading.Event(), threading.Event()

    def slow() -> Split:
        is_reading.set()
        may_end.wait(10)
        return split_of(1)

    thread = threading.Thread(target=cache.get, args=("slow", 0, slow))
    thread.start()
    assert is_reading.wait(10)
    try:
        assert cache.get("quick", 0, lambda: split_of(1))
        assert cache.find("slow", 0) is None
    finally:
        may_end.set()
        thread.join()
    assert cache.find("slow", 0)


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "data" / "pets"
    write_folder(root, each=4)
    return root


def kept_files() -> list[str]:
    return sorted(path.suffix for path in (home_dir() / "cache" / "data").rglob("*.*"))


def test_damaged_copy_is_made_anew(pets, caplog):
    first = get_data_set("pets").load("test")
    for damage in (
        lambda old: old[:-30],
        lambda old: b"",
        lambda old: old[:300] + b"x" + old[301:],
    ):
        (copy,) = (home_dir() / "cache" / "data").rglob("*.npz")
        copy.write_bytes(damage(copy.read_bytes()))
        SPLITS.clear()
        with caplog.at_level(logging.WARNING):
            again = get_data_set("pets").load("test")
        assert torch.equal(again.images, first.images)
    assert "is damaged and is made anew" in caplog.text


def test_copy_of_something_else_is_not_taken(pets):
    """Even one that is whole: its fingerprint must be the noted one."""
    first = get_data_set("pets").load("test")
    (copy,) = (home_dir() / "cache" / "data").rglob("*.npz")
    np.savez(copy, values=np.zeros((8, 3, 4, 6), np.uint8), labels=np.zeros(8, int), scale=255)
    SPLITS.clear()
    assert torch.equal(get_data_set("pets").load("test").images, first.images)


@pytest.mark.parametrize(
    "note", [b"", b"[]", b'{"fingerprint": 3}', b'{"fingerprint": "ab"}', b"\xff"]
)
def test_damaged_note_is_made_anew(pets, note):
    first = get_data_set("pets").fingerprint("test")
    (path,) = (home_dir() / "cache" / "data").rglob("*.json")
    path.write_bytes(note)
    SPLITS.clear()
    assert get_data_set("pets").fingerprint("test") == first
    assert path.read_bytes() != note


def test_copies_of_earlier_states_are_dropped(pets):
    for seed in range(3):
        write_folder(pets, each=4, seed=seed)
        get_data_set("pets").load("test")
        get_data_set("pets").load("train")
    assert kept_files() == [".json", ".json", ".npz", ".npz"]


def test_home_that_cannot_be_written_costs_only_time(pets, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("FKD_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert len(get_data_set("pets").load("test")) == 8
    assert "could not be kept" in caplog.text


def test_full_disk_leaves_no_half_written_copy(pets, monkeypatch):
    def full(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        first = get_data_set("pets").load("test")
    assert kept_files() == []
    SPLITS.clear()
    assert get_data_set("pets").load("test").fingerprint == first.fingerprint
    assert kept_files() == [".json", ".npz"]


def test_no_copy_is_kept_where_it_would_fill_the_disk(pets, monkeypatch):
    monkeypatch.setattr(_disk, "MAX_PIXEL_BYTES", 100)
    first = get_data_set("pets").load("test")
    assert kept_files() == [".json"]
    SPLITS.clear()
    monkeypatch.setattr(_folder, "decode", lambda *_: pytest.fail("decoded"))
    assert get_data_set("pets").fingerprint("test") == first.fingerprint


def test_same_names_in_two_data_folders_never_mix(pets, tmp_path, monkeypatch):
    one = get_data_set("pets").load("test")
    monkeypatch.setenv("FKD_DATA_DIR", str(tmp_path / "other"))
    write_folder(tmp_path / "other" / "pets", each=4, seed=9)
    two = get_data_set("pets").load("test")
    assert one.fingerprint != two.fingerprint
    monkeypatch.setenv("FKD_DATA_DIR", str(tmp_path / "data"))
    assert get_data_set("pets").load("test").fingerprint == one.fingerprint
    assert len(kept_files()) == 4


_VALUES = arrays_of.arrays(
    np.uint8, arrays_of.array_shapes(min_dims=4, max_dims=4, min_side=1, max_side=4)
)


@settings(deadline=None)
@given(values=_VALUES, data=st.data())
def test_fingerprint_tells_every_change(values, data):
    labels = np.arange(len(values))
    fingerprint = Pixels(values, labels).fingerprint()
    place = data.draw(st.integers(0, values.size - 1))
    other = values.copy()
    other.flat[place] ^= data.draw(st.integers(1, 255))
    assert Pixels(other, labels).fingerprint() != fingerprint
    assert Pixels(values, labels + 1).fingerprint() != fingerprint
    assert Pixels(values, labels, scale=16).fingerprint() != fingerprint
    if len(values) > 1:
        assert Pixels(values.reshape(1, -1, 1, 1), labels).fingerprint() != fingerprint


@settings(deadline=None)
@given(values=_VALUES)
def test_fingerprint_depends_on_content_alone(values):
    labels = np.arange(len(values))
    fingerprint = Pixels(values, labels).fingerprint()
    assert Pixels(np.asfortranarray(values), labels.astype(">i4")).fingerprint() == fingerprint
    floats = (values / 255).astype("<f4")
    assert (
        Pixels(floats, labels, 1).fingerprint()
        == Pixels(floats.astype(">f4"), labels, 1).fingerprint()
    )


def test_fingerprint_is_pinned():
    """Every stored result is found by it: a change here makes all of them unreachable."""
    values = np.arange(24, dtype=np.uint8).reshape(2, 1, 3, 4)
    assert Pixels(values, np.array([0, 1])).fingerprint() == (
        "b452ea5816f2fff042e949560fc8633605f1a629998b253be098cfa4ca8c44ef"
    )


@pytest.mark.parametrize("scale", [16, 255])
def test_division_is_the_correctly_rounded_one(scale):
    values = np.arange(scale + 1, dtype=np.uint8)[:, None, None, None]
    split = Pixels(values, np.zeros(scale + 1, int), scale).to_split("x")
    exact = np.arange(scale + 1) / np.float64(scale)
    assert np.array_equal(split.images.flatten().numpy(), exact.astype(np.float32))
    assert split.images.max() == 1.0
