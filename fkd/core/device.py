"""Where tensors live: the GPU where there is one, else the CPU."""

from __future__ import annotations

import torch

from fkd.core.errors import ConfigError


def choose_device(name: str = "auto") -> torch.device:
    """A usable device for ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:0"``.

    Raises:
        ConfigError: the device is unknown or not present.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"There is no device called '{name}'; use auto, cpu or cuda.") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"The device '{name}' is not supported; use auto, cpu or cuda.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("No CUDA device is usable on this machine; use device auto or cpu.")
    return device
