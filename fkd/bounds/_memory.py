"""How many sets are bounded at once: as many as fit into a share of the memory that is free now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import psutil
import torch

T = TypeVar("T")

#: Share of the free memory that one call may take, and the most it ever takes (bytes).
_SHARE, _MOST = 0.25, 4 * 2**30


def fitting(bytes_per_example: int, device: torch.device, *, largest: int) -> int:
    """Examples that fit at once, between 1 and ``largest``."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    return max(1, min(largest, int(min(_SHARE * free, _MOST) / max(1, bytes_per_example))))


def in_chunks(count: int, size: int, work: Callable[[slice], T]) -> Iterator[T]:
    """``work`` on consecutive rows of ``count``, ``size`` at a time, halved whenever memory is short.

    Raises:
        MemoryError: a single row does not fit (or torch.OutOfMemoryError).
    """
    start = 0
    while start < count:
        rows = slice(start, min(start + size, count))
        try:
            result = work(rows)
        except (torch.OutOfMemoryError, MemoryError):
            if size == 1:
                raise
            size = max(1, size // 2)
            continue
        yield result
        start = rows.stop
