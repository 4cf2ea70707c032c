"""Large matrix products of the CPU, on our own threads.

Note [Threads of OpenBLAS]
    After a product OpenBLAS's threads go on spinning for some 25 ms (THREAD_TIMEOUT, read once when the library is
    loaded), and take the cores from whatever runs next: measured, they double the time of the compiled LSTM loop.
    So a product within cuframe runs with OpenBLAS set to one thread, and a large one is cut into as many parts as
    there are cores, each in a thread of the pool that the compiled kernels use, which call OpenBLAS themselves. The
    setting is put back at once, so NumPy's own products elsewhere keep their threads. Where NumPy has another BLAS,
    products are NumPy's. Those of a float32 matrix that must be turned go to `gemm`.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from . import gemm, jit, pool, threads

__all__ = ["allowed", "one_thread", "product"]

_WAKES = 1 << 18  # multiply-adds from which OpenBLAS uses its threads
_WORTH = 1 << 23  # multiply-adds from which threads of Python's are worth waking
_WORTH_COMPILED = 1 << 21  # the same for those of `pool`
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


def _operand(x: Any) -> tuple[Any, bool, int]:
    """The matrix as BLAS takes it, whether it is turned, and the numbers between its lines."""
    rows, columns = x.shape
    for turned, (apart, along), length in ((False, x.strides, columns), (True, x.strides[::-1], rows)):
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
    words = []
    for i in range(count):
        first, last = _cut(m, n, i, count)
        begin, rows, columns = (first, last - first, n) if m >= n else (first, m, last - first)
        a_at, b_at, out_at, row_at = map(jit.address, (a, b, out, row))
        if m >= n:
            a_at += begin * a.strides[0]
            out_at += begin * out.strides[0]
        else:
            b_at += begin * b.strides[1]
            out_at += begin * size
            row_at += begin * size if row_at else 0
        if rows and columns:
            words.append((control.products[kind], a_turned, b_turned, rows, columns, k, a_at, a_step, b_at, b_step,
                          out_at, out.strides[0] // size, row_at))  # fmt: skip
    pool.run(_kernel(kind, control.wide), np.array(words, np.int64), len(words), count)
