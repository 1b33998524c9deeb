"""Random numbers that depend on the seed and the example, never on the batch or the device.

A generator's stream depends on how many numbers were drawn before, so an example's random start would
change with the batch size.  Here each number is a hash of (seed, stream, example id, position), after
SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), in int64 arithmetic that wraps alike on CPU and GPU.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from fkd.core.errors import ConfigError

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _signed(value: int) -> int:
    """A 64-bit pattern as the signed integer torch wants."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical (not arithmetic) right shift of int64."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shift_right(value, 30)) * _signed(_MIX_1)
    value = (value ^ _shift_right(value, 27)) * _signed(_MIX_2)
    return value ^ _shift_right(value, 31)


def check_seed(seed: int) -> int:
    """The seed itself if it is a whole number in [0, 2**31).

    Raises:
        ConfigError: it is not.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise ConfigError(f"The seed must be a whole number from 0 to 2147483647, got {seed!r}.")
    return seed


def uniform_noise(example_ids: Tensor, shape: tuple[int, ...], *, seed: int, stream: int) -> Tensor:
    """Uniform numbers in [0, 1), reproducible whatever the batch size, order or device.

    Args:
        example_ids: int64 (N,), stable ids of the examples.
        shape: shape of one example's noise.
        seed: the run's seed.
        stream: which independent draw (restart number, direction ...).

    Returns:
        float32 (N, *shape) on ``example_ids``' device.
    """
    device = example_ids.device
    size = int(np.prod(shape))
    start = _mix(
        torch.tensor(
            _signed(seed * _GOLDEN + stream * _MIX_2 + 1), dtype=torch.int64, device=device
        )
    )
    keys = _mix(example_ids.to(torch.int64) * _signed(_GOLDEN) + start)
    positions = torch.arange(1, size + 1, dtype=torch.int64, device=device) * _signed(_GOLDEN)
    bits = _shift_right(_mix(keys[:, None] + positions[None, :]), 40)  # 24 bits: exact in float32
    return (bits.to(torch.float32) * 2.0**-24).reshape(len(example_ids), *shape)


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, NumPy and torch for a training run and return a seeded CPU generator."""
    check_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)
