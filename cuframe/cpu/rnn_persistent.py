"""Recurrent layers' time loop as compiled code that keeps each core on its own hidden units: Note [Persistent layer]
in `rnn_ir`.

It takes the place of the step loops of `rnn` for float32 without projection, where llvmlite is installed
(`CUFRAME_CPU_JIT=0` turns it off).  The result does not depend on the number of threads or on timing.
"""
from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cuframe.cpu import jit, pool
from cuframe.cpu.rnn_layout import Layout

__all__ = ["Gradients", "Kept", "aligned", "applies", "backward", "forward"]

Array = npt.NDArray[Any]

# a vector holds columns of the batch, so that a small batch wastes most of it
_LEAST_BATCH = 6
# multiply-adds of a step that keep a thread busy for long enough
_THREAD_WORK = 1 << 20
# rows of the sequence that one pass of a weight's gradient takes, so that a tile of them stays in the nearest cache
_CHUNK_ROWS = 256
# bytes of the steps that `pairs_in` and `pairs_back` take at a time
_CHUNK_BYTES = 1 << 19


class Kept(NamedTuple):
    """What `backward` needs besides the weights; an array the cell has no use for is empty."""

    starts: Array                       # [T] first packed row of a step
    sizes: Array                        # [T] sequences in a step
    gates: Array                        # [T, blocks, padded, slots, W]
    states: Array                       # [T + 1, blocks, padded, W], unless there are cells
    cells: Array                        # [T + 1, blocks, padded, W]


class Gradients(NamedTuple):
    """What `backward` gives; `None` where not needed."""

    h: Array                            # [H, N]
    c: Array | None                     # [H, N]
    x: Array | None                     # [total, I]
    w_ih: Array | None
    w_hh: Array | None
    b_ih: Array
    b_hh: Array


class _Tiling(NamedTuple):
    """How the batch is cut: `blocks` of `cols` vectors; the rows of the panels of the three kernels, in units but for
    backward; `padded` is the number of units of an array that all panels fit in."""

    lanes: int
    cols: int
    blocks: int
    units: int
    rows: int
    outer: int
    padded: int

    @property
    def rows_of_pairs(self) -> int:
        return 12 if self.lanes == 16 else 6

    @property
    def width(self) -> int:
        return self.lanes * self.cols


def applies(dtype: np.dtype[Any], projected: bool, layout: Layout) -> bool:
    """Whether `forward` serves this case."""
    return (dtype == np.float32 and not projected and layout.total > 0 and layout.batch >= _LEAST_BATCH
            and jit.available())


