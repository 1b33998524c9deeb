"""Finding models: the shipped ones, the user's, and folders anywhere."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fkd.core.errors import CheckpointError, ConfigError, FkdError
from fkd.core.paths import models_dir, pretrained_dir
from fkd.core.registry import unknown_name_sentence
from fkd.models._folders import (
    CARD_FILE,
    PARTIAL_SUFFIX,
    check_name,
    is_name,
    parse_card,
    weights_path,
)
from fkd.models.card import ModelCard

if TYPE_CHECKING:
    import torch

    from fkd.models.checkpoint import Model

_WEIGHT_SUFFIXES = (".safetensors", ".onnx")
#: The folder beside the shipped models that holds their analyses (see `fkd.evaluation.store`).
_TABLES = "analyses"


@dataclass(frozen=True)
class _Seen:
    """A folder's card as last read, with what would show that it changed."""

    stamp: tuple[int, ...]
    card: ModelCard | None
    problem: str | None


_seen: dict[Path, _Seen] = {}
_lock = threading.Lock()


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def _look(folder: Path) -> _Seen:
    """The folder's card or what is wrong with it; read again only when it changed."""
    # The folder's own stamp changes when weights are added or taken away.
    stamp = (*_stamp(folder / CARD_FILE), *_stamp(folder))
    with _lock:
        known = _seen.get(folder)
    if known is not None and known.stamp == stamp:
        return known
    try:
        check_name(folder.name)
        card = parse_card(folder / CARD_FILE)
        weights_path(folder)
        fresh = _Seen(stamp, card, None)
    except FkdError as error:
        fresh = _Seen(stamp, None, str(error))
    with _lock:
        _seen[folder] = fresh
    return fresh


def _folders(parent: Path) -> dict[str, Path]:
    """Folders that should be models, by name; hidden ones and checkpoints of training are not."""
    try:
        entries = sorted(parent.iterdir())
    except OSError:
        return {}
    return {entry.name: entry for entry in entries if _may_be_model(entry)}


def _may_be_model(entry: Path) -> bool:
    is_named_so = not entry.name.startswith((".", "__")) and not entry.name.endswith(PARTIAL_SUFFIX)
    return is_named_so and entry.is_dir()


def _named(name: str) -> Path | None:
    """The folder that `_shelves` has under a name, without looking at all others."""
    shipped, users = pretrained_dir() / name, models_dir() / name
    if name != _TABLES and _may_be_model(shipped):
        return shipped
    return users if _may_be_model(users) else None


def _shelves() -> tuple[dict[str, Path], dict[str, Path]]:
    """Shipped folders and the user's, the latter without names the former has."""
    shipped = _folders(pretrained_dir())
    shipped.pop(_TABLES, None)
    users = {name: path for name, path in _folders(models_dir()).items() if name not in shipped}
    return shipped, users


def list_models(dataset: str | None = None, role: str | None = None) -> list[ModelCard]:
    """Cards of all usable models, shipped ones first, each part sorted by name.

    Reads cards only, and each only when it changed.  Damaged folders are left out; see
    `damaged_models`.

    Args:
        dataset: only models trained on this data set.
        role: only ``"teacher"`` or only ``"student"``.
    """
    cards = [_look(folder).card for shelf in _shelves() for folder in shelf.values()]
    return [
        card
        for card in cards
        if card is not None
        and (dataset is None or card.dataset == dataset)
        and (role is None or card.role == role)
    ]


def damaged_models() -> dict[str, str]:
    """Folder names that `list_models` leaves out, each with one sentence saying why."""
    shipped, users = _shelves()
    found = {
        name: problem
        for shelf in (shipped, users)
        for name, folder in shelf.items()
        if (problem := _look(folder).problem) is not None
    }
    for name, folder in _folders(models_dir()).items():
        if name in shipped:
            found[name] = (
                f"The folder {folder} has the name of a model shipped with fkd, which is used in its "
                "place; rename the folder."
            )
    return found


def find_model(reference: str | Path) -> Path:
    """The weights file that a reference means.

    Args:
        reference: a shipped model's name, else a name in the user's folder, else a path to a model
            folder or to a ``.safetensors`` or ``.onnx`` file with ``card.json`` beside it.

    Raises:
        ConfigError: nothing has that name; the nearest name is given.
        CheckpointError: the folder has no weights.
    """
    text = str(reference)
    if isinstance(reference, str) and is_name(text):
        folder = _named(text)
        if folder is not None:
            return weights_path(folder)
    try:
        path = Path(reference).expanduser()
        if path.is_dir() and (path / CARD_FILE).exists():
            return weights_path(path)
        if path.suffix in _WEIGHT_SUFFIXES and path.is_file():
            return path
        is_there = path.exists()
    except (OSError, ValueError, RuntimeError):
        is_there = False
    if is_there:
        raise CheckpointError(
            f"{text} is no model; give a folder with {CARD_FILE} and model.safetensors or "
            f"model.onnx, or such a weights file with {CARD_FILE} beside it."
        )
    names = [card.name for card in list_models()]
    raise ConfigError(unknown_name_sentence("model", text, names))


def read_card(reference: str | Path) -> ModelCard:
    """A model's card, without its weights.

    Raises:
        ConfigError, CheckpointError: as `load_model`.
    """
    folder = find_model(reference).parent
    return _look(folder).card or parse_card(folder / CARD_FILE)


def load_model(reference: str | Path, *, device: str | torch.device = "cpu") -> Model:
    """A model by name or path, in eval mode on ``device``, its weights verified and frozen.

    Args:
        reference: see `find_model`.
        device: ``"cpu"``, ``"cuda"``, ``"auto"`` ...

    Raises:
        ConfigError: nothing has that name, or the device cannot be used.
        CheckpointError: absent, damaged, altered or unsafe files.
        UnsupportedModelError: an ONNX graph with operators that cannot be run.
    """
    # Only weights need torch: cards can be listed long before it is imported.
    from fkd.models.checkpoint import load_file

    return load_file(find_model(reference), device=device)
