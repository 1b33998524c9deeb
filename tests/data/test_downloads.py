from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import threading
from pathlib import Path

import numpy as np
import pytest
from _tiny_sets import TinyIdx, write_idx
from filelock import FileLock

from fkd.core.errors import Cancelled, DataError
from fkd.core.progress import Progress
from fkd.data import _download, get_data_set
from fkd.data._download import RemoteFile, extract_members, fetch, staging, swap_in, unpack_gzip


class _Handler(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        if "/cut/" in self.path:  # promises more than it sends
            content = Path(self.translate_path(self.path.replace("/cut/", "/"))).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            return
        if "/unsized/" in self.path:
            path = Path(self.translate_path(self.path.replace("/unsized/", "/")))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(path.read_bytes())
            return
        super().do_GET()


@pytest.fixture
def server(tmp_path):
    """A web server for one folder: its address, its folder, and what it was asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked: list[str] = []
    handler = type("Handler", (_Handler,), {"asked": asked})
    web = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    )
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}/", folder, asked
    web.shutdown()
    thread.join()
    web.server_close()


@pytest.fixture
def published(server, tmp_path, monkeypatch):
    """TinyIdx on the server, and a class whose addresses, checksums and fingerprints fit it."""
    address, folder, _ = server
    write_idx(tmp_path / "original" / "MNIST" / "raw", TinyIdx.num_examples, side=5)
    remote = []
    for path in sorted((tmp_path / "original" / "MNIST" / "raw").iterdir()):
        packed = gzip.compress(path.read_bytes())
        (folder / f"{path.name}.gz").write_bytes(packed)
        md5 = hashlib.md5(packed).hexdigest()
        remote.append(RemoteFile(f"{path.name}.gz", (f"{address}{path.name}.gz",), md5))
    with monkeypatch.context() as patch:
        patch.setenv("FKD_DATA_DIR", str(tmp_path / "original"))
        fingerprints = {split: TinyIdx().load(split).fingerprint for split in ("train", "test")}

    class Published(TinyIdx):
        known_fingerprints = fingerprints

        def _remote_files(self):
            return list(remote)

    return Published, remote


@pytest.fixture
def data_folder(tmp_path):
    return tmp_path / "data"


def left_behind(folder: Path) -> list[str]:
    """Everything in the data folder but the empty lock file."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not (path.name.endswith(".lock") and path.stat().st_size == 0)
    )


def test_download_with_progress(published, data_folder):
    data_set = published[0]()
    seen: list[Progress] = []
    data_set.download(lambda progress: seen.append(progress))
    assert data_set.is_available()
    assert len(data_set.load("train")) == 12
    assert len(left_behind(data_folder)) == 2 + 4
    assert len({progress.stage for progress in seen}) == 4
    assert sum(progress.fraction == 1.0 for progress in seen) == 4
    assert all(progress.total > 0 and progress.done <= progress.total for progress in seen)


def test_what_is_intact_is_not_fetched_again(published, server):
    published[0]().download()
    server[2].clear()
    published[0]().download()
    assert server[2] == []


@pytest.mark.parametrize("damage", ["truncate", "alter", "remove"])
def test_damaged_files_are_replaced(published, data_folder, damage):
    data_set = published[0]()
    data_set.download()
    path = data_folder / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content if damage == "alter" else content[:100])
    with pytest.raises(DataError):
        data_set.load("train")
    data_set.download()
    assert len(data_set.load("train")) == 12


def test_second_address_is_tried(published, server):
    published_class, remote = published
    remote[0] = RemoteFile(remote[0].name, (f"{server[0]}gone.gz", *remote[0].urls), remote[0].md5)
    published_class().download()
    assert published_class().is_available()


def _gone(remote, address):
    remote[2] = RemoteFile(remote[2].name, (f"{address}gone.gz",), remote[2].md5)


def _cut(remote, address):
    remote[2] = RemoteFile(remote[2].name, (f"{address}cut/{remote[2].name}",), remote[2].md5)


def _other(remote, address):
    remote[2] = RemoteFile(remote[2].name, remote[1].urls, remote[2].md5)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(_gone, "HTTP Error 404"), (_cut, "arrived incomplete"), (_other, "is not the published one")],
)
def test_failed_download_leaves_nothing(published, server, data_folder, spoil, reason):
    published_class, remote = published
    spoil(remote, server[0])
    with pytest.raises(DataError, match=rf"Downloading Tiny failed \(.*{reason}"):
        published_class().download()
    assert left_behind(data_folder) == []


def test_wrong_content_with_a_right_checksum_leaves_nothing(published, data_folder):
    published_class, _ = published
    published_class.known_fingerprints = {"train": "0" * 64}
    with pytest.raises(DataError, match="differ from the published ones"):
        published_class().download()
    assert left_behind(data_folder) == []


