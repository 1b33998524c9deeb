"""Handwritten digits of 8x8 pixels, part of scikit-learn: the set that is always there."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np

from fkd.core.errors import DataError
from fkd.data._cached import CachedDataSet
from fkd.data._pixels import Pixels
from fkd.data._registry import DATA_SETS
from fkd.data.base import SplitName

_TEST_EXAMPLES = 500
_SHAPE = (1797, 8, 8)


@DATA_SETS.register("digits")
class Digits(CachedDataSet):
    """1,797 handwritten digits, 8x8 grey; part of scikit-learn, always there.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998 (the test part, which is what scikit-learn holds).  Pixels are whole numbers from 0
    to 16, divided by 16.  That source fixes no split of these images, so this one does: within each
    class the examples are ranked by a hash of their position, and the first of each class, in proportion
    to its size, make 500 test examples; both splits keep the original order.
    """

    title = "Digits 8x8"
    licence = "CC BY 4.0 (UCI); redistributed by scikit-learn, BSD-3-Clause"
    source = "scikit-learn"
    classes = tuple("0123456789")
    image_shape = (1, 8, 8)
    is_embedded = True
    known_fingerprints = {
        "train": "afcc39f3124b6e7fd8ba39289553143a6858b8210319ab868f96acc551d6c33f",
        "test": "d2d69fb35ffba9b48c12ff32008491f2ac9e2aeb0c0e426dfbf71b870c05dc81",
    }

    def is_available(self) -> bool:
        """Always true: the images come with a dependency."""
        return True

    def _place(self) -> str:
        return "scikit-learn"

    def _state(self, split: SplitName) -> str:
        return "installed"

    def _read(self, split: SplitName) -> Pixels:
        images, labels = _read_all()
        is_test = _test_members(labels)
        chosen = np.flatnonzero(is_test if split == "test" else ~is_test)
        return Pixels(images[chosen, None], labels[chosen], scale=16)


def _read_all() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (1797, 8, 8) of values 0 to 16, labels int64 (1797,)."""
    path = _table_path()
    if path is not None:
        # Straight from its table: importing sklearn.datasets takes seconds, reading this does not.
        table = np.loadtxt(path, delimiter=",", dtype=np.int64)
        images, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    else:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images, labels = bunch.images, bunch.target.astype(np.int64)
    if images.shape != _SHAPE:
        raise DataError(
            f"scikit-learn's digits have the shape {images.shape} instead of {_SHAPE}; "
            "reinstall scikit-learn."
        )
    return images.astype(np.uint8), labels


def _table_path() -> Path | None:
    package = importlib.util.find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package else ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    return None


def _test_members(labels: np.ndarray) -> np.ndarray:
    """Which examples are test examples, bool (N,): each class by its share, exactly 500 in all."""
    counts = np.bincount(labels)
    shares = counts * _TEST_EXAMPLES / len(labels)
    quotas = np.floor(shares).astype(int)
    # The largest remainders get what rounding down left over; the class number breaks ties.
    order = np.argsort(-(shares - quotas), kind="stable")
    quotas[order[: _TEST_EXAMPLES - quotas.sum()]] += 1
    is_test = np.zeros(len(labels), dtype=bool)
    for label, quota in enumerate(quotas):
        members = np.flatnonzero(labels == label)
        ranked = sorted(members, key=lambda i: hashlib.sha256(f"digits {i}".encode()).digest())
        is_test[ranked[:quota]] = True
    return is_test
