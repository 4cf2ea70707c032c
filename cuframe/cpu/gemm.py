"""Products of float32 matrices as compiled code, where llvmlite is installed.

Note [Compiled products]
    OpenBLAS loses a tenth of its speed where an operand is transposed, as in `x @ w.T` and in the gradient of a weight,
    and half of it where a has few rows besides; and its bits depend on how many threads there are. Here a tile of 12
    rows by 2 vectors is summed in registers over up to 256 numbers of the common dimension; columns of b lie in panels
    in the second-level cache, a tile's rows of a in the first-level one. Where b is a transposed weight and a has few
    rows, the transposed product is computed, and tiles are turned when they are stored: that spares turning the weight.

    It takes the 32 registers of AVX-512: with 16 of half the length OpenBLAS is as good.

    Each number of c is the sum of the same products in the same order however c is cut, so threads do not change it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from . import jit, pool, threads

__all__ = ["applies", "product"]

Array = npt.NDArray[Any]

_LANES = 16  # of the vectors for which the tiles are made
_LEAST = 1 << 22  # multiply-adds for which compiling is worth its time
_DEEP = 32  # of the common dimension: below it there is too little to sum
_THREAD = 1 << 20  # multiply-adds that keep a thread busy for long enough


def _in_rows(a: Array) -> bool | None:
    """Whether the numbers of a row lie in memory one after another, or those of a column; None if neither."""
    across, along = a.strides
    if along == a.itemsize:
        return True if across % a.itemsize == 0 else None
    return False if across == a.itemsize and along % a.itemsize == 0 else None


def applies(a: Array, b: Array, out: Array | None) -> bool:
    """Whether `product` serves these matrices."""
    m, k = a.shape
    n = b.shape[1]
    return (
        m * n * k >= _LEAST
        and min(m, n) >= 16
        and k >= _DEEP
        and b.shape[0] == k
        and None not in (_in_rows(a), _in_rows(b))
        and a.dtype == np.float32
        and b.dtype == np.float32
        and (out is None or _in_rows(out) is True)
        and jit.available()
        and jit.lanes() == _LANES
    )


@lru_cache(None)
def _kernel(a_rows: bool, b_rows: bool, turned: bool, lanes: int) -> jit.Kernel:
    from . import gemm_ir

    name = "gemm" + "".join(str(int(o)) for o in (a_rows, b_rows, turned))
    return jit.load(gemm_ir.build(name, lanes, a_rows, b_rows, turned), name)


@lru_cache(None)
def _plan(lanes: int) -> tuple[int, int, int, int, list[int], int]:
    """Rows of a tile, the greatest depths, the size of few rows; the places of scratch in bytes, and its numbers."""
    from . import gemm_ir as code

    return code.tall(lanes), code.DEPTH, code.DEPTH_TURNED, code.FEW, *threads.places(code.scratch(lanes).values())


def _cuts(size: int, parts: int, step: int) -> list[tuple[int, int]]:
    """About `parts` ranges of `size`, in multiples of `step`."""
    each = -(-size // (parts * step)) * step
    return [(first, min(size, first + each)) for first in range(0, size, each)]


def product(a: Array, b: Array, row: Array | None, out: Array, workers: int) -> None:
    """out = a @ b + row, for what `applies` says.

    Args:
        a: [M, K]; b: [K, N].
        row: [N] or None.
        out: [M, N], whose rows lie in memory one after another.
    """
    tall, deepest, deepest_turned, few, places, scratch = _plan(jit.lanes())
    (m, k), n = a.shape, b.shape[1]
    a_rows, b_rows = _in_rows(a), _in_rows(b)
    turned = False
    start = np.zeros(n, np.float32) if row is None else np.ascontiguousarray(row)
    if m <= few and a_rows and not b_rows and k <= deepest_turned:
        deepest, a, b, a_rows, b_rows, turned = deepest_turned, b.T, a.T, True, False, True
        m, n = n, m
    kernel = _kernel(bool(a_rows), bool(b_rows), turned, jit.lanes())
    chunks = -(-k // deepest)
    chunk = -(-k // (4 * chunks)) * 4
    a_step, b_step = (x.strides[0 if rows else 1] // 4 for x, rows in ((a, a_rows), (b, b_rows)))
    workers = max(1, min(workers, m * n * k // _THREAD))
    by_rows = m >= n
    parts = 1 if workers == 1 else workers if m * n * k < 8 * _THREAD * workers else 2 * workers
    cuts = _cuts(m if by_rows else n, parts, tall if by_rows else 32)
    a_at, b_at, out_at, start_at = map(jit.address, (a, b, out, start))
    units = []
    for first, last in cuts:
        i, j = (first, 0) if by_rows else (0, first)
        place = (j * out.strides[0] + i * out.strides[1]) if turned else (i * out.strides[0] + j * out.strides[1])
        units.append([
            a_at + i * a.strides[0], a_step, b_at + j * b.strides[1], b_step,
            out_at + place, out.strides[0] // 4, start_at + 4 * (i if turned else j),
            last - first if by_rows else m, n if by_rows else last - first, k, chunk, *places,
        ])  # fmt: skip
    pool.run(kernel, np.array(units, np.int64), len(units), workers, scratch)
