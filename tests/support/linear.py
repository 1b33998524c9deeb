"""Linear networks on two pixels, small enough to say by hand where they differ most."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fkd.core.paths import data_dir, models_dir
from fkd.models import ModelCard, build, save_model

#: Each pixel of every image, as data sets read it.
MIDDLE = float(np.float32(128 / 255))


def save_linear_pairs() -> dict[str, object]:
    """Save a set of two grey pixels, labels 0 and 1 in turn, a teacher and its students; what names them.

    The teacher says 0 everywhere near (0.5, 0.5); each student looks at one pixel alone.
    """
    data_dir().mkdir(parents=True, exist_ok=True)
    images = np.full((1, 1, 2), 127.5).round().astype(np.uint8)
    parts = {
        f"{part}_{what}": value
        for part in ("train", "test")
        for what, value in (("images", images.repeat(4, 0)), ("labels", np.array([0, 1, 0, 1])))
    }
    np.savez(data_dir() / "two.npz", **parts)
    _save("flat", "teacher", (0.0, 0.0), 1.0, 1.0)
    _save("first", "student", (1.0, 0.0), 10.0, 6.0)
    _save("second", "student", (0.0, 1.0), 10.0, 6.0)
    _save("twin", "student", (1.0, 0.0), 20.0, 12.0)
    return {"dataset": "two", "teacher": "flat", "epsilon": 0.2, "count": 1}


def _save(
    name: str, role: str, pixels: tuple[float, float], steepness: float, offset: float
) -> None:
    """Log-odds of class 1 against class 0: ``steepness * (pixels . (a, b)) - offset``.

    The hidden unit is a sum of pixels, so its ReLU is idle and the network is linear.
    """
    network = build(
        "mlp", {"hidden": (1,)}, image_shape=(1, 1, 2), num_classes=2, mean=[0.0], std=[1.0]
    )
    hidden, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        hidden.weight.copy_(torch.tensor([pixels]))
        hidden.bias.zero_()
        last.weight.copy_(torch.tensor([[0.0], [steepness]]))
        last.bias.copy_(torch.tensor([0.0, -offset]))
    card = ModelCard(
        name=name,
        role=role,
        dataset="two",
        method="standard",
        architecture="mlp",
        architecture_config={"hidden": [1]},
        image_shape=(1, 1, 2),
        num_classes=2,
        mean=(0.0,),
        std=(1.0,),
        weights_sha256="",
    )
    save_model(models_dir() / name, network, card)
