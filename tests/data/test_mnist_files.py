from __future__ import annotations

import numpy as np
import pytest
import torch
from _tiny_sets import TinyIdx, idx_bytes, write_idx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fkd.core.errors import DataError
from fkd.data import get_data_set, list_data_sets


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "data" / "MNIST" / "raw"
    write_idx(folder, TinyIdx.num_examples, side=5)
    return folder


def test_reads_what_torchvision_reads(raw, tmp_path):
    from torchvision.datasets import MNIST

    for split in ("train", "test"):
        theirs = MNIST(str(tmp_path / "data"), train=split == "train", download=False)
        ours = TinyIdx().load(split)
        assert torch.equal(ours.images, theirs.data[:, None].float() / 255)
        assert torch.equal(ours.labels, theirs.targets)


def test_available_without_a_problem(raw):
    assert TinyIdx().is_available()
    assert TinyIdx().problem() is None


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_absent_set_says_how_to_get_it(name):
    data_set = get_data_set(name)
    assert not data_set.is_available()
    assert data_set.problem() is None
    with pytest.raises(
        DataError, match=f"python -m fkd data download {name}`, or set FKD_DATA_DIR"
    ):
        data_set.load("test")


def test_missing_file_is_named(raw):
    (raw / "t10k-labels-idx1-ubyte").unlink()
    assert not TinyIdx().is_available()
    assert "t10k-labels-idx1-ubyte" in TinyIdx().problem()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte"):
        TinyIdx().load("test")
    assert len(TinyIdx().load("train")) == 12


@pytest.mark.parametrize("keep", [0, 3, 16, 17, 165])
def test_truncated_file_is_named_with_its_length(raw, keep):
    path = raw / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:keep])
    sentence = f"t10k-images-idx3-ubyte is truncated: it holds {keep} of 166 bytes"
    assert not TinyIdx().is_available()
    assert sentence in TinyIdx().problem()
    with pytest.raises(DataError, match=sentence):
        TinyIdx().load("test")


def test_longer_file_is_refused(raw):
    path = raw / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match="not the published one: it holds 15 of 14 bytes"):
        TinyIdx().load("test")


def test_wrong_shape_of_the_same_length_is_refused(raw):
    path = raw / "t10k-images-idx3-ubyte"
    path.write_bytes(idx_bytes(np.zeros((5, 6, 5))))
    with pytest.raises(DataError, match=r"unsigned bytes of shape \(6, 5, 5\) in IDX format"):
        TinyIdx().load("test")


def test_folder_in_place_of_a_file_counts_as_absent(raw):
    path = raw / "t10k-images-idx3-ubyte"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="not in the data folder"):
        TinyIdx().load("test")


def test_unreadable_file_is_a_sentence(raw, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\); check its perm"):
        TinyIdx().load("test")


def test_changed_files_are_read_again(raw):
    before = TinyIdx().load("test")
    assert TinyIdx().load("test") is before
    write_idx(raw, TinyIdx.num_examples, side=5, seed=1)
    after = TinyIdx().load("test")
    assert after.fingerprint != before.fingerprint
    assert not torch.equal(after.images, before.images)


def test_tiny_files_are_not_mnist(raw, tmp_path):
    mnist = get_data_set("mnist")
    with pytest.raises(DataError, match="is truncated: it holds 166 of 7840016 bytes"):
        mnist.load("test")
    info = next(info for info in list_data_sets() if info.name == "mnist")
    assert not info.is_available
    assert "47040016 bytes" in info.problem


def test_altered_files_of_the_right_length_are_refused(tmp_path):
    folder = tmp_path / "data" / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    images, labels = np.zeros((10_000, 28, 28)), np.arange(10_000) % 10
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    with pytest.raises(DataError, match=r"test files of Fashion-MNIST in .* differ from the pub"):
        get_data_set("fashion_mnist").load("test")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damage_never_gives_another_error(raw, data):
    write_idx(raw, TinyIdx.num_examples, side=5)
    intact = TinyIdx().load("test").fingerprint
    path = raw / data.draw(st.sampled_from(["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        found = TinyIdx().load("test").fingerprint
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert found != intact


def test_known_fingerprints_let_results_be_found_without_data():
    mnist = get_data_set("mnist")
    assert not mnist.is_available()
    assert {len(mnist.fingerprint(split)) for split in ("train", "test")} == {64}
    assert len({get_data_set(n).fingerprint("test") for n in ("mnist", "fashion_mnist")}) == 2


@pytest.mark.parametrize(
    ("name", "mean", "std"), [("mnist", 0.1307, 0.3081), ("fashion_mnist", 0.2860, 0.3530)]
)
def test_real_data_has_its_published_statistics(real_data_dir, name, mean, std):
    data_set = get_data_set(name)
    if not data_set.is_available():
        pytest.skip(f"needs {name}")
    found_mean, found_std = data_set.channel_statistics()
    assert found_mean[0] == pytest.approx(mean, abs=5e-5)
    assert found_std[0] == pytest.approx(std, abs=5e-5)
    test = data_set.load("test")
    assert test.images.shape == (10_000, 1, 28, 28)
    assert test.fingerprint == data_set.known_fingerprints["test"]
    assert (test.images.min(), test.images.max()) == (0.0, 1.0)


def test_real_mnist_is_what_torchvision_reads(real_data_dir):
    from torchvision.datasets import MNIST

    theirs = MNIST(str(real_data_dir), train=False, download=False)
    ours = get_data_set("mnist").load("test")
    assert torch.equal(ours.images, theirs.data[:, None].float() / 255)
    assert torch.equal(ours.labels, theirs.targets)