def forward(name: str, x: Array, w_ih: Array, w_hh: Array, b_ih: Array | None, b_hh: Array | None, h: Array,
            c: Array | None, y: Array, layout: Layout, reverse: bool, keep: bool) -> tuple[Array, Array | None, Kept]:
    """Run all steps.

    Args:
        name: the cell, as `rnn.forward` takes it.
        x: packed rows [total, I]; w_ih: [G*H, I]; w_hh: [G*H, H]; b_ih, b_hh: [G*H] or None.
        h, c: [H, N] in packed order; y: [total, H] rows to fill.
        keep: whether `backward` will be called.

    Returns:
        h_n and c_n [H, N], and what `backward` needs.
    """
    cell = _cell(name)
    hidden, batch, inputs = len(h), layout.batch, x.shape[1]
    tile = _tiling(name, batch, hidden)
    starts, sizes = _rows_of_steps(layout)
    steps, gates = len(starts), len(cell.h_slots)
    x, w_ih, w_hh = _dense(x), np.ascontiguousarray(w_ih), np.ascontiguousarray(w_hh)
    bias = np.zeros((cell.slots, hidden), np.float32)
    for b, slots in ((b_ih, cell.x_slots), (b_hh, cell.h_slots)):
        if b is not None:
            np.add.at(bias, list(slots), b.reshape(gates, hidden))
    early = keep and tile.cols == 1     # Note [Persistent layer]: the input side goes ahead of the loop
    depth_h, depth_x = _up(hidden, 4), 0 if early else _up(inputs, 4)
    panels = -(-hidden // tile.units)
    pack_h, pack_x = (aligned(panels, depth, tile.units * gates) for depth in (depth_h, depth_x))
    height_x = _up(inputs, tile.lanes)
    turned = aligned(2, tile.blocks, height_x, tile.width)
    of_steps = (tile.blocks, tile.padded, tile.width)
    keeps_states = keep and not cell.has_c
    states = aligned(steps + 1 if keeps_states else 2, *of_steps)
    states[:, :, hidden:] = 0
    _to_blocks(h, states[0], tile)
    cells = aligned(steps + 1 if keep else 1, *of_steps) if cell.has_c else aligned(0)
    if c is not None and cell.has_c:
        _to_blocks(c, cells[0], tile)
    of_gates = (tile.blocks, tile.padded, cell.slots, tile.width)
    kept = aligned(steps if keep else 1, *of_gates) if cell.keeps_gates else aligned(0)
    if early:
        sums = kept if cell.keeps_gates else aligned(steps, *of_gates)
        if len(cell.x_slots) < cell.slots:
            sums.fill(0)
        _ahead(name, x, w_ih, starts, sizes, sums, hidden, tile)
    else:
        sums = aligned(1, *of_gates)
        sums.fill(0)
    ring = -1 if keeps_states else 1
    _run(_kernel("forward", name, tile), hidden * (hidden + inputs) * gates * batch, tile,
         (3 * gates if tile.cols == 1 else cell.slots * tile.cols) * tile.units * tile.lanes,
         steps, hidden, 0 if early else inputs, tile.blocks, reverse, starts, sizes, w_hh, w_ih, pack_h, pack_x,
         depth_h, depth_x, panels, bias, x, x.strides[0] // 4, turned, turned[0].size, height_x, sums,
         _stride(sums, early), states, states[0].size, ring, cells, _stride(cells, keep), kept, _stride(kept, keep), y,
         tail=(tile.padded,))
    return (_from_blocks(states[steps & ring], hidden, batch),
            _from_blocks(cells[steps if keep else 0], hidden, batch) if cell.has_c else None,
            Kept(starts, sizes, kept, states if keeps_states else aligned(0), cells))


def backward(name: str, kept: Kept, x: Array, previous: Array, w_ih: Array, w_hh: Array, gy: Array, gh: Array,
             gc: Array | None, reverse: bool, needs: tuple[bool, bool, bool]) -> Gradients:
    """Walk the steps back.

    Args:
        x: as in `forward`; previous: [total, H], the states that each row of x started from.
        gy: [total, H]; gh, gc: [H, N].
        needs: whether the gradients of x, w_ih and w_hh are needed.
    """
    cell = _cell(name)
    hidden, batch = gh.shape
    inputs = x.shape[1]
    tile = _tiling(name, batch, hidden)
    steps, gates = len(kept.starts), len(cell.h_slots)
    gy, x, previous = _dense(gy), _dense(x), _dense(previous)
    w_ih, w_hh = np.ascontiguousarray(w_ih), np.ascontiguousarray(w_hh)
    late = tile.cols == 1
    panels_h, panels_x = -(-hidden // tile.rows), -(-inputs // tile.rows) if needs[0] and not late else 0
    pack_h, pack_x = (aligned(panels, hidden, gates, tile.rows) for panels in (panels_h, panels_x))
    dgates = aligned(steps, tile.blocks, tile.padded, cell.slots, tile.width)
    carry, dc = (aligned(tile.blocks, tile.padded, tile.width) for _ in range(2))
    _to_blocks(gh, carry, tile)
    if gc is not None:
        _to_blocks(gc, dc, tile)
    sums = aligned(tile.padded, cell.slots, tile.width)
    sums.fill(0)
    gx = np.empty((len(x), inputs), np.float32) if needs[0] else None
    turned = aligned(2, tile.blocks, tile.padded, tile.width)
    height_x = max(_up(inputs, tile.lanes), panels_x * tile.rows)
    dx_turned = aligned(2, tile.blocks, height_x, tile.width) if panels_x else aligned(2, 0)
    _run(_kernel("backward", name, tile), hidden * (hidden + inputs * needs[0]) * gates * batch, tile,
         max(2, tile.cols) * tile.rows * tile.lanes,
         steps, hidden, inputs, tile.blocks, reverse, kept.starts, kept.sizes, w_hh, w_ih, pack_h, pack_x, panels_h,
         panels_x, kept.gates, _stride(kept.gates), kept.states, _stride(kept.states), kept.cells,
         _stride(kept.cells), gy, gy.strides[0] // 4, turned, turned[0].size, dgates, dgates[0].size, carry, dc, sums,
         0 if gx is None else gx, dx_turned, dx_turned[0].size, height_x, tail=(tile.padded,))
    if gx is not None and late:
        _afterwards(name, dgates, w_ih, kept, gx, tile)
    gw_ih, gw_hh = (_outer(name, side, kept, dgates, rows, hidden, tile) if need else None
                    for side, rows, need in ((0, x, needs[1]), (1, previous, needs[2])))
    totals = sums[:hidden].sum(2).T
    gb_ih, gb_hh = (totals[list(slots)].reshape(-1) for slots in (cell.x_slots, cell.h_slots))
    return Gradients(_from_blocks(carry, hidden, batch), None if gc is None else _from_blocks(dc, hidden, batch), gx,
                     gw_ih, gw_hh, gb_ih, gb_hh)


def _ahead(name: str, x: Array, w_ih: Array, starts: Array, sizes: Array, out: Array, hidden: int,
           tile: _Tiling) -> None:
    """w_ih x of all steps of a batch of one vector into `out` [T, 1, padded, slots, lanes]."""
    inputs, steps, gates = x.shape[1], len(starts), len(_cell(name).x_slots)
    depth, height, panels = _up(inputs, 4), _up(inputs, tile.lanes), -(-hidden // tile.outer)
    pack, turned = aligned(panels, depth, tile.outer * gates), aligned(steps, height, tile.lanes)
    _run(_kernel("pairs_in", name, tile), len(x) * len(w_ih) * inputs, tile, 0,
         steps, _chunk(height * tile.lanes), hidden, inputs, 1, 0, starts, sizes, w_ih, pack, depth, panels, x,
         x.strides[0] // 4, turned, turned[0].size, height, out, out[0].size)


def _afterwards(name: str, dgates: Array, w_ih: Array, kept: Kept, gx: Array, tile: _Tiling) -> None:
    """The gradient of the input of a batch of one vector."""
    (total, inputs), steps, gates = gx.shape, len(dgates), len(_cell(name).x_slots)
    hidden, panels, rows = len(w_ih) // gates, -(-inputs // tile.rows_of_pairs), tile.rows_of_pairs
    height = max(_up(inputs, tile.lanes), panels * rows)
    pack, turned = aligned(panels, hidden, gates, rows), aligned(steps, height, tile.lanes)
    _run(_kernel("pairs_back", name, tile), total * w_ih.size, tile, 0,
         steps, _chunk(dgates[0].size), hidden, inputs, 1, 0, kept.starts, kept.sizes, w_ih, pack, panels, dgates,
         dgates[0].size, turned, turned[0].size, height, gx)


def _chunk(size: int) -> int:
    """An even number of steps of `size` numbers that stay in the cache."""
    return max(2, _CHUNK_BYTES // (4 * size) // 2 * 2)


def _outer(name: str, side: int, kept: Kept, dgates: Array, z: Array, hidden: int, tile: _Tiling) -> Array:
    """Gradient of the weights between the rows `z` and the gates: side 0 of `x`, 1 of the state."""
    cell, units, count = _cell(name), tile.outer, z.shape[1]
    gates = len(cell.h_slots)
    out = np.empty((gates * hidden, count), np.float32)
    chunk = max(1, _CHUNK_ROWS // tile.width)
    pairs = len(kept.starts) * tile.blocks
    _run(_kernel("outer_x" if side == 0 else "outer_h", name, tile), out.size * len(z), tile,
         chunk * tile.width * 2 * tile.lanes,
         pairs, tile.blocks, chunk, kept.starts, kept.sizes, hidden, count, z, z.strides[0] // 4, dgates,
         dgates[0, 0].size, out, tail=(-(-hidden // units),))
    return out


def _cell(name: str) -> Any:
    from cuframe.cpu import rnn_ir

    return rnn_ir.CELLS[name]


@lru_cache(256)
def _tiling(name: str, batch: int, hidden: int) -> _Tiling:
    """The number of vectors a block that wastes the fewest columns; wide blocks read the weights less often."""
    cell, lanes = _cell(name), jit.lanes()
    cols = min((2, 3), key=lambda c: _up(batch, lanes * c)) if batch > lanes else 1
    # sums in registers: 24 of 32 with 512 bits, 12 of 16 with 256
    rows = (24 if lanes == 16 else 12) // cols
    gates = len(cell.h_slots)
    units = max(1, rows // cell.slots)
    if cols == 1:                           # vectors of weights: `_wide` in rnn_ir
        units, rows = (3 if gates > 1 else 2) * lanes // gates, 2 * lanes
    outer = max(1, (12 if lanes == 16 else 6) // gates)     # the tile of all kernels whose columns are two vectors
    padded = _up(max(_up(hidden, n) for n in (rows, units, outer)), lanes)
    return _Tiling(lanes, cols, -(-batch // (lanes * cols)), units, rows, outer, padded)


def _kernel(way: str, name: str, tile: _Tiling) -> jit.Kernel:
    if way == "outer_x" and _cell(name).x_slots == _cell(name).h_slots:
        way = "outer_h"
    return _compiled(way, name, tile.lanes, tile.cols)


@lru_cache(None)
def _compiled(way: str, name: str, lanes: int, cols: int) -> jit.Kernel:
    from cuframe.cpu import rnn_ir

    cell, tile = rnn_ir.CELLS[name], _tiling(name, lanes * cols, 1)
    assert (tile.lanes, tile.cols) == (lanes, cols)
    symbol = f"{name}_{way}_{lanes}_{cols}"
    if way == "forward":
        module = rnn_ir.build_forward(symbol, cell, lanes, cols, tile.units)
    elif way == "backward":
        module = rnn_ir.build_backward(symbol, cell, lanes, cols, tile.rows)
    elif way == "pairs_in":
        module = rnn_ir.build_pairs_in(symbol, cell, lanes, tile.outer)
    elif way == "pairs_back":
        module = rnn_ir.build_pairs_back(symbol, cell, lanes, tile.rows_of_pairs)
    else:
        slots = cell.h_slots if way == "outer_h" else cell.x_slots
        module = rnn_ir.build_outer(symbol, slots, cell.slots, lanes, cols, tile.outer)
    return jit.load(module, symbol)


def _run(kernel: jit.Kernel, work: int, tile: _Tiling, scratch: int, *values: int | Array,
         tail: tuple[int, ...] = ()) -> None:
    """Call `kernel` in all its threads; its arguments are the first three, `values`, scratch for each thread and
    `tail`."""
    threads = max(1, min(jit.cpus(), work // _THREAD_WORK))
    space = aligned(threads, scratch + 16)
    counter = np.zeros(16, np.int64)
    arrays = (*values, space, scratch + 16, *tail)
    words = [counter.ctypes.data, jit.yield_address(),
             *(v.ctypes.data if isinstance(v, np.ndarray) else int(v) for v in arrays)]
    together, alone = (np.array([count, *words], np.int64) for count in (threads, 1))
    pool.run(kernel, together, threads, threads, alone=alone)


def _rows_of_steps(layout: Layout) -> tuple[Array, Array]:
    """First packed row and number of sequences of each step, for steps that have any."""
    if layout.sizes is None:
        sizes = np.full(layout.steps, layout.batch, np.int64)
    else:
        sizes = np.ascontiguousarray(layout.sizes[layout.sizes > 0], np.int64)
    return np.cumsum(sizes) - sizes, sizes


def _dense(rows: Array) -> Array:
    """Float32 whose rows are contiguous, a given distance apart."""
    if rows.dtype == np.float32 and rows.strides[1] == 4 and rows.strides[0] % 4 == 0:
        return rows
    return np.ascontiguousarray(rows, np.float32)


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def _stride(steps: Array, several: bool = True) -> int:
    """Numbers from one step to the next, 0 where they share their place."""
    return steps[0].size if several and steps.size else 0


def aligned(*shape: int) -> Array:
    """An array of float32, not filled, whose first number starts a cache line."""
    size = math.prod(shape)
    space = np.empty(size + 16, np.float32)
    first = -space.ctypes.data % 64 // 4
    return space[first:first + size].reshape(shape)


def _to_blocks(a: Array, blocks: Array, tile: _Tiling) -> None:
    """Columns [H, N] into [blocks, padded, W]; what `a` does not cover becomes zero."""
    blocks.fill(0)
    for j in range(tile.blocks):
        part = a[:, j * tile.width:(j + 1) * tile.width]
        blocks[j, :len(a), :part.shape[1]] = part


def _from_blocks(blocks: Array, hidden: int, batch: int) -> Array:
    return blocks[:, :hidden].transpose(1, 0, 2).reshape(hidden, -1)[:, :batch].copy()
