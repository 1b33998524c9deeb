"""Networks: architectures, model folders, and finding them by name.

Names are imported when first used, so that lists of models (which only read cards) are there without
waiting for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fkd.models._folders import check_name
    from fkd.models._onnx_weights import alter_onnx
    from fkd.models.base import ARCHITECTURES, Architecture, Network, Normalisation, build
    from fkd.models.card import ModelCard, ParentTeacher
    from fkd.models.checkpoint import (
        Model,
        check_new_model,
        save_model,
        save_onnx,
        weight_shapes,
    )
    from fkd.models.importing import import_model
    from fkd.models.latents import LatentNetwork, latent_vectors
    from fkd.models.onnx_models import network_from_onnx
    from fkd.models.pairs import check_pair
    from fkd.models.zoo import damaged_models, find_model, list_models, load_model, read_card

#: Where each public name lives.
_MODULES = {
    "ARCHITECTURES": "base",
    "Architecture": "base",
    "LatentNetwork": "latents",
    "Model": "checkpoint",
    "ModelCard": "card",
    "Network": "base",
    "Normalisation": "base",
    "ParentTeacher": "card",
    "alter_onnx": "_onnx_weights",
    "build": "base",
    "check_name": "_folders",
    "check_new_model": "checkpoint",
    "check_pair": "pairs",
    "damaged_models": "zoo",
    "find_model": "zoo",
    "import_model": "importing",
    "latent_vectors": "latents",
    "list_models": "zoo",
    "load_model": "zoo",
    "network_from_onnx": "onnx_models",
    "read_card": "zoo",
    "save_model": "checkpoint",
    "save_onnx": "checkpoint",
    "weight_shapes": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fkd.models' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"fkd.models.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "LatentNetwork",
    "Model",
    "ModelCard",
    "Network",
    "Normalisation",
    "ParentTeacher",
    "alter_onnx",
    "build",
    "check_name",
    "check_new_model",
    "check_pair",
    "damaged_models",
    "find_model",
    "import_model",
    "latent_vectors",
    "list_models",
    "load_model",
    "network_from_onnx",
    "read_card",
    "save_model",
    "save_onnx",
    "weight_shapes",
]
