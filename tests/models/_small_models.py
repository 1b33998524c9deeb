"""Cards and folders of tiny networks, made in the test's own folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from fkd.core.paths import models_dir
from fkd.models import Model, ModelCard, Network, build, save_model

SHAPE = (1, 4, 4)
CLASSES = 3
FACTS = {
    "name": "tiny",
    "role": "teacher",
    "dataset": "digits",
    "method": "standard",
    "architecture": "mlp",
    "architecture_config": {"hidden": [5]},
    "image_shape": SHAPE,
    "num_classes": CLASSES,
    "mean": (0.3,),
    "std": (0.4,),
}


def make_card(**facts: object) -> ModelCard:
    return ModelCard(**{**FACTS, **facts})


def make_tiny(card: ModelCard | None = None, seed: int = 0) -> Network:
    card = card or make_card()
    return build(
        card.architecture,
        card.architecture_config,
        image_shape=card.image_shape,
        num_classes=card.num_classes,
        mean=card.mean,
        std=card.std,
        seed=seed,
    )


def save_tiny(
    name: str = "tiny", *, parent: Path | None = None, weights: int = 0, **facts
) -> Model:
    """A saved model, in the user's folder unless ``parent`` says otherwise."""
    card = make_card(**facts)
    return save_model((parent or models_dir()) / name, make_tiny(card, weights), card)


def change_card(folder: Path, **facts: object) -> None:
    """Alter values of a folder's card; None takes a value out."""
    path = folder / "card.json"
    values = {**json.loads(path.read_text()), **facts}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def some_images(count: int = 4, shape: tuple[int, int, int] = SHAPE) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
