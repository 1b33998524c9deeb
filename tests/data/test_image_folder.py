from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from _tiny_sets import write_folder, write_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fkd.core.errors import DataError
from fkd.data import _decode, _folder, get_data_set
from fkd.data._folder import ImageFolderSet
from fkd.data._listing import find_layout, list_split
from fkd.data._memory import SPLITS


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data" / "pets"


def random_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".ppm", ".tiff", ".webp", ".JPEG"])
def test_reads_what_torchvision_reads(root, suffix):
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import to_tensor

    write_folder(root, suffix=suffix, classes=("b", "a c", "Z"))
    write_image(root / "train" / "b" / "deep" / f"000{suffix}", random_pixels(4, 6, 3))
    data_set = get_data_set("pets")
    for split in ("train", "test"):
        theirs = ImageFolder(str(root / split))
        ours = data_set.load(split)
        assert data_set.classes == tuple(theirs.classes)
        assert ours.labels.tolist() == theirs.targets
        assert torch.equal(ours.images, torch.stack([to_tensor(image) for image, _ in theirs]))
        assert ours.images.dtype == torch.float32


@pytest.mark.parametrize("test_name", ["test", "val", "valid", "Validation"])
def test_names_of_the_test_folder(root, test_name):
    write_folder(root, splits=("train", test_name), each=2)
    data_set = get_data_set("pets")
    assert data_set.image_shape == (3, 4, 6)
    assert len(data_set.load("train")) == len(data_set.load("test")) == 4


def test_test_folder_is_preferred_to_val(root):
    write_folder(root, splits=("train", "test"), each=2)
    write_folder(root, splits=("val",), each=5)
    assert len(get_data_set("pets").load("test")) == 4


@pytest.mark.parametrize("splits", [("",), ("train",)])
def test_one_folder_is_split_by_hash(root, splits):
    write_folder(root, splits=splits, each=60)
    data_set = get_data_set("pets")
    train, test = data_set.load("train"), data_set.load("test")
    assert len(train) + len(test) == 120
    assert 10 <= len(test) <= 40
    rows = torch.cat([train.images, test.images]).flatten(1)
    assert len(rows.unique(dim=0)) == 120
    assert set(test.labels.tolist()) == {0, 1}


def test_adding_images_moves_no_other_image(root):
    write_folder(root, splits=("",), each=40)
    before = list_split(find_layout(root), "test").paths()
    write_image(root / "cat" / "0000new.png", random_pixels(4, 6, 3))
    after = list_split(find_layout(root), "test").paths()
    assert set(before) <= set(after)
    assert len(after) - len(before) in (0, 1)


def test_split_by_hash_does_not_depend_on_the_place(root, tmp_path):
    write_folder(root, splits=("",), each=40)
    here = get_data_set("pets").fingerprint("test")
    shutil.copytree(root, tmp_path / "data" / "elsewhere")
    assert get_data_set("elsewhere").fingerprint("test") == here


def test_split_by_hash_is_pinned(root):
    """Changing the rule would silently give everyone another test split."""
    write_folder(root, splits=("",), each=12)
    names = [
        path.removeprefix(f"{root}/") for path in list_split(find_layout(root), "test").paths()
    ]
    assert names == PINNED


PINNED = ["dog/002.png", "dog/010.png"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names=st.sets(st.text("abcxyzäß0 _-", min_size=1, max_size=8), min_size=1, max_size=12))
def test_splits_by_hash_are_a_partition(tmp_path, names):
    root = tmp_path / "set"
    shutil.rmtree(root, ignore_errors=True)
    for label in ("a", "b"):
        for name in names:
            write_image(root / label / f"{name}.png", random_pixels(1, 1))
    parts = []
    for split in ("train", "test"):
        try:
            parts += list_split(find_layout(root), split).paths()
        except DataError as error:
            assert f"no image for the {split} split" in str(error)
    assert sorted(parts) == sorted(str(path) for path in root.rglob("*.png"))


def test_grey_images_have_one_channel(root):
    write_folder(root, shape=(5, 7))
    data_set = get_data_set("pets")
    assert data_set.image_shape == (1, 5, 7)
    with Image.open(root / "train" / "cat" / "000.png") as image:
        pixels = torch.tensor(np.asarray(image))
    assert torch.equal(data_set.load("train").images[0, 0], pixels / 255)


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "LA"])
def test_other_modes_become_colour_as_in_torchvision(root, mode):
    suffix = ".tiff" if mode == "CMYK" else ".png"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            write_image(root / split / name / f"0{suffix}", random_pixels(4, 6, 3), mode)
    data_set = get_data_set("pets")
    assert data_set.image_shape == (3, 4, 6)
    with Image.open(root / "train" / "cat" / f"0{suffix}") as image:
        assert image.mode == mode
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert torch.equal(data_set.load("train").images[0], torch.tensor(expected) / 255)


