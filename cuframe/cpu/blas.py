"""Large matrix products of the CPU, on our own threads.

Note [Threads of OpenBLAS]
    After a product OpenBLAS's threads go on spinning for some 25 ms (THREAD_TIMEOUT, read once when the library is
    loaded), and take the cores from whatever runs next: measured, they double the time of the compiled LSTM loop.
    So a product within cuframe runs with OpenBLAS set to one thread, and a large one is cut into as many parts as
    there are cores, each in a thread of the pool that the compiled kernels use, which call OpenBLAS themselves. The
    setting is put back at once, so NumPy's own products elsewhere keep their threads. Where NumPy has another BLAS,
    products are NumPy's. Those of large float32 matrices go to `gemm`.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from itertools import product as product_of
from math import prod
from typing import Any, NamedTuple

import numpy as np

from . import gemm, jit, pool, threads

__all__ = ["allowed", "batched", "limit", "one_thread", "product", "summed"]

_WAKES = 1 << 18  # multiply-adds from which OpenBLAS uses its threads
_WORTH = 1 << 23  # multiply-adds from which threads of Python's are worth waking
_WORTH_COMPILED = 1 << 21  # the same for those of `pool`
_WORTH_BATCH = 1 << 24  # and for many matrices
_lock = threading.Lock()
_inside = [0, 1]  # how many products are under way, and the number of threads to go back to


class _OpenBLAS(NamedTuple):
    """NumPy's OpenBLAS."""

    get: Callable[[], int]  # the number of threads
    put: Callable[[int], None]
    products: dict[str, int]  # addresses of cblas_?gemm by the dtype's character
    wide: bool  # whether its integers have 64 bits


@lru_cache(1)
def _control() -> _OpenBLAS | None:
    """NumPy's OpenBLAS; None where it has another BLAS."""
    try:
        with open("/proc/self/maps") as maps:
            lines = maps.read().splitlines()
    except OSError:
        return None
    for path in sorted({line.split()[-1] for line in lines if "openblas" in line}):
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for prefix, suffix in (("scipy_", "64_"), ("", "64_"), ("scipy_", ""), ("", "")):
            try:
                get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}")
                put = getattr(library, f"{prefix}openblas_set_num_threads{suffix}")
                products = [getattr(library, f"{prefix}cblas_{t}gemm{suffix}") for t in "sd"]
            except AttributeError:
                continue
            if "numpy" in path or prefix != "scipy_":
                get.restype, put.argtypes, put.restype = ctypes.c_int, [ctypes.c_int], None
                addresses = [ctypes.cast(f, ctypes.c_void_p).value or 0 for f in products]
                return _OpenBLAS(get, put, dict(zip("fd", addresses)), suffix == "64_")
    return None


class _single(AbstractContextManager[int]):
    """OpenBLAS with one thread; several callers may be inside at once."""

    def __init__(self, control: _OpenBLAS) -> None:
        self.get, self.put = control.get, control.put

    def __enter__(self) -> int:
        with _lock:
            if _inside[0] == 0:
                _inside[1] = self.get()
                if _inside[1] > 1:
                    self.put(1)
            _inside[0] += 1
            return _inside[1]

    def __exit__(self, *exc: object) -> None:
        with _lock:
            _inside[0] -= 1
            if _inside[0] == 0 and _inside[1] > 1:
                self.put(_inside[1])


def one_thread() -> AbstractContextManager[int]:
    """OpenBLAS with one thread inside the context, which gives the number of threads that the caller may use."""
    control = _control()
    return nullcontext(jit.cpus()) if control is None else _single(control)


def _forget() -> None:
    """A forked child has none of its parent's threads, so nobody in it is inside."""
    global _lock
    _lock = threading.Lock()
    _inside[0] = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def limit(count: int) -> None:
    """Let NumPy's OpenBLAS, where it is one, use so many threads: it counted the cores when it was loaded."""
    if (control := _control()) is not None:
        control.put(count)


def allowed() -> int:
    """The number of threads that a caller may use: no more than OpenBLAS may have."""
    control = _control()
    if control is None:
        return jit.cpus()
    with _lock:
        return min(jit.cpus(), _inside[1] if _inside[0] else control.get())


