"""Normalisation of many float32 rows as compiled code, where llvmlite is installed.

Note [Compiled normalisation]
    NumPy makes a pass over its block for each operation; the compiled kernels keep what they compute in registers and
    read a row from memory once, or twice out of the first-level cache. Rows are cut into chunks by the shape alone, and
    sums over rows are those of the chunks, added in their order: the result does not depend on the number of threads.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from . import jit, pool

__all__ = ["applies", "apply", "row_moments", "row_sums", "rows_backward", "rows_forward"]

Array = npt.NDArray[Any]

_LEAST = 1 << 14  # numbers for which compiling is worth its time
_THREAD = 1 << 15  # numbers that keep a thread busy for long enough
_CHUNKS = 16
_CHUNK_ROWS = 512  # at most, so that a sum of float32 over rows stays short


def applies(x: Array) -> bool:
    """Whether the functions below serve rows like `x` [R, D]."""
    return x.dtype == np.float32 and x.size >= _LEAST and x.shape[1] >= 8 and jit.available()


@lru_cache(None)
def _kernel(kind: str, *options: bool) -> jit.Kernel:
    from . import norm_ir

    name = "_".join(["norm", kind, *(str(int(o)) for o in options)])
    return jit.load(norm_ir.build(kind, name, jit.lanes(), *options), name)


def _contiguous(a: Array) -> Array:
    return a if a.flags.c_contiguous else np.ascontiguousarray(a)


def _chunk(rows: int) -> int:
    return min(_CHUNK_ROWS, -(-rows // _CHUNKS))


def _run(kernel: jit.Kernel, shape: tuple[int, int], eps: float, *arrays: Array | None) -> None:
    rows, size = shape
    chunk = _chunk(rows)
    numbers = np.array([1 / size, eps], np.float32)
    words = np.array([*map(jit.address, arrays), jit.address(numbers), size, rows, chunk], np.int64)
    pool.run(kernel, words, -(-rows // chunk), max(1, min(jit.cpus(), rows * size // _THREAD)))


def rows_forward(
    x: Array, w: Array | None, b: Array | None, eps: float, centred: bool
) -> tuple[Array, Array | None, Array]:
    """As `norm.rows_forward`."""
    rows, _ = x.shape
    x = _contiguous(x)
    w, b = (None if f is None else _contiguous(f) for f in (w, b))
    out = np.empty_like(x)
    mean = np.empty((rows, 1), x.dtype) if centred else None
    rstd = np.empty((rows, 1), x.dtype)
    kernel = _kernel("forward", centred, w is not None, b is not None)
    _run(kernel, x.shape, eps, x, w, b, out, mean, rstd)
    return out, mean, rstd


def rows_backward(
    g: Array, x: Array, w: Array | None, mean: Array | None, rstd: Array, needs: tuple[bool, bool, bool]
) -> tuple[Array | None, Array | None, Array | None]:
    """As `norm.rows_backward`."""
    rows, size = x.shape
    g, x = _contiguous(g), _contiguous(x)
    w = None if w is None else _contiguous(w)
    gx = np.empty_like(x) if needs[0] else None
    chunks = -(-rows // _chunk(rows))
    gw, gb = (np.zeros((chunks, size), x.dtype) if n else None for n in needs[1:])  # a row for each chunk
    kernel = _kernel("backward", mean is not None, w is not None, *needs)
    _run(kernel, x.shape, 0.0, g, x, w, mean, rstd, gx, gw, gb)
    return gx, None if gw is None else np.add.reduce(gw, 0), None if gb is None else np.add.reduce(gb, 0)


def row_moments(x: Array) -> tuple[Array, Array]:
    """As `norm.row_moments`."""
    x = _contiguous(x)
    mean, squares = np.empty(len(x), x.dtype), np.empty(len(x), x.dtype)
    _run(_kernel("moments"), x.shape, 0.0, x, mean, squares)
    return mean, squares


def row_sums(g: Array, x: Array, shift: Array) -> tuple[Array, Array]:
    """As `norm.row_sums`."""
    g, x, shift = map(_contiguous, (g, x, shift))
    first, second = np.empty(len(x), x.dtype), np.empty(len(x), x.dtype)
    _run(_kernel("sums"), x.shape, 0.0, g, x, shift, first, second)
    return first, second


def apply(terms: list[tuple[Array, Array]], constant: Array | None) -> Array:
    """As `norm.apply`, for one or two terms."""
    arrays = [_contiguous(a) for term in terms for a in term]
    constant = None if constant is None else _contiguous(constant)
    out = np.empty_like(arrays[0])
    kernel = _kernel("apply", len(terms) == 2, constant is not None)
    _run(kernel, out.shape, 0.0, *arrays, *[None] * (4 - len(arrays)), constant, out)
    return out
