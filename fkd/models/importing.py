"""Bringing one's own model: a safetensors or ONNX file becomes a model folder with a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fkd.core.config import Config
from fkd.core.errors import CheckpointError, ConfigError
from fkd.core.paths import models_dir
from fkd.core.versions import package_versions
from fkd.models._folders import check_name
from fkd.models._weights import parse_weights, read_bytes
from fkd.models.card import ModelCard, Role
from fkd.models.checkpoint import (
    Model,
    check_new_model,
    network_from_weights,
    save_model,
    save_onnx,
)
from fkd.models.onnx_models import network_from_onnx


def import_model(
    file: str | Path,
    *,
    name: str,
    dataset: str,
    role: Role,
    image_shape: tuple[int, int, int],
    num_classes: int,
    architecture: str | None = None,
    architecture_config: Mapping[str, Any] | Config | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    overwrite: bool = False,
) -> Model:
    """Copy a model into the user's folder, checked, with a card of its own.

    Args:
        file: ``.safetensors`` weights (names as `fkd.models.weight_shapes` gives them, with or without
            the leading ``body.``; floats of any precision) or an ``.onnx`` model.
        name: the model's new name.
        dataset: name of the data set it classifies.
        role: ``"teacher"`` or ``"student"``.
        image_shape: (C, H, W).
        num_classes: K.
        architecture: registry name, needed for ``.safetensors`` and refused for ``.onnx``.
        architecture_config: its settings; None takes the defaults.
        mean: per-channel mean that the model wants taken off images in [0, 1]; None for none.
        std: per-channel divisor, like ``mean``.
        overwrite: replace a model of the same name.

    Raises:
        ConfigError: an unusable or taken name, or values that do not fit the file.
        CheckpointError: the file is absent, damaged, a pickle, or does not fit the architecture.
        UnsupportedModelError: an ONNX graph that cannot be used.
    """
    path = Path(file).expanduser()
    folder = models_dir() / check_name(name)
    check_new_model(
        folder,
        overwrite=overwrite,
        remedy="choose another name, or replace that one with overwrite (on the command line: "
        "--overwrite)",
    )
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", ".onnx"):
        raise ConfigError(
            f"A model must be a .safetensors or .onnx file, got '{path.name}'; convert it first "
            "(safetensors.torch.save_file or torch.onnx.export)."
        )
    if suffix == ".onnx" and architecture not in (None, "onnx"):
        raise ConfigError(
            f"An ONNX file brings its own architecture; leave out architecture='{architecture}'."
        )
    if suffix == ".safetensors" and architecture is None:
        raise ConfigError(
            "Weights in a .safetensors file need the name of their architecture; give architecture."
        )
    config = (
        architecture_config.model_dump(mode="json")
        if isinstance(architecture_config, Config)
        else dict(architecture_config or {})
    )
    card = ModelCard.parse(
        name=name,
        role=role,
        dataset=dataset,
        method="imported",
        training_config={"imported_from": path.name},
        architecture="onnx" if suffix == ".onnx" else architecture,
        architecture_config=config,
        image_shape=tuple(image_shape),
        num_classes=num_classes,
        mean=tuple(mean or ()),
        std=tuple(std or ()),
        versions=package_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if suffix == ".onnx":
        return _import_onnx(path, folder, card, overwrite=overwrite)
    weights = parse_weights(read_bytes(path, "weights file"), path.name)
    if any(key.startswith("body.") for key in weights):
        network = network_from_weights(card, weights, path.name)
    else:
        inner = {f"body.{key}": value for key, value in weights.items()}
        try:
            network = network_from_weights(card, inner, path.name)
        except CheckpointError as error:
            # In the file's own names.
            raise CheckpointError(str(error).replace("'body.", "'")) from None
    return save_model(folder, network, card, overwrite=overwrite)


def _import_onnx(path: Path, folder: Path, card: ModelCard, *, overwrite: bool) -> Model:
    network, content = network_from_onnx(
        read_bytes(path, "ONNX file"),
        image_shape=card.image_shape,
        num_classes=card.num_classes,
        mean=card.mean,
        std=card.std,
        shown=path.name,
        folder=path.resolve().parent,
    )
    return save_onnx(folder, network, content, card, overwrite=overwrite)
