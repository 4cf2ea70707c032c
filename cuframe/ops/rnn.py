"""Recurrent layers: one direction of one layer over a whole sequence is one node of the graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..autograd.graph import mode
from ..backend import backend_of
from ..tensor import Tensor
from .define import Op, need_tensor, record, record_outputs
from .elementwise import relu, sigmoid, tanh
from .join import cat, chunk, stack
from .linear import linear
from .mask import where

__all__: list[str] = ["layer_arrays", "needs_backward", "rnn_both", "rnn_cell", "rnn_layer", "rnn_layer_composite",
                      "rnn_stack", "walk"]  # fmt: skip

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def _vjp_of(family: str) -> Any:
    """The vjp of a family that keeps in one object what its backward needs."""

    def vjp(g: list, needs: tuple, *saved: Any) -> tuple:
        x, kept = saved[0], saved[-1]
        grads = [None if gi is None else np.asarray(gi) if isinstance(gi, np.generic) else gi for gi in (*g, None)[:3]]
        return tuple(backend_of(x).kernel(family).backward(kept, *grads, [n is not None for n in needs]))

    return vjp


def _cell_vjp(g: Any, needs: tuple, *saved: Any) -> tuple:
    gh, gc = g if isinstance(g, list) else (g, None)
    return tuple(backend_of(saved[0]).kernel("rnn_step").backward(saved[-1], gh, gc, [n is not None for n in needs]))


def rnn_layer(
    cell: str,
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None],
    h0: Tensor | None = None,
    c0: Tensor | None = None,
    *,
    lengths: Any = None,
    batch_sizes: Any = None,
    reverse: bool = False,
    recompute: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One direction of one recurrent layer over all time steps.

    Args:
        cell: `"lstm"`, `"gru"`, `"rnn_tanh"` or `"rnn_relu"`; gates in PyTorch's order.
        x: [T, N, I], or the packed rows [S, I] if `batch_sizes` is given.
        weights: (w_ih [G*H, I], w_hh [G*H, P], b_ih [G*H], b_hh [G*H], w_hr [P, H]); the last three may be None.
        h0: [N, P], zeros if None.
        c0: [N, H], LSTM only, zeros if None.
        lengths: [N] integers in [0, T]: padded steps give zeros and take no gradient.
        batch_sizes: [T] how many sequences reach each step of packed rows.
        reverse: from each sequence's last step to its first.
        recompute: keep no gates for backward, which makes them again, where the device's kernel can.

    Returns:
        y [T, N, P] (or [S, P]), h_n [N, P], c_n [N, H] (None unless LSTM).

    Raises:
        ValueError: a shape, dtype or length does not fit.

    Where the device has no kernel, the same maths runs step by step in basic operations.
    """
    need_tensor(cell, "input", x)
    kernel = backend_of(x.array).kernel("rnn")
    if kernel is None:
        result = rnn_layer_composite(x, h0, c0, *weights, cell, lengths, batch_sizes, reverse)
        return result[0], result[1], result[2] if cell == "lstm" else None
    tensors = (x, h0, c0, *weights)
    arrays = layer_arrays(cell, tensors)
    lengths = lengths.array if isinstance(lengths, Tensor) else lengths
    y, h_n, c_n, kept = kernel.forward(
        cell, arrays[0], *arrays[3:], arrays[1], arrays[2],
        lengths=lengths, batch_sizes=batch_sizes, reverse=reverse,
        need_backward=needs_backward(tensors), recompute=recompute,
    )  # fmt: skip
    # The kernel keeps its outputs for backward: y is among the saved, so that a change in place is noticed.
    saved = (*arrays, cell, lengths, batch_sizes, reverse, y, kept)
    outputs = (y, h_n) if c_n is None else (y, h_n, c_n)
    outs = record_outputs(outputs, RNN, tensors, saved)
    return outs[0], outs[1], outs[2] if c_n is not None else None


