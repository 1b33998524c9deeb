"""adv_lib, imported when an attack runs, and in one place.

The library holds its authors' Auto-PGD and FAB, adapted from the AutoAttack paper's own code.  It
imports visdom, a plotting server with a web server below it, at its top and uses it only where asked for
plots, so visdom is not among this project's requirements: an empty module stands in for the import.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
import types
import warnings
from types import ModuleType

from fkd.core.errors import ConfigError


def check_library() -> None:
    """Refuse to begin what the library is needed for; at once, since importing it takes seconds.

    Raises:
        ConfigError: the library is not installed.
    """
    if importlib.util.find_spec("adv_lib") is None:
        raise ConfigError(
            "AutoAttack needs the package adv-lib, which is not installed; run 'make run' once more, or "
            "'pip install --no-deps adv-lib'."
        )


@functools.cache
def load_attacks() -> ModuleType:
    """The module ``adv_lib.attacks``.

    Raises:
        ConfigError: the library is not installed.
    """
    check_library()
    is_stand_in = "visdom" not in sys.modules and importlib.util.find_spec("visdom") is None
    if is_stand_in:
        sys.modules["visdom"] = types.ModuleType("visdom")
    try:
        with warnings.catch_warnings():
            # It compares versions of torch by distutils.
            warnings.simplefilter("ignore")
            return importlib.import_module("adv_lib.attacks")
    finally:
        if is_stand_in:
            del sys.modules["visdom"]


def library_version() -> str:
    """The installed adv_lib's version; ``absent`` where it is not installed."""
    try:
        return importlib.metadata.version("adv-lib")
    except importlib.metadata.PackageNotFoundError:
        return "absent"
