"""Whole-sequence recurrent layers in NumPy: one direction of one layer, all time steps, forward and backward.

`forward` and `backward` run LSTM (with or without projection), GRU, tanh and ReLU RNN through one loop.  The cells
are in `rnn_cells`, with the memory layout and the tricks that make a step cheap; packing is in `rnn_layout`.

Note [How a sequence is run]
Rows of `x` and `y` are kept as PyTorch packs them.  A run of steps with the same batch size `n`, short enough for its
gates to stay in the cache, is a `Span`.  A span does one GEMM for the input side of all its steps, then per step one
GEMM and a few ufuncs in place.  With lengths the state loses columns as sequences end (gains them in reverse), so
padding is never computed.  Biases ride along as one more column of `w_hh` that meets a row of ones in the state.
Backward fills one array [gate rows, packed rows] and ends in one GEMM each for `w_ih`, `w_hh` and `x`.
Float32 without projection runs in compiled code where llvmlite is installed: `rnn_persistent`.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cuframe.cpu import rnn_persistent, rnn_step
from cuframe.cpu.blas import product
from cuframe.cpu.rnn_cells import CELLS, Cell, Constants
from cuframe.cpu.rnn_checks import check, check_lengths
from cuframe.cpu.rnn_layout import (
    Layout,
    Span,
    batch_major,
    columns,
    gate_rows,
    make_layout,
    pack,
    previous_rows,
    resize,
    spans,
    unpack,
    weight_gradient,
)

__all__ = ["Grads", "Saved", "backward", "forward"]

Array = npt.NDArray[Any]

_SPAN_BYTES = 1 << 21
_CHUNK_BYTES = 1 << 23


class Grads(NamedTuple):
    """Gradients of one layer direction, `None` where not needed or not given; shapes and dtypes as the inputs."""

    x: Array | None = None
    h0: Array | None = None
    c0: Array | None = None
    w_ih: Array | None = None
    w_hh: Array | None = None
    b_ih: Array | None = None
    b_hh: Array | None = None
    w_hr: Array | None = None


@dataclass(slots=True)
class Saved:
    """What `backward` needs from `forward`.

    `x` and `weights` (w_ih, w_hh, b_ih, b_hh, w_hr) are the caller's arrays, or float32 copies of half-precision ones.
    `rows` holds the packed outputs with the initial state in front (behind, if reversed); `y` is a view of it unless
    lengths or half precision made a copy, so that `y` must not change before `backward`.  Per span, `gates` is
    [steps, 5, H, n] for LSTM (with c_{t-1} as the last), [steps, 4, H, n] for GRU, and `cells` is the LSTM's last c.
    That is 6 (LSTM), 5 (GRU) or 1 (RNN) numbers for each hidden unit, step and sequence, padding not counted.
    `compiled` is there instead of spans, gates and cells if `rnn_persistent` ran.
    """

    kind: Cell
    dtype: np.dtype[Any]
    reverse: bool
    packed: bool
    layout: Layout
    spans: list[Span]
    x: Array
    weights: tuple[Array, Array, Array | None, Array | None, Array | None]
    rows: Array
    gates: list[Array]
    cells: list[Array]
    compiled: rnn_persistent.Kept | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held beyond the caller's arrays."""
        return self.rows.nbytes + sum(a.nbytes for a in (*self.gates, *self.cells, *(self.compiled or ())))


