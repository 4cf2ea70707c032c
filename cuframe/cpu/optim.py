"""The optimizers' steps on the CPU that are worth machine code of their own.

Note [Compiled step]
    A step reads up to four arrays and writes three, and little is computed between: one pass, in which all cores have a
    share, spares NumPy's up to eight. Each element is computed alike in whatever share it falls, so the result does not
    depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from . import jit, pool

__all__ = ["adagrad", "adam", "momentum", "rmsprop", "sgd", "takes", "together"]

_LEAST = 1 << 14  # elements of a parameter for which it is worth to be compiled
_THREAD = 1 << 14  # elements that keep a thread busy for long enough


def takes(p: Any) -> bool:
    """Whether the functions below serve a parameter like `p`."""
    return p.size >= _LEAST and p.dtype == np.float32 and p.flags.carray and jit.available()


def together(arrays: Sequence[Any]) -> bool:
    """Whether `norm` and its kin are here: they are not, NumPy's products run at the speed of memory."""
    return False


@lru_cache(None)
def _kernel(rule: str) -> jit.Kernel:
    from . import optim_ir

    return jit.load(optim_ir.build(rule, jit.lanes()), rule)


def _step(rule: str, sets: Sequence[Sequence[Any]], maximize: bool, *settings: float) -> None:
    """A step by a rule of `optim_ir`, with its settings, for sets (parameter, gradient, *states)."""
    kept = []
    words = len(sets[0])
    table = np.empty((len(sets), words + 1), np.int64)
    for row, arrays in zip(table, sets):
        dense = [a if a.flags.carray else a.copy(order="C") for a in arrays]
        if maximize:
            dense[1] = -dense[1]
        row[:words] = [jit.address(a) for a in dense]
        row[words] = arrays[0].size
        kept.append(dense)
    numbers = np.array(settings, np.float32)
    threads = max(1, min(jit.cpus(), int(table[:, words].sum()) // _THREAD))
    given = np.array([jit.address(table), len(table), jit.address(numbers), threads], np.int64)
    pool.run(_kernel(rule), given, threads, threads)
    for arrays, dense in zip(sets, kept):
        for a, used in zip(arrays[2:], dense[2:]):
            if a is not used:
                a[...] = used


Sets = Sequence[Sequence[Any]]


def adam(sets: Sets, beta1: float, beta2: float, step: float, eps: float, l2: float, shrink: float,
         maximize: bool) -> None:
    """One step for sets (parameter, gradient, average, average of squares), as `cuframe.gpu.optim.adam`."""
    _step("adam", sets, maximize, l2, beta1, 1 - beta1, beta2, 1 - beta2, -step, eps, shrink)


def sgd(sets: Sets, lr: float, l2: float, maximize: bool) -> None:
    """One step for sets (parameter, gradient)."""
    _step("sgd", sets, maximize, l2, -lr)


def momentum(sets: Sets, lr: float, l2: float, momentum: float, rest: float, nesterov: bool, first: bool,
             maximize: bool) -> None:
    """One step for sets (parameter, gradient, buffer); at the first the buffer, zeros, becomes the gradient."""
    ahead = (momentum,) if nesterov else ()
    _step("nesterov" if nesterov else "momentum", sets, maximize, l2, -lr, momentum, 1.0 if first else rest, *ahead)


def adagrad(sets: Sets, lr: float, eps: float, l2: float, maximize: bool) -> None:
    """One step for sets (parameter, gradient, sum of squares)."""
    _step("adagrad", sets, maximize, l2, -lr, eps)


def rmsprop(sets: Sets, lr: float, alpha: float, eps: float, l2: float, momentum: float, centered: bool,
            maximize: bool) -> None:
    """One step for sets (parameter, gradient, average of squares, average if centered, buffer with a momentum)."""
    rule = f"rmsprop{'_centered' * bool(centered)}{'_moving' * bool(momentum)}"
    _step(rule, sets, maximize, l2, -lr, alpha, 1 - alpha, eps, momentum)
