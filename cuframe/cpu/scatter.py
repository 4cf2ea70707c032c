"""Adding values at positions that may repeat, in NumPy: the backward pass of indexing.

Note [Adding at repeated positions]
    `np.add.at` is slow but for 1-d operands of one dtype. Whole rows are added several times faster as a product with
    a sparse 0/1 matrix whose column j says where row j goes (2,048 rows of 64 into 128: 3.0 ms as `np.add.at`, 0.8 as
    1-d `np.add.at`, 0.13 so). All three add in the order of the values, so the bits agree and never vary.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["add_at", "sum_at"]

_FEW = 4096  # values below which building the sparse matrix costs more than it saves
_SUMS = {"float16": np.float32, "bfloat16": np.float32}


def _rows(shape: tuple, index: Any) -> tuple[np.ndarray, int] | None:
    """Flat row numbers of an index into an array of `shape`, seen as rows, and the rows' length.

    None where the index arrays do not stand side by side.
    """
    items = index if isinstance(index, tuple) else (index,)
    expanded: list[Any] = []
    for item in items:
        if isinstance(item, slice):
            expanded.append(item)
        elif isinstance(item, np.ndarray) and item.dtype.kind == "b":
            expanded += item.nonzero()
        else:
            expanded.append(np.asarray(item))
    first = 0
    while isinstance(expanded[first], slice):
        if expanded[first] != slice(None):
            return None
        first += 1
    last = len(expanded)
    if any(isinstance(e, slice) for e in expanded[first:]):
        return None
    flat: Any = 0
    for e, size in zip(expanded[first:], shape[first:last]):
        flat = flat * size + np.where(e < 0, e + size, e)
    flat = flat.reshape(-1)
    if first:
        block = math.prod(shape[first:last])
        flat = (np.arange(math.prod(shape[:first]))[:, None] * block + flat).reshape(-1)
    return flat, math.prod(shape[last:])


def sum_at(shape: tuple, index: Any, values: np.ndarray) -> np.ndarray:
    """Zeros of `shape` with `values` added at `index`, in order; half precision is summed in float32.

    Args:
        shape: of the result.
        index: an int array, a bool mask, or a tuple of these and full slices.
        values: array of the indexed shape.
    """
    wide = _SUMS.get(values.dtype.name, values.dtype)
    if values.dtype != wide:
        return sum_at(shape, index, values.astype(wide)).astype(values.dtype)
    found = _rows(shape, index)
    if found is None:
        out = np.zeros(shape, wide)
        np.add.at(out, index, values)
        return out
    flat, length = found
    count = math.prod(shape)
    if length == 1 or values.size < _FEW or values.dtype.kind != "f":
        out = np.zeros(count, wide)
        if length != 1:
            flat = (flat[:, None] * length + np.arange(length)).reshape(-1)
        np.add.at(out, flat, values.reshape(-1))
        return out.reshape(shape)
    from scipy.sparse import csc_array  # costs 0.1 s, so not before it is needed

    n = flat.size
    where = csc_array((np.ones(n, wide), flat, np.arange(n + 1)), shape=(count // length, n))
    return (where @ values.reshape(n, length)).reshape(shape)


def add_at(target: np.ndarray, index: Any, values: Any) -> None:
    """`target[index] += values`, adding again where an index repeats."""
    if isinstance(values, np.ndarray) and values.size >= _FEW and values.dtype == target.dtype:
        target += sum_at(target.shape, index, values)
    else:
        np.add.at(target, index, values)
