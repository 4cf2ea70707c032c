"""Recurrent layers a launch and a product a step: `kernels/rnn_cells.cu`.

Offers what `cuframe.cpu.rnn` offers.  The input side is one product over all steps, and so are the gradients of the
weights; in between, a step is W_hh h and one kernel.  Nothing waits for the device: lengths stay there, and padded
steps are computed and thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuframe.backend.base import backend_of
from cuframe.cpu.rnn import Grads
from cuframe.cpu.rnn_checks import check, check_lengths
from cuframe.cuda.launch import Kernel, accumulator
from cuframe.cuda.persistent import Plan
from cuframe.cuda.tuned import EXCHANGES
from cuframe.gpu._arrays import FLOATS, dense

from . import _rnn_persistent as persistent

__all__ = ["GATES", "Grads", "KEPT", "backward", "device_lengths", "forward", "gates_again", "summed"]

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
KEPT = {"lstm": 4, "gru": 4, "rnn_tanh": 1, "rnn_relu": 1}
_THREADS = 128
# gates that are made again are made in pieces of about so many bytes, which come on top of `kept`
_AGAIN_BYTES = 1 << 25

_INSTANCES: dict[str, Any] = {
    "types": {"T": FLOATS},
    "constants": {"CELL": (0, 1, 2), "VEC": (False, True)}, "threads": _THREADS,
}
_FORWARD = Kernel("rnn_cells.cu", "rnn_cell_forward", (
    "const T* x", "const T* hid", "const T* b_ih?", "const T* b_hh?", "const T* h_prev[N, H]",
    "const acc_t<T>* c_prev?[N, H]", "const int64* lengths?[N]", "T* h[N, H]", "acc_t<T>* c?[N, H]", "T* y?[N, H]",
    "T* kept?", "int64 step", "int32 N", "int32 H", "bool relu"), **_INSTANCES)
_BACKWARD = Kernel("rnn_cells.cu", "rnn_cell_backward", (
    "const T* kept", "const T* h_prev[N, H]", "const acc_t<T>* c_prev?[N, H]", "const acc_t<T>* c?[N, H]",
    "const T* gy?[N, H]", "const T* through?[N, H]", "acc_t<T>* carry[N, H]", "acc_t<T>* dc?[N, H]",
    "const int64* lengths?[N]", "T* dx", "T* dhid?", "int64 step", "int32 N", "int32 H", "bool relu"), **_INSTANCES)
_KEEP = Kernel("rnn_cells.cu", "rnn_keep", (
    "const T* fresh[N, P]", "const T* h_prev[N, P]", "const int64* lengths[N]", "T* h[N, P]", "T* y[N, P]",
    "int64 step", "int32 N", "int32 P"), types=_INSTANCES["types"])


@dataclass(slots=True)
class Saved:
    """What `backward` needs.  Rows are those of x; `steps` are the slices of rows in the order of time.

    `kept` is [rows, KEPT * H], None if it is to be made again; `before` and `c_before`, `c_after` the states around
    each step; `full` an LSTM's h before its projection; `plan` the layout of the persistent kernel, None where
    `backward` goes step by step, with its `states` and `c_states` [slots, N, 1, H], of which the others are parts.
    """

    cell: str
    steps: list[slice]
    batch: int
    lengths: Any
    reverse: bool
    shape: tuple[int, ...]
    x: Any
    weights: tuple[Any, ...]
    kept: Any
    before: Any
    c_before: Any
    c_after: Any
    full: Any
    plan: Plan | None = None
    states: Any = None
    c_states: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes held beyond the caller's arrays; y counts, as what each step starts from."""
        if self.plan is None:
            held = (self.kept, self.before, self.c_before, self.c_after, self.full)
        else:  # an Elman cell's states are what is kept
            held = (self.states, self.c_states, None if KEPT[self.cell] == 1 else self.kept, None, None)
        return sum(a.nbytes for a in held if a is not None)


