"""A recurrent cell's formulas over one step of float32 as compiled code, where llvmlite is installed.

Note [Compiled steps]
    In NumPy the formulas are twenty passes over arrays that lie in the cache, forward and backward each; compiled they
    are one, which adds the biases and sums their gradients, too. Every column is computed alike and summed over the
    rows in their order, so the number of threads changes no bit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from . import jit, pool

__all__ = ["applies", "gates", "gradients"]

Array = npt.NDArray[Any]

_LEAST = 1 << 10  # numbers of the state for which it is worth to be compiled
_THREAD = 1 << 11  # numbers of the state that keep a thread busy for long enough


def applies(x: Array, hidden: int) -> bool:
    """Whether the functions below serve a step of x [N, I]."""
    return x.dtype == np.float32 and len(x) * hidden >= _LEAST and jit.available()


@lru_cache(None)
def _kernel(backward: bool, cell: str) -> jit.Kernel:
    from . import rnn_step_ir

    name = f"{cell}_step_{'backward' if backward else 'forward'}"
    return jit.load(rnn_step_ir.build(name, backward, cell, jit.lanes()), name)


def _row(b: Array | None, zeros: Array) -> Array:
    return zeros if b is None else np.ascontiguousarray(b)


def _rows(a: Array | None, zeros: Array) -> tuple[Array, int]:
    """A matrix, or a row of zeros, and the numbers from row to row."""
    return (zeros, 0) if a is None else (np.ascontiguousarray(a), a.shape[1])


def _run(backward: bool, cell: str, shape: tuple[int, int], *given: Any) -> None:
    rows, hidden = shape
    threads, lanes = max(1, min(jit.cpus(), rows * hidden // _THREAD)), jit.lanes()
    chunk = -(-hidden // (lanes * threads)) * lanes
    words = [g if g.__class__ is int else jit.address(g) for g in given]
    pool.run(_kernel(backward, cell), np.array([*words, hidden, rows, chunk], np.int64), -(-hidden // chunk), threads)


def gates(
    cell: str, z: Array, zh: Array | None, b_ih: Array | None, b_hh: Array | None, h0: Array | None, c0: Array | None,
    hidden: int,
) -> tuple[Array, Array | None, Array | None]:  # fmt: skip
    """As `rnn_step._gates`."""
    zeros = np.zeros(z.shape[1], z.dtype)
    out = np.empty((len(z), hidden), z.dtype)
    c = np.empty_like(out) if cell == "lstm" else None
    extra = np.empty_like(out) if cell in ("lstm", "gru") else None
    _run(False, cell, out.shape, z, *_rows(zh, zeros), _row(b_ih, zeros), _row(b_hh, zeros), *_rows(h0, zeros),
         *_rows(c0, zeros), out, c, extra)  # fmt: skip
    return out, c, extra


def gradients(
    cell: str, gates: Array, out: Array, extra: Array | None, h0: Array | None, c0: Array | None, gh: Array | None,
    gc: Array | None,
) -> tuple[Array, Array, Array | None, Array | None, Array, Array]:  # fmt: skip
    """As `rnn_step._gradients`."""
    zeros = np.zeros(gates.shape[1], gates.dtype)
    gb_ih = np.zeros_like(zeros)
    dz, gru = np.empty_like(gates), cell == "gru"
    dzh, gb_hh = (np.empty_like(gates), np.zeros_like(zeros)) if gru else (dz, gb_ih)
    gh0 = np.empty_like(out) if gru else None
    gc0 = np.empty_like(out) if cell == "lstm" else None
    _run(True, cell, out.shape, gates, out, extra, *_rows(h0, zeros), *_rows(c0, zeros), *_rows(gh, zeros),
         *_rows(gc, zeros), dz, dzh, gh0, gc0, gb_ih, gb_hh)  # fmt: skip
    return dz, dzh, gh0, gc0, gb_ih, gb_hh
