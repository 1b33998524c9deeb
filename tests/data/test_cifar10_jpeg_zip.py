from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fkd.core.errors import DataError
from fkd.data import cifar10_jpeg, get_data_set, list_data_sets
from fkd.data._memory import SPLITS

_COUNTS = {"train": 2, "test": 1}
CLASSES = cifar10_jpeg.Cifar10Jpeg.classes


@pytest.fixture(autouse=True)
def _few_files(monkeypatch):
    monkeypatch.setattr(cifar10_jpeg, "_COUNTS", _COUNTS)


def jpeg(seed: int = 0, size: int = 32, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


def decoded(packed: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(packed)).convert("RGB")).transpose(2, 0, 1)


@pytest.fixture
def files() -> dict[str, bytes]:
    """Names and contents in the order in which the real file holds them: class by class."""
    names = [
        f"cifar10-jpeg/{split}/{name}/{number:04d}.jpg"
        for split, count in _COUNTS.items()
        for name in CLASSES
        for number in range(count)
    ]
    return {name: jpeg(seed) for seed, name in enumerate(names)}


def pack(files: Mapping[str, bytes], folder: Path, method: int = zipfile.ZIP_STORED) -> Path:
    path = folder / "data" / "cifar10-jpeg.zip"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def refused(match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        get_data_set("cifar10_jpeg").load("test")
    assert "cifar10-jpeg.zip" in str(caught.value)
    assert "restore the original file" in str(caught.value)


def test_images_are_those_packed_and_every_class_comes_at_once(files, tmp_path):
    pack(dict(reversed(files.items())), tmp_path)
    data_set = get_data_set("cifar10_jpeg")
    assert data_set.is_available()
    train = data_set.load("train")
    assert train.labels.tolist() == [*range(10), *range(10)]
    expected = np.stack(
        [
            decoded(files[f"cifar10-jpeg/train/{name}/{number:04d}.jpg"])
            for number in range(2)
            for name in CLASSES
        ]
    )
    assert torch.equal(train.images, torch.from_numpy(expected).float() / 255)
    assert data_set.load("test").images.shape == (10, 3, 32, 32)


def test_it_is_like_cifar10_under_another_name():
    ours, published = get_data_set("cifar10_jpeg"), get_data_set("cifar10")
    for what in ("classes", "image_shape", "epsilons"):
        assert getattr(ours, what) == getattr(published, what)
    assert ours.title == "CIFAR-10 (JPEG)" != published.title
    assert not ours.known_fingerprints


def test_decoded_once(files, tmp_path, monkeypatch):
    pack(files, tmp_path)
    first = get_data_set("cifar10_jpeg").load("train")
    SPLITS.clear()
    monkeypatch.setattr(cifar10_jpeg.Cifar10Jpeg, "_read", lambda *_: pytest.fail("read"))
    again = get_data_set("cifar10_jpeg").load("train")
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.images, first.images)


def test_a_changed_file_is_read_again(files, tmp_path):
    pack(files, tmp_path)
    before = get_data_set("cifar10_jpeg").fingerprint("test")
    pack({**files, "cifar10-jpeg/test/cat/0000.jpg": jpeg(99)}, tmp_path)
    assert get_data_set("cifar10_jpeg").fingerprint("test") != before


def test_absent_set_points_to_the_published_one():
    data_set = get_data_set("cifar10_jpeg")
    assert not data_set.is_available()
    assert data_set.problem() is None
    for act in (lambda: data_set.load("test"), data_set.download):
        with pytest.raises(DataError, match="data download cifar10") as caught:
            act()
        assert "put cifar10-jpeg.zip into the data folder" in str(caught.value)


def test_results_are_found_where_the_file_is_absent(files, tmp_path):
    absent = {split: get_data_set("cifar10_jpeg").fingerprint(split) for split in ("train", "test")}
    assert absent == cifar10_jpeg.Cifar10Jpeg.published_fingerprints
    pack(files, tmp_path)
    assert get_data_set("cifar10_jpeg").fingerprint("test") not in absent.values()