def forward(cell: str, x: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None, w_hr: Any = None,
            h0: Any = None, c0: Any = None, *, lengths: Any = None, batch_sizes: Any = None, reverse: bool = False,
            need_backward: bool = True, recompute: bool = False, engine: str = "auto",
            exchange: str | None = None) -> tuple[Any, Any, Any, Saved | None]:
    """`cuframe.cpu.rnn.forward` for arrays of a GPU; `lengths` may be an array there.

    `recompute`: keep no gates for `backward`, which makes them again by two products over all steps.
    `engine`: "persistent" is one launch for all steps, "steps" a launch and a product each; "auto" takes the first
    where it fits and there are steps enough.  `exchange`: how its blocks meet, by a "barrier", by "lines" or as a
    "cluster"; None for what was measured to be faster.
    """
    if cell not in persistent.CELL_NUMBERS:
        raise ValueError(f"rnn: cell must be one of {', '.join(persistent.CELL_NUMBERS)}, got {cell!r}")
    sizes = None if batch_sizes is None else np.asarray(batch_sizes)
    has_c, gates = cell == "lstm", GATES[cell]
    batch = check(cell, gates, has_c, x, w_ih, w_hh, b_ih, b_hh, w_hr, h0, c0, sizes)
    count = len(x) if sizes is None else len(sizes)
    lengths = device_lengths(cell, lengths, count, batch, x)
    steps = _steps(count, batch, sizes)
    hidden, size = len(w_hh) // gates, w_hh.shape[1]
    rows = count * batch if sizes is None else len(x)
    backend = backend_of(x)
    acc = accumulator(x.dtype)

    def new(shape: tuple[int, ...], dtype: Any = None) -> Any:
        return np.empty_like(x, shape=shape, dtype=dtype or x.dtype, order="C")

    x2, bias = dense(x).reshape(rows, x.shape[-1]), [None if b is None else dense(b) for b in (b_ih, b_hh)]
    gx = backend.matmul(x2, w_ih.T) if rows else new((0, gates * hidden))
    plan = _plan(engine, exchange, cell, x, hidden, count, batch, sizes is None and w_hr is None and rows > 0)
    # the gates of an LSTM and of an Elman cell make room for what they become; the latter's are its states
    keep = need_backward and not recompute and (plan is None or KEPT[cell] > 1)
    kept: Any = None if not keep else gx if KEPT[cell] == gates else new((rows, KEPT[cell] * hidden))
    if plan is not None:
        return _persistent(cell, plan, x, x2, gx, (w_ih, w_hh, b_ih, b_hh, None), h0, c0, lengths, kept,
                           need_backward, steps, batch, reverse)
    h = np.zeros_like(x, shape=(batch, size), order="C") if h0 is None else h0.copy(order="C")
    c: Any = None
    if has_c:
        c = np.zeros_like(x, shape=(batch, hidden), dtype=acc, order="C") if c0 is None else c0.astype(acc, order="C")
    y = new((rows, size))
    before: Any = new((rows, size)) if need_backward else None
    c_before, c_after = (new((rows, hidden), acc) if has_c and need_backward else None for _ in range(2))
    full: Any = new((rows, hidden)) if w_hr is not None else None
    nothing: Any = None if w_hr is None else np.zeros_like(full, shape=(batch, hidden))
    vec = hidden % (16 // x.dtype.itemsize) == 0
    w_t, p_t, code = w_hh.T, None if w_hr is None else w_hr.T, persistent.CELL_NUMBERS[cell]
    for t in reversed(range(count)) if reverse else range(count):
        at = steps[t]
        n = at.stop - at.start
        if not n:
            continue
        hid = backend.matmul(h[:n], w_t)
        if need_backward:
            before[at] = h[:n]
            if c_before is not None:
                c_before[at] = c[:n]
        c_n, kept_t = _part(c, slice(n)), _part(kept, at)
        blocks = -(-(n * hidden // (16 // x.dtype.itemsize if vec else 1)) // _THREADS)
        if w_hr is None:
            _FORWARD(blocks, _THREADS, gx[at], hid, *bias, h[:n], c_n, lengths, h[:n], c_n, y[at], kept_t, t, n, hidden,
                     cell == "rnn_relu", CELL=code, VEC=vec)
        else:
            # c is held back beyond the length; h and y are chosen after the projection
            _FORWARD(blocks, _THREADS, gx[at], hid, *bias, nothing[:n], c_n, lengths, full[at], c_n, None, kept_t, t, n,
                     hidden, cell == "rnn_relu", CELL=code, VEC=vec)
            fresh = backend.matmul(full[at], p_t)
            if lengths is None:
                h[:n] = fresh
                y[at] = fresh
            else:
                _KEEP(-(-n * size // _THREADS), _THREADS, fresh, h[:n], lengths, h[:n], y[at], t, n, size)
        if c_after is not None:
            c_after[at] = c[:n]
    saved = None
    if need_backward:
        saved = Saved(cell, steps, batch, lengths, reverse, x.shape, x2, (w_ih, w_hh, b_ih, b_hh, w_hr), kept, before,
                      c_before, c_after, full)
    out = y if sizes is not None else y.reshape(count, batch, size)
    return out, h, None if c is None else c.astype(x.dtype, copy=False), saved


def _plan(engine: str, exchange: str | None, cell: str, x: Any, hidden: int, count: int, batch: int,
          possible: bool) -> Plan | None:
    """The layout of the persistent kernel, None for the other engine."""
    if engine not in ("auto", "persistent", "steps"):
        raise ValueError(f"{cell}: engine must be auto, persistent or steps, got {engine!r}")
    if exchange not in (None, *EXCHANGES):
        raise ValueError(f"{cell}: exchange must be {', '.join(EXCHANGES)} or None, got {exchange!r}")
    if engine == "steps" or not possible or (engine == "auto" and count < persistent.tuned(x).least_steps):
        return None
    plan = persistent.plan_of(cell, x, hidden, batch, 1, exchange)
    if plan is None and engine == "persistent":
        where = "a cluster of the device" if exchange == "cluster" else "the device, see cf.cuda.persistent_limits"
        raise ValueError(f"{cell}: recurrent weights of {hidden} hidden units in {x.dtype} do not fit {where}")
    return plan


def _persistent(cell: str, plan: Plan, x: Any, x2: Any, gx: Any, weights: tuple[Any, ...], h0: Any, c0: Any,
                lengths: Any, kept: Any, keep: bool, steps: list[slice], batch: int,
                reverse: bool) -> tuple[Any, Any, Any, Saved | None]:
    """`forward` in one launch."""
    count, rows = len(steps), len(x2)
    w_hh, b_ih, b_hh, h_start = (None if a is None else dense(a) for a in (*weights[1:4], h0))
    c_start = None if c0 is None else c0.astype(accumulator(x.dtype), order="C")
    r = persistent.forward(cell, plan, gx, [(w_hh, b_ih, b_hh)], h_start, c_start, lengths, kept, keep, count, batch,
                           reverse)
    saved = None
    if keep:
        before, c_before, c_after = (None if a is None else a.reshape(rows, -1) for a in r.before(0, reverse, count))
        if KEPT[cell] == 1:
            kept = r.states[1:1 + count].reshape(rows, -1)
        saved = Saved(cell, steps, batch, lengths, reverse, x.shape, x2, weights, kept, before, c_before,
                      c_after, None, plan, r.states, r.c_states)
    return (r.y.reshape(count, batch, -1), r.h[0], None if r.c is None else r.c[0].astype(x.dtype, copy=False), saved)


def backward(saved: Saved, gy: Any, gh_n: Any = None, gc_n: Any = None, needs: Sequence[bool] = (True,) * 8) -> Grads:
    """`cuframe.cpu.rnn.backward` for arrays of a GPU."""
    s = saved
    w_ih, w_hh, b_ih, b_hh, w_hr = s.weights
    need_x, need_h0, need_c0, need_w_ih, need_w_hh, need_b_ih, need_b_hh, need_w_hr = needs
    x, backend, has_c = s.x, backend_of(s.x), s.cell == "lstm"
    gates = GATES[s.cell]
    hidden, size, rows = len(w_hh) // gates, w_hh.shape[1], len(x)
    acc = accumulator(x.dtype)

    def state(given: Any, width: int) -> Any:
        if given is None:
            return np.zeros_like(x, shape=(s.batch, width), dtype=acc, order="C")
        return given.astype(acc, order="C")

    # `carry` is what comes back to h past W_hh; with a projection, past W_hr too, and the cell's own is unused
    carry, dc = state(gh_n, size), state(gc_n, hidden) if has_c else None
    g_rows = None if gy is None else dense(gy).reshape(rows, size)
    kept = s.kept
    if kept is None:
        kept = np.empty_like(x, shape=(rows, KEPT[s.cell] * hidden), order="C")
        gates_again(s.cell, x, s.weights, s.before, s.c_before, kept)
    if s.plan is not None:
        dx, dhid = persistent.backward(
            s.cell, s.plan, [dense(w_hh)], kept, s.states, s.c_states, g_rows, carry[None],
            None if dc is None else dc[None], s.lengths, len(s.steps), s.batch, s.reverse)
    else:
        dx = np.empty_like(x, shape=(rows, gates * hidden), order="C")
        dhid = np.empty_like(dx) if s.cell == "gru" else dx
    g_full: Any = np.empty_like(x, shape=(rows, size), order="C") if w_hr is not None else None
    spare: Any = None if w_hr is None else np.zeros_like(x, shape=(s.batch, hidden), dtype=acc, order="C")
    vec = hidden % (16 // x.dtype.itemsize) == 0
    code, through, last = persistent.CELL_NUMBERS[s.cell], None, 0
    for t, at in _order(s, backward=True) if s.plan is None else ():
        n = at.stop - at.start
        back = through
        if through is not None and n != last:
            back = _resized(through, n, carry, last)
        blocks = -(-(n * hidden // (16 // x.dtype.itemsize if vec else 1)) // _THREADS)
        gy_t, states = _part(g_rows, at), (_part(s.c_before, at), _part(s.c_after, at))
        sides = dx[at], dhid[at] if s.cell == "gru" else None
        if w_hr is None:
            _BACKWARD(blocks, _THREADS, kept[at], s.before[at], *states, gy_t, back, carry[:n], _part(dc, slice(n)),
                      s.lengths, *sides, t, n, hidden, s.cell == "rnn_relu",
                      CELL=code, VEC=vec)
        else:
            g_full[at] = _projected(s, t, gy_t, back, carry, n)
            inner = backend.matmul(g_full[at], w_hr)
            spare[:n] = 0
            _BACKWARD(blocks, _THREADS, kept[at], s.full[at], *states, inner, None, spare[:n], _part(dc, slice(n)),
                      s.lengths, *sides, t, n, hidden, s.cell == "rnn_relu",
                      CELL=code, VEC=vec)
        through, last = backend.matmul(dhid[at], w_hh), n
    if through is not None:
        carry[:last] += through
    return Grads(
        backend.matmul(dx, w_ih).reshape(s.shape) if need_x else None,
        carry.astype(x.dtype, copy=False) if need_h0 else None,
        dc.astype(x.dtype, copy=False) if need_c0 and dc is not None else None,
        backend.matmul(dx.T, x) if need_w_ih else None,
        backend.matmul(dhid.T, s.before) if need_w_hh else None,
        summed(dx) if need_b_ih and b_ih is not None else None,
        summed(dhid) if need_b_hh and b_hh is not None else None,
        backend.matmul(g_full.T, s.full) if need_w_hr and w_hr is not None else None,
    )


def _projected(s: Saved, t: int, gy: Any, back: Any, carry: Any, n: int) -> Any:
    """The gradient of the projected h of step t; what belongs to sequences that have ended stays in `carry`."""
    total = carry[:n] if back is None else carry[:n] + back
    given = total if gy is None else total + gy
    if s.lengths is None:
        carry[:n] = 0
        return given
    running = (s.lengths > t)[:n, None]
    carry[:n] = np.where(running, 0, total)
    return np.where(running, given, 0)


def _resized(through: Any, n: int, carry: Any, last: int) -> Any:
    """What came through W_hh for `last` sequences, for `n`: those that ended take theirs into `carry`, the others bring
    none."""
    if n < last:
        carry[n:last] += through[n:]
        return through[:n]
    wider = np.zeros_like(through, shape=(n, through.shape[1]))
    wider[:last] = through
    return wider


def _order(s: Saved, backward: bool) -> Iterator[tuple[int, slice]]:
    """The steps in the order of computation, or backwards, without empty ones."""
    numbered = list(enumerate(s.steps))
    for t, at in reversed(numbered) if s.reverse != backward else numbered:
        if at.stop > at.start:
            yield t, at


def _steps(count: int, batch: int, sizes: Any) -> list[slice]:
    if sizes is None:
        return [slice(t * batch, (t + 1) * batch) for t in range(count)]
    ends = np.cumsum(sizes).tolist()
    return [slice(end - int(n), end) for end, n in zip(ends, sizes)]


def device_lengths(cell: str, lengths: Any, steps: int, batch: int, like: Any) -> Any:
    """Lengths on the device of `like` as int64, checked where that needs no waiting."""
    if lengths is None:
        return None
    if type(lengths) is type(like):
        if lengths.shape != (batch,) or lengths.dtype.kind not in "iu":
            raise ValueError(f"{cell}: lengths must be ({batch},) integers, got {lengths.shape} {lengths.dtype}")
        return lengths.astype(np.int64)
    return backend_of(like).asarray(check_lengths(cell, lengths, steps, batch), like)


def _part(a: Any, at: slice) -> Any:
    return None if a is None else a[at]


def gates_again(cell: str, x: Any, weights: Sequence[Any], before: Any, c_before: Any, out: Any) -> None:
    """What forward could have kept of the gates, from the states: `out` [.., KEPT * H] for x [.., I], in pieces."""
    w_ih, w_hh, b_ih, b_hh, w_hr = weights
    backend, gates = backend_of(x), GATES[cell]
    hidden = len(w_hh) // gates
    biases = [None if b is None else dense(b) for b in (b_ih, b_hh)]
    each = max(x.size // max(x.shape[0] * x.shape[-1], 1), 1) * len(w_hh) * x.dtype.itemsize
    vec = hidden % (16 // x.dtype.itemsize) == 0
    for start in range(0, len(x), max(_AGAIN_BYTES // each, 1)):
        at = slice(start, start + max(_AGAIN_BYTES // each, 1))
        h_prev = before[at].reshape(-1, before.shape[-1])
        gx = backend.matmul(x[at].reshape(-1, x.shape[-1]), w_ih.T)
        n, hid = len(gx), backend.matmul(h_prev, w_hh.T)
        h = np.zeros_like(gx, shape=(n, hidden), order="C")  # the kernel's h, which nobody reads
        c = None if c_before is None else c_before[at].reshape(n, hidden).copy()
        piece = out[at]
        dense_piece = piece.flags.c_contiguous
        kept = piece.reshape(n, -1) if dense_piece else np.empty_like(gx, shape=(n, KEPT[cell] * hidden))
        blocks = -(-(n * hidden // (16 // x.dtype.itemsize if vec else 1)) // _THREADS)
        _FORWARD(blocks, _THREADS, gx, hid, *biases, h if w_hr is not None else dense(h_prev), c, None, h, c, None,
                 kept, 0, n, hidden, cell == "rnn_relu", CELL=persistent.CELL_NUMBERS[cell], VEC=vec)
        if not dense_piece:
            out[at] = kept.reshape(piece.shape)


def summed(rows: Any) -> Any:
    """The sum over rows in the accumulator's precision."""
    return rows.sum(axis=0, dtype=accumulator(rows.dtype)).astype(rows.dtype)
