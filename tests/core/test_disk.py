"""Advice where something cannot be written fits the cause and the folder."""

import errno
from pathlib import Path

import pytest

from fkd.core.disk import write_advice
from fkd.core.paths import models_dir


@pytest.mark.parametrize(
    ("error", "first"),
    [
        (OSError(errno.EACCES, "Permission denied"), "make that folder writable"),
        (OSError(errno.EROFS, "Read-only file system"), "make that folder writable"),
        (OSError(errno.ENOSPC, "No space left on device"), "free some space"),
        # As Arrow and safetensors pass it on.
        (OSError("IoError: No space left on device (os error 28)"), "free some space"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory"), "check that folder"),
    ],
)
def test_advice_fits_the_cause(error, first):
    assert write_advice(error, Path("/elsewhere")) == f"{first} or choose another folder"
    assert write_advice(error, models_dir() / "new") == f"{first} or set FKD_HOME to another folder"
