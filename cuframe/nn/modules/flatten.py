"""Dimensions as one, and one as several, as modules between layers."""

from __future__ import annotations

from typing import Any

from ...ops.shape import flatten, unflatten
from ...tensor import Tensor
from ..module import Module

__all__ = ["Flatten", "Unflatten"]


class Flatten(Module):
    """The dimensions from `start_dim` to `end_dim` (included) as one; all but the batch by default.

    Args:
        start_dim, end_dim: the first and the last of them; negative ones count from the end.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Flatten()(cf.zeros(2, 3, 4)).shape
    cuframe.Size([2, 12])
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """One dimension split into several.

    Args:
        dim: the dimension.
        unflattened_size: the sizes, a tuple or list; one of them may be -1.

    Raises:
        TypeError: dim is no int, or the sizes are not all ints.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.Unflatten(1, (3, -1))(cf.zeros(2, 12)).shape
    cuframe.Size([2, 3, 4])
    """

    def __init__(self, dim: int, unflattened_size: Any) -> None:
        super().__init__()
        if not isinstance(dim, int):
            raise TypeError(f"Unflatten: dim must be an int, got {type(dim).__name__}")
        if not isinstance(unflattened_size, (tuple, list)) or not all(isinstance(n, int) for n in unflattened_size):
            raise TypeError(f"Unflatten: unflattened_size must be a tuple of ints, got {unflattened_size!r}")
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        return unflatten(input, self.dim, tuple(self.unflattened_size))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