def product(a: Any, b: Any, out: Any = None, row: Any = None) -> Any:
    """`a @ b` of two matrices, plus a row.

    Args:
        a: [M, K]; b: [K, N]; float32 or float64 for more than one thread.
        out: [M, N] to be filled, or None for a new array.
        row: [N], to be added to all rows, or None.

    Returns:
        [M, N]. The same bits from run to run with the same number of threads.
    """
    m, k = a.shape
    n = b.shape[1]
    if gemm.applies(a, b, out):
        if out is None:
            out = np.empty((m, n), a.dtype)
        gemm.product(a, b, row, out, allowed())
        return out
    work = m * n * k
    control = _control() if work > _WAKES and a.dtype == b.dtype and a.dtype.char in "fd" else None
    if control is None:
        out = np.matmul(a, b, out=out)
    else:
        compiled = jit.available() and min(m, n) > 1
        with _single(control) as threads_:
            parts = min(jit.cpus(), threads_)
            if work >= (_WORTH_COMPILED if compiled else _WORTH) and parts > 1 and b.shape[0] == k:
                if out is None:
                    out = np.empty((m, n), a.dtype)
                if compiled and out.strides[1] == out.itemsize and out.dtype == a.dtype:
                    _parts(control, a, b, out, row, parts)
                else:
                    threads.parallel(partial(_part, a, b, out, row), parts)
                return out
            out = np.matmul(a, b, out=out)  # or NumPy says what does not fit
    if row is not None:
        out += row
    return out


