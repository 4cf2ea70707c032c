"""Softmax and log-softmax of large arrays: compiled code, where llvmlite is installed.

Note [Compiled softmax]
    A row is read from memory once and then out of the cache: its maximum, the exponentials with their sum, and the
    result. Along other dimensions than the last, neighbouring columns share vectors. Rows and columns are computed
    alike wherever they stand: threads change no bit.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from . import jit, pool

__all__ = ["backward", "forward", "takes"]

Array = npt.NDArray[Any]

_LEAST = 1 << 12  # elements for which it is worth to compile


def takes(x: Any) -> bool:
    """Whether the functions below serve an array like `x`."""
    return x.size >= _LEAST and x.dtype.kind in "fV" and x.dtype.itemsize in (2, 4, 8) and jit.available()


@lru_cache(None)
def _kernel(backward: bool, log: bool, columns: bool, double: bool) -> jit.Kernel:
    from . import softmax_ir

    name = "_".join(["softmax", *(str(int(o)) for o in (backward, log, columns, double))])
    return jit.load(softmax_ir.build(name, backward, log, columns, jit.lanes() >> double, double), name)


def _dense(a: Array) -> Array:
    return np.ascontiguousarray(a, np.float32 if a.dtype.itemsize == 2 else a.dtype)


def _run(g: Array | None, x: Array, axis: int, log: bool) -> Array:
    dtype = x.dtype
    x, g = _dense(x), None if g is None else _dense(g)
    out = np.empty_like(x)
    outer, size, inner = prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :])
    double = x.dtype == np.float64
    kernel = _kernel(g is not None, log, inner > 1, double)
    if x.size and inner > 1:
        lanes = jit.lanes() >> double
        blocks = -(-inner // lanes)
        pool.spread(kernel, [g, x, out], [inner, blocks, size], outer * blocks, size * lanes)
    elif x.size:
        pool.spread(kernel, [g, x, out], [size], outer, size)
    return out.astype(dtype, copy=False)


def forward(x: Array, axis: int, log: bool) -> Array:
    """As `cuframe.gpu.softmax.forward`."""
    return _run(None, x, axis, log)


def backward(g: Array, y: Array, axis: int, log: bool) -> Array:
    """As `cuframe.gpu.softmax.backward`."""
    return _run(g, y, axis, log)
