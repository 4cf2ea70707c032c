"""Recurrent layers in one launch each way: `kernels/rnn_persistent.cu`, and what it needs around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cuframe.backend.base import backend_of
from cuframe.cuda.launch import Kernel, accumulator, device_facts
from cuframe.cuda.persistent import DeviceFacts, Plan, persistent_plan
from cuframe.gpu._arrays import FLOATS

__all__ = ["EXCHANGES", "LEAST_STEPS", "Results", "backward", "forward", "plan_of"]

# by number, as the kernels have them; the nonlinearity of the last two is an argument
CELL_NUMBERS = {"lstm": 0, "gru": 1, "rnn_tanh": 2, "rnn_relu": 2}
# a barrier and reload, lines with the step's number
EXCHANGES = ("barrier", "lines")
# loading the weights pays from here on
LEAST_STEPS = 8
_THREADS = 256
_TYPES = {"T": FLOATS}
# before sm_80 there are no tensor cores for bfloat16
_LEAST = {"bfloat16": 80}
_CONSTANTS = {"CELL": (0, 1, 2)}

_FORWARD_ARGUMENTS = (
    "const T* x", "const T* w_hh", "const T* b_ih?", "const T* b_hh?", "const T* h0?[N, H]",
    "const acc_t<T>* c0?[N, H]", "const int64* lengths?[N]", "T* h[slots, N, H]", "acc_t<T>* c?", "T* y?[T_, N, H]",
    "T* kept?", "T* h_n[N, H]", "acc_t<T>* c_n?[N, H]", "uint32* state", "int32 T_", "int32 N", "int32 H",
    "int32 units", "int32 split", "int32 tile", "int32 slots", "bool reverse", "bool lines", "bool relu")
_BACKWARD_ARGUMENTS = (
    "const T* kept", "const T* w_hh", "const T* h[T_, N, H]", "const acc_t<T>* c_prev?[T_, N, H]",
    "const acc_t<T>* c?[T_, N, H]", "const T* gy?[T_, N, H]", "acc_t<T>* carry[N, H]", "acc_t<T>* dc?[N, H]",
    "const int64* lengths?[N]", "T* dx", "T* dhid?", "uint32* state", "int32 T_", "int32 N", "int32 H", "int32 units",
    "int32 split", "int32 tile", "bool reverse", "bool lines", "bool relu")


def kernels(source: str | Path = "rnn_persistent.cu", types: Mapping[str, Sequence[str]] = _TYPES,
            constants: Mapping[str, Sequence[int]] = _CONSTANTS, declare: bool = True) -> tuple[Kernel, Kernel]:
    """Forward and backward; of another source, and for fewer types and constants, for whoever changes the kernels."""
    named = (("rnn_persistent_forward", _FORWARD_ARGUMENTS), ("rnn_persistent_backward", _BACKWARD_ARGUMENTS))
    first, second = (Kernel(source, name, arguments, types=types, constants=constants, threads=_THREADS,
                            least=_LEAST, cooperative=True, declare=declare) for name, arguments in named)
    return first, second


_FORWARD, _BACKWARD = kernels()


class Results(NamedTuple):
    """What `forward` gives: y [T * N, H], the last states, and the states before and after each step for backward."""

    y: Any
    h: Any
    c: Any
    before: Any
    c_before: Any
    c_after: Any


def plan_of(cell: str, x: Any, hidden: int, batch: int) -> Plan | None:
    """How the layer is laid out on the device of `x`; None where it does not fit."""
    facts = DeviceFacts(*device_facts(type(x), backend_of(x).device_of(x).index or 0))
    return persistent_plan(facts, cell, x.dtype.name, hidden, batch)


def forward(cell: str, plan: Plan, gx: Any, w_hh: Any, b_ih: Any, b_hh: Any, h0: Any, c0: Any, lengths: Any, kept: Any,
            count: int, batch: int, reverse: bool, exchange: str) -> Results:
    """All steps; gx [T * N, G * H] is the input's side of the gates, and may be `kept`, which None leaves out."""
    hidden, acc = w_hh.shape[1], accumulator(gx.dtype)
    # every state where backward needs them, else two in turn
    slots = 2 if kept is None and lengths is not None else count + 1
    slots_c = slots if kept is not None else 2

    def new(*shape: int, dtype: Any = None) -> Any:
        return np.empty_like(gx, shape=shape, dtype=dtype or gx.dtype, order="C")

    h, c, c_n = new(slots, batch, hidden), None, None
    if cell == "lstm":
        c, c_n = new(slots_c, batch, hidden, dtype=acc), new(batch, hidden, dtype=acc)
    # without lengths, y is where the states are
    y, h_n = None if lengths is None else new(count, batch, hidden), new(batch, hidden)
    part = plan.forward
    _FORWARD(plan.blocks, _THREADS, gx, w_hh, b_ih, b_hh, h0, c0, lengths, h, c, y, kept, h_n, c_n,
             _state(gx, exchange, batch, plan, 1), count, batch, hidden, plan.units, part.split, part.tile, slots,
             reverse, bool(EXCHANGES.index(exchange)), cell == "rnn_relu", shared=part.shared, CELL=CELL_NUMBERS[cell])
    before, after = (slice(1, None), slice(0, count)) if reverse else (slice(0, count), slice(1, None))
    rows = count * batch

    def at(states: Any, which: slice) -> Any:
        return None if states is None or kept is None else states[which].reshape(rows, hidden)

    shown = h[after] if y is None else y
    return Results(shown.reshape(rows, hidden), h_n, c_n, at(h, before), at(c, before), at(c, after))


def backward(cell: str, plan: Plan, w_hh: Any, kept: Any, before: Any, c_before: Any, c_after: Any, gy: Any, carry: Any,
             dc: Any, lengths: Any, dx: Any, dhid: Any, count: int, batch: int, reverse: bool, exchange: str) -> None:
    """All steps: `carry` and `dc` become the gradients of h0 and c0; `dx`, and `dhid` of a GRU, are filled."""
    part = plan.backward
    _BACKWARD(plan.blocks, _THREADS, kept, w_hh, before, c_before, c_after, gy, carry, dc, lengths, dx, dhid,
              _state(dx, exchange, batch, plan, dx.shape[1] // w_hh.shape[1]), count, batch, w_hh.shape[1], plan.units,
              part.split, part.tile, reverse, bool(EXCHANGES.index(exchange)), cell == "rnn_relu", shared=part.shared,
              CELL=CELL_NUMBERS[cell])


def _state(like: Any, exchange: str, batch: int, plan: Plan, parts: int) -> Any:
    """What the blocks meet through: a word, or two lines of 16 bytes for so many numbers each."""
    each = 1 if like.dtype.itemsize == 8 else 12 // like.dtype.itemsize
    lines = 2 * batch * plan.blocks * -(-parts * plan.units // each)
    return np.zeros_like(like, shape=(4 * lines if exchange == "lines" else 1,), dtype=np.uint32, order="C")
