"""Layers of a recurrent network beside one another: a layer's chunk of steps runs while the layer below has the next.

Note [Layers at once] Layer l runs its chunk k when it has done chunk k - 1 and the layer below chunk k; backward, the
layer above.  Each chunk is a launch of `kernels/rnn_persistent.cu` in the lane l % W, a stream of its own; products
stay in the current stream.  Blocks of such a launch wait for one another, so all of them must come to run whatever else
does.  They do: a lane has one launch at a time, W times the blocks of one are no more than there are multiprocessors,
each of which has room for one, and all other work ends without waiting.  And the streams wait in no circle: the host
gives out work by diagonals l + k, each needs what is on the diagonal before, and every event is recorded before
anything that waits for it.  What a launch uses is held until the current stream has waited for it, two chunks later,
which stalls nothing: the chunk after it is on its way then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuframe.backend.base import backend_of
from cuframe.cpu.rnn_checks import check
from cuframe.cuda.launch import accumulator
from cuframe.cuda.persistent import Plan
from cuframe.gpu._arrays import dense

from . import _rnn_persistent as persistent
from ._lanes import Lanes
from .rnn import GATES, KEPT, device_lengths, gates_again, summed

__all__ = ["Saved", "backward", "fits", "forward"]


@dataclass(slots=True)
class Saved:
    """What `backward` needs, layer by layer; `kept` by chunks, None if it is to be made again."""

    cell: str
    plan: Plan
    width: int
    chunks: list[slice]
    lengths: list[Any]
    inputs: list[Any]
    weights: list[tuple[Any, ...]]
    states: list[Any]
    c_states: list[Any]
    kept: list[list[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes held beyond the caller's arrays; outputs count, as what each step starts from."""
        gates = [] if KEPT[self.cell] == 1 else sum(self.kept, [])
        return sum(a.nbytes for a in (*self.states, *self.c_states, *gates) if a is not None)


