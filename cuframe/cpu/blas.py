"""Large matrix products of the CPU, on our own threads.

Note [Threads of OpenBLAS]
    After a product OpenBLAS's threads go on spinning for some 25 ms (THREAD_TIMEOUT, read once when the library is
    loaded), and take the cores from whatever runs next: measured, they double the time of the compiled LSTM loop.
    So a product within cuframe runs with OpenBLAS set to one thread, and a large one is cut into as many parts as
    there are cores, each in a thread of the pool that the compiled kernels use. The setting is put back at once, so
    NumPy's own products elsewhere keep their threads. Where NumPy has another BLAS, products are NumPy's.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from . import jit

__all__ = ["one_thread", "product"]

_WAKES = 1 << 18  # multiply-adds from which OpenBLAS uses its threads
_WORTH = 1 << 23  # multiply-adds from which ours are worth waking
_lock = threading.Lock()
_inside = [0, 1]  # how many products are under way, and the number of threads to go back to


@lru_cache(1)
def _control() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Reader and setter of the number of threads of NumPy's OpenBLAS; None where it has another BLAS."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
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


def product(a: Any, b: Any, out: Any = None) -> Any:
    """`a @ b` of two matrices.

    Args:
        a: [M, K]; b: [K, N]; float32 or float64 for more than one thread.
        out: [M, N] to be filled, or None for a new array.

    Returns:
        [M, N]. The same bits from run to run with the same number of threads.
    """
    m, k = a.shape
    n = b.shape[1]
    work = m * n * k
    control = _control() if work > _WAKES and a.dtype == b.dtype and a.dtype.char in "fd" else None
    if control is None:
        return np.matmul(a, b, out=out)
    with _single(control) as allowed:
        threads = min(jit.cpus(), allowed)
        if work < _WORTH or threads == 1 or b.shape[0] != k:  # NumPy says what does not fit
            return np.matmul(a, b, out=out)
        if out is None:
            out = np.empty((m, n), a.dtype)

        def part(i: int, count: int) -> None:
            # Cut at multiples of 16, where the tiles of BLAS kernels begin.
            if m >= n:
                rows = slice(*(min(m, -(-m // (16 * count)) * 16 * j) for j in (i, i + 1)))
                np.matmul(a[rows], b, out=out[rows])
            else:
                columns = slice(*(min(n, -(-n // (16 * count)) * 16 * j) for j in (i, i + 1)))
                np.matmul(a, b[:, columns], out=out[:, columns])

        jit.parallel(part, threads)
    return out
