"""Model folders on disk: their cards, their names, and writing one so that it is whole or absent."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fkd.core.disk import write_advice
from fkd.core.errors import CheckpointError, ConfigError
from fkd.models.card import CARD_VERSION, ModelCard

CARD_FILE = "card.json"
WEIGHTS_FILE = "model.safetensors"
ONNX_FILE = "model.onnx"

#: Ending of the folders in which training keeps its checkpoints.
PARTIAL_SUFFIX = ".partial"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9_-])?")
#: Cards hold a line per epoch; anything beyond this is no card.
_MAX_CARD_BYTES = 16 * 1024 * 1024


def check_name(name: str) -> str:
    """The name itself if it can be a model's (and so a folder's) name.

    Raises:
        ConfigError: it is empty, too long, or has characters other than letters, digits and ``._-``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith(PARTIAL_SUFFIX):
        raise ConfigError(
            f"A model cannot be called {name!r}; use up to 80 letters, digits, '.', '_' and '-', "
            f"starting with a letter or digit and not ending in '.' or '{PARTIAL_SUFFIX}'."
        )
    return name


def is_name(text: str) -> bool:
    """Whether ``text`` could be a model's name (it may still be a folder in the working directory)."""
    return bool(_NAME.fullmatch(text)) and not text.endswith(PARTIAL_SUFFIX)


def parse_card(path: Path) -> ModelCard:
    """The model card in ``path``, under its folder's name.

    A folder may be renamed or copied, so the folder's name counts, not the one written inside.

    Raises:
        CheckpointError: absent, damaged, written by a newer version, or with unusable values.
    """
    shown = f"The model card {path}"
    try:
        if path.stat().st_size > _MAX_CARD_BYTES:
            raise CheckpointError(f"{shown} is larger than 16 MB; restore the original card.")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"There is no model card {path}; a model folder needs {CARD_FILE} beside its weights."
        ) from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{shown} is no valid JSON ({str(error).splitlines()[0]}); restore the original card."
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"{shown} cannot be read ({error.strerror or error}); check the file."
        ) from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{shown} holds no JSON object; restore the original card.")
    version = values.get("schema_version", CARD_VERSION)
    if isinstance(version, int) and version > CARD_VERSION:
        raise CheckpointError(
            f"{shown} has version {version}, this fkd reads up to {CARD_VERSION}; update fkd."
        )
    try:
        return ModelCard(**{**values, "name": _folder_name(path.parent)})
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{shown} is not usable: {error}") from None


def _folder_name(folder: Path) -> str:
    """The name a folder is found under: a link's own name, not that of what it points to."""
    if folder.name in ("", ".."):
        return folder.resolve().name
    return folder.name


def weights_path(folder: Path) -> Path:
    """The folder's weights file.

    Raises:
        CheckpointError: there is none, or both kinds are there.
    """
    present = [folder / name for name in (WEIGHTS_FILE, ONNX_FILE) if (folder / name).is_file()]
    if len(present) == 1:
        return present[0]
    problem = "has both" if present else "has neither"
    raise CheckpointError(
        f"The model folder {folder} {problem} {WEIGHTS_FILE} {'and' if present else 'nor'} "
        f"{ONNX_FILE}; exactly one of them must be there."
    )


def card_text(card: ModelCard) -> str:
    """The card as JSON, one field per line."""
    values: dict[str, Any] = card.model_dump(mode="json")
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_folder(folder: Path, files: Mapping[str, bytes], *, overwrite: bool) -> None:
    """Put ``files`` into ``folder`` so that readers see the old folder or the whole new one.

    Everything is written to a hidden folder beside it, flushed to disk, and renamed.

    Raises:
        ConfigError: the folder exists and ``overwrite`` is False.
        CheckpointError: writing failed (disk full, no permission); nothing is left behind.
    """
    if folder.exists() and not overwrite:
        raise ConfigError(
            f"There is already a model called '{folder.name}' in {folder.parent}; "
            "choose another name or delete that one first."
        )
    token = uuid.uuid4().hex[:12]
    fresh = folder.parent / f".{folder.name}.new-{token}"
    replaced = folder.parent / f".{folder.name}.old-{token}"
    try:
        fresh.mkdir(parents=True)
        for name, content in files.items():
            _write_file(fresh / name, content)
        _swap(fresh, folder, replaced)
    except OSError as error:
        raise CheckpointError(
            f"The model could not be written to {folder} ({error.strerror or error}); "
            f"{write_advice(error, folder)}, then try again."
        ) from None
    finally:
        _remove(fresh)
        _remove(replaced)


def _remove(path: Path) -> None:
    """Delete a folder, or the file or link that stood in its place, if it is there."""
    if path.is_symlink() or path.is_file():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _write_file(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _swap(fresh: Path, folder: Path, replaced: Path) -> None:
    if not folder.exists():
        # rename refuses a folder that another process has filled in the meantime.
        fresh.rename(folder)
        return
    folder.rename(replaced)
    try:
        fresh.rename(folder)
    except OSError:
        with contextlib.suppress(OSError):
            replaced.rename(folder)
        raise
