"""Running an update rule over parameters, in place and block by block.

Note [Blocks]
    An update rule is a dozen ufuncs over arrays of one size. On whole arrays each of them would stream through memory;
    on blocks that fit the cache, only the first touch does. A block is large enough that NumPy's cost of a call is
    small beside its work. The scratch blocks are shared by all parameters, so a step allocates nothing of a
    parameter's size. On a device every call is a launch, so there the block is the whole array.

Note [One launch]
    Where a backend has a kernel for a rule, `run` only notes the parameter, and `finish` launches once for all that
    share the settings: the number of launches does not grow with that of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import versions
from ..backend import backend_of
from ..tensor import Tensor

__all__ = ["BLOCK", "decayed", "finish", "gradients", "run", "zeros_like"]

#: Elements of a block: the 5 arrays of Adam in float32 take 640 KB, which fits a second-level cache.
BLOCK = 32768

#: The key of scratch under which parameters wait for `finish`.
_WAITING = "waiting"

#: Elements of one BLAS call; OpenBLAS uses one thread up to 10,000.
PIECE = 8192


def _empty(shape: tuple, like: Any) -> Any:
    """An uninitialized contiguous array beside `like`, on the CPU at the start of a cache line.

    NumPy aligns to 16 bytes only, and vectors that straddle cache lines take up to twice the time.
    """
    if like.__class__ is not np.ndarray:
        return backend_of(like).xp.empty(shape, like.dtype)
    size = math.prod(shape) * like.dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(like.dtype).reshape(shape)


def zeros_like(p: Tensor, value: float = 0.0) -> Tensor:
    """A state tensor beside parameter `p`, filled with `value`."""
    array = _empty(p.array.shape, p.array)
    array[...] = value
    return Tensor(array)


def gradients(group: dict[str, Any], name: str) -> list[tuple[Tensor, Any]]:
    """The parameters of a group that have a dense gradient, with its array.

    Raises:
        RuntimeError: a gradient is sparse.
    """
    found = []
    for p in group["params"]:
        g = p.grad
        if g is not None:
            if g.__class__ is not Tensor and getattr(g, "is_sparse", False):
                raise RuntimeError(f"{name}: sparse gradients are not supported; use SGD, Adagrad or SparseAdam")
            found.append((p, g.array))
    return found


def run(
    scratch: dict[Any, Any], kernel: Callable[..., None], p: Tensor, g: Any, state: tuple, *settings: Any
) -> None:
    """`kernel(axpy, p, g, *state, s, t, *settings)` over the blocks of a parameter; s and t are scratch.

    The kernel changes p and the state in place, and leaves g alone. `axpy(x, y, a=a)` is y += a * x in one pass.
    float16 and bfloat16 are computed in float32.
    """
    x = p.array
    arrays = [x, g, *[s.array for s in state]]
    family = backend_of(x).kernel("optim")
    if family is not None and family.takes(x):
        fused = getattr(family, kernel.__name__.lstrip("_"), None)
        if fused is not None:
            scratch.setdefault(_WAITING, {}).setdefault((fused, settings), []).append(arrays)
            return
    if x.dtype.char not in "fd":
        wide = [a.astype(np.float32) for a in arrays]
        _run_blocks(scratch, kernel, wide, settings)
        for a, w in zip([x, *arrays[2:]], [wide[0], *wide[2:]]):
            a[...] = w
    elif x.flags.carray if x.__class__ is np.ndarray else x.flags.c_contiguous:
        _run_blocks(scratch, kernel, arrays, settings)
    else:
        # BLAS would write into a copy of an array that is not plain memory, and lose it.
        arrays[0] = x.copy(order="C")
        _run_blocks(scratch, kernel, arrays, settings)
        x[...] = arrays[0]
    versions.written(x, "the optimizer's step")


def finish(scratch: dict[Any, Any]) -> None:
    """Launch what `run` has left: Note [One launch]."""
    for (fused, settings), sets in scratch.pop(_WAITING, {}).items():
        fused(sets, *settings)
        for arrays in sets:
            versions.written(arrays[0], "the optimizer's step")


def decayed(axpy: Callable, p: Any, g: Any, t: Any, l2: float, maximize: bool) -> Any:
    """The gradient with its sign and the L2 term; in `t` where that is not `g` itself."""
    if maximize:
        g = np.negative(g, t)
    if l2:
        if g is not t:
            t[...] = g
            g = t
        axpy(p, t, a=l2)
    return g


def _run_blocks(scratch: dict, kernel: Callable, arrays: list, settings: tuple) -> None:
    x = arrays[0]
    n = x.size
    if not n:
        return
    # A pair of scratch blocks for each kind of array.
    key = x.dtype.char if x.__class__ is np.ndarray else (x.__class__, x.dtype.char, x.device)
    found = scratch.get(key)
    if found is None or found[0].size < n and found[0].size < found[3]:
        block = BLOCK if x.__class__ is np.ndarray else 2**62
        size = min(n, block)
        found = scratch[key] = [_empty((size,), x), _empty((size,), x), _axpy_for(x), block]
    s, t, axpy, block = found
    flats = [a if a.ndim == 1 else a.reshape(-1) for a in arrays]
    if n <= block:
        kernel(axpy, *flats, s[:n], t[:n], *settings)
        return
    whole = n - n % block
    for i in range(0, whole, block):
        j = i + block
        kernel(axpy, *[a[i:j] for a in flats], s, t, *settings)
    if whole < n:
        kernel(axpy, *[a[whole:] for a in flats], s[: n - whole], t[: n - whole], *settings)


def _axpy_for(x: Any) -> Callable[..., Any]:
    """`axpy(x, y, a=a)`, y += a * x, for arrays like `x`."""
    if x.__class__ is np.ndarray:
        from scipy.linalg import blas  # late: a program that does not train need not load it

        return _in_pieces(blas.daxpy if x.dtype.char == "d" else blas.saxpy)
    return _axpy


def _in_pieces(blas_axpy: Callable[..., Any]) -> Callable[..., Any]:
    """`axpy` that never wakes OpenBLAS's threads: on a busy machine they take 300 ms to meet over a 30 us job."""

    def axpy(x: Any, y: Any, a: float) -> None:
        n = x.size
        if n <= PIECE:
            blas_axpy(x, y, n, a)
        else:
            for start in range(0, n, PIECE):
                blas_axpy(x, y, min(PIECE, n - start), a, start, 1, start)

    return axpy


def _axpy(x: Any, y: Any, a: float) -> None:
    np.add(y, x * a, y)
