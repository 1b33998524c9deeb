"""Models as folders: safetensors weights (or ONNX) beside a JSON card, verified at every reading."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fkd.core.device import choose_device
from fkd.core.errors import CheckpointError, ConfigError
from fkd.core.paths import models_dir, pretrained_dir
from fkd.models._folders import (
    CARD_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    card_text,
    check_name,
    parse_card,
    weights_path,
    write_folder,
)
from fkd.models._weights import (
    check_finite,
    dump_weights,
    match_weights,
    parse_weights,
    read_bytes,
)
from fkd.models.base import ARCHITECTURES, Network, build, normalisation
from fkd.models.card import ModelCard
from fkd.models.onnx_models import network_from_onnx


@dataclass(frozen=True, eq=False)
class Model:
    """A network ready to be questioned: eval mode, float32, no gradients to its weights.

    Attributes:
        card: what it is and where it came from.
        network: images (N, C, H, W) in [0, 1] to logits (N, K).
        path: the weights file it was read from.
    """

    card: ModelCard
    network: nn.Module
    path: Path

    @property
    def name(self) -> str:
        """The model's name, which is its folder's name."""
        return self.card.name

    @property
    def role(self) -> str:
        """``"teacher"`` or ``"student"``."""
        return self.card.role

    @property
    def model_hash(self) -> str:
        """Identity of the function computed (hex), see `ModelCard.model_hash`."""
        return self.card.model_hash


def build_from_card(card: ModelCard) -> Network:
    """The card's architecture with random weights; torch's random state is left as it was.

    Raises:
        ConfigError: the architecture is unknown or its settings do not fit.
    """
    return build(
        card.architecture,
        card.architecture_config,
        image_shape=card.image_shape,
        num_classes=card.num_classes,
        mean=card.mean,
        std=card.std,
        seed=0,
    )


def expected_weights(card: ModelCard) -> dict[str, Tensor]:
    """Names, shapes and types of the card's weights, without memory for their values.

    Raises:
        ConfigError: as `build_from_card`.
    """
    with torch.device("meta"):
        return build_from_card(card).state_dict()


def weight_shapes(
    architecture: str,
    config: Mapping[str, Any] | None = None,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that a safetensors file of this architecture must hold.

    Raises:
        ConfigError: an unknown architecture or settings that do not fit.

    Example:
        >>> from fkd.models import weight_shapes
        >>> weight_shapes("mlp", {"hidden": (8,)}, image_shape=(1, 8, 8), num_classes=10)
        {'body.fc1.weight': (8, 64), 'body.fc1.bias': (8,), 'body.logits.weight': (10, 8), \
'body.logits.bias': (10,)}
    """
    with torch.device("meta"):
        network = build(
            architecture,
            config,
            image_shape=image_shape,
            num_classes=num_classes,
            mean=None,
            std=None,
        )
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def save_model(
    folder: Path, network: nn.Module, card: ModelCard, *, overwrite: bool = False
) -> Model:
    """Write ``folder`` with weights and card, whole or not at all, and read it back.

    Args:
        folder: the model's folder; its name becomes the model's name.
        network: built by `fkd.models.build` as the card says.
        card: ``name``, ``weights_sha256`` and ``parameters`` are filled in here.
        overwrite: replace an existing folder.

    Returns:
        The model as read from the disk, on the CPU.

    Raises:
        ConfigError: the name is unusable, taken, or a shipped model's; or the card does not describe
            the network.
        CheckpointError: a weight is not finite, or writing failed; nothing is left behind.
    """
    folder = Path(folder)
    check_new_model(folder, overwrite=overwrite)
    try:
        match_weights(network.state_dict(), expected_weights(card), "The network", describe(card))
    except CheckpointError as error:
        raise ConfigError(f"The model card does not describe the network: {error}") from None
    _check_normalisation(network, card)
    weights = dump_weights(network)
    card = card.model_copy(
        update={
            "name": folder.name,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "parameters": count_parameters(network),
        }
    )
    write_folder(
        folder, {WEIGHTS_FILE: weights, CARD_FILE: card_text(card).encode()}, overwrite=overwrite
    )
    return load_folder(folder)


def save_onnx(
    folder: Path, network: nn.Module, content: bytes, card: ModelCard, *, overwrite: bool = False
) -> Model:
    """Write ``folder`` with an ONNX graph and card, whole or not at all, and read it back.

    Args:
        folder: the model's folder; its name becomes the model's name.
        network: what `fkd.models.onnx_models.network_from_onnx` made of the graph.
        content: the graph it prepared.
        card: ``name``, ``weights_sha256`` and ``parameters`` are filled in here.
        overwrite: replace an existing folder.

    Raises:
        ConfigError: the name is unusable, taken, or a shipped model's.
        CheckpointError: writing failed; nothing is left behind.
    """
    check_new_model(folder, overwrite=overwrite)
    card = card.model_copy(
        update={
            "name": folder.name,
            "weights_sha256": hashlib.sha256(content).hexdigest(),
            "parameters": count_parameters(network),
        }
    )
    files = {ONNX_FILE: content, CARD_FILE: card_text(card).encode()}
    write_folder(folder, files, overwrite=overwrite)
    return load_folder(folder)


