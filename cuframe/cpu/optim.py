"""The optimizers' steps on the CPU that are worth machine code of their own.

Note [Compiled step]
    Adam's step reads four arrays and writes three, and little is computed between: one pass, in which all cores have a
    share, spares NumPy's eight. Each element is computed alike in whatever share it falls, so the result does not
    depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from . import jit, pool

__all__ = ["adam", "takes", "together"]

_LEAST = 1 << 14  # elements of a parameter for which it is worth to be compiled
_THREAD = 1 << 14  # elements that keep a thread busy for long enough


def takes(p: Any) -> bool:
    """Whether the functions below serve a parameter like `p`."""
    return p.size >= _LEAST and p.dtype == np.float32 and p.flags.carray and jit.available()


def together(arrays: Sequence[Any]) -> bool:
    """Whether `norm` and its kin are here: they are not, NumPy's products run at the speed of memory."""
    return False


@lru_cache(1)
def _kernel() -> jit.Kernel:
    from . import optim_ir

    return jit.load(optim_ir.build_adam("adam", jit.lanes()), "adam")


def adam(sets: Sequence[Sequence[Any]], beta1: float, beta2: float, step: float, eps: float, l2: float, shrink: float,
         maximize: bool) -> None:
    """One step for sets (parameter, gradient, average, average of squares), as `cuframe.gpu.optim.adam`."""
    kept = []
    table = np.empty((len(sets), 5), np.int64)
    for row, arrays in zip(table, sets):
        dense = [a if a.flags.carray else a.copy(order="C") for a in arrays]
        if maximize:
            dense[1] = -dense[1]
        row[:4] = [jit.address(a) for a in dense]
        row[4] = arrays[0].size
        kept.append(dense)
    settings = np.array([beta1, 1 - beta1, beta2, 1 - beta2, -step, eps, l2, shrink], np.float32)
    threads = max(1, min(jit.cpus(), int(table[:, 4].sum()) // _THREAD))
    words = np.array([jit.address(table), len(table), jit.address(settings), threads], np.int64)
    pool.run(_kernel(), words, threads, threads)
    for arrays, dense in zip(sets, kept):
        for a, used in zip(arrays[2:], dense[2:]):
            if a is not used:
                a[...] = used
