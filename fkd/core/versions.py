"""Which versions made a result."""

from __future__ import annotations

import functools
import importlib.metadata
import platform

import fkd

_PACKAGES = ("torch", "numpy", "auto_LiRPA")


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("fkd", fkd.__version__), ("python", platform.python_version())]
    for package in _PACKAGES:
        try:
            found.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            found.append((package, "absent"))
    return tuple(found)


def package_versions() -> dict[str, str]:
    """Versions of fkd, Python and the packages that determine numbers."""
    return dict(_versions())