def forward(cell: str, x: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None,
            w_hr: Array | None = None, h0: Array | None = None, c0: Array | None = None, *,
            lengths: npt.ArrayLike | None = None, batch_sizes: npt.ArrayLike | None = None, reverse: bool = False,
            need_backward: bool = True,
            recompute: bool = False) -> tuple[Array, Array, Array | None, Saved | rnn_step.Saved | None]:
    """Run one direction of one recurrent layer over a whole sequence.

    LSTM: c_t = f c_{t-1} + i g, h_t = W_hr (o tanh(c_t)) with i, f, o = sigmoid(.), g = tanh(.) of
    W_ih x_t + b_ih + W_hh h_{t-1} + b_hh.  GRU: n = tanh(W_in x_t + b_in + r (W_hn h_{t-1} + b_hn)),
    h_t = (1 - z) n + z h_{t-1}.  RNN: h_t = tanh or relu of the sum.

    Args:
        cell: "lstm", "gru", "rnn_tanh" or "rnn_relu"; gates in PyTorch's order, (i, f, g, o) and (r, z, n).
        x: [T, N, I], or packed rows [S, I] when `batch_sizes` is given; float16, bfloat16, float32 or float64.
        w_ih: [G*H, I].
        w_hh: [G*H, P], with P = H unless there is a projection.
        b_ih, b_hh: [G*H] or None.
        w_hr: [P, H], LSTM only: the projection, or None.
        h0: [N, P], zeros if None.
        c0: [N, H], LSTM only, zeros if None.
        lengths: [N] integers from 0 to T in any order.  Past its length a sequence has y = 0 and keeps its state;
            reversed, it starts at its own last step.
        batch_sizes: [T] non-increasing numbers of sequences in the steps of packed `x`.
        reverse: run from the last step to the first.
        need_backward: keep what `backward` needs; without it only `y` and a span's workspace are allocated.
        recompute: changes nothing here; on a GPU, gates are made again in the place of keeping them.

    Returns:
        y [T, N, P] (rows [S, P] for packed `x`), h_n [N, P], c_n [N, H] or None, and a `Saved` or None.
        Half precision is computed in float32 and rounded at the end.

    Raises:
        ValueError: an argument does not fit; nothing has been computed then.

    Deterministic for a given NumPy and number of BLAS threads.

    >>> import numpy as np
    >>> y, h_n, c_n, saved = forward("rnn_tanh", np.ones((3, 1, 1)), np.eye(1), np.eye(1))
    >>> y[:, 0, 0].round(4)
    array([0.7616, 0.9427, 0.9597])
    """
    if cell not in CELLS:
        raise ValueError(f"rnn: cell must be one of {', '.join(CELLS)}, got {cell!r}")
    if lengths is None and batch_sizes is None and w_hr is None and x.ndim == 3 and len(x) == 1:
        out, c_1, step = rnn_step.forward(cell, x[0], h0, c0, w_ih, w_hh, b_ih, b_hh)
        return out[None], out.copy(), c_1, step if need_backward else None
    kind = CELLS[cell]
    sizes = None if batch_sizes is None else np.asarray(batch_sizes)
    batch = check(cell, kind.gates, kind.has_c, x, w_ih, w_hh, b_ih, b_hh, w_hr, h0, c0, sizes)
    steps = len(x) if sizes is None else len(sizes)
    layout = make_layout(steps, batch, check_lengths(cell, lengths, steps, batch), sizes)
    dtype = x.dtype
    work = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    if dtype != work:
        x, w_ih, w_hh = (a.astype(work) for a in (x, w_ih, w_hh))
        b_ih, b_hh, w_hr = (a if a is None else a.astype(work) for a in (b_ih, b_hh, w_hr))
    hidden, features = len(w_hh) // kind.gates, w_hh.shape[1]

    start = columns(h0, layout.order, features, batch, work)
    rows = np.empty((layout.total + batch, features), work)
    (rows[layout.total:] if reverse else rows[:batch])[...] = start.T
    y_rows = rows[:layout.total] if reverse else rows[batch:]
    cell_start = columns(c0, layout.order, hidden, batch, work) if kind.has_c else None
    compiled = rnn_persistent.applies(work, w_hr is not None, layout)
    saved = Saved(kind, dtype, reverse, sizes is not None, layout,
                  [] if compiled else spans(layout, kind.slabs * hidden * work.itemsize, _SPAN_BYTES),
                  x, (w_ih, w_hh, b_ih, b_hh, w_hr), rows, [], [])
    if compiled:
        h_n, c_n, kept = rnn_persistent.forward(cell, pack(x, layout), w_ih, w_hh, b_ih, b_hh, start, cell_start,
                                                y_rows, layout, reverse, need_backward)
        saved.compiled = kept if need_backward else None
    else:
        h_n, c_n = _run_forward(saved, y_rows, start, cell_start, need_backward)
    y = unpack(y_rows, layout, saved.packed)
    return (y.astype(dtype, copy=False), batch_major(h_n, layout.order, dtype),
            None if c_n is None else batch_major(c_n, layout.order, dtype), saved if need_backward else None)


