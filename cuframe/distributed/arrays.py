"""What the backends say of arrays and of ranks alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from .process_group import ProcessGroup

__all__ = ["as_bytes", "check_other", "describe"]


def describe(array: Any) -> str:
    """`float32, 1,024`."""
    return f"{array.dtype.name}, {array.size:,}"


def as_bytes(array: np.ndarray) -> np.ndarray:
    """The memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8)


def check_other(name: str, group: ProcessGroup, peer: int) -> None:
    """Raise for a message from a rank to itself.

    Raises:
        ValueError: it is one.
    """
    if peer == group.rank:
        raise ValueError(f"{name}: rank {group.ranks[peer]} is this rank itself")
