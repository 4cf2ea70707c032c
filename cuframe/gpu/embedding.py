"""Looking rows up, and adding rows to a table in an order that never varies: `kernels/embedding.cu`.

Nothing waits for the device, so an index out of range cannot raise: looking it up gives NaN, its gradient is dropped,
and no memory outside the table is read or written.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cuframe.backend.base import backend_of
from cuframe.cuda.launch import Kernel, accumulator, launcher_of
from cuframe.gpu._arrays import FLOATS, dense

__all__ = ["backward", "forward", "sum_at", "sums", "takes"]

_INTEGERS = ("int64", "int32")
_THREADS = 256

_FORWARD = Kernel("embedding.cu", "embedding_forward", (
    "const T* weight[rows, width]", "const I* index[n]", "T* out[n, width]", "int64 n", "int64 rows", "int64 width",
    "bool packs"), types={"T": FLOATS, "I": _INTEGERS})
_KEYS = Kernel("embedding.cu", "segment_keys", (
    "const I* index[n]", "int64* keys[n]", "int64 n", "int64 rows", "int64 padding", "int32 bits", "bool wrap"),
    types={"I": _INTEGERS})
_SUMS = Kernel("embedding.cu", "segment_sums", (
    "const T* values[n, width]", "const int64* keys[n]", "acc_t<T>* partials", "T* out[rows, width]", "int64 n",
    "int64 rows", "int64 width", "int32 bits", "int32 size"), types={"T": FLOATS}, constants={"VEC": (False, True)})
_JOINS = Kernel("embedding.cu", "segment_joins", (
    "T* out[rows, width]", "const acc_t<T>* partials", "const int64* keys[n]", "int64 n", "int64 rows", "int64 width",
    "int32 bits", "int32 size"), types={"T": FLOATS})


def _index(x: Any) -> Any:
    return dense(x if x.dtype.name in _INTEGERS else x.astype(np.int64))


def _packs(width: int, *arrays: Any) -> bool:
    """Whether rows can be moved 16 bytes at a time."""
    address = launcher_of(arrays[0]).address
    return width * arrays[0].dtype.itemsize % 16 == 0 and all(address(a) % 16 == 0 for a in arrays)


def _blocks(threads: int) -> int:
    return -(-threads // _THREADS)


def forward(weight: Any, index: Any) -> Any:
    """`weight[index]` for a matrix; rows of NaN where the index is not in [0, rows)."""
    weight, index = dense(weight), _index(index)
    rows, width = weight.shape
    out = np.empty_like(weight, shape=(*index.shape, width))
    if out.size:
        packs = _packs(width, weight, out)
        threads = index.size * (width // (16 // weight.dtype.itemsize) if packs else width)
        _FORWARD(_blocks(threads), _THREADS, weight, index, out, index.size, rows, width, packs)
    return out


class _Segments:
    """Sorted keys of an index: `kernels/embedding.cu`."""

    def __init__(self, index: Any, rows: int, padding: int | None, wrap: bool) -> None:
        self.n, self.rows, self.bits = index.size, rows, max(index.size - 1, 1).bit_length()
        if (rows + 1) << self.bits >= 2**63:
            raise ValueError(f"sums: {rows} rows and {self.n} entries are more than 63 bits can number")
        self.keys = np.empty_like(index, shape=(self.n,), dtype=np.int64)
        _KEYS(_blocks(self.n), _THREADS, index, self.keys, self.n, rows, -1 if padding is None else padding, self.bits,
              wrap)
        self.keys.sort()
        # a power of two near sqrt(n) / 4
        self.size = max(16, 1 << max(0, (self.n.bit_length() - 5) // 2))

    def sums(self, values: Any) -> Any:
        """The table (rows, width) of `values` (n, width)."""
        width = values.shape[1]
        out = np.zeros_like(values, shape=(self.rows, width))
        if out.size:
            tiles = -(-self.n // self.size)
            wide = accumulator(values.dtype)
            partials = np.empty_like(values, shape=(tiles, 2, width), dtype=wide)
            packs = _packs(width, values, out)
            columns = width // (16 // values.dtype.itemsize) if packs else width
            sizes = self.n, self.rows, width, self.bits, self.size
            _SUMS(_blocks(tiles * columns), _THREADS, values, self.keys, partials, out, *sizes, VEC=packs)
            if tiles > 1:
                _JOINS(_blocks(tiles * width), _THREADS, out, partials, self.keys, *sizes)
        return out


def sums(values: Any, index: Any, rows: int, padding: int | None = None, wrap: bool = False) -> Any:
    """A table (rows, width) of zeros to whose row `index[i]` row i of `values` (n, width) has been added.

    Args:
        values: floating-point, summed in float32 if half precision.
        index: n integers; what is out of range, or equals `padding`, is left out.
        wrap: negative indices count from the end.
    """
    if not values.size:
        return np.zeros_like(values, shape=(rows, values.shape[1]))
    return _Segments(_index(index), rows, padding, wrap).sums(dense(values))


def backward(g: Any, index: Any, rows: int, padding: int | None, by_freq: bool) -> Any:
    """The gradient (rows, width) of the table from that of the rows looked up, `g` (n, width).

    Args:
        padding: a row without gradient.
        by_freq: divide a row's gradient by how often it was looked up.
    """
    if not g.size:
        return np.zeros_like(g, shape=(rows, g.shape[1]))
    segments = _Segments(_index(index), rows, padding, False)
    table = segments.sums(dense(g))
    if by_freq:
        counts = segments.sums(np.ones_like(g, shape=(segments.n, 1), dtype=np.float64))
        table *= (1 / np.maximum(counts, 1)).astype(g.dtype)
    return table


def takes(values: Any) -> bool:
    """Whether `sum_at` adds such values up: integers have atomics, whose order does not matter."""
    return getattr(getattr(values, "dtype", None), "name", None) in FLOATS


def sum_at(shape: tuple, index: Any, values: Any) -> Any:
    """Zeros of `shape` with floating-point `values` added at an index of arrays, bool masks and slices.

    Negative positions count from the end; what lies outside the array is left out.
    """
    places, depth = _places(shape, index)
    count, width = math.prod(shape[:depth]), math.prod(shape[depth:])
    values = np.broadcast_to(values, (*places.shape, *shape[depth:])).reshape(places.size, width)
    return sums(values, places.reshape(-1), count, wrap=True).reshape(shape)


def _places(shape: tuple, index: Any) -> tuple[Any, int]:
    """Flat positions in the first dimensions of an array of `shape`, in the shape that indexing gives, and how many."""
    items: list[Any] = []
    for item in index if isinstance(index, tuple) else (index,):
        items += item.nonzero() if not isinstance(item, slice) and item.dtype.kind == "b" else [item]
    if len(items) == 1:
        return items[0], 1
    arrays = [k for k, item in enumerate(items) if not isinstance(item, slice)]
    xp = backend_of(items[arrays[0]]).xp
    spread = np.broadcast_shapes(*[items[k].shape for k in arrays])
    # index arrays side by side stay in their place, others come first
    beside = arrays == list(range(arrays[0], arrays[-1] + 1))
    ahead = arrays[0] if beside else 0
    ndim = len(items) - len(arrays) + len(spread)
    flat: Any = 0
    axis = 0
    for item, size in zip(items, shape):
        if isinstance(item, slice):
            after = axis + len(spread) if axis >= ahead else axis
            place = xp.arange(*item.indices(size)).reshape((-1,) + (1,) * (ndim - 1 - after))
            axis += 1
        else:
            place = np.where(item < 0, item + size, item)
            place = place.reshape(place.shape + (1,) * (ndim - ahead - len(spread)))
        flat = flat * size + place
    return flat, len(items)
