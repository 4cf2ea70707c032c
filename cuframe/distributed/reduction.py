"""Adding up the ranks' arrays, always in the order of ranks, a cache-sized block after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .process_group import ReduceOp

__all__ = ["reduce_into", "reduce_to_mine"]

_BLOCK = 1 << 17  # bytes: a few of them fit into a core's second cache
_UFUNCS: dict[ReduceOp, Callable[..., Any]] = {
    ReduceOp.SUM: np.add, ReduceOp.AVG: np.add, ReduceOp.MIN: np.minimum, ReduceOp.MAX: np.maximum,
    ReduceOp.PRODUCT: np.multiply,
}  # fmt: skip


def _is_short(dtype: np.dtype) -> bool:
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
        _UFUNCS[op](total, part.astype(np.float32), out=total)
    if op is ReduceOp.AVG:
        _divide(total, len(parts))
    out[...] = total.astype(out.dtype)


def reduce_into(parts: Sequence[np.ndarray], out: np.ndarray, op: ReduceOp) -> None:
    """`out` = the parts reduced in their order; `out` may be the first of them."""
    with np.errstate(all="ignore"):
        if _is_short(out.dtype):
            _reduce_short(parts, out, op)
            return
        _UFUNCS[op](parts[0], parts[1], out=out)
        for part in parts[2:]:
            _UFUNCS[op](out, part, out=out)
        if op is ReduceOp.AVG:
            _divide(out, len(parts))


def reduce_to_mine(parts: Sequence[np.ndarray], mine: int, op: ReduceOp) -> Iterator[slice]:
    """Replace `parts[mine]` by the reduction of all, and yield each block as soon as it is done, still in the cache.

    Args:
        parts: vectors of one length, in the order of ranks.
        mine: which of them is written.
    """
    own, ufunc = parts[mine], _UFUNCS[op]
    step = max(1, _BLOCK // own.itemsize)
    short = _is_short(own.dtype)
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
        yield block
