"""Checkpoints of a running training: tensors as safetensors, everything else as JSON, no pickle."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from fkd.core.disk import write_advice
from fkd.core.errors import CheckpointError, RunError

_FORMAT = 1
_TENSORS = "state.safetensors"
_JSON = "state.json"


@dataclass
class TrainState:
    """Where a training stands beside its weights.

    Attributes:
        spec: the specification as JSON; a checkpoint fits no other.
        teacher_hash: the teacher's `model_hash`, or None.
        data_fingerprint: the train split's.
        step: steps done in the whole run; an epoch of fewer examples counts as a whole one.
        batches: steps of the current epoch; 0 before its first.
        examples: examples seen so far.
        sums: sums of this epoch's logged values so far.
        history: finished epochs.
        seconds: computing time so far.
    """

    spec: dict[str, Any]
    teacher_hash: str | None
    data_fingerprint: str
    step: int = 0
    batches: int = 0
    examples: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict]:
    """The optimiser's state split into tensors and JSON."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for number, entries in optimiser.state_dict()["state"].items():
        values[str(number)] = {}
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{number}.{name}"] = value
            else:
                values[str(number)][name] = value
    return tensors, values


def random_states() -> dict[str, Tensor]:
    """torch's global generators, which dropout in a network would draw from (uint8)."""
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def save_state(
    folder: Path,
    state: TrainState,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    extra: nn.Module | None = None,
    chosen: Tensor | None = None,
) -> None:
    """Replace the checkpoint in ``folder``; the old one stays until the new one is whole.

    Args:
        folder: of the unfinished training.
        state: where the training stands.
        network: its weights are saved.
        optimiser: likewise its state.
        extra: the method's own parameters and buffers.
        chosen: mask of the examples that take part in the current epoch; None for all.

    Raises:
        RunError: the folder cannot be written or the disk is full.
    """
    tensors, values = _optimiser_tensors(optimiser)
    tensors |= {f"network.{name}": value for name, value in network.state_dict().items()}
    if extra is not None:
        tensors |= {f"extra.{name}": value for name, value in extra.state_dict().items()}
    if chosen is not None:
        tensors["chosen"] = chosen
    tensors |= random_states()
    content = save_tensors({name: value.cpu().contiguous() for name, value in tensors.items()})
    text = json.dumps({"format": _FORMAT, **asdict(state), "optimiser": values}, allow_nan=False)
    # Both files are one checkpoint, so they travel in one folder that is moved as a whole.
    fresh = folder / f"new-{uuid.uuid4().hex[:8]}"
    current, old = folder / "checkpoint", folder / "old"
    try:
        fresh.mkdir(parents=True)
        for name, data in ((_TENSORS, content), (_JSON, text.encode())):
            with (fresh / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        # At every moment one whole checkpoint is at one of the two places `read_state` looks at.
        if current.exists():
            shutil.rmtree(old, ignore_errors=True)
            current.replace(old)
        fresh.replace(current)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise RunError(
            f"The training's checkpoint could not be written to {folder} "
            f"({error.strerror or error}); {write_advice(error, folder)}, then resume."
        ) from None


def _place(folder: Path) -> Path | None:
    """Where the checkpoint is; an interruption between `save_state`'s two moves leaves the old one."""
    return next((p for p in (folder / "checkpoint", folder / "old") if p.is_dir()), None)


def has_state(folder: Path) -> bool:
    """Whether `read_state` would find a checkpoint."""
    return _place(folder) is not None


def read_state(folder: Path) -> tuple[TrainState, dict[str, Tensor], dict] | None:
    """The checkpoint in ``folder``: state, tensors and the optimiser's JSON; None if there is none.

    Raises:
        CheckpointError: it is damaged or of another version.
    """
    place = _place(folder)
    if place is None:
        return None
    try:
        values = json.loads((place / _JSON).read_text(encoding="utf-8"))
        tensors = load_tensors((place / _TENSORS).read_bytes())
        if values.pop("format") != _FORMAT:
            raise ValueError("another version wrote it")
        optimiser = values.pop("optimiser")
        return TrainState(**values), tensors, optimiser
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(
            f"The unfinished training in {folder} is damaged ({error}); delete that folder or start "
            "again without resuming."
        ) from None


def restore(
    tensors: dict[str, Tensor],
    values: dict[str, dict[str, Any]],
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    extra: nn.Module | None = None,
) -> Tensor | None:
    """Put a checkpoint's weights, optimiser state and random states back.

    Returns:
        The mask of the examples in the current epoch, on the CPU; None where all take part.

    Raises:
        CheckpointError: they do not fit the network.
    """
    weights = {
        name.removeprefix("network."): value
        for name, value in tensors.items()
        if name.startswith("network.")
    }
    try:
        state: dict[int, dict[str, Any]] = {int(n): dict(entries) for n, entries in values.items()}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, number, entry = name.split(".", 2)
                state[int(number)][entry] = value
        network.load_state_dict(weights)
        if extra is not None:
            kept = {
                n.removeprefix("extra."): v for n, v in tensors.items() if n.startswith("extra.")
            }
            extra.load_state_dict(kept)
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        torch.set_rng_state(tensors["random.cpu"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"The unfinished training does not fit its network ({str(error).splitlines()[0]}); "
            "start again without resuming."
        ) from None
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return tensors.get("chosen")
