"""Adding up the ranks' arrays, always in the order of ranks, a cache-sized block after the other.

Note [One pass]
    NumPy adds two arrays at a time, and copies the sum to each of its places in a pass of its own; even where blocks
    stay in the cache, that takes twice the time of memory itself with four ranks. Where llvmlite is installed, large
    float32 arrays are added up and written by machine code in one pass; the order of additions, and so the bits, are
    the same. What another process reads next is written past this core's caches: they would only fetch the lines, and
    hand them on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..cpu import jit
from .process_group import ReduceOp

__all__ = ["REDUCTIONS", "Reduction", "is_short", "reduce_into", "reduce_to"]


class Reduction(NamedTuple):
    """What a reduction is called.

    Attributes:
        ufunc: NumPy's function of two arrays; averages are divided afterwards.
        mpi: MPI's name; averages are divided afterwards.
        nccl: NCCL's number.
        boolean: what does the same to bytes that are 0 or 1, "or" and "and" as NumPy's.
    """

    ufunc: Callable[..., Any]
    mpi: str
    nccl: int
    boolean: ReduceOp


REDUCTIONS = {
    ReduceOp.SUM: Reduction(np.add, "SUM", 0, ReduceOp.MAX),
    ReduceOp.PRODUCT: Reduction(np.multiply, "PROD", 1, ReduceOp.MIN),
    ReduceOp.MAX: Reduction(np.maximum, "MAX", 2, ReduceOp.MAX),
    ReduceOp.MIN: Reduction(np.minimum, "MIN", 3, ReduceOp.MIN),
    ReduceOp.AVG: Reduction(np.add, "SUM", 4, ReduceOp.MAX),
}

_BLOCK = 1 << 17  # bytes: a few of them fit into a core's second cache
_LEAST = 1 << 14  # elements that are worth machine code
_MOST = 16  # arrays that it is made for


def is_short(dtype: np.dtype) -> bool:
    """Whether it is a 16-bit float, which is added up in float32 and rounded once."""
    return dtype.kind == "V" or dtype == np.float16


def _divide(total: np.ndarray, count: int) -> None:
    if count & (count - 1):
        np.divide(total, count, out=total)
    else:
        np.multiply(total, 1 / count, out=total)  # the same bits for powers of two, in a fifth of the time


def _reduce_short(parts: Sequence[np.ndarray], out: np.ndarray, op: ReduceOp) -> None:
    total = parts[0].astype(np.float32)
    for part in parts[1:]:
        REDUCTIONS[op].ufunc(total, part.astype(np.float32), out=total)
    if op is ReduceOp.AVG:
        _divide(total, len(parts))
    out[...] = total.astype(out.dtype)


def reduce_into(parts: Sequence[np.ndarray], out: np.ndarray, op: ReduceOp) -> None:
    """`out` = the parts reduced in their order; `out` may be the first of them."""
    with np.errstate(all="ignore"):
        if is_short(out.dtype):
            _reduce_short(parts, out, op)
            return
        REDUCTIONS[op].ufunc(parts[0], parts[1], out=out)
        for part in parts[2:]:
            REDUCTIONS[op].ufunc(out, part, out=out)
        if op is ReduceOp.AVG:
            _divide(out, len(parts))


@lru_cache(32)
def _kernel(sources: int, targets: int, average: bool) -> Callable[[int, int], None]:
    from . import reduction_ir

    return jit.load(reduction_ir.build("reduce", jit.lanes(), sources, targets, average), "reduce")


def reduce_to(parts: Sequence[np.ndarray], mine: int, others: Sequence[np.ndarray], op: ReduceOp) -> None:
    """Replace `parts[mine]` by the reduction of all, and write it to `others` as well.

    Args:
        parts: vectors of one length, in the order of ranks.
        mine: which of them is written.
        others: vectors of that length; they may be parts.
    """
    own = parts[mine]
    if (own.dtype == np.float32 and own.size >= _LEAST and op in (ReduceOp.SUM, ReduceOp.AVG)
            and len(parts) <= _MOST and jit.available()):  # fmt: skip
        kernel = _kernel(len(parts), 1 + len(others), op is ReduceOp.AVG)
        words = np.array([own.size, *(a.ctypes.data for a in (*parts, own, *others))], np.int64)
        kernel(words.ctypes.data, 0)
        return
    ufunc = REDUCTIONS[op].ufunc
    step = max(1, _BLOCK // own.itemsize)
    short = is_short(own.dtype)
    scratch = np.empty(min(step, own.size) if mine > 1 and not short else 0, own.dtype)
    for begin in range(0, own.size, step):
        block = slice(begin, min(begin + step, own.size))
        total, out = parts[0][block], own[block]
        with np.errstate(all="ignore"):
            if short:
                _reduce_short([part[block] for part in parts], out, op)
            else:
                for i in range(1, len(parts)):
                    # until its turn has come, what is mine must not be written
                    place = out if i >= mine else scratch[: out.size]
                    total = ufunc(total, parts[i][block], out=place)
                if op is ReduceOp.AVG:
                    _divide(out, len(parts))
        for other in others:
            other[block] = out