def _run_forward(s: Saved, y_rows: Array, start: Array, cell_start: Array | None,
                 keep: bool) -> tuple[Array, Array | None]:
    """Fill `y_rows`, `s.gates` and `s.cells`; return the last states as columns."""
    kind, (w_ih, w_hh, b_ih, b_hh, w_hr) = s.kind, s.weights
    hidden, features, dtype = len(w_hh) // kind.gates, len(start), start.dtype
    # without a projection the running state is out_scale * h: Note [Sigmoid from tanh]
    scale = kind.out_scale if w_hr is None else 1.0
    w_x = gate_rows(w_ih, kind.x_order, kind.x_scale)
    w_h = gate_rows(w_hh, kind.h_order, [a / scale for a in kind.h_scale])
    b_x, b_h = _merge_biases(kind, b_ih, b_hh)
    if b_h is not None:
        w_h = np.concatenate([w_h, b_h[:, None]], 1)
    w_p = None if w_hr is None else w_hr * dtype.type(1 / kind.out_scale)
    x_rows = pack(s.x, s.layout)
    slabs, x_slabs, wide, top = kind.slabs, len(kind.x_order), w_h.shape[1], kind.h_at * hidden
    bottom = top + len(w_h)

    start, unscale = start * dtype.type(scale), dtype.type(1 / scale)
    h_n, c_n = start.copy(), None if cell_start is None else cell_start.copy()
    state, cell = np.empty((wide, 0), dtype), np.empty((hidden, 0), dtype)
    most = max((span.steps * span.n for span in s.spans), default=0)
    x_space, gx_space, h_space = (np.empty(f * most, dtype) for f in (len(w_x), len(w_x), wide))
    step_space = np.empty((slabs + 3) * hidden * s.layout.batch, dtype)
    k, dot, step = Constants(dtype), np.dot, kind.forward
    way = slice(None, None, -1 if s.reverse else 1)
    for row, m, n in s.spans[way]:
        state = resize(state, n, start, h_n)
        by_gate = x_space[:len(w_x) * m * n].reshape(len(w_x), m * n)
        dot(w_x, x_rows[row:row + m * n].T, by_gate)
        if b_x is not None:
            by_gate[:top] += b_x[:, None]
        gx = gx_space[:by_gate.size].reshape(m, x_slabs, hidden, n)
        np.copyto(gx.reshape(m, len(w_x), n), by_gate.reshape(len(w_x), m, n).transpose(1, 0, 2))

        scratch = step_space[:(slabs + 3) * hidden * n].reshape(slabs + 3, hidden, n)
        tmp, full = scratch[:2], scratch[2]
        if keep and kind.keeps_gates:
            gates = np.empty((m, slabs, hidden, n), dtype)
            s.gates.append(gates)
        else:
            gates = _repeat(scratch[3:], m)
        recurrent = gates.reshape(m, slabs * hidden, n)[way, top:bottom]
        gates = gates[way]
        after: list[Array] = []
        if c_n is not None and cell_start is not None:
            gates[0, -1] = resize(cell, n, cell_start, c_n)
            cell = np.empty((hidden, n), dtype)
            after = [*gates[1:, -1], cell]
            if keep:
                s.cells.append(cell)
        states = h_space[:m * wide * n].reshape(m, wide, n)
        states[:, features:] = 1
        outs = states[:, :features]
        h = state[:features]
        for g_h, gx_t, out, wider, parts in zip(recurrent, gx[way], outs[way], states[way],
                                                zip(*kind.views(gates, after))):
            dot(w_h, state, g_h)
            if w_p is None:
                step(gx_t, h, out, tmp, k, *parts)
            else:
                step(gx_t, h, full, tmp, k, *parts)
                dot(w_p, full, out)
            state, h = wider, out
        state = state.copy()
        y = y_rows[row:row + m * n].reshape(m, n, features)
        np.copyto(y, outs.transpose(0, 2, 1))
        if scale != 1:
            y *= unscale

    h_n[:, :state.shape[1]] = state[:features]
    h_n *= unscale
    if c_n is not None:
        c_n[:, :cell.shape[1]] = cell
    return h_n, c_n