def test_a_grey_image_among_coloured_ones_becomes_coloured(root):
    write_folder(root)
    write_image(root / "train" / "cat" / "000.png", random_pixels(4, 6))
    images = get_data_set("pets").load("train").images
    assert images.shape == (6, 3, 4, 6)
    assert torch.equal(images[0, 0], images[0, 2])


def test_a_coloured_image_among_grey_ones_is_named(root):
    write_folder(root, shape=(4, 6))
    write_image(root / "train" / "dog" / "001.png", random_pixels(4, 6, 3))
    with pytest.raises(DataError, match=r"dog/001\.png is in colour \(RGB\) while .*cat/000\.png"):
        get_data_set("pets").load("train")


def test_an_image_of_another_size_is_named_with_both_sizes(root):
    write_folder(root)
    write_image(root / "test" / "dog" / "001.png", random_pixels(4, 5, 3))
    data_set = get_data_set("pets")
    assert len(data_set.load("train")) == 6
    with pytest.raises(
        DataError, match=r"dog/001\.png is 5x4 pixels and .*cat/000\.png is 6x4; resize"
    ):
        data_set.load("test")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.7])
def test_truncated_image_is_named(root, suffix, share):
    write_folder(root, shape=(40, 40, 3), suffix=suffix)
    path = root / "train" / "dog" / f"002{suffix}"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=rf"The image .*dog/002\{suffix} is damaged"):
        get_data_set("pets").load("train")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_to_an_image_never_gives_another_error(tmp_path, data):
    suffix = data.draw(st.sampled_from([".png", ".jpg", ".bmp", ".ppm", ".tiff", ".webp"]))
    path = tmp_path / f"x{suffix}"
    write_image(path, random_pixels(12, 12, 3))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        values = _decode.decode([str(path)], (3, 12, 12), str(path))
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert values.shape == (1, 3, 12, 12)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_images_of_more_than_eight_bits_are_refused(root, mode):
    write_folder(root, shape=(4, 6), suffix=".tiff")
    Image.new(mode, (6, 4)).save(root / "train" / "cat" / "001.tiff")
    with pytest.raises(DataError, match=r"cat/001\.tiff has more than 8 bits a channel"):
        get_data_set("pets").load("train")


def test_class_known_to_the_test_folder_only(root):
    write_folder(root)
    write_folder(root, splits=("test",), classes=("emu",))
    with pytest.raises(DataError, match="has the class 'emu', which the train folder has not"):
        get_data_set("pets").load("test")


def test_class_without_test_images_keeps_its_label(root):
    write_folder(root, classes=("ant", "cat", "dog"))
    shutil.rmtree(root / "test" / "cat")
    data_set = get_data_set("pets")
    assert data_set.classes == ("ant", "cat", "dog")
    assert set(data_set.load("test").labels.tolist()) == {0, 2}


def test_empty_class_folder_is_named(root):
    write_folder(root)
    (root / "train" / "emu").mkdir()
    with pytest.raises(DataError, match=r"class folder .*train/emu holds no image"):
        get_data_set("pets").load("train")


@pytest.mark.parametrize("classes", [(), ("only",)])
def test_fewer_than_two_classes(root, classes):
    root.mkdir(parents=True)
    write_folder(root, splits=("",), classes=classes)
    with pytest.raises(DataError, match=f"has {len(classes)} class folders and needs at least two"):
        get_data_set("pets")


def test_folders_without_images(root):
    (root / "cat").mkdir(parents=True)
    (root / "dog").mkdir()
    (root / "dog" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="holds no image in its class folders"):
        get_data_set("pets")


def test_too_few_images_to_split(root):
    for name in ("cat", "dog"):
        write_image(root / name / "one.png", random_pixels(2, 2))
    data_set = get_data_set("pets")
    parts = 0
    for split in ("train", "test"):
        try:
            parts += len(data_set.load(split))
        except DataError as error:
            assert f"no image for the {split} split" in str(error)
    assert parts == 2


def test_hidden_files_and_folders_are_left_out(root):
    write_folder(root)
    (root / "train" / "cat" / "._000.png").write_bytes(b"resource fork")
    write_folder(root, splits=("train",), classes=(".ipynb_checkpoints",))
    write_folder(root, splits=(".cache",))
    data_set = get_data_set("pets")
    assert data_set.classes == ("cat", "dog")
    assert len(data_set.load("train")) == 6


def test_links_that_lead_back_end(root):
    write_folder(root)
    (root / "train" / "cat" / "up").symlink_to(root / "train", target_is_directory=True)
    (root / "train" / "dog" / "self").symlink_to(root / "train" / "dog", target_is_directory=True)
    assert len(get_data_set("pets").load("train")) == 6


