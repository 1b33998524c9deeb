"""Text out: results on stdout, all else on stderr, tables in columns, files whole or not at all."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fkd.core.disk import write_advice
from fkd.core.errors import StoreError


def say(text: str = "") -> None:
    """One result line on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """One line about what went wrong, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def number(value: Any, digits: int = 4) -> str:
    """A figure for a table: rounded, and a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.{digits}f}" if digits and abs(value) < 1e6 else f"{value:g}"
    return str(value)


def gap(value: float | None, *, is_bound: bool = False) -> str:
    """A confidence gap: one reached is rounded down, an upper bound is rounded up."""
    from fkd.evaluation import bound_text, reached_text

    if value is None or math.isnan(value):
        return "-"
    return bound_text(value) if is_bound else reached_text(value)


def bound(value: float | None) -> str:
    """An upper bound of a confidence gap, rounded up."""
    return gap(value, is_bound=True)


def percent(value: float | None) -> str:
    """A share in [0, 1] as a percentage."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f} %"


def format_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows in aligned columns under their headings; columns of numbers are aligned right.

    Args:
        rows: all with the same keys, which become the headings.
    """
    if not rows:
        return ""
    names = list(rows[0])
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in names]
    is_right = [
        all(row[name][:1].isdigit() or row[name][:1] in "-" for row in rows) for name in names
    ]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, is_right, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(names), *(line([row[name] for name in names]) for row in rows)])


def check_out(path: Path, suffixes: Sequence[str]) -> Path:
    """The path itself if a file can be written there, found out before long work.

    Raises:
        StoreError: another suffix, a folder in its place, or a folder that cannot be written.
    """
    from fkd.records import ensure_writable

    if path.suffix not in suffixes:
        raise StoreError(
            f"--out must end in {' or '.join(suffixes)}, got '{path}'; change the file's name."
        )
    if path.is_dir():
        raise StoreError(f"--out names the folder '{path}'; give a file's name.")
    ensure_writable(path.absolute().parent, 2**20, f"'{path.name}'")
    return path


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place.

    Raises:
        StoreError: the file cannot be written; what was there is untouched.
    """
    temporary: Path | None = None
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            f"'{path}' could not be written ({error.strerror or error}); "
            f"{write_advice(error, path.parent)}. Nothing was changed there."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
