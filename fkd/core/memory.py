"""Keeping freed memory: bounds and training allocate the same large blocks over and over."""

from __future__ import annotations

import ctypes
import sys

# glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_BLOCK = 1 << 30
_NEVER = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Let this process keep freed blocks of up to 1 GiB instead of handing them back to the system.

    glibc maps each large tensor afresh, and the system clears its pages anew every time: nearly half of
    an analysis on the CPU (measured on MNIST, 100 images: 31 s without, 17 s with this).  The process
    stays as large as its peak, so this is for commands and runs, which end, not for servers.

    Returns:
        Whether it took effect; other systems and C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
