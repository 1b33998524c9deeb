"""Folders: shipped models, and the user's own data, models, results and runs.

Each can be moved by an environment variable, so tests and servers keep to their own folders.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def _folder(variable: str, default: Path) -> Path:
    value = os.environ.get(variable, "").strip()
    return Path(value).expanduser() if value else default


def data_dir() -> Path:
    """Data sets (``FKD_DATA_DIR``; default: ``data`` in the user's cache folder)."""
    return _folder("FKD_DATA_DIR", Path(platformdirs.user_cache_dir("fkd")) / "data")


def home_dir() -> Path:
    """The user's models, results and runs (``FKD_HOME``; default: the user's data folder)."""
    return _folder("FKD_HOME", Path(platformdirs.user_data_dir("fkd")))


def models_dir() -> Path:
    """Models the user trained or imported, one folder each."""
    return home_dir() / "models"


def results_dir() -> Path:
    """Analysis tables and witnesses, named by their key."""
    return home_dir() / "results"


def runs_dir() -> Path:
    """State and logs of training, distillation and analysis runs."""
    return home_dir() / "runs"


def pretrained_dir() -> Path:
    """The models shipped with the repository (``FKD_PRETRAINED_DIR`` overrides)."""
    return _folder("FKD_PRETRAINED_DIR", Path(__file__).resolve().parents[2] / "pretrained")
