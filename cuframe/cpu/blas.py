"""Large matrix products of the CPU, on our own threads.

Note [Threads of OpenBLAS]
    After a product OpenBLAS's threads go on spinning for some 25 ms (THREAD_TIMEOUT, read once when the library is
    loaded), and take the cores from whatever runs next: measured, they double the time of the compiled LSTM loop.
    So a product within cuframe runs with OpenBLAS set to one thread, and a large one is cut into as many parts as
    there are cores, each in a thread of the pool that the compiled kernels use. The setting is put back at once, so
    NumPy's own products elsewhere keep their threads. Where NumPy has another BLAS, products are NumPy's. Those of a
    float32 matrix that must be turned go to `gemm`.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from typing import Any

import numpy as np

from . import gemm, jit

__all__ = ["one_thread", "product"]

_WAKES = 1 << 18  # multiply-adds from which OpenBLAS uses its threads
_WORTH = 1 << 23  # multiply-adds from which ours are worth waking
_lock = threading.Lock()
_inside = [0, 1]  # how many products are under way, and the number of threads to go back to


@lru_cache(1)
def _control() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Reader and setter of the number of threads of NumPy's OpenBLAS; None where it has another BLAS."""
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
            except AttributeError:
                continue
            if "numpy" in path or prefix != "scipy_":
                get.restype, put.argtypes, put.restype = ctypes.c_int, [ctypes.c_int], None
                return get, put
    return None


class _single(AbstractContextManager[int]):
    """OpenBLAS with one thread; several callers may be inside at once."""

    def __init__(self, control: tuple[Callable[[], int], Callable[[int], None]]) -> None:
        self.get, self.put = control

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


def _allowed() -> int:
    """The number of threads that a caller may use: no more than OpenBLAS may have."""
    control = _control()
    if control is None:
        return jit.cpus()
    with _lock:
        return min(jit.cpus(), _inside[1] if _inside[0] else control[0]())


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
        gemm.product(a, b, row, out, _allowed())
        return out
    work = m * n * k
    control = _control() if work > _WAKES and a.dtype == b.dtype and a.dtype.char in "fd" else None
    if control is None:
        out = np.matmul(a, b, out=out)
    else:
        with _single(control) as allowed:
            threads = min(jit.cpus(), allowed)
            if work >= _WORTH and threads > 1 and b.shape[0] == k:  # else NumPy says what does not fit
                if out is None:
                    out = np.empty((m, n), a.dtype)
                jit.parallel(partial(_part, a, b, out, row), threads)
                return out
            out = np.matmul(a, b, out=out)
    if row is not None:
        out += row
    return out


def _part(a: Any, b: Any, out: Any, row: Any, i: int, count: int) -> None:
    """Part i of a product, cut at multiples of 16, where the tiles of BLAS kernels begin."""
    m, n = out.shape
    first, last = (min(max(m, n), -(-max(m, n) // (16 * count)) * 16 * j) for j in (i, i + 1))
    if m >= n:
        a, out = a[first:last], out[first:last]
    else:
        b, out, row = b[:, first:last], out[:, first:last], None if row is None else row[first:last]
    np.matmul(a, b, out=out)
    if row is not None:
        out += row
