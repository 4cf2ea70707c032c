"""What modules ask of their arguments: messages that name the module, not the function it calls in the end."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...tensor import Tensor

__all__ = ["check_flag", "check_sizes_of"]


def check_sizes_of(name: str, **sizes: Any) -> None:
    """Raise TypeError unless all are ints, RuntimeError if one is negative."""
    for argument, size in sizes.items():
        if not isinstance(size, (int, np.integer)):
            raise TypeError(f"{name}: {argument} must be an int, got {type(size).__name__}")
        if size < 0:
            raise RuntimeError(f"{name}: {argument} must not be negative, got {size}")


def check_flag(name: str, argument: str, value: Any) -> Any:
    """`value`, unless it is a Tensor: a module that was called as if it were a function."""
    if isinstance(value, Tensor):
        raise TypeError(
            f"{name}: {argument} must be a bool, got Tensor; make the module first, then call it: {name}()(input)"
        )
    return value