def backward(saved: Saved | rnn_step.Saved, gy: Array | None, gh_n: Array | None = None, gc_n: Array | None = None,
             needs: Sequence[bool] = (True,) * 8) -> Grads:
    """Gradients of `forward`.

    Args:
        saved: from `forward`; it is only read, so that backward can run again.
        gy: gradient of y, in y's shape, or None for zero; what it holds in the padding is ignored.
        gh_n: [N, P] or None for zero.
        gc_n: [N, H] or None for zero.
        needs: which gradients to compute, in the order of `Grads`.

    Returns:
        `Grads`, with `None` for what is not needed or was not given to `forward`.

    Deterministic for a given NumPy and number of BLAS threads.

    >>> import numpy as np
    >>> w = np.full((1, 1), 0.5)
    >>> y, h_n, _, saved = forward("rnn_relu", np.ones((2, 1, 1)), w, w)
    >>> backward(saved, None, gh_n=np.ones((1, 1))).w_hh
    array([[0.5]])
    """
    if isinstance(saved, rnn_step.Saved):
        return _backward_of_step(saved, gy, gh_n, gc_n, needs)
    s, kind = saved, saved.kind
    w_ih, w_hh, b_ih, b_hh, w_hr = s.weights
    need_x, need_h0, need_c0, need_w_ih, need_w_hh, need_b_ih, need_b_hh, need_w_hr = needs
    wants_gates = need_x or need_w_ih or need_w_hh or need_b_ih or need_b_hh
    hidden, features, dtype, total = len(w_hh) // kind.gates, w_hh.shape[1], w_hh.dtype, s.layout.total
    previous = previous_rows(s.rows, s.layout, s.reverse) if need_w_hh or kind.reads == "before" else None
    gh_last = columns(gh_n, s.layout.order, features, s.layout.batch, dtype)
    gc_last = columns(gc_n, s.layout.order, hidden, s.layout.batch, dtype) if kind.has_c else None
    gy_rows = None if gy is None else pack(gy, s.layout)
    if s.compiled is not None:
        return _backward_compiled(s, s.compiled, gy_rows, gh_last, gc_last, previous, needs)
    # rows a power of two apart would share cache sets; unlike np.dot, np.matmul takes padded rows without a copy
    wide = (kind.h_at + len(kind.h_order)) * hidden
    gates = np.empty((wide, total + 16), dtype)[:, :total] if wants_gates else None
    gw_hr = np.zeros_like(w_hr) if w_hr is not None and need_w_hr else None
    if gc_last is not None:
        gc_last = gc_last * dtype.type(2)   # the running gradient of c is kept doubled, see lstm_cell_backward
    gh0, gc0 = _run_backward(s, gy_rows, gh_last, gc_last, previous, gates, gw_hr)
    if gc0 is not None:
        gc0 *= dtype.type(0.5)

    gx = gw_ih = gw_hh = gb_ih = gb_hh = None
    if gates is not None:
        by_x, by_h = gates[:len(kind.x_order) * hidden], gates[kind.h_at * hidden:]
        if need_x:
            gx = unpack(product(by_x.T, gate_rows(w_ih, kind.x_order, kind.x_grad_scale)), s.layout, s.packed)
            gx = gx.astype(s.dtype, copy=False)
        if need_w_ih:
            gw_ih = weight_gradient(product(by_x, pack(s.x, s.layout)), kind.x_order, kind.x_grad_scale, s.dtype)
        if need_w_hh and previous is not None:
            gw_hh = weight_gradient(product(by_h, previous), kind.h_order, kind.h_grad_scale, s.dtype)
        sums = product(gates, np.ones((total, 1), dtype))[:, 0]
        if need_b_ih and b_ih is not None:
            gb_ih = weight_gradient(sums[:len(by_x)], kind.x_order, kind.x_grad_scale, s.dtype)
        if need_b_hh and b_hh is not None:
            gb_hh = weight_gradient(sums[-len(by_h):], kind.h_order, kind.h_grad_scale, s.dtype)
    return Grads(gx, batch_major(gh0, s.layout.order, s.dtype) if need_h0 else None,
                 batch_major(gc0, s.layout.order, s.dtype) if need_c0 and gc0 is not None else None,
                 gw_ih, gw_hh, gb_ih, gb_hh, None if gw_hr is None else gw_hr.astype(s.dtype, copy=False))