@pytest.mark.parametrize(
    "name",
    [
        "cifar10-jpeg/test/cat/../../../../escaped.jpg",
        "/cifar10-jpeg/test/cat/0007.jpg",
        "cifar10-jpeg/test/zebra/0000.jpg",
        "cifar10-jpeg/test/cat/00000.jpg",
        "cifar10-jpeg/test/cat/0000.png",
        "readme.txt",
    ],
)
def test_other_names_are_refused_and_nothing_is_unpacked(files, tmp_path, name):
    pack({**files, name: jpeg()}, tmp_path)
    refused("holds '")
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".jpg", ".txt", ".png")]


def test_wrong_counts_are_refused(files, tmp_path):
    files["cifar10-jpeg/test/cat/0001.jpg"] = jpeg()
    pack(files, tmp_path)
    refused("holds 2 files of test/cat instead of 1")
    del files["cifar10-jpeg/test/cat/0001.jpg"], files["cifar10-jpeg/train/dog/0001.jpg"]
    pack(files, tmp_path)
    refused("holds 1 files of train/dog instead of 2")


def test_the_same_name_twice_is_refused(files, tmp_path):
    path = pack(files, tmp_path)
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(path, "a") as archive,
    ):
        archive.writestr("cifar10-jpeg/test/cat/0000.jpg", jpeg(1))
    refused("holds cifar10-jpeg/test/cat/0000.jpg twice")


@pytest.mark.parametrize("is_lie", [False, True], ids=["says so", "says less"])
def test_a_bomb_is_not_unpacked(files, tmp_path, is_lie):
    name = "cifar10-jpeg/test/cat/0000.jpg"
    path = pack({**files, name: bytes(10_000_000)}, tmp_path, zipfile.ZIP_DEFLATED)
    if is_lie:
        length = (10_000_000).to_bytes(4, "little")
        content = path.read_bytes()
        assert content.count(length) == 2
        path.write_bytes(content.replace(length, (900).to_bytes(4, "little")))
        # The checksum of a member cut short is wrong.
        refused("is damaged")
    else:
        refused("says that cifar10-jpeg/test/cat/0000.jpg has 10,000,000 bytes")


def test_a_file_too_long_is_not_opened(files, tmp_path, monkeypatch):
    path = pack(files, tmp_path)
    monkeypatch.setattr(cifar10_jpeg, "_LARGEST_ARCHIVE", path.stat().st_size - 1)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_, **__: pytest.fail("opened"))
    refused("more than the .* allowed")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (jpeg(size=33), "of 33x33 pixels instead of 32x32"),
        (jpeg(kind="PNG"), "no JPEG image"),
        (jpeg()[:-300], "damaged"),
        (b"x", "no JPEG image"),
        (b"", "has 0 bytes"),
    ],
    ids=["size", "kind", "truncated", "no image", "empty"],
)
def test_an_image_that_is_none_is_named(files, tmp_path, content, match):
    name = "cifar10-jpeg/test/cat/0000.jpg"
    pack({**files, name: content}, tmp_path)
    refused(f"{name}.*{match}")


def test_truncated_file_is_a_sentence(files, tmp_path):
    path = pack(files, tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    refused("is damaged")


def test_it_is_listed_as_no_set_of_the_users(files, tmp_path):
    pack(files, tmp_path)
    names = [info.name for info in list_data_sets()]
    assert names.count("cifar10_jpeg") == 1
    assert "cifar10-jpeg" not in names


def test_the_real_file_has_the_known_content(real_data_dir):
    """Skipped where it is not: 10,000 images decoded, against the fingerprint noted in the class."""
    data_set = get_data_set("cifar10_jpeg")
    if not data_set.is_available():
        pytest.skip("needs cifar10-jpeg.zip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar10_jpeg, "_COUNTS", {"train": 5_000, "test": 1_000})
        test = data_set.load("test")
    assert test.fingerprint == data_set.published_fingerprints["test"]
    assert test.labels.bincount().tolist() == [1_000] * 10
    assert (test.images.min(), test.images.max()) == (0.0, 1.0)