def check_new_model(
    folder: Path,
    *,
    overwrite: bool = False,
    remedy: str = "choose another name or delete that one first",
) -> None:
    """Whether a model may be written to ``folder``; ask before a long training, not after it.

    Args:
        folder: of the new model.
        overwrite: whether a model there may be replaced.
        remedy: what to do where the name is taken, for the error's sentence.

    Raises:
        ConfigError: the name is unusable, taken, or a shipped model's.
    """
    check_name(folder.name)
    if folder.exists() and not overwrite:
        raise ConfigError(
            f"There is already a model called '{folder.name}' in {folder.parent}; {remedy}."
        )
    is_users = folder.resolve().parent == models_dir().resolve()
    if is_users and (pretrained_dir() / folder.name / CARD_FILE).is_file():
        raise ConfigError(
            f"'{folder.name}' is the name of a model shipped with fkd; choose another name."
        )


def count_parameters(network: nn.Module) -> int:
    """Number of trainable numbers (batch statistics and normalisation are not trained)."""
    return sum(parameter.numel() for parameter in network.parameters())


def describe(card: ModelCard) -> str:
    """The architecture with its settings and shapes, for error messages."""
    settings = ", ".join(f"{key}={value}" for key, value in card.architecture_config.items())
    shape = "x".join(map(str, card.image_shape))
    return f"{card.architecture}({settings}) for {shape} images and {card.num_classes} classes"


def load_folder(folder: Path, *, device: str | torch.device = "cpu") -> Model:
    """The model in a folder.

    Raises:
        CheckpointError: anything about it is absent, damaged or does not fit together.
        ConfigError: the device cannot be used.
    """
    return load_file(weights_path(folder), device=device)


def load_file(path: Path, *, device: str | torch.device = "cpu") -> Model:
    """The model in a weights file with ``card.json`` beside it.

    Raises:
        CheckpointError, ConfigError, UnsupportedModelError: as `fkd.models.load_model`.
    """
    target = choose_device(str(device))
    card = parse_card(path.parent / CARD_FILE)
    content = read_bytes(path, "weights file")
    # With its folder: every model's file is called the same.
    shown = str(path)
    if path.suffix == ".onnx":
        _check_hash(card, content, path)
        network, _ = network_from_onnx(
            content,
            image_shape=card.image_shape,
            num_classes=card.num_classes,
            mean=card.mean,
            std=card.std,
            shown=shown,
        )
    else:
        # Parsed first: that a file is truncated or a pickle says more than that its hash is another.
        weights = parse_weights(content, shown, is_stored=True)
        _check_hash(card, content, path)
        network = network_from_weights(card, weights, shown)
    return Model(card, freeze(network, target), path)


def _check_hash(card: ModelCard, content: bytes, path: Path) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != card.weights_sha256:
        raise CheckpointError(
            f"The weights in {path} are not those its card speaks of (their SHA-256 starts with "
            f"{found[:12]}, the card says {card.weights_sha256[:12] or 'nothing'}); restore the "
            "original file."
        )


def network_from_weights(card: ModelCard, weights: Mapping[str, Tensor], shown: str) -> Network:
    """The card's network holding ``weights``, float32.

    Raises:
        CheckpointError: a weight is missing, unexpected, misshapen or not finite, or the card's
            architecture is unknown.
    """
    if card.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise CheckpointError(
            f"The card of {shown} names the architecture '{card.architecture}', which fkd does not "
            f"have; known are {known}."
        )
    try:
        # Compared before anything is allocated: a card can ask for any size.
        match_weights(weights, expected_weights(card), shown, describe(card))
        network = build_from_card(card)
    except ConfigError as error:
        raise CheckpointError(f"The card of {shown} is not usable: {error}") from None
    network.load_state_dict(dict(weights), strict=True)
    check_finite(network.state_dict(), shown)
    with torch.no_grad():
        logits = network.eval()(torch.full((1, *card.image_shape), 0.5))
    if not bool(torch.isfinite(logits).all()):
        raise CheckpointError(
            f"{shown} gives NaN or infinite logits for a grey image; train the model again."
        )
    return network


def freeze(network: nn.Module, device: torch.device) -> nn.Module:
    """Eval mode, on ``device``, without gradients to the weights."""
    return network.to(device).eval().requires_grad_(False)


def _check_normalisation(network: nn.Module, card: ModelCard) -> None:
    """The normalisation is rebuilt from the card, so the card must say what the network does."""
    found = getattr(network, "normalisation", nn.Identity())
    held = dict(found.named_buffers())
    wanted = dict(normalisation(card.mean, card.std, card.image_shape[0]).named_buffers())
    is_same = held.keys() == wanted.keys() and all(
        torch.equal(held[name].cpu().float(), wanted[name]) for name in wanted
    )
    if not is_same:
        raise ConfigError(
            "The card's mean and std are not those of the network's normalisation layer; "
            "give the card the values the network was built with."
        )