def _backward_of_step(s: rnn_step.Saved, gy: Array | None, gh_n: Array | None, gc_n: Array | None,
                      needs: Sequence[bool]) -> Grads:
    gy = None if gy is None else gy[0]
    gx, *others = rnn_step.backward(s, gh_n if gy is None else gy if gh_n is None else gy + gh_n, gc_n, needs[:7])
    return Grads(None if gx is None else gx[None], *others)


def _backward_compiled(s: Saved, kept: rnn_persistent.Kept, gy_rows: Array | None, gh_last: Array,
                       gc_last: Array | None, previous: Array | None, needs: Sequence[bool]) -> Grads:
    """`backward` by `rnn_persistent`."""
    w_ih, w_hh, b_ih, b_hh, _ = s.weights
    need_x, need_h0, need_c0, need_w_ih, need_w_hh, need_b_ih, need_b_hh, _ = needs
    x_rows = pack(s.x, s.layout)
    if gy_rows is None:
        gy_rows = np.zeros((s.layout.total, len(gh_last)), np.float32)
    g = rnn_persistent.backward(s.kind.name, kept, x_rows, gy_rows if previous is None else previous, w_ih, w_hh,
                                gy_rows, gh_last, gc_last, s.reverse, (need_x, need_w_ih, need_w_hh))

    def given(a: Array | None, need: bool = True) -> Array | None:
        return None if a is None or not need else a.astype(s.dtype, copy=False)

    order = s.layout.order
    return Grads(None if g.x is None else given(unpack(g.x, s.layout, s.packed)),
                 batch_major(g.h, order, s.dtype) if need_h0 else None,
                 batch_major(g.c, order, s.dtype) if need_c0 and g.c is not None else None,
                 given(g.w_ih), given(g.w_hh), given(g.b_ih, need_b_ih and b_ih is not None),
                 given(g.b_hh, need_b_hh and b_hh is not None))


