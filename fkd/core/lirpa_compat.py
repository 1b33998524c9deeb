"""Lets auto_LiRPA 0.3 (the release that can be installed by name) run on today's torch and numpy.

Release 0.3 imports a handful of names that torch and numpy have dropped since 2022.  They are put back
before the first import; with the 0.7 line installed nothing is touched.  Everything that uses
auto_LiRPA gets it from `load_auto_lirpa`, so this module is the only place that knows.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import io
import logging
import re
import sys
import types
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch


def lirpa_version() -> tuple[int, ...]:
    """The installed auto_LiRPA's release, (0, 7, 1) say; empty where it says nothing that can be read.

    Only the leading numbers count: ``0.7rc1``, ``v0.7+cu126`` and ``0.7.dev3`` are all (0, 7).  An empty
    tuple is below every release, so what is unknown is treated like the oldest.
    """
    try:
        text = importlib.metadata.version("auto_LiRPA")
    except importlib.metadata.PackageNotFoundError:
        return ()
    # Damaged metadata gives None.
    found = re.match(r"\s*v?(?:\d+!)?(\d+(?:\.\d+)*)", text or "")
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def has_alpha_crown() -> bool:
    """Whether the installed release's alpha-CROWN is used: from 0.7 on.

    Release 0.3 has the method, but it fails on max pooling, on convolutions of leaky ReLUs and where
    nearly all units of a layer are open.  Since torch 2.14 it optimises nothing at all: its slopes start
    at the ends of a clamp in TorchScript, which has no gradient there any more.
    """
    return lirpa_version() >= (0, 7)


def _needs_patches() -> bool:
    return lirpa_version() < (0, 5)


def _onnx_globals() -> Any:
    """torch's TorchScript-exporter settings, which moved between torch 2.11 and 2.14."""
    for name in ("torch.onnx._internal.torchscript_exporter._globals", "torch.onnx._globals"):
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name).GLOBALS
    raise ImportError("This torch keeps its ONNX settings in a place fkd does not know.")


def _patch_before_import() -> None:
    import torch.onnx.symbolic_helper as symbolic_helper

    if "numpy.lib.arraysetops" not in sys.modules:
        arraysetops = types.ModuleType("numpy.lib.arraysetops")
        arraysetops.isin = np.isin  # type: ignore[attr-defined]
        sys.modules["numpy.lib.arraysetops"] = arraysetops
    if not hasattr(np, "bool"):
        np.bool = np.bool_
    if not hasattr(symbolic_helper, "_set_opset_version"):

        def set_opset_version(version: int) -> None:
            _onnx_globals().export_onnx_opset_version = version

        symbolic_helper._set_opset_version = set_opset_version
    if not hasattr(torch._C.Node, "__getitem__"):
        torch._C.Node.__getitem__ = lambda node, key: symbolic_helper._node_get(node, key)


def _patch_after_import(lirpa: ModuleType) -> None:
    bounded_module = lirpa.BoundedModule
    original = bounded_module._named_members

    @functools.wraps(original)
    def named_members(
        self: Any, get_members_fn: Any, prefix: str = "", recurse: bool = True, **_ignored: Any
    ) -> Any:
        # torch passes remove_duplicate since 2.0; release 0.3 always removes duplicates.
        return original(self, get_members_fn, prefix, recurse)

    bounded_module._named_members = named_members


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Undo what importing auto_LiRPA does to the process.

    Warning filters, root logger, prints, and a recursion limit of a million: with that, a deeply nested
    JSON file (a stranger's model card) ends the process instead of raising RecursionError.
    """
    recursion_limit = sys.getrecursionlimit()
    root, noisy = logging.getLogger(), logging.getLogger("torch.utils.cpp_extension")
    handlers, level, noisy_level = root.handlers[:], root.level, noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        # Recording, since the package sets filters of its own in the middle of its import.
        with warnings.catch_warnings(record=True), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.setrecursionlimit(recursion_limit)
        noisy.setLevel(noisy_level)
        root.handlers[:] = handlers
        root.setLevel(level)


@functools.cache
def load_auto_lirpa() -> ModuleType:
    """auto_LiRPA, importable on the installed torch and numpy whatever its release."""
    with _quiet():
        if _needs_patches():
            _patch_before_import()
        import auto_LiRPA

        if _needs_patches():
            _patch_after_import(auto_LiRPA)
    return auto_LiRPA