def _width(cell: str, x: Any, layers: int, hidden: int) -> tuple[Plan | None, int]:
    """A layer's plan, and how many layers run at once."""
    plan = persistent.plan_of(cell, x, hidden, x.shape[1])
    return plan, 0 if plan is None else min(layers, persistent.multiprocessors(x) // plan.blocks)


def fits(cell: str, x: Any, w_hh: Sequence[Any]) -> bool:
    """Whether layers of these recurrent weights, over x [T, N, I], run beside one another."""
    if x.ndim != 3 or x.size == 0 or len(w_hh) < 2 or len(x) < 2 * persistent.tuned(x).chunk_steps:
        return False
    return _width(cell, x, len(w_hh), w_hh[0].shape[1])[1] > 1


def forward(cell: str, x: Any, weights: Sequence[Sequence[Any]], h0: Any = None, c0: Any = None, *, lengths: Any = None,
            need_backward: bool = True, recompute: bool = False,
            chunk: int | None = None) -> tuple[Any, Any, Any, Saved | None]:
    """Layers that `fits`.

    Args:
        x: [T, N, I]; weights: (w_ih, w_hh, b_ih, b_hh) of each layer; h0, c0: [L, N, H] or None.
        lengths, need_backward, recompute: as for `rnn.forward`; chunk: steps a launch, by default what was measured.

    Returns:
        y [T, N, H] of the last layer, h_n and c_n [L, N, H] (None unless LSTM), and a `Saved` or None.
    """
    (count, batch, _), layers, hidden = x.shape, len(weights), weights[0][1].shape[1]
    acc, has_c, backend = accumulator(x.dtype), cell == "lstm", backend_of(x)
    lengths = device_lengths(cell, lengths, count, batch, x)

    def new(*shape: int, dtype: Any = None) -> Any:
        return np.empty_like(x, shape=shape, dtype=dtype or x.dtype, order="C")

    def start(given: Any, dtype: Any) -> Any:
        if given is None:
            return np.zeros_like(x, shape=(layers, batch, hidden), dtype=dtype, order="C")
        return given.astype(dtype, order="C")

    states = [new(count + 1, batch, 1, hidden) for _ in weights]
    c_states = [new(count + 1 if need_backward else 2, batch, 1, hidden, dtype=acc) if has_c else None for _ in weights]
    outputs = [s[1:] if lengths is None else new(count, batch, 1, hidden) for s in states]
    inputs = [dense(x), *(y.reshape(count, batch, hidden) for y in outputs[:-1])]
    for number, (given, (w_ih, w_hh, b_ih, b_hh)) in enumerate(zip(inputs, weights)):
        h_0, c_0 = (None if a is None else a[number] for a in (h0, c0))
        check(cell, GATES[cell], has_c, given, w_ih, w_hh, b_ih, b_hh, None, h_0, c_0, None)
    plan, width = _width(cell, x, layers, hidden)
    assert plan is not None
    chunks = _chunks(count, chunk or persistent.tuned(x).chunk_steps)
    left = [None if lengths is None else lengths - at.start for at in chunks]
    keep = need_backward and not recompute and KEPT[cell] > 1
    # a chunk begins where the one before ended: with what the kernel leaves in h_n and c_n
    h_n, c_n = start(h0, x.dtype), start(c0, acc) if has_c else None
    sides = [tuple(None if a is None else dense(a) for a in side[1:]) for side in weights]
    kept: list[list[Any]] = [[None] * len(chunks) for _ in weights]
    with Lanes(x, width) as lanes:
        wave = _Wave(lanes, width)
        for number, k in _diagonals(layers, len(chunks)):
            at, own, c = chunks[k], slice(number, number + 1), c_states[number]
            wave.need(number - 1, k)
            wave.release(number, k - 2)
            rows = inputs[number][at].reshape(-1, inputs[number].shape[-1])
            gx = backend.matmul(rows, weights[number][0].T)
            if keep:
                kept[number][k] = gx if KEPT[cell] == GATES[cell] else new(len(gx), KEPT[cell] * hidden)
            more, c_own = slice(at.start, at.stop + 1), None if c_n is None else c_n[own]
            with wave.launch(number, k, gx):
                persistent.run_forward(
                    cell, plan, gx, [sides[number]], h_n[own], c_own, left[k], states[number][more],
                    c[more] if need_backward and c is not None else c,
                    None if lengths is None else outputs[number][at], kept[number][k], h_n[own], c_own,
                    at.stop - at.start, batch, False)
    saved = None
    if need_backward:
        if KEPT[cell] == 1:
            kept = [[s[at.start + 1:at.stop + 1] for at in chunks] for s in states]
        saved = Saved(cell, plan, width, chunks, left, inputs, [tuple(w) for w in weights], states, c_states, kept)
    y = outputs[-1].reshape(count, batch, hidden)
    return y, h_n, None if c_n is None else c_n.astype(x.dtype, copy=False), saved


def backward(saved: Saved, gy: Any, gh_n: Any = None, gc_n: Any = None,
             needs: Sequence[bool] | None = None) -> tuple[Any, ...]:
    """Gradients of x, h0, c0 and each layer's (w_ih, w_hh, b_ih, b_hh); None where not needed or not given."""
    s, x, backend = saved, saved.inputs[0], backend_of(saved.inputs[0])
    (count, batch, _), layers, gates = x.shape, len(s.weights), GATES[s.cell]
    hidden, acc, rows = s.weights[0][1].shape[1], accumulator(x.dtype), x.shape[0] * x.shape[1]

    def state(given: Any) -> Any:
        if given is None:
            return np.zeros_like(x, shape=(layers, batch, hidden), dtype=acc, order="C")
        return given.astype(acc, order="C")

    carry, dc = state(gh_n), state(gc_n) if s.cell == "lstm" else None
    given = None if gy is None else dense(gy)
    dx = [np.empty_like(x, shape=(rows, gates * hidden), order="C") for _ in range(layers)]
    dhid = [np.empty_like(d) if s.cell == "gru" else d for d in dx]
    w_hh = [dense(w[1]) for w in s.weights]
    with Lanes(x, s.width) as lanes:
        wave = _Wave(lanes, s.width)
        for above, later in _diagonals(layers, len(s.chunks)):
            number, k = layers - 1 - above, len(s.chunks) - 1 - later
            at, own, c = s.chunks[k], slice(number, number + 1), s.c_states[number]
            wave.need(number + 1, k)
            wave.release(number, k + 2)
            part, more = slice(at.start * batch, at.stop * batch), slice(at.start, at.stop + 1)
            g = None if given is None else given[at]
            if number + 1 < layers:
                g = backend.matmul(dx[number + 1][part], s.weights[number + 1][0])
            kept, states = s.kept[number][k], s.states[number][more]
            if kept is None:
                kept = np.empty_like(x, shape=(at.stop - at.start, batch, KEPT[s.cell] * hidden), order="C")
                before = None if c is None else c[at].reshape(-1, batch, hidden)
                gates_again(s.cell, s.inputs[number][at], (*s.weights[number], None),
                            states[:-1].reshape(-1, batch, hidden), before, kept)
            with wave.launch(number, k, (g, kept)):
                persistent.run_backward(
                    s.cell, s.plan, [w_hh[number]], kept, states, None if c is None else c[more], g, carry[own],
                    None if dc is None else dc[own], s.lengths[k], dx[number][part],
                    dhid[number][part] if s.cell == "gru" else None, at.stop - at.start, batch, False)
    need = needs or [True] * (3 + 4 * layers)
    grads: list[Any] = [
        backend.matmul(dx[0], s.weights[0][0]).reshape(x.shape) if need[0] else None,
        carry.astype(x.dtype, copy=False) if need[1] else None,
        dc.astype(x.dtype, copy=False) if need[2] and dc is not None else None,
    ]
    for number, (_, _, b_ih, b_hh) in enumerate(s.weights):
        w = need[3 + 4 * number:7 + 4 * number]
        before = s.states[number][:count].reshape(rows, hidden)
        grads += [
            backend.matmul(dx[number].T, s.inputs[number].reshape(rows, -1)) if w[0] else None,
            backend.matmul(dhid[number].T, before) if w[1] else None,
            summed(dx[number]) if w[2] and b_ih is not None else None,
            summed(dhid[number]) if w[3] and b_hh is not None else None,
        ]
    return tuple(grads)


class _Wave:
    """Launches in lanes, with what each uses: Note [Layers at once]."""

    def __init__(self, lanes: Lanes, width: int) -> None:
        self._lanes, self._width = lanes, width
        self._under_way: dict[tuple[int, int], tuple[Any, Any]] = {}

    @contextlib.contextmanager
    def launch(self, number: int, k: int, used: Any) -> Iterator[None]:
        """Launch chunk k of a layer, which uses memory of the current stream."""
        with self._lanes.on(number % self._width):
            yield
        self._under_way[number, k] = self._lanes.mark(number % self._width), used

    def need(self, number: int, k: int) -> None:
        """Let the current stream wait for a launch, where there is such a layer."""
        if (number, k) in self._under_way:
            self._lanes.wait(self._under_way[number, k][0])

    def release(self, number: int, k: int) -> None:
        """Wait for a launch, where there is such a chunk, and hold no longer what it has used."""
        self.need(number, k)
        self._under_way.pop((number, k), None)


def _diagonals(layers: int, chunks: int) -> Iterator[tuple[int, int]]:
    """Layer and chunk, so that all before any have both a lower sum or the same."""
    for total in range(layers + chunks - 1):
        for number in range(max(total - chunks + 1, 0), min(layers, total + 1)):
            yield number, total - number


def _chunks(count: int, least: int) -> list[slice]:
    """So many steps each, or up to twice that where the rest would be less."""
    number = max(count // least, 1)
    edges = [count * k // number for k in range(number + 1)]
    return [slice(a, b) for a, b in zip(edges, edges[1:])]
