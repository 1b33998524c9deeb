"""How many sets are bounded at once: as many as fit into a share of the memory that is free now."""

from __future__ import annotations

import psutil
import torch

#: Share of the free memory that one call may take, and the most it ever takes (bytes).
_SHARE, _MOST = 0.25, 4 * 2**30


def fitting(bytes_per_example: int, device: torch.device, *, largest: int) -> int:
    """Examples that fit at once, between 1 and ``largest``."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    return max(1, min(largest, int(min(_SHARE * free, _MOST) / max(1, bytes_per_example))))
