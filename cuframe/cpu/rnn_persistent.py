"""The LSTM's time loop as compiled code that keeps each core on its own hidden units: Note [Persistent LSTM] in
`rnn_ir`.

It takes the place of the step loops of `rnn` for float32 LSTM without projection or lengths, where llvmlite is
installed (`CUFRAME_CPU_JIT=0` turns it off).  The result does not depend on the number of threads or on timing.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cuframe.cpu import jit
from cuframe.cpu.blas import product
from cuframe.cpu.rnn_layout import Layout

__all__ = ["Kept", "aligned", "applies", "backward", "forward", "input_gates"]

Array = npt.NDArray[Any]

# a vector holds columns of the batch, so that a small batch wastes most of it
_LEAST_BATCH = 6
# multiply-adds of a step that keep a thread busy for long enough
_THREAD_WORK = 1 << 20
# columns behind the last of the gates that vectors may read, at least
_SLACK = 48


class Kept(NamedTuple):
    """What `backward` needs besides the weights."""

    gates: Array                        # [4H, T * N and slack]: i, f, g, o
    cells: Array                        # [T + 1, blocks, padded H, W]


class _Tiling(NamedTuple):
    """How the batch is cut: `blocks` of `cols` vectors; the rows of a panel, forward in units and backward."""

    lanes: int
    cols: int
    blocks: int
    units: int
    rows: int

    @property
    def width(self) -> int:
        return self.lanes * self.cols


def applies(dtype: np.dtype[Any], cell: str, projected: bool, layout: Layout) -> bool:
    """Whether `forward` serves this case."""
    return (cell == "lstm" and dtype == np.float32 and not projected and layout.sizes is None and layout.total > 0
            and layout.batch >= _LEAST_BATCH and jit.available())


def forward(gates: Array, w_hh: Array, bias: Array, h: Array, c: Array, y: Array, reverse: bool,
            threads: int | None = None) -> tuple[Array, Array, Kept]:
    """Run all steps.

    Args:
        gates: from `input_gates`; becomes part of `Kept`.
        w_hh: [4H, H]; bias: [4H]; h, c: [H, N]; y: [T * N, H] rows to fill.

    Returns:
        h_n and c_n [H, N], and what `backward` needs.
    """
    hidden, batch = h.shape
    steps = len(y) // batch
    tile, padded = _tiling(batch), _padded(hidden)
    panels = -(-hidden // tile.units)
    depth = -(-hidden // 4) * 4
    blocks = np.zeros((4, panels * tile.units, depth), np.float32)
    blocks[:, :hidden, :hidden] = w_hh.reshape(4, hidden, hidden)
    weights = aligned(panels, depth, tile.units, 4)
    weights[...] = blocks.reshape(4, panels, tile.units, depth).transpose(1, 3, 2, 0)
    state = aligned(2, tile.blocks, padded, tile.width)
    cells = aligned(steps + 1, tile.blocks, padded, tile.width)
    state[1] = 0
    _to_blocks(h, state[0], tile)
    _to_blocks(c, cells[0], tile)
    _run(_kernel("forward", tile.lanes, tile.cols, tile.units), hidden, batch, tile, threads,
         steps, hidden, batch, tile.blocks, reverse, weights, bias, gates, gates.strides[0] // 4, cells,
         cells[0].size, state, state[0].size, padded, y, panels, depth)
    return (_from_blocks(state[steps % 2], hidden, batch), _from_blocks(cells[steps], hidden, batch),
            Kept(gates, cells))


def backward(kept: Kept, w_hh: Array, gy: Array, gh: Array, gc: Array, out: Array, reverse: bool,
             threads: int | None = None) -> tuple[Array, Array]:
    """Walk the steps back.

    Args:
        gy: [T * N, H]; gh, gc: [H, N].
        out: [4H, T * N] with contiguous rows, filled with the gradients of the gates as `rnn_cells` scales them.

    Returns:
        Gradients [H, N] of the first h and c.
    """
    hidden, batch = gh.shape
    steps = len(gy) // batch
    if gy.dtype != np.float32 or gy.strides[1] != 4:
        gy = np.ascontiguousarray(gy, np.float32)
    tile, padded = _tiling(batch), _padded(hidden)
    panels = -(-hidden // tile.rows)
    columns = np.zeros((4, hidden, panels * tile.rows), np.float32)
    columns[:, :, :hidden] = w_hh.reshape(4, hidden, hidden)
    weights = aligned(panels, hidden, 4, tile.rows)
    weights[...] = columns.reshape(4, hidden, panels, tile.rows).transpose(2, 1, 0, 3)
    dgates = aligned(2, tile.blocks, padded, 4, tile.width)
    rec, dc = (aligned(tile.blocks, padded, tile.width) for _ in range(2))
    _to_blocks(gh, rec, tile)
    _to_blocks(gc, dc, tile)
    _run(_kernel("backward", tile.lanes, tile.cols, tile.rows), hidden, batch, tile, threads,
         steps, hidden, batch, tile.blocks, reverse, weights, kept.gates, kept.gates.strides[0] // 4, kept.cells,
         kept.cells[0].size, dgates, dgates[0].size, padded, gy, gy.strides[0] // 4, panels, out,
         out.strides[0] // 4, rec, dc)
    return _from_blocks(rec, hidden, batch), _from_blocks(dc, hidden, batch)


@lru_cache(64)
def _tiling(batch: int) -> _Tiling:
    """The number of vectors a block that wastes the fewest columns; wide blocks read the weights less often."""
    lanes = jit.lanes()
    cols = min((2, 3, 1) if batch > lanes else (1,), key=lambda c: -(-batch // (lanes * c)) * c)
    units, rows = {1: (4, 16), 2: (2, 8), 3: (2, 8)}[cols]
    if lanes == 8:
        units, rows = units // 2, rows // 2
    return _Tiling(lanes, cols, -(-batch // (lanes * cols)), units, rows)


@lru_cache(None)
def _kernel(way: str, lanes: int, cols: int, rows: int) -> Callable[[int, int], None]:
    from cuframe.cpu import rnn_ir

    build = rnn_ir.build_forward if way == "forward" else rnn_ir.build_backward
    name = f"lstm_{way}_{lanes}_{cols}"
    return jit.load(build(name, lanes, cols, rows), name)


def _run(kernel: Callable[[int, int], None], hidden: int, batch: int, tile: _Tiling, threads: int | None,
         *values: int | Array) -> None:
    """Call `kernel` in all its threads; `values` are its arguments after the first three."""
    work = 4 * hidden * hidden * tile.blocks * tile.width
    threads = threads or max(1, min(jit.cpus(), work // _THREAD_WORK))
    counter = np.zeros(16, np.int64)
    words = [counter.ctypes.data, jit.yield_address(),
             *(v.ctypes.data if isinstance(v, np.ndarray) else int(v) for v in values)]

    def one(thread: int, count: int) -> None:
        arguments = np.array([count, *words], np.int64)
        kernel(arguments.ctypes.data, thread)

    jit.parallel(one, threads)


def aligned(*shape: int) -> Array:
    """An array of float32, not filled, whose first number starts a cache line."""
    size = math.prod(shape)
    space = np.empty(size + 16, np.float32)
    first = -space.ctypes.data % 64 // 4
    return space[first:first + size].reshape(shape)


def input_gates(w_ih: Array, x_rows: Array) -> Array:
    """w_ih x as `forward` wants it."""
    count = len(x_rows)
    gates = aligned(len(w_ih), -(-count // 16) * 16 + _SLACK)
    gates[:, count:] = 0
    product(w_ih, x_rows.T, gates[:, :count])
    return gates


def _to_blocks(a: Array, blocks: Array, tile: _Tiling) -> None:
    """Columns [H, N] into [blocks, padded, W]; what `a` does not cover becomes zero."""
    blocks.fill(0)
    for j in range(tile.blocks):
        part = a[:, j * tile.width:(j + 1) * tile.width]
        blocks[j, :len(a), :part.shape[1]] = part


def _from_blocks(blocks: Array, hidden: int, batch: int) -> Array:
    return blocks[:, :hidden].transpose(1, 0, 2).reshape(hidden, -1)[:, :batch].copy()


def _padded(hidden: int) -> int:
    """Units of a state: whole panels."""
    return -(-hidden // 16) * 16