def _run_backward(s: Saved, gy_rows: Array | None, gh_n: Array, gc_n: Array | None, previous: Array | None,
                  out: Array | None, gw_hr: Array | None) -> tuple[Array, Array | None]:
    """Gradients of the first states as columns, from those of the last; fills `out` and adds to `gw_hr`."""
    kind, (_, w_hh, _, _, w_hr) = s.kind, s.weights
    hidden, features, dtype, slabs = len(w_hh) // kind.gates, len(gh_n), gh_n.dtype, kind.back_slabs
    w_back = np.ascontiguousarray(gate_rows(w_hh, kind.h_order, kind.h_grad_scale).T)
    w_p = None if w_hr is None else np.ascontiguousarray(w_hr.T)
    state_rows = previous if kind.reads == "before" else None
    if kind.reads == "after":
        state_rows = s.rows[:s.layout.total] if s.reverse else s.rows[s.layout.batch:]

    gh0, gc0 = gh_n.copy(), None if gc_n is None else gc_n.copy()
    rec, carry = np.empty((features, 0), dtype), np.empty((hidden, 0), dtype)
    most = max((span.steps * span.n for span in s.spans), default=0)
    f_space, gy_space, h_space = (np.empty(f * most, dtype) for f in (slabs * hidden, features, hidden))
    full_space = np.empty(hidden * s.layout.batch, dtype)
    k, dot, add, step = Constants(dtype), np.dot, np.add, kind.backward
    way = slice(None, None, -1 if s.reverse else 1)
    for j in reversed(range(len(s.spans))):
        row, m, n = s.spans[~j if s.reverse else j]
        rows = slice(row, row + m * n)
        rec = resize(rec, n, gh_n, gh0)
        if gc_n is not None and gc0 is not None:
            carry = resize(carry, n, gc_n, gc0)
        factors = f_space[:m * slabs * hidden * n].reshape(m, slabs, hidden, n)
        gy = gy_space[:m * features * n].reshape(m, features, n)
        h = h_space[:m * hidden * n].reshape(m, hidden, n)
        full = full_space[:hidden * n].reshape(hidden, n)
        gates = s.gates[j][way] if kind.keeps_gates else factors
        if state_rows is not None:
            np.copyto(h, state_rows[rows].reshape(m, n, hidden).transpose(0, 2, 1))
        kind.factors(gates, h[way], s.cells[j] if kind.has_c else None, factors[way], k)
        if gy_rows is None:
            gy.fill(0)
        else:
            np.copyto(gy, gy_rows[rows].reshape(m, n, features).transpose(0, 2, 1))

        flat = factors.reshape(m, slabs * hidden, n)[:, kind.back_at * hidden:]
        by_h = flat[:, kind.h_at * hidden:kind.h_at * hidden + w_back.shape[1]]
        back = slice(None, None, 1 if s.reverse else -1)
        for g_h, dh, parts in zip(by_h[back], gy[back], zip(*kind.backward_views(factors[back]))):
            add(rec, dh, dh)
            if w_p is None:
                carry = step(dh, carry, *parts)
            else:
                carry = step(dot(w_p, dh, full), carry, *parts)
            dot(w_back, g_h, rec)
            if kind.carries:
                add(rec, carry, rec)
        carry = carry.copy()
        if out is not None:
            np.copyto(out[:, rows].reshape(-1, m, n), flat[:, :len(out)].transpose(1, 0, 2))
        if gw_hr is not None:
            c = gates[:, -1]
            np.tanh(c[1:], h[way][:-1])
            np.tanh(s.cells[j], h[way][-1])
            np.multiply(h[way], gates[:, 0], h[way])
            gw_hr += np.dot(gy.transpose(1, 0, 2).reshape(features, -1),
                            h.transpose(1, 0, 2).reshape(hidden, -1).T) * k.half

    gh0[:, :rec.shape[1]] = rec
    if gc0 is not None:
        gc0[:, :carry.shape[1]] = carry
    return gh0, gc0


def _merge_biases(kind: Cell, b_ih: Array | None, b_hh: Array | None) -> tuple[Array | None, Array | None]:
    """Biases in slab order: those of the leading slabs that only the input reaches, and all that the state reaches."""
    if b_ih is None and b_hh is None:
        return None, None
    a_bias = b_ih if b_ih is not None else b_hh
    x_bias = np.zeros_like(a_bias) if b_ih is None else b_ih
    h_bias = np.zeros_like(a_bias) if b_hh is None else b_hh
    x_part = gate_rows(x_bias[:, None], kind.x_order, kind.x_scale)[:, 0]
    h_part = gate_rows(h_bias[:, None], kind.h_order, kind.h_scale)[:, 0]
    top = kind.h_at * (len(x_part) // kind.gates)
    both = len(x_part) - top
    h_part[:both] += x_part[top:]
    return (x_part[:top] if top else None), h_part


def _repeat(a: Array, times: int) -> Array:
    """`a` seen `times` over along a new first axis, writable."""
    return np.lib.stride_tricks.as_strided(a, (times, *a.shape), (0, *a.strides))
