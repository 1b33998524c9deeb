"""One sentence for what went wrong, whatever went wrong."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from fkd.core.errors import FkdError


def database_sentence(path: Path, error: Exception) -> str:
    """Why the runs' database could not be read or written, and what to do."""
    text = str(error)
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "disk is full" in text:
        return (
            f"The disk that holds {path.parent} is full, so the run cannot be noted; free some space "
            "and try again."
        )
    if "locked" in text:
        return f"The runs database {path} is kept busy by another process; try again in a moment."
    if isinstance(error, sqlite3.DatabaseError) and (
        "malformed" in text or "not a database" in text or "no such" in text
    ):
        return (
            f"The runs database {path} is damaged ({text}); move it away and a new one is made, "
            "models and results are kept elsewhere."
        )
    return (
        f"The runs folder {path.parent} cannot be written ({text}); "
        "make it writable or set FKD_HOME to a folder that is."
    )


def error_sentence(error: BaseException, log: str) -> str:
    """What a person is told of an error: an `FkdError`'s own sentence, else where to read more.

    Args:
        error: what was raised.
        log: name or path of the log that holds the traceback.
    """
    if isinstance(error, FkdError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"The disk is full ({error.filename or error}); free some space and try again."
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return (
            "The memory did not suffice; choose a smaller batch size or network, or close other "
            f"programs (details in {log})."
        )
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"'{error.filename}' could not be used ({error.strerror or error}); check the path and "
            "its permissions."
        )
    return f"Sorry, something unexpected went wrong; the details are in {log}."