def _cut(m: int, n: int, i: int, count: int) -> tuple[int, int]:
    """Part i of the longer side: whole multiples of 16, where the tiles of BLAS kernels begin."""
    longer = max(m, n)
    first, last = (min(longer, -(-longer // (16 * count)) * 16 * j) for j in (i, i + 1))
    return first, last


def _part(a: Any, b: Any, out: Any, row: Any, i: int, count: int) -> None:
    """Part i of a product, by NumPy."""
    m, n = out.shape
    first, last = _cut(m, n, i, count)
    if m >= n:
        a, out = a[first:last], out[first:last]
    else:
        b, out, row = b[:, first:last], out[:, first:last], None if row is None else row[first:last]
    np.matmul(a, b, out=out)
    if row is not None:
        out += row


def batched(a: Any, b: Any, out: Any = None, column: Any = None) -> Any:
    """`a @ b` of many matrices, plus a column.

    Args:
        a: [..., M, K]; b: [..., K, N]; batch dimensions are broadcast.
        out: [..., M, N], whose matrices have rows without gaps, or None for a new array.
        column: [..., M], to be added to all columns, or None.

    Returns:
        [..., M, N]. Neither the batch nor the number of threads changes the bits of a matrix, unless there are less of
        them than threads.
    """
    (m, k), n = a.shape[-2:], b.shape[-1]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    count, work = prod(lead), m * n * k
    control = _batches(a, b, count * work)
    if control is None or b.shape[-2] != k:
        out = np.matmul(a, b, out=out)
        if column is not None:
            out += column[..., None]
        return out
    if out is None:
        out = np.empty((*lead, m, n), a.dtype)
    if count < 2 * jit.cpus() and work >= _WORTH_COMPILED:
        for i in np.ndindex(lead):
            left, right = (np.broadcast_to(x, (*lead, *x.shape[-2:]))[i] for x in (a, b))
            product(left, right, out[i])
        if column is not None:
            out += column[..., None]
        return out
    (a, a_turned, a_step), (b, b_turned, b_step) = map(_operand, (a, b))
    column = None if column is None else np.ascontiguousarray(column, a.dtype)
    shape = (control.products[a.dtype.char], a_turned, b_turned, m, n, k)
    out_step = out.strides[-2] // out.itemsize
    places = [_strides(x, len(lead), inner) for x, inner in ((a, 2), (b, 2), (out, 2), (column, 1))]
    at = [jit.address(x) for x in (a, b, out, column)]
    words = [
        (*shape, at[0] + first[0], a_step, at[1] + first[1], b_step, at[2] + first[2], out_step, 0, at[3] + first[3],
         size, *step)
        for first, step, size in _runs(lead, places, jit.cpus())
    ]  # fmt: skip
    with _single(control) as threads_:
        pool.run(_kernel(a.dtype.char, control.wide), np.array(words, np.int64), len(words), threads_)
    return out


def summed(a: Any, b: Any, shares: int) -> Any:
    """The sum of `a @ b` over the first dimension, of [N, ..., M, K] and [N, ..., K, P]: [..., M, P].

    It is made of `shares` sums over neighbours, which threads can take.
    """
    (images, *lead, m, k), p = a.shape, b.shape[-1]
    control = _batches(a, b, images * prod(lead) * m * k * p)
    if control is None:
        return np.matmul(a, b).sum(axis=0)
    shares = max(1, min(shares, images))
    (a, a_turned, a_step), (b, b_turned, b_step) = map(_operand, (a, b))
    totals = np.empty((shares, *lead, m, p), a.dtype)
    shape = (control.products[a.dtype.char], a_turned, b_turned, m, p, k)
    words = []
    for share in range(shares):
        first, last = (images * i // shares for i in (share, share + 1))
        for i in np.ndindex(*lead):
            left, right, total = (jit.address(x[i]) for x in (a[first], b[first], totals[share]))
            words.append((*shape, left, a_step, right, b_step, total, p, 0, 0, last - first, a.strides[0], b.strides[0],
                          0, 0))  # fmt: skip
    with _single(control) as threads_:
        pool.run(_kernel(a.dtype.char, control.wide), np.array(words, np.int64), len(words), threads_)
    return totals[0] if shares == 1 else np.add.reduce(totals, 0)


def _batches(a: Any, b: Any, work: int) -> _OpenBLAS | None:
    """OpenBLAS, if it is worth calling it from several threads."""
    good = work >= _WORTH_BATCH and a.dtype == b.dtype and a.dtype.char in "fd" and min(*a.shape[-2:], b.shape[-1]) >= 4
    return _control() if good and jit.available() else None


def _strides(x: Any, count: int, inner: int) -> tuple[int, ...]:
    """Bytes between elements of `count` leading dimensions, to which those of x are broadcast."""
    if x is None:
        return (0,) * count
    own = [0 if size == 1 else step for size, step in zip(x.shape, x.strides)][: x.ndim - inner]
    return (0,) * (count - len(own)) + tuple(own)


def _runs(
    lead: tuple[int, ...], places: Sequence[tuple[int, ...]], threads_: int
) -> Iterator[tuple[list[int], tuple[int, ...], int]]:
    """Where elements of the leading dimensions lie, as runs: the first one's places, steps from one to the next, size.

    Dimensions that lie behind each other in all arrays are one; the longest is run through, in parts for all threads.
    """
    dims: list[tuple[int, tuple[int, ...]]] = []
    for size, *step in zip(reversed(lead), *map(reversed, places)):
        if dims and all(s == dims[-1][0] * t for s, t in zip(step, dims[-1][1])):
            dims[-1] = (size * dims[-1][0], dims[-1][1])
        elif size > 1:
            dims.append((size, tuple(step)))
    if not dims:
        dims = [(1, (0,) * len(places))]
    longest = max(range(len(dims)), key=lambda i: dims[i][0])
    size, steps = dims.pop(longest)
    parts = min(size, max(1, 2 * threads_ // prod(n for n, _ in dims)))
    for index in product_of(*(range(n) for n, _ in dims)):
        start = [sum(i * step[j] for i, (_, step) in zip(index, dims)) for j in range(len(places))]
        for part in range(parts):
            first, last = (size * i // parts for i in (part, part + 1))
            yield [begin + first * step for begin, step in zip(start, steps)], steps, last - first


def _operand(x: Any) -> tuple[Any, bool, int]:
    """Matrices as BLAS takes them, whether they are turned, and the numbers between lines."""
    rows, columns = x.shape[-2:]
    for turned, (apart, along), length in ((False, x.strides[-2:], columns), (True, x.strides[:-3:-1], rows)):
        if along == x.itemsize and apart >= length * x.itemsize and apart % x.itemsize == 0:
            return x, turned, apart // x.itemsize
    return np.ascontiguousarray(x), False, columns


@lru_cache(None)
def _kernel(kind: str, wide: bool) -> jit.Kernel:
    from . import blas_ir

    return jit.load(blas_ir.build(f"blas_{kind}", jit.lanes() >> (kind == "d"), kind == "d", wide), f"blas_{kind}")


def _parts(control: _OpenBLAS, a: Any, b: Any, out: Any, row: Any, count: int) -> None:
    """All parts of a product, by OpenBLAS in compiled threads."""
    kind, size = a.dtype.char, a.itemsize
    (m, k), n = a.shape, b.shape[1]
    (a, a_turned, a_step), (b, b_turned, b_step) = map(_operand, (a, b))
    row = None if row is None else np.ascontiguousarray(row, a.dtype)
    places = [jit.address(x) for x in (a, b, out, row)]
    words = []
    for i in range(count):
        first, last = _cut(m, n, i, count)
        begin, rows, columns = (first, last - first, n) if m >= n else (first, m, last - first)
        a_at, b_at, out_at, row_at = places
        if m >= n:
            a_at += begin * a.strides[0]
            out_at += begin * out.strides[0]
        else:
            b_at += begin * b.strides[1]
            out_at += begin * size
            row_at += begin * size if row_at else 0
        if rows and columns:
            words.append((control.products[kind], a_turned, b_turned, rows, columns, k, a_at, a_step, b_at, b_step,
                          out_at, out.strides[0] // size, row_at, 0, 1, 0, 0, 0, 0))  # fmt: skip
    pool.run(_kernel(kind, control.wide), np.array(words, np.int64), len(words), count)
