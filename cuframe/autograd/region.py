"""A gradient that is zero but for one region: what a slice of an array passes back."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Region"]


class Region:
    """`values` at `index` of an array of zeros of `shape`.

    Backward adds regions of one array into one buffer, so that a loop over `x[t]` costs what it reads, not T times
    the whole of x.
    """

    __slots__ = ("index", "shape", "values")

    def __init__(self, values: Any, shape: tuple[int, ...], index: Any) -> None:
        self.values = values
        self.shape = shape
        self.index = index

    def whole(self) -> Any:
        """The array itself."""
        array = np.zeros_like(self.values, shape=self.shape or (1,)).reshape(self.shape)
        array[self.index] = self.values
        return array

    def add_to(self, array: Any) -> None:
        """Add the region to `array` in place; a basic index names no element twice."""
        array[self.index] += self.values
