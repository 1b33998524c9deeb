"""Shared fixtures: every test keeps to folders of its own, and small pairs of networks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fkd.core.memory import keep_freed_memory

# Captured before any test moves it: tests on real data are skipped where there is none.
REAL_DATA_DIR = os.environ.get("FKD_DATA_DIR", "").strip()

torch.set_num_threads(2)
keep_freed_memory()


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point fkd's folders into the test's temporary folder."""
    monkeypatch.setenv("FKD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FKD_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def real_data_dir(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The developer's real data sets; skips where there are none."""
    if not REAL_DATA_DIR or not (Path(REAL_DATA_DIR) / "MNIST").is_dir():
        pytest.skip("needs FKD_DATA_DIR with MNIST")
    monkeypatch.setenv("FKD_DATA_DIR", REAL_DATA_DIR)
    return Path(REAL_DATA_DIR)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: begun last, one of them would run on alone at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