def test_links_that_lead_to_each_other_end(root):
    write_folder(root)
    one, two = root.parent / "one", root.parent / "two"
    for folder, other in ((one, two), (two, one)):
        folder.mkdir()
        (folder / "next").symlink_to(other, target_is_directory=True)
    write_image(one / "x.png", random_pixels(4, 6, 3))
    (root / "train" / "cat" / "more").symlink_to(one, target_is_directory=True)
    assert len(get_data_set("pets").load("train")) == 7


def test_linked_images_are_read(root, tmp_path):
    write_folder(tmp_path / "store")
    root.mkdir(parents=True)
    for split in ("train", "test"):
        (root / split).symlink_to(tmp_path / "store" / split, target_is_directory=True)
    assert len(get_data_set("pets").load("train")) == 6


def test_link_to_nothing_is_named(root):
    write_folder(root)
    (root / "train" / "cat" / "gone.png").symlink_to(root / "nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png cannot be read"):
        get_data_set("pets").load("train")


def test_class_folder_that_may_not_be_read(root, monkeypatch):
    write_folder(root)
    data_set = get_data_set("pets")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"train/dog cannot be read \(Permission denied\)"):
        data_set.load("train")


def test_more_than_fits_into_memory_is_refused_before_decoding(root, monkeypatch):
    write_folder(root)
    data_set = get_data_set("pets")
    monkeypatch.setattr(_folder, "decode", lambda *_: pytest.fail("decoded"))
    free = type("Memory", (), {"available": 6 * 72 * 5 - 1})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    with pytest.raises(DataError, match=r"GiB of memory for 6 images of shape \(3, 4, 6\)"):
        data_set.load("train")


def test_large_images_are_decoded_by_several_threads_in_order(root):
    for number in range(600):
        pixels = np.full((2, 2), number % 251, np.uint8)
        write_image(root / "train" / "ab"[number % 2] / f"{number:04d}.png", pixels)
    paths = sorted(str(path) for path in root.rglob("*.png"))
    expected = [int(path[-8:-4]) % 251 for path in paths]
    for large in (0, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_decode, "_LARGE_FILE", large)
            values = _decode.decode(paths, (1, 2, 2), paths[0])
        assert values[:, 0, 0, 0].tolist() == expected


def test_decoding_happens_once(root, monkeypatch):
    write_folder(root, each=4)
    first = get_data_set("pets").load("test")
    fingerprints = [get_data_set("pets").fingerprint(split) for split in ("train", "test")]
    SPLITS.clear()
    monkeypatch.setattr(_folder, "decode", lambda *_: pytest.fail("decoded again"))
    assert [get_data_set("pets").fingerprint(s) for s in ("train", "test")] == fingerprints
    again = get_data_set("pets").load("test")
    assert again is not first
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.images, first.images)
    assert torch.equal(again.labels, first.labels)


def test_a_file_changed_behind_its_old_size_and_time_is_noticed(root):
    write_folder(root, suffix=".bmp")
    before = get_data_set("pets").fingerprint("train")
    path = root / "train" / "cat" / "001.bmp"
    old = path.stat()
    content = bytearray(path.read_bytes())
    content[-10] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert path.stat().st_size == old.st_size
    assert get_data_set("pets").fingerprint("train") != before
    assert get_data_set("pets").load("train").fingerprint != before


def test_an_open_set_whose_classes_change_says_so(root):
    write_folder(root)
    data_set = get_data_set("pets")
    write_folder(root, classes=("emu",))
    with pytest.raises(DataError, match="now holds other classes or image sizes; open it again"):
        data_set.load("train")
    assert get_data_set("pets").classes == ("cat", "dog", "emu")


def test_set_describes_itself(root):
    write_folder(root)
    data_set = ImageFolderSet(root)
    assert data_set.name == data_set.title == "pets"
    assert data_set.source == str(root)
    assert data_set.num_classes == 2
    assert data_set.is_available()
    assert not data_set.can_download
    with pytest.raises(DataError, match="'pets' cannot be downloaded"):
        data_set.download()
    shutil.rmtree(root)
    assert not data_set.is_available()
    with pytest.raises(DataError, match="pets cannot be read"):
        data_set.load("test")


def test_real_photographs_are_what_torchvision_reads(tmp_path, monkeypatch):
    folder = os.environ.get("FKD_TEST_IMAGE_FOLDER")
    if not folder:
        pytest.skip("needs FKD_TEST_IMAGE_FOLDER with train and test folders")
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import to_tensor

    data_set = ImageFolderSet(tmp_path.__class__(folder))
    theirs = ImageFolder(f"{folder}/test")
    ours = data_set.load("test")
    assert ours.labels.tolist() == theirs.targets
    for index in range(0, len(theirs), max(1, len(theirs) // 500)):
        assert torch.equal(ours.images[index], to_tensor(theirs[index][0]))
