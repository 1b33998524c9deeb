"""Content hashes: what makes results findable and stale ones impossible."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

#: Hex digits kept where a hash is a key or shown to people; 20 digits are 80 bits.
KEY_DIGITS = 20


def hash_json(value: Any) -> str:
    """SHA-256 (hex, 64 digits) of a JSON-serialisable value, independent of key order.

    Raises:
        TypeError: the value holds something JSON cannot express.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_arrays(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 (hex) of arrays with their shapes and dtypes, so reshaping changes the hash."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def short(digest: str) -> str:
    """The first `KEY_DIGITS` digits, for keys and file names."""
    return digest[:KEY_DIGITS]
