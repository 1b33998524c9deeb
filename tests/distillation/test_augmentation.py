"""Shifts and mirrorings: what is drawn, from what, and what it does."""

import pytest
import torch

from fkd.distillation._augment import augment

IDS = torch.arange(4000)


def marked(count=4000):
    """One bright pixel off the middle, so that every shift and mirroring shows."""
    images = torch.zeros(count, 2, 5, 7)
    images[:, 0, 2, 4] = 1.0
    images[:, 1, 1, 1] = 0.5
    return images


def places(images):
    """Row and column of the bright pixel, (N,) each."""
    flat = images[:, 0].flatten(1).argmax(1)
    return flat // 7, flat % 7


def test_nothing_to_do_returns_the_images():
    images = marked(3)
    assert augment(images, IDS[:3], shift=0, flip=False, seed=0, step=0) is images


@pytest.mark.parametrize("shift", [1, 2])
def test_shifts_take_every_value_equally_often(shift):
    rows, columns = places(augment(marked(), IDS, shift=shift, flip=False, seed=3, step=5))
    for found, centre in ((rows, 2), (columns, 4)):
        values, counts = found.unique(return_counts=True)
        assert values.tolist() == list(range(centre - shift, centre + shift + 1))
        share = counts / len(IDS)
        assert (share - 1 / (2 * shift + 1)).abs().max() < 0.03
    # Rows and columns are drawn apart.
    assert torch.corrcoef(torch.stack([rows.double(), columns.double()]))[0, 1].abs() < 0.05


def test_shifting_moves_all_channels_together_and_brings_in_zeros():
    images = torch.rand(20, 3, 6, 6) + 0.1
    moved = augment(images, IDS[:20], shift=2, flip=False, seed=0, step=0)
    assert moved.shape == images.shape
    assert moved.is_contiguous()
    for image, result in zip(images, moved, strict=True):
        expected = [
            torch.nn.functional.pad(image, (2, 2, 2, 2))[:, r : r + 6, c : c + 6]
            for r in range(5)
            for c in range(5)
        ]
        assert sum(torch.equal(result, candidate) for candidate in expected) == 1


def test_half_of_the_images_are_mirrored_left_and_right():
    images = marked()
    mirrored = augment(images, IDS, shift=0, flip=True, seed=1, step=0)
    is_mirrored = (mirrored == images.flip(-1)).flatten(1).all(1)
    is_same = (mirrored == images).flatten(1).all(1)
    assert (is_mirrored ^ is_same).all()
    assert is_mirrored.float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_draws_depend_on_seed_step_and_example_alone():
    images = marked()
    options = {"shift": 2, "flip": True}
    whole = augment(images, IDS, seed=1, step=2, **options)
    assert torch.equal(whole, augment(images, IDS, seed=1, step=2, **options))
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(0))[:100]
    assert torch.equal(whole[order], augment(images[order], IDS[order], seed=1, step=2, **options))
    for other in (
        augment(images, IDS, seed=2, step=2, **options),
        augment(images, IDS, seed=1, step=3, **options),
        augment(images, IDS + 4000, seed=1, step=2, **options),
    ):
        assert (other != whole).flatten(1).any(1).float().mean() > 0.8
