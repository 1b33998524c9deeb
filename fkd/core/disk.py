"""What to do where something cannot be written: it depends on why."""

from __future__ import annotations

import errno
from pathlib import Path

from fkd.core.paths import home_dir

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_advice(error: OSError, folder: Path) -> str:
    """The half of a sentence that follows a failed write: ``free some space or choose another folder``.

    Args:
        error: what the operating system said.
        folder: where it was to be written.
    """
    if error.errno in _REFUSED:
        first = "make that folder writable"
    elif error.errno in _FULL or "No space left" in str(error):
        # Libraries that write by themselves (Arrow, safetensors) pass on the text and not the number.
        first = "free some space"
    else:
        first = "check that folder"
    return f"{first} or {elsewhere(folder)}"


def elsewhere(folder: Path) -> str:
    """How another folder than this one is chosen."""
    if folder.absolute().is_relative_to(home_dir().absolute()):
        return "set FKD_HOME to another folder"
    return "choose another folder"
