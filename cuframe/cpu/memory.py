"""Freed memory stays with the process.

Note [Memory kept]
    glibc gives large blocks back to the system as soon as they are free, and the next step's arrays then cost a page
    fault for every 4 KiB: a Transformer's training step spent a fifth of its time so. `keep` lets blocks of up to
    32 MiB come from the heap, and the heap keep up to 1 GiB at its end. What a process needs at its peak is the same.
    Whoever has set one of glibc's own variables for this is left alone, and a C library without `mallopt` as well.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep"]

_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h


def keep() -> bool:
    """Let freed memory stay with the process; whether it does.

    >>> from cuframe.cpu import memory
    >>> memory.keep() in (True, False)
    True
    """
    if any(name in os.environ for name in _VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_TRIM, 1 << 30) and mallopt(_MMAP, 1 << 25))
