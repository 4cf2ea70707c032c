"""Normalisation of many float32 rows as compiled code, where llvmlite is installed.

Note [Compiled normalisation]
    NumPy makes a pass over its block for each operation; the compiled kernels keep what they compute in registers and
    read a row from memory once, or twice out of the first-level cache. Rows are cut into chunks by the shape alone, and
    sums over rows are those of the chunks, added in their order: the result does not depend on the number of threads.

    Statistics of a channel or a group belong to a unit of several rows, of which a thread does all: its moments, and
    then scale and shift of each row while it is in the cache. Where there are too few units for all cores, moments and
    their application are passes over rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from . import jit, pool

__all__ = [
    "applies", "apply", "applies_to_units", "row_moments", "row_sums", "rows_backward", "rows_forward",
    "units_backward", "units_forward",
]  # fmt: skip

Array = npt.NDArray[Any]

_LEAST = 1 << 14  # numbers for which compiling is worth its time
_THREAD = 1 << 15  # numbers that keep a thread busy for long enough
_UNITS = 8  # channels or groups that are enough for all cores
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


def _run(kernel: jit.Kernel, arrays: Any, words: Any, numbers: Any, size: int, things: int, work: int) -> None:
    """A kernel over `things`, rows or units, that have `work` numbers in all."""
    chunk = _chunk(things)
    given = np.array(numbers, np.float32)
    table = np.array([*map(jit.address, arrays), *words, jit.address(given), size, things, chunk], np.int64)
    pool.run(kernel, table, -(-things // chunk), max(1, min(jit.cpus(), work // _THREAD)))


def _over_rows(kernel: jit.Kernel, shape: tuple[int, int], eps: float, *arrays: Array | None) -> None:
    rows, size = shape
    _run(kernel, arrays, (), (1 / size, eps), size, rows, rows * size)


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
    _over_rows(kernel, x.shape, eps, x, w, b, out, mean, rstd)
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
    _over_rows(kernel, x.shape, 0.0, g, x, w, mean, rstd, gx, gw, gb)
    return gx, None if gw is None else np.add.reduce(gw, 0), None if gb is None else np.add.reduce(gb, 0)


def row_moments(x: Array) -> tuple[Array, Array]:
    """As `norm.row_moments`."""
    x = _contiguous(x)
    mean, squares = np.empty(len(x), x.dtype), np.empty(len(x), x.dtype)
    _over_rows(_kernel("moments"), x.shape, 0.0, x, mean, squares)
    return mean, squares


def row_sums(g: Array, x: Array, shift: Array) -> tuple[Array, Array]:
    """As `norm.row_sums`."""
    g, x, shift = map(_contiguous, (g, x, shift))
    first, second = np.empty(len(x), x.dtype), np.empty(len(x), x.dtype)
    _over_rows(_kernel("sums"), x.shape, 0.0, g, x, shift, first, second)
    return first, second


def apply(terms: list[tuple[Array, Array]], constant: Array | None) -> Array:
    """As `norm.apply`, for one or two terms."""
    arrays = [_contiguous(a) for term in terms for a in term]
    constant = None if constant is None else _contiguous(constant)
    out = np.empty_like(arrays[0])
    kernel = _kernel("apply", len(terms) == 2, constant is not None)
    _over_rows(kernel, out.shape, 0.0, *arrays, *[None] * (4 - len(arrays)), constant, out)
    return out


def applies_to_units(x: Array, groups: int) -> bool:
    """Whether the two functions below serve x [N, C, L] with statistics of channels (groups = 0) or of groups."""
    n, c, size = x.shape
    return size > 0 and (n * groups or c) >= _UNITS and applies(x.reshape((n * c, size)))


def _spans(x: Array, groups: int) -> tuple[int, int]:
    """How many spans of memory a unit of x [N, C, L] has, and their length."""
    n, c, size = x.shape
    return (1, c // groups * size) if groups else (n, size)


def _over_units(kernel: jit.Kernel, x: Array, groups: int, eps: float, *arrays: Array | None) -> None:
    n, c, size = x.shape
    spans, span = _spans(x, groups)
    units, unit_step, row_step, count = (n * groups, c // groups, 1, c // groups) if groups else (c, 1, c, n)
    numbers = (1 / size, eps, 1 / span, 1 / spans, 1 / (spans * span))
    _run(kernel, arrays, (c, unit_step, row_step, spans, span, count), numbers, size, units, x.size)


def _factor(f: Array | None, like: Array, default: float) -> Array:
    return np.full(like.shape[1], default, like.dtype) if f is None else _contiguous(f)


def units_forward(
    x: Array, w: Array | None, b: Array | None, groups: int, eps: float
) -> tuple[Array, Array, Array, Array]:
    """As `norm.channels_forward`: a unit is a channel or a group, which is read again while it is in the cache."""
    n, c, _ = x.shape
    x = _contiguous(x)
    out = np.empty_like(x)
    mean, var, rstd = np.empty((3, *((n, groups, 1) if groups else (1, 1, c))), x.dtype)
    of_spans = np.empty((2, mean.size * _spans(x, groups)[0]), x.dtype)
    factors = _factor(w, x, 1), _factor(b, x, 0)
    _over_units(_kernel("unit_forward"), x, groups, eps, x, *factors, out, *of_spans, mean, var, rstd)
    return out, mean, var, rstd


def units_backward(
    g: Array, x: Array, w: Array | None, groups: int, mean: Array, rstd: Array, for_x: bool
) -> tuple[Array, Array, Array | None]:
    """Of each row (n, c) sum g and sum g (x - mean), both [N * C]; and the gradient of x, if asked for."""
    g, x = _contiguous(g), _contiguous(x)
    gx = np.empty_like(x) if for_x else None
    first, second = np.empty((2, x.shape[0] * x.shape[1]), x.dtype)
    factor = _factor(w, x, 1)
    _over_units(_kernel("unit_backward", for_x), x, groups, 0.0, g, x, factor, mean, rstd, first, second, gx)
    return first, second, gx