def rnn_cell(
    cell: str, x: Tensor, weights: tuple[Tensor | None, ...], h0: Tensor | None = None, c0: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """One step of a recurrent layer: `rnn_layer` where the device has no kernel for that.

    Args:
        x: [N, I]; weights: (w_ih, w_hh, b_ih, b_hh), the last two may be None.
        h0, c0: [N, H], zeros if None.

    Returns:
        h [N, H], c [N, H] (None unless LSTM).

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    kernel = backend_of(x.array).kernel("rnn_step")
    if kernel is None:
        _, h, c = rnn_layer(cell, x.unsqueeze(0), (*weights, None), h0, c0)  # type: ignore[arg-type]
        return h, c
    tensors = (x, h0, c0, *weights)
    arrays = layer_arrays(cell, tensors)
    h_1, c_1, kept = kernel.forward(cell, *arrays)
    # Only a plain RNN's slope is that of its result, which must not be changed in place then.
    saved = (*arrays, cell, h_1 if cell.startswith("rnn") else None, kept)
    if c_1 is None:
        return record(h_1, CELL, tensors, saved), None
    outs = record_outputs((h_1, c_1), CELL, tensors, saved)
    return outs[0], outs[1]


def _cell_composite(x: Tensor, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, cell: str) -> Any:
    """`rnn_cell` in basic operations, for its double backward."""
    shape = (x.shape[0], w_hh.shape[1])
    h0 = _zeros(x, shape) if h0 is None else h0
    c0 = _zeros(x, shape) if c0 is None and cell == "lstm" else c0
    h, c = _step(cell, linear(x, w_ih, b_ih), h0, c0, w_hh, b_hh, None)
    return h if c is None else (h, c)


def rnn_both(
    cell: str,
    x: Tensor,
    weights: tuple[Tensor | None, ...],
    weights_2: tuple[Tensor | None, ...],
    h0: Tensor | None = None,
    c0: Tensor | None = None,
    *,
    lengths: Any = None,
    recompute: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Both directions of a layer in one launch; None where the device has no kernel for that, or they do not fit it.

    Args:
        x: [T, N, I]; weights: (w_ih, w_hh, b_ih, b_hh) from the first step on; weights_2: those from the last step on.
        h0, c0: [2, N, H], zeros if None; lengths, recompute: as for `rnn_layer`.

    Returns:
        y [T, N, 2 * H], h_n [2, N, H], c_n [2, N, H] (None unless LSTM).

    Raises:
        ValueError: a shape, dtype or length does not fit.
    """
    kernel = backend_of(x.array).kernel("rnn_both")
    if kernel is None or not kernel.fits(cell, x.array, weights[1].array):  # type: ignore[union-attr]
        return None
    tensors = (x, h0, c0, *weights, *weights_2)
    arrays = layer_arrays(cell, tensors)
    lengths = lengths.array if isinstance(lengths, Tensor) else lengths
    y, h_n, c_n, kept = kernel.forward(
        cell, arrays[0], arrays[3:7], arrays[7:], arrays[1], arrays[2], lengths=lengths,
        need_backward=needs_backward(tensors), recompute=recompute,
    )  # fmt: skip
    outs = record_outputs((y, h_n) if c_n is None else (y, h_n, c_n), BOTH, tensors, (*arrays, cell, lengths, y, kept))
    return outs[0], outs[1], outs[2] if c_n is not None else None


def _both_composite(x: Tensor, h0: Any, c0: Any, *rest: Any) -> tuple[Tensor, ...]:
    """`rnn_both` in basic operations, for its double backward."""
    *weights, cell, lengths = rest
    sides = []
    for d in range(2):
        h, c = (None if s is None else s[d] for s in (h0, c0))
        w_ih, w_hh, b_ih, b_hh = weights[4 * d : 4 * d + 4]
        sides.append(rnn_layer_composite(x, h, c, w_ih, w_hh, b_ih, b_hh, None, cell, lengths, None, d == 1))
    ys, *states = zip(*sides)
    return (cat(list(ys), -1), *(stack(list(pair)) for pair in states))


def rnn_stack(
    cell: str,
    x: Tensor,
    weights: list[tuple[Tensor | None, ...]],
    h0: Tensor | None = None,
    c0: Tensor | None = None,
    *,
    lengths: Any = None,
    recompute: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Layers that run beside one another; None where the device has no kernel for that, or they do not fit it.

    Args:
        x: [T, N, I]; weights: (w_ih, w_hh, b_ih, b_hh) of each layer; h0, c0: [L, N, H], zeros if None.
        lengths, recompute: as for `rnn_layer`.

    Returns:
        y [T, N, H] of the last layer, h_n [L, N, H], c_n [L, N, H] (None unless LSTM).

    Raises:
        ValueError: a shape, dtype or length does not fit.
    """
    kernel = backend_of(x.array).kernel("rnn_stack")
    if kernel is None or not kernel.fits(cell, x.array, [w[1].array for w in weights]):  # type: ignore[union-attr]
        return None
    tensors = (x, h0, c0, *(w for layer in weights for w in layer))
    arrays = layer_arrays(cell, tensors)
    layers = [arrays[i : i + 4] for i in range(3, len(arrays), 4)]
    lengths = lengths.array if isinstance(lengths, Tensor) else lengths
    y, h_n, c_n, kept = kernel.forward(
        cell, arrays[0], layers, arrays[1], arrays[2], lengths=lengths,
        need_backward=needs_backward(tensors), recompute=recompute,
    )  # fmt: skip
    outs = record_outputs((y, h_n) if c_n is None else (y, h_n, c_n), _stack_op(len(weights)), tensors,
                          (*arrays, cell, lengths, y, kept))  # fmt: skip
    return outs[0], outs[1], outs[2] if c_n is not None else None


def _stack_composite(x: Tensor, h0: Any, c0: Any, *rest: Any) -> tuple[Tensor, ...]:
    """`rnn_stack` in basic operations, for its double backward."""
    *weights, cell, lengths = rest
    states = []
    for layer in range(len(weights) // 4):
        h, c = (None if s is None else s[layer] for s in (h0, c0))
        w_ih, w_hh, b_ih, b_hh = weights[4 * layer : 4 * layer + 4]
        x, *last = rnn_layer_composite(x, h, c, w_ih, w_hh, b_ih, b_hh, None, cell, lengths, None, False)
        states.append(last)
    return (x, *(stack(list(s)) for s in zip(*states)))


@cache
def _stack_op(layers: int) -> Op:
    saves = (*range(3 + 4 * layers), "constant", "constant", None, None)
    return Op("rnn_stack", _vjp_of("rnn_stack"), saves, _stack_composite)


def layer_arrays(cell: str, tensors: tuple) -> list[Any]:
    """The arrays of a layer's tensors (input, hx, cx, weights), refused unless they are on one device."""
    x = tensors[0]
    names = ("hx", "cx", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    for name, t in zip((*names, *("a weight",) * (len(tensors) - 8)), tensors[1:]):
        if t is not None and t.array.__class__ is not x.array.__class__:
            raise RuntimeError(f"{cell}: {name} is on {t.device}, the input on {x.device}")
    return [None if t is None else t.array for t in tensors]


def needs_backward(tensors: tuple) -> bool:
    """True if the layer will be recorded."""
    return mode.grad and any(t is not None and t.node is not None for t in tensors)


def rnn_layer_composite(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    w_hr: Tensor | None,
    cell: str,
    lengths: Any,
    batch_sizes: Any,
    reverse: bool,
) -> tuple[Tensor, ...]:
    """`rnn_layer` in basic operations: its oracle, its double backward, and its form on devices without a kernel."""

    def step(rows: Any, gx: Any, h: Any, c: Any) -> tuple[Any, Any]:
        return _step(cell, gx, h, c, w_hh, b_hh, w_hr)

    c_size = w_ih.shape[0] // 4 if cell == "lstm" else 0
    return walk(x, h0, c0, linear(x, w_ih, b_ih), step, w_hh.shape[1], c_size, lengths, batch_sizes, reverse)


def walk(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    gates_x: Tensor,
    step: Callable[[Any, Any, Any, Any], tuple[Any, Any]],
    h_size: int,
    c_size: int,
    lengths: Any,
    batch_sizes: Any,
    reverse: bool,
) -> tuple[Tensor, ...]:
    """A layer as a loop over its steps: y, h_n, and c_n where there is a c (`c_size` > 0).

    `step(rows, gx, h, c)` returns the new (h, c); `rows` is the place of its input in `x`, gx that in `gates_x`.
    """
    packed = batch_sizes is not None
    sizes = [int(n) for n in (batch_sizes if packed else [x.shape[1]] * x.shape[0])]
    steps = len(sizes)
    batch = (sizes[0] if steps else 0) if packed else x.shape[1]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(int).tolist() if packed else []
    h = h0 if h0 is not None else _zeros(x, (batch, h_size))
    c = c0 if c0 is not None or not c_size else _zeros(x, (batch, c_size))
    alive = None
    if lengths is not None:
        given = lengths.array if isinstance(lengths, Tensor) else lengths
        count = backend_of(x.array).asarray(given, x.array)
        alive = [Tensor((count > t)[:, None]) for t in range(steps)]
    ys: list[Tensor] = [None] * steps  # type: ignore[list-item]
    for t in reversed(range(steps)) if reverse else range(steps):
        n = sizes[t]
        rows = slice(offsets[t], offsets[t + 1]) if packed else t
        rest = h[n:], (c[n:] if c is not None else None)  # type: ignore[index]
        h_old, c_old = h[:n], (c[:n] if c is not None else None)  # type: ignore[index]
        h_new, c_new = step(rows, gates_x[rows], h_old, c_old)  # type: ignore[index]
        if alive is not None:
            y = where(alive[t], h_new, 0.0)
            h_new = where(alive[t], h_new, h_old)
            c_new = where(alive[t], c_new, c_old) if c_new is not None else None
        else:
            y = h_new
        ys[t] = y
        h = cat([h_new, rest[0]]) if n < batch else h_new
        c = (cat([c_new, rest[1]]) if n < batch else c_new) if c_new is not None else None
    if steps:
        out = cat(ys) if packed else stack(ys)
    else:
        out = _zeros(x, (*x.shape[:-1], h_size))
    return (out, h) if c is None else (out, h, c)


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return Tensor(np.zeros_like(like.array, shape=shape))


def _step(cell: str, gx: Tensor, h: Any, c: Any, w_hh: Any, b_hh: Any, w_hr: Any) -> tuple[Any, Any]:

    gh = linear(h, w_hh, b_hh)
    if cell == "lstm":
        i, f, g, o = chunk(gx + gh, 4, 1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        return (h if w_hr is None else linear(h, w_hr)), c
    if cell == "gru":
        rx, zx, nx = chunk(gx, 3, 1)
        rh, zh, nh = chunk(gh, 3, 1)
        z = sigmoid(zx + zh)
        n = tanh(nx + sigmoid(rx + rh) * nh)
        return n + z * (h - n), None
    return (tanh if cell == "rnn_tanh" else relu)(gx + gh), None


_SAVES = (0, 1, 2, 3, 4, 5, 6, 7, "constant", "constant", "constant", "constant", None, None)
RNN = Op("rnn", _vjp_of("rnn"), _SAVES, rnn_layer_composite)
CELL = Op("rnn_cell", _cell_vjp, (0, 1, 2, 3, 4, 5, 6, "constant", None, None), _cell_composite)
BOTH = Op("rnn_both", _vjp_of("rnn_both"), (*range(11), "constant", "constant", None, None), _both_composite)
