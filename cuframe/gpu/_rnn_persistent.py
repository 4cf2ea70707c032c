"""Recurrent layers in one launch each way: `kernels/rnn_persistent.cu`, and what it needs around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cuframe.backend.base import backend_of
from cuframe.cuda.launch import Kernel, accumulator, device_facts
from cuframe.cuda.persistent import DeviceFacts, Plan, persistent_plan
from cuframe.cuda.precision import allow_tf32
from cuframe.cuda.tuned import EXCHANGES, Table, table
from cuframe.gpu._arrays import FLOATS

__all__ = ["Results", "backward", "facts_of", "forward", "multiprocessors", "plan_of", "run_backward", "run_forward",
           "tuned"]

# by number, as the kernels have them; the nonlinearity of the last two is an argument
CELL_NUMBERS = {"lstm": 0, "gru": 1, "rnn_tanh": 2, "rnn_relu": 2}
_THREADS = 256
_TYPES = {"T": FLOATS}
# before sm_80 there are no tensor cores for bfloat16 and TF32
_LEAST = {"bfloat16": 80}
_CONSTANTS = {"CELL": (0, 1, 2), "TF32": (False,)}

_FORWARD_ARGUMENTS = (
    "const T* x", "const T* w_hh", "const T* w_hh_2?", "const T* b_ih?", "const T* b_ih_2?", "const T* b_hh?",
    "const T* b_hh_2?", "const T* h0?", "const acc_t<T>* c0?", "const int64* lengths?[N]", "T* h", "acc_t<T>* c?",
    "T* y?", "T* kept?", "T* h_n", "acc_t<T>* c_n?", "uint32* state", "int64 words", "int32 T_", "int32 N", "int32 H",
    "int32 units", "int32 split", "int32 tile", "int32 slots", "int32 c_slots", "bool reverse", "int32 way",
    "bool relu")
_BACKWARD_ARGUMENTS = (
    "const T* kept", "const T* w_hh", "const T* w_hh_2?", "const T* h", "const acc_t<T>* c?", "const T* gy?",
    "acc_t<T>* carry", "acc_t<T>* dc?", "const int64* lengths?[N]", "T* dx", "T* dhid?", "uint32* state",
    "int64 words", "int32 T_", "int32 N", "int32 H", "int32 units", "int32 split", "int32 tile", "bool reverse",
    "int32 way", "bool relu")


def kernels(source: str | Path = "rnn_persistent.cu", types: Mapping[str, Sequence[str]] = _TYPES,
            constants: Mapping[str, Sequence[int | bool]] = _CONSTANTS, declare: bool = True,
            least: int | Mapping[str, int] = _LEAST) -> tuple[Kernel, Kernel]:
    """Forward and backward; of another source, and for fewer types and constants, for whoever changes the kernels."""
    named = (("rnn_persistent_forward", _FORWARD_ARGUMENTS), ("rnn_persistent_backward", _BACKWARD_ARGUMENTS))
    first, second = (Kernel(source, name, arguments, types=types, constants=constants, threads=_THREADS,
                            least=least, cooperative=True, declare=declare) for name, arguments in named)
    return first, second


_FORWARD, _BACKWARD = kernels()
_FORWARD_TF32, _BACKWARD_TF32 = kernels(types={"T": ("float32",)}, constants={"CELL": (0, 1, 2), "TF32": (True,)},
                                        least=80)


class Results(NamedTuple):
    """What `forward` gives: y [T, N, D, H], the last states [D, N, H], and all states [slots, N, D, H] for backward."""

    y: Any
    h: Any
    c: Any
    states: Any
    c_states: Any

    def before(self, direction: int, reverse: bool, count: int) -> tuple[Any, Any, Any]:
        """h, c before and c after each step in a direction: [T, N, H]."""
        start = 2 if reverse else 0
        h, c = self.states[:, :, direction], self.c_states
        if c is None:
            return h[start:start + count], None, None
        c = c[:, :, direction]
        return h[start:start + count], c[start:start + count], c[1:1 + count]


def tuned(x: Any) -> Table:
    """What is known of the GPU that holds `x`."""
    return table(facts_of(x).arch)


def facts_of(x: Any) -> DeviceFacts:
    """What plans ask of the GPU that holds `x`."""
    return DeviceFacts(*device_facts(type(x), backend_of(x).device_of(x).index or 0))


def multiprocessors(x: Any) -> int:
    """How many the GPU that holds `x` has: one block each runs at once."""
    return facts_of(x).multiprocessors


def plan_of(cell: str, x: Any, hidden: int, batch: int, directions: int = 1,
            exchange: str | None = None) -> Plan | None:
    """How the layer is laid out on the device of `x`; None where it does not fit.

    `exchange`: how its blocks meet; None for what was measured to be faster, or a barrier where that does not fit.
    """
    facts, dtype = facts_of(x), x.dtype.name
    for kind in ("tf32", dtype) if dtype == "float32" and allow_tf32() else (dtype,):
        choice = table(facts.arch).rnn(cell, kind, hidden, batch, directions)
        for way in (exchange,) if exchange else dict.fromkeys((choice.exchange, EXCHANGES[0])):
            plan = persistent_plan(facts, cell, kind, hidden, batch, choice.units, directions, choice.tile,
                                   way == "cluster")
            if plan is not None:
                return plan._replace(exchange=way)
    return None


def forward(cell: str, plan: Plan, gx: Any, weights: Sequence[Any], h0: Any, c0: Any, lengths: Any, kept: Any,
            keep: bool, count: int, batch: int, reverse: bool) -> Results:
    """All steps.

    Args:
        gx: [T * N, D * G * H], the input's side of the gates; may be `kept`, which None leaves out.
        weights: (w_hh, b_ih, b_hh) of each direction; h0, c0: [D, N, H] or None.
        keep: keep every state for backward.
        reverse: the one direction, where it is one.
    """
    hidden, acc, sides = weights[0][0].shape[1], accumulator(gx.dtype), plan.directions
    # two states in turn where nobody wants the others; without lengths they are y
    every = count + (2 if reverse or sides == 2 else 1)
    slots, slots_c = every if keep or lengths is None else 2, every if keep else 2

    def new(*shape: int, dtype: Any = None) -> Any:
        return np.empty_like(gx, shape=shape, dtype=dtype or gx.dtype, order="C")

    h, h_n, c, c_n = new(slots, batch, sides, hidden), new(sides, batch, hidden), None, None
    if cell == "lstm":
        c, c_n = new(slots_c, batch, sides, hidden, dtype=acc), new(sides, batch, hidden, dtype=acc)
    y = None if lengths is None else new(count, batch, sides, hidden)
    run_forward(cell, plan, gx, weights, h0, c0, lengths, h, c, y, kept, h_n, c_n, count, batch, reverse)
    return Results(h[1:1 + count] if y is None else y, h_n, c_n, h, c)


def run_forward(cell: str, plan: Plan, gx: Any, weights: Sequence[Any], h0: Any, c0: Any, lengths: Any, h: Any, c: Any,
                y: Any, kept: Any, h_n: Any, c_n: Any, count: int, batch: int, reverse: bool) -> None:
    """The launch: see the kernel for the arrays, which it fills."""
    part, hidden = plan.forward, weights[0][0].shape[1]
    one, two = weights[0], weights[1] if plan.directions == 2 else (None,) * 3
    state, words = _state(gx, batch, plan, 1)
    (_FORWARD_TF32 if plan.tf32 else _FORWARD)(
        (plan.blocks, plan.directions), _THREADS, gx, one[0], two[0], one[1], two[1], one[2], two[2], h0, c0, lengths,
        h, c, y, kept, h_n, c_n, state, words, count, batch, hidden, plan.units, part.split, part.tile, len(h),
        1 if c is None else len(c), reverse, EXCHANGES.index(plan.exchange), cell == "rnn_relu",
        shared=part.shared, cluster=plan.exchange == "cluster", CELL=CELL_NUMBERS[cell], TF32=plan.tf32)


def backward(cell: str, plan: Plan, w_hh: Sequence[Any], kept: Any, states: Any, c_states: Any, gy: Any, carry: Any,
             dc: Any, lengths: Any, count: int, batch: int, reverse: bool) -> tuple[Any, Any]:
    """All steps: `carry` and `dc` [D, N, H] become the gradients of h0 and c0.

    Args:
        w_hh: of each direction; states, c_states: as `forward` left them; gy: [T, N, D, H] or None.

    Returns:
        The gradients of both sides of the gates [T * N, D * G * H], which are one array but for a GRU.
    """
    dx = np.empty_like(kept, shape=(count * batch, sum(len(w) for w in w_hh)), order="C")
    dhid = np.empty_like(dx) if cell == "gru" else None
    run_backward(cell, plan, w_hh, kept, states, c_states, gy, carry, dc, lengths, dx, dhid, count, batch, reverse)
    return dx, dx if dhid is None else dhid


def run_backward(cell: str, plan: Plan, w_hh: Sequence[Any], kept: Any, states: Any, c_states: Any, gy: Any, carry: Any,
                 dc: Any, lengths: Any, dx: Any, dhid: Any, count: int, batch: int, reverse: bool) -> None:
    """The launch: see the kernel for the arrays."""
    part, hidden = plan.backward, w_hh[0].shape[1]
    state, words = _state(dx, batch, plan, len(w_hh[0]) // hidden)
    (_BACKWARD_TF32 if plan.tf32 else _BACKWARD)(
        (plan.blocks, plan.directions), _THREADS, kept, w_hh[0], w_hh[1] if plan.directions == 2 else None, states,
        c_states, gy, carry, dc, lengths, dx, dhid, state, words, count, batch, hidden, plan.units, part.split,
        part.tile, reverse, EXCHANGES.index(plan.exchange), cell == "rnn_relu", shared=part.shared,
        cluster=plan.exchange == "cluster", CELL=CELL_NUMBERS[cell], TF32=plan.tf32)


def _state(like: Any, batch: int, plan: Plan, parts: int) -> tuple[Any, int]:
    """What the blocks of each direction meet through, and its words: a word, or two lines for so many numbers each."""
    each = 1 if like.dtype.itemsize == 8 else 12 // like.dtype.itemsize
    lines = 2 * batch * plan.blocks * -(-parts * plan.units // each)
    # the directions' words for the barrier are in sectors of their own
    words = 4 * lines if plan.exchange == "lines" else 32
    return np.zeros_like(like, shape=(plan.directions * words,), dtype=np.uint32, order="C"), words