def test_unreachable_server_is_a_sentence(published, data_folder):
    published_class, remote = published
    remote[0] = RemoteFile(remote[0].name, ("http://127.0.0.1:9/x.gz",), remote[0].md5)
    with pytest.raises(DataError, match="check the connection and the free disk space"):
        published_class().download()
    assert left_behind(data_folder) == []


def test_full_disk_is_a_sentence(published, data_folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_download, "_fetch_from", full)
    with pytest.raises(DataError, match="No space left on device"):
        published[0]().download()
    assert left_behind(data_folder) == []


@pytest.mark.parametrize("after", [1, 3, 6])
def test_cancelled_download_leaves_nothing(published, data_folder, after):
    count = 0

    def stop(_: Progress) -> bool:
        nonlocal count
        count += 1
        return count >= after

    with pytest.raises(Cancelled):
        published[0]().download(stop)
    assert left_behind(data_folder) == []


def test_cancelled_repair_leaves_what_was_there(published, data_folder):
    published[0]().download()
    path = data_folder / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(b"short")
    with pytest.raises(Cancelled):
        published[0]().download(lambda _: True)
    assert path.read_bytes() == b"short"
    assert len(published[0]().load("test")) == 6


def test_waits_for_another_download_and_can_be_stopped(published, data_folder):
    data_folder.mkdir()
    with (
        FileLock(data_folder / ".tiny.lock"),
        pytest.raises(Cancelled, match="waiting for another download of tiny"),
    ):
        published[0]().download(lambda _: True)


def test_two_downloads_at_once_fetch_once(published, server):
    threads = [threading.Thread(target=published[0]().download) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert published[0]().is_available()
    assert len(server[2]) == 4


def test_left_overs_of_a_killed_download_are_removed(published, data_folder):
    old = data_folder / ".download-tiny-old"
    old.mkdir(parents=True)
    (old / "half").write_bytes(b"x")
    published[0]().download()
    assert not old.exists()


def test_data_folder_that_is_a_file(published, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("FKD_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match="is a file; set FKD_DATA_DIR to a folder"):
        published[0]().download()
    monkeypatch.setenv("FKD_DATA_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(DataError, match="cannot be written"):
        published[0]().download()


def test_data_folder_that_cannot_be_written(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with (
        pytest.raises(DataError, match=r"cannot be written \(Permission denied\)"),
        staging("tiny", None),
    ):
        pytest.fail("entered")


def test_mnist_takes_addresses_and_checksums_from_torchvision():
    for name, count in (("mnist", 4), ("fashion_mnist", 4)):
        data_set = get_data_set(name)
        remote = data_set._remote_files()
        assert len(remote) == count
        files = {path.name for path in data_set._sizes()}
        assert {one.name for one in remote} == {f"{file}.gz" for file in files}
        assert all(len(one.md5) == 32 and one.urls for one in remote)


def test_fetch_without_a_length_reports_bytes_and_is_still_checked(server):
    address, folder, _ = server
    (folder / "x").write_bytes(b"content")
    remote = RemoteFile("x", (f"{address}unsized/x",), hashlib.md5(b"content").hexdigest())
    seen = []
    path = fetch(remote, folder / "to", "X", lambda progress: seen.append(progress))
    assert path.read_bytes() == b"content"
    assert (seen[-1].done, seen[-1].total) == (7, 0)
    with pytest.raises(DataError, match="file of 7 bytes is not the published one"):
        fetch(RemoteFile("x", remote.urls, "0" * 32), folder / "to", "X", None)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (gzip.compress(b"abc"), 4),
        (gzip.compress(b"abc"), 2),
        (gzip.compress(bytes(500))[:15], 500),
        (b"no gzip", 7),
    ],
    # A gzip header holds the time: as an id it would differ between test processes.
    ids=["shorter", "longer", "cut", "no gzip"],
)
def test_unpacking_what_is_wrong_is_a_sentence(tmp_path, content, size):
    packed = tmp_path / "x.gz"
    packed.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.gz of X"):
        unpack_gzip(packed, tmp_path / "x", size, "X")


def test_unpacking_no_archive_is_a_sentence(tmp_path):
    packed = tmp_path / "x.tar.gz"
    packed.write_bytes(np.arange(100, dtype=np.uint8).tobytes())
    with pytest.raises(DataError, match=r"Unpacking x\.tar\.gz of X failed"):
        extract_members(packed, ["a/b"], tmp_path / "a", "X")


def test_moving_into_a_place_that_is_taken_is_a_sentence(tmp_path):
    (tmp_path / "staged").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="X was downloaded but could not be moved"):
        swap_in(tmp_path / "staged", tmp_path / "file" / "raw", "X")
