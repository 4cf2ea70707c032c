"""Both directions of a recurrent layer in one launch each way: `kernels/rnn_persistent.cu` with two groups of blocks.

The directions stand side by side in every array, so that the product with x, its gradient and that of W_ih are one
product each for both, and y needs no joining.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuframe.backend.base import backend_of
from cuframe.cpu.rnn_checks import check
from cuframe.cuda.launch import accumulator
from cuframe.cuda.persistent import Plan
from cuframe.gpu._arrays import dense

from . import _rnn_persistent as persistent
from .rnn import GATES, KEPT, device_lengths, gates_again, summed

__all__ = ["Saved", "backward", "fits", "forward"]


@dataclass(slots=True)
class Saved:
    """What `backward` needs; `kept` [T * N, 2 * KEPT * H] is None if it is to be made again."""

    cell: str
    plan: Plan
    lengths: Any
    shape: tuple[int, ...]
    x: Any
    weights: tuple[tuple[Any, ...], ...]
    kept: Any
    results: persistent.Results

    @property
    def nbytes(self) -> int:
        """Bytes held beyond the caller's arrays; y counts, as what each step starts from."""
        held = (self.results.states, self.results.c_states, None if KEPT[self.cell] == 1 else self.kept)
        return sum(a.nbytes for a in held if a is not None)


def fits(cell: str, x: Any, w_hh: Any) -> bool:
    """Whether both directions of a layer run in one launch on the device of x [T, N, I]."""
    if x.ndim != 3 or x.size == 0 or len(x) < persistent.tuned(x).least_steps:
        return False
    return persistent.plan_of(cell, x, w_hh.shape[1], x.shape[1], 2) is not None


def forward(cell: str, x: Any, weights: Sequence[Any], weights_2: Sequence[Any], h0: Any = None, c0: Any = None, *,
            lengths: Any = None, need_backward: bool = True, recompute: bool = False,
            exchange: str | None = None) -> tuple[Any, Any, Any, Saved | None]:
    """A layer that `fits`.

    Args:
        x: [T, N, I]; weights: (w_ih, w_hh, b_ih, b_hh) from the first step on; weights_2: those from the last step on.
        h0, c0: [2, N, H] or None.
        lengths, need_backward, recompute, exchange: as for `rnn.forward`.

    Returns:
        y [T, N, 2 * H], h_n and c_n [2, N, H] (None unless LSTM), and a `Saved` or None.
    """
    count, batch, hidden = len(x), x.shape[1], weights[1].shape[1]
    for number, side in enumerate((weights, weights_2)):
        w_ih, w_hh, b_ih, b_hh = side
        h_0, c_0 = (None if a is None else a[number] for a in (h0, c0))
        check(cell, GATES[cell], cell == "lstm", x, w_ih, w_hh, b_ih, b_hh, None, h_0, c_0, None)
    lengths = device_lengths(cell, lengths, count, batch, x)
    plan = persistent.plan_of(cell, x, hidden, batch, 2, exchange)
    assert plan is not None
    x2 = dense(x).reshape(count * batch, x.shape[-1])
    gx = backend_of(x).matmul(x2, np.concatenate([weights[0], weights_2[0]]).T)
    kept: Any = None
    if need_backward and not recompute and KEPT[cell] > 1:
        kept = gx
        if KEPT[cell] != GATES[cell]:
            kept = np.empty_like(x, shape=(len(x2), 2 * KEPT[cell] * hidden), order="C")
    sides = [tuple(None if a is None else dense(a) for a in side[1:]) for side in (weights, weights_2)]
    acc = accumulator(x.dtype)
    r = persistent.forward(cell, plan, gx, sides, None if h0 is None else dense(h0),
                           None if c0 is None else c0.astype(acc, order="C"), lengths, kept, need_backward, count,
                           batch, False)
    saved = None
    if need_backward:
        if KEPT[cell] == 1:
            kept = r.states[1:1 + count].reshape(len(x2), -1)
        saved = Saved(cell, plan, lengths, x.shape, x2, (tuple(weights), tuple(weights_2)), kept, r)
    return r.y.reshape(count, batch, -1), r.h, None if r.c is None else r.c.astype(x.dtype, copy=False), saved


def backward(saved: Saved, gy: Any, gh_n: Any = None, gc_n: Any = None,
             needs: Sequence[bool] = (True,) * 11) -> tuple[Any, ...]:
    """Gradients of x, h0, c0 and both directions' (w_ih, w_hh, b_ih, b_hh); None where not needed or not given."""
    s, x, backend = saved, saved.x, backend_of(saved.x)
    count, batch, _ = s.shape
    gates, hidden, acc = GATES[s.cell], s.weights[0][1].shape[1], accumulator(x.dtype)

    def state(given: Any) -> Any:
        if given is None:
            return np.zeros_like(x, shape=(2, batch, hidden), dtype=acc, order="C")
        return given.astype(acc, order="C")

    carry, dc = state(gh_n), state(gc_n) if s.cell == "lstm" else None
    before = [s.results.before(side, side == 1, count) for side in range(2)]
    kept = s.kept
    if kept is None:
        kept = np.empty_like(x, shape=(count, batch, 2, KEPT[s.cell] * hidden), order="C")
        for side in range(2):
            gates_again(s.cell, x.reshape(s.shape), (*s.weights[side], None), *before[side][:2], kept[:, :, side])
    w_hh = [dense(side[1]) for side in s.weights]
    dx, dhid = persistent.backward(s.cell, s.plan, w_hh, kept, s.results.states, s.results.c_states,
                                   None if gy is None else dense(gy), carry, dc, s.lengths, count, batch, False)
    grads: list[Any] = [None] * 11
    if needs[0]:
        grads[0] = backend.matmul(dx, np.concatenate([side[0] for side in s.weights])).reshape(s.shape)
    grads[1] = carry.astype(x.dtype, copy=False) if needs[1] else None
    grads[2] = dc.astype(x.dtype, copy=False) if needs[2] and dc is not None else None
    w_ih: Any = backend.matmul(dx.T, x) if needs[3] or needs[7] else None
    parts = dhid.reshape(len(x), 2, gates * hidden)
    for side in range(2):
        first, at = 3 + 4 * side, slice(side * gates * hidden, (side + 1) * gates * hidden)
        if needs[first]:
            grads[first] = w_ih[at]
        if needs[first + 1]:
            grads[first + 1] = backend.matmul(parts[:, side].T, before[side][0].reshape(len(x), hidden))
        for place, rows, bias in ((2, dx, s.weights[side][2]), (3, dhid, s.weights[side][3])):
            if needs[first + place] and bias is not None:
                grads[first + place] = summed(rows[:, at])
    return tuple(grads)
