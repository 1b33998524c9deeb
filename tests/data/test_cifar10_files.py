from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from fkd.core.errors import Cancelled, DataError
from fkd.data import cifar10, get_data_set, list_data_sets
from fkd.data._memory import SPLITS

_COUNTS = {"train": 20, "test": 8}
_FOLDER = "cifar-10-batches-py"


class _Python2Pickler(pickle.Pickler):
    """Spells numpy's types as the published files do, of which numpy warns today."""

    def reducer_override(self, value):
        if isinstance(value, np.dtype):
            return np.dtype, ("u1", 0, 1), (3, "|", None, None, None, -1, -1, 0)
        return NotImplemented


def _pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


@pytest.fixture
def files(monkeypatch):
    """Six tiny batches and the names, with torchvision's checksums changed to theirs."""
    random = np.random.default_rng(0)
    made = {}
    for name in cifar10._FILES[:-1]:
        count = _COUNTS["test"] if name == "test_batch" else _COUNTS["train"] // 5
        pixels = random.integers(0, 256, (count, 3072)).astype(np.uint8)
        made[name] = _pickled({"data": pixels, "labels": random.integers(0, 10, count).tolist()})
    made["batches.meta"] = _pickled({"label_names": list(cifar10.Cifar10.classes)})
    sums = [[name, hashlib.md5(content).hexdigest()] for name, content in made.items()]
    published = torchvision.datasets.CIFAR10
    monkeypatch.setattr(published, "train_list", sums[:5])
    monkeypatch.setattr(published, "test_list", sums[5:6])
    monkeypatch.setattr(published, "meta", {**published.meta, "md5": sums[6][1]})
    monkeypatch.setattr(cifar10, "_COUNTS", _COUNTS)
    return made


@pytest.fixture
def folder(files, tmp_path) -> Path:
    folder = tmp_path / "data" / _FOLDER
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_reads_what_torchvision_reads(folder, files):
    data_set = get_data_set("cifar10")
    assert data_set.is_available()
    assert data_set.problem() is None
    batches = [pickle.loads(files[name]) for name in cifar10._FILES[:5]]
    train = data_set.load("train")
    pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    assert torch.equal(train.images, torch.from_numpy(pixels).float() / 255)
    assert train.labels.tolist() == [label for batch in batches for label in batch["labels"]]
    assert data_set.load("test").images.shape == (8, 3, 32, 32)


def test_batches_are_unpickled_only_once(folder, monkeypatch):
    first = get_data_set("cifar10").load("test")
    SPLITS.clear()
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", lambda *_, **__: pytest.fail("read"))
    assert get_data_set("cifar10").fingerprint("test") == first.fingerprint
    again = get_data_set("cifar10").load("test")
    assert torch.equal(again.images, first.images)
    assert torch.equal(again.labels, first.labels)


def test_absent_set_says_how_to_get_it():
    assert not get_data_set("cifar10").is_available()
    assert get_data_set("cifar10").problem() is None
    with pytest.raises(DataError, match="python -m fkd data download cifar10"):
        get_data_set("cifar10").fingerprint("test")


def test_missing_batch_is_named(folder):
    (folder / "data_batch_3").unlink()
    info = next(info for info in list_data_sets() if info.name == "cifar10")
    assert not info.is_available
    assert "data_batch_3" in info.problem
    with pytest.raises(DataError, match="data_batch_3"):
        get_data_set("cifar10").load("test")


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_truncated_batch_is_never_unpickled(folder, name, monkeypatch):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="truncated or not the published one"):
        get_data_set("cifar10").load("test")


def test_wrong_count_is_refused(folder, monkeypatch):
    monkeypatch.setattr(cifar10, "_COUNTS", {"train": 20, "test": 9})
    with pytest.raises(DataError, match=r"shape \(8, 3, 32, 32\) with 8 labels instead of \(9,"):
        get_data_set("cifar10").load("test")


def _archive(files: dict[str, bytes], path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {**files, "../../escaped": b"x", "readme.html": b"x"}.items():
            entry = tarfile.TarInfo(f"{_FOLDER}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def served(files, tmp_path, monkeypatch):
    path = tmp_path / "served" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    _archive(files, path)
    published = torchvision.datasets.CIFAR10
    monkeypatch.setattr(published, "url", path.as_uri())
    monkeypatch.setattr(published, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    return path


def test_download_takes_only_the_named_files(served, tmp_path):
    seen = []
    get_data_set("cifar10").download(lambda progress: seen.append(progress.fraction))
    assert seen[-1] == 1.0
    assert len(get_data_set("cifar10").load("train")) == 20
    assert sorted(path.name for path in (tmp_path / "data" / _FOLDER).iterdir()) == sorted(
        cifar10._FILES
    )
    visible = [path.name for path in (tmp_path / "data").iterdir() if path.name[0] != "."]
    assert visible == [_FOLDER]
    assert not list(tmp_path.rglob("escaped"))


def test_download_replaces_a_damaged_batch_and_only_then_fetches(served, tmp_path, monkeypatch):
    get_data_set("cifar10").download()
    damaged = tmp_path / "data" / _FOLDER / "test_batch"
    damaged.write_bytes(b"x")
    get_data_set("cifar10").download()
    assert len(get_data_set("cifar10").load("test")) == 8
    served.unlink()
    get_data_set("cifar10").download()


def test_archive_that_lacks_a_batch_leaves_nothing(served, files, tmp_path, monkeypatch):
    del files["data_batch_4"]
    _archive(files, served)
    md5 = hashlib.md5(served.read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5)
    with pytest.raises(DataError, match="Unpacking cifar-10-python"):
        get_data_set("cifar10").download()
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".cifar10.lock"]


def test_cancelled_download_leaves_nothing(served, tmp_path):
    with pytest.raises(Cancelled):
        get_data_set("cifar10").download(lambda _: True)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".cifar10.lock"]
