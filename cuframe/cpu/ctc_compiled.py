"""The recursions of CTC as compiled code, where llvmlite is installed.

Note [Compiled CTC]
    The rules are those of Note [CTC on the CPU], for one sequence a call: its states are the lanes of vectors, and a
    step and its exponentials stay in registers. Each step is set back by the best state of the step before. The
    beginnings are kept for all steps, in the cache; ends meet them step by step, and add their posteriors to the sums
    of the labels. Threads take the next sequence when they are through with one, and change no bit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from . import jit, pool

__all__ = ["alignments", "applies"]

Array = npt.NDArray[Any]

_ZERO = -1e30  # log 0
_LEAST = 1 << 12  # states and steps for which compiling is worth its time
_THREAD = 1 << 12  # that keep a thread busy for long enough


def applies(x: Array, labels: Array) -> bool:
    """Whether `alignments` serves x [T, N, C] and labels [N, S]."""
    steps, batch, _ = x.shape
    return (
        steps * batch * (2 * labels.shape[1] + 1) >= _LEAST
        and x.dtype.kind in "fV"
        and x.dtype.itemsize in (2, 4, 8)
        and jit.available()
    )


@lru_cache(None)
def _kernel(backward: bool, double: bool) -> jit.Kernel:
    from . import ctc_ir

    name = "_".join(["ctc", str(int(backward)), str(int(double))])
    return jit.load(ctc_ir.build(name, backward, jit.lanes() >> double, double), name)


def alignments(
    x: Array, labels: Array, lengths: Array, sizes: Array, blank: int, need_backward: bool
) -> tuple[Array, tuple[Array, Array] | None]:
    """As `ctc.alignments`."""
    steps, batch, classes = x.shape
    dtype = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
    x = np.ascontiguousarray(x, dtype)
    double = dtype.itemsize == 8
    lanes, most = jit.lanes() >> double, 2 * labels.shape[1] + 1
    width = -(-most // lanes) * lanes
    offsets = np.full((batch, width), blank)
    offsets[:, 1:most:2] = labels
    offsets += np.arange(batch)[:, None] * classes
    jump = np.full((batch, width + lanes), _ZERO, dtype)
    jump[:, 3:most:2][labels[:, 1:] != labels[:, :-1]] = 0
    columns, slots = np.unique(offsets, return_inverse=True)
    slots = slots.reshape(offsets.shape)
    lengths, states = (np.ascontiguousarray(v, np.int64) for v in (lengths, 2 * sizes + 1))
    log_p = np.where(sizes > 0, _ZERO, 0.0)
    posterior = np.zeros((steps, len(columns)) if need_backward else (0, 0), dtype)
    tables = (offsets, jump, slots, lengths, states, log_p, posterior)
    shared = [jit.address(x), batch * classes, *map(jit.address, tables), len(columns), width]
    line = (width + lanes) * dtype.itemsize
    *places, end = np.cumsum([0, -(-steps // 8) * 64, steps * line, 3 * line]).tolist()
    words = np.array([*shared, *places, 0, batch, 1], np.int64)
    threads = max(1, min(jit.cpus(), steps * batch * most // _THREAD))
    pool.run(_kernel(need_backward, double), words, batch, threads, end // 4)
    return log_p, (columns, posterior) if need_backward else None
