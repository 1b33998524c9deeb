"""A tiny trained-looking pair on digits, saved as model folders in the test's own folder."""

from __future__ import annotations

import functools

import torch

from fkd.core.paths import models_dir
from fkd.data import load_split
from fkd.models import Model, ModelCard, build, save_model


def fit_linear_readout(
    network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor
) -> None:
    """A few full-batch Adam steps: enough for a network that is usually right, in under a second."""
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@functools.lru_cache(maxsize=32)
def _trained(hidden: tuple[int, ...], seed: int) -> torch.nn.Module:
    """Trained once a process: many tests save the same few networks."""
    split = load_split("digits", "train")
    network = build(
        "mlp",
        {"hidden": hidden},
        image_shape=(1, 8, 8),
        num_classes=10,
        mean=[0.3],
        std=[0.4],
        seed=seed,
    )
    fit_linear_readout(network, split.images, split.labels)
    return network


def save_digits_model(
    name: str, role: str, *, hidden: tuple[int, ...] = (16,), seed: int = 0, **card: object
) -> Model:
    """Train a small MLP on digits and save it into ``models_dir()``."""
    network = _trained(hidden, seed)
    facts = {
        "name": name,
        "role": role,
        "dataset": "digits",
        "method": "standard" if role == "teacher" else "kd",
        "architecture": "mlp",
        "architecture_config": {"hidden": list(hidden)},
        "image_shape": (1, 8, 8),
        "num_classes": 10,
        "mean": (0.3,),
        "std": (0.4,),
        "weights_sha256": "",
        **card,
    }
    return save_model(models_dir() / name, network, ModelCard(**facts))


def save_digits_copy(name: str, teacher: str) -> Model:
    """A model whose card says that it is a rounded copy of its teacher."""
    of_teacher = {"name": teacher, "model_hash": ""}
    return save_digits_model(
        name, "student", hidden=(8,), seed=5, method="quantised", teacher=of_teacher
    )
