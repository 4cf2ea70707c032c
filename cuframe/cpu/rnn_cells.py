"""Pointwise maths of the recurrent cells, as the NumPy sequence engine in `rnn` runs it.

Every array of a step is stored *transposed*: `[rows, n]` with the batch innermost.  A gate is then one contiguous slab
`[H, n]`, so that a ufunc runs over it (or over several neighbouring gates) in one sweep, and `W @ h` is the fastest of
the GEMM layouts in OpenBLAS at recurrent sizes.  Slabs are ordered for such sweeps, not in PyTorch's gate order;
`Cell.x_order` and `Cell.h_order` hold the map.

Note [Sigmoid from tanh]
sigmoid(p) = (tanh(p / 2) + 1) / 2 never overflows.  The halving of `p` is folded into the rows of the weights (a power of
two, hence exact), so one `tanh` sweep serves all gates; slabs hold `2 * sigmoid(p)`, and the factor 2 is again folded
into weights or into a scale on the finished gradient: `Cell.x_grad_scale` and `Cell.h_grad_scale` turn the gradient a
backward step stores into that of the gate's pre-activation.

Note [Factors]
In every cell the gradient of a pre-activation is a known factor times the gradient of `h_t` (or of `c_t`).  The factors
depend on the forward pass alone, so `factors` computes them for many steps at once, outside the sequential chain; the
chain itself is left with a GEMM and two to six ufuncs a step.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CELLS", "Cell", "Constants", "gru_cell_backward", "gru_cell_factors", "gru_cell_forward",
           "lstm_cell_backward", "lstm_cell_factors", "lstm_cell_forward", "relu_cell_factors", "relu_cell_forward",
           "rnn_cell_backward", "tanh_cell_factors", "tanh_cell_forward"]

Array = npt.NDArray[Any]
_add, _subtract, _multiply, _tanh = np.add, np.subtract, np.multiply, np.tanh


class Constants:
    """Small numbers as 0-d arrays: a ufunc takes those without the conversion a Python float costs at each call."""

    __slots__ = ("half", "one", "two", "zero")

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.zero, self.half, self.one, self.two = (np.array(v, dtype) for v in (0.0, 0.5, 1.0, 2.0))


def lstm_cell_forward(g: Array, gx: Array, h_prev: Array, c_prev: Array, h: Array, c: Array, tmp: Array,
                      k: Constants) -> None:
    """One LSTM step: `g` [4, H, n] = W_hh h + b comes in, (2o, 2i, 2f, candidate) goes out; `h` gets `2 * h_t`."""
    _add(g, gx, g)
    _tanh(g, g)
    sigmoids = g[:3]
    _add(sigmoids, k.one, sigmoids)
    o, i, f, candidate = g
    _multiply(i, candidate, tmp)
    _multiply(f, c_prev, c)
    _add(c, tmp, c)
    _multiply(c, k.half, c)
    _tanh(c, tmp)
    _multiply(o, tmp, h)


def lstm_cell_factors(gates: Array, before: Array | None, c_prev: Array, c: Array, out: Array, through: Array,
                      keep: Array, k: Constants) -> None:
    """Factors of m steps: `out` [m, 4, H, n], `through` = d(2c)/dh, `keep` = dc_t/dc_{t-1}, from gates [m, 4, H, n]."""
    sigmoids, slopes = gates[:, :3], out[:, :3]
    _subtract(k.two, sigmoids, slopes)
    _multiply(slopes, sigmoids, slopes)
    o, i, f, candidate = (gates[:, j] for j in range(4))
    _tanh(c, through)
    _multiply(out[:, 0], through, out[:, 0])
    _multiply(out[:, 1], candidate, out[:, 1])
    _multiply(out[:, 2], c_prev, out[:, 2])
    _one_minus_square(candidate, out[:, 3], k)
    _multiply(out[:, 3], i, out[:, 3])
    _one_minus_square(through, through, k)
    _multiply(through, o, through)
    _multiply(f, k.half, keep)


def lstm_cell_backward(g: Array, dh: Array, dc2: Array, through: Array, keep: Array, carry: Array, tmp: Array) -> None:
    """One LSTM step back: factors `g` [4, H, n] become gradients; `dc2` holds twice dL/dc_t, then dL/dc_{t-1}."""
    _multiply(dh, through, tmp)
    _add(dc2, tmp, dc2)
    _multiply(g[0], dh, g[0])
    rest = g[1:]
    _multiply(rest, dc2, rest)
    _multiply(dc2, keep, dc2)


def gru_cell_forward(g: Array, gx: Array, h_prev: Array, c_prev: Array, h: Array, c: Array, tmp: Array,
                     k: Constants) -> None:
    """One GRU step: `g[1:]` = W_hh h + b_hh comes in, (candidate, 2r, 2z, half of the hidden n-part) goes out."""
    sigmoids = g[1:3]
    _add(sigmoids, gx[1:], sigmoids)
    _tanh(sigmoids, sigmoids)
    _add(sigmoids, k.one, sigmoids)
    candidate, r, z, hidden = g
    _multiply(hidden, r, candidate)
    _add(candidate, gx[0], candidate)
    _tanh(candidate, candidate)
    _subtract(h_prev, candidate, tmp)
    _multiply(tmp, z, tmp)
    _multiply(tmp, k.half, tmp)
    _add(tmp, candidate, h)


def gru_cell_factors(gates: Array, before: Array, c_prev: Array, c: Array, out: Array, through: Array, keep: Array,
                     k: Constants) -> None:
    """Factors of m steps on `dL/dh_t`: `out` [m, 4, H, n] for (n, r, z, hidden n-part), `keep` = z."""
    candidate, r, z, hidden = (gates[:, j] for j in range(4))
    dn, dr, dz, dhidden = (out[:, j] for j in range(4))
    _subtract(k.two, gates[:, 1:3], out[:, 1:3])
    _one_minus_square(candidate, dn, k)
    _multiply(dn, dz, dn)
    _multiply(dz, z, dz)
    _subtract(before, candidate, keep)
    _multiply(dz, keep, dz)
    _multiply(dn, r, dhidden)
    _multiply(dr, dhidden, dr)
    _multiply(dr, hidden, dr)
    _multiply(z, k.half, keep)


def gru_cell_backward(g: Array, dh: Array, dc2: Array, through: Array, keep: Array, carry: Array, tmp: Array) -> None:
    """One GRU step back: factors `g` [4, H, n] become gradients; `carry` gets the part of dL/dh_{t-1} that z keeps."""
    _multiply(g, dh, g)
    _multiply(dh, keep, carry)


def tanh_cell_forward(g: Array, gx: Array, h_prev: Array, c_prev: Array, h: Array, c: Array, tmp: Array,
                      k: Constants) -> None:
    """One step of the plain RNN: `h = tanh(g + gx)`, with `g` and `gx` [1, H, n]."""
    _add(g, gx, g)
    _tanh(g[0], h)


def relu_cell_forward(g: Array, gx: Array, h_prev: Array, c_prev: Array, h: Array, c: Array, tmp: Array,
                      k: Constants) -> None:
    """One step of the plain RNN: `h = max(g + gx, 0)`, with `g` and `gx` [1, H, n]."""
    _add(g, gx, g)
    np.maximum(g[0], k.zero, h)


def tanh_cell_factors(gates: Array, after: Array, c_prev: Array, c: Array, out: Array, through: Array, keep: Array,
                      k: Constants) -> None:
    """Factors of m steps from `after` [m, H, n] = h_t: 1 - h**2."""
    _one_minus_square(after, out[:, 0], k)


def relu_cell_factors(gates: Array, after: Array, c_prev: Array, c: Array, out: Array, through: Array, keep: Array,
                      k: Constants) -> None:
    """Factors of m steps from `after` [m, H, n] = h_t: 1 where h > 0, else 0."""
    np.greater(after, k.zero, out[:, 0])


def rnn_cell_backward(g: Array, dh: Array, dc2: Array, through: Array, keep: Array, carry: Array, tmp: Array) -> None:
    """One step of the plain RNN back: the factor `g` [1, H, n] becomes the gradient of the pre-activation."""
    _multiply(g[0], dh, g[0])


def _one_minus_square(a: Array, out: Array, k: Constants) -> None:
    _multiply(a, a, out)
    _subtract(k.one, out, out)


@dataclass(frozen=True, slots=True)
class Cell:
    """How one kind of cell lays out its gates, and its three pointwise functions.

    `x_order[j]` is the weight block (PyTorch's gate order) behind slab `j`, the first of the `len(x_order)` slabs that
    the input reaches; the hidden state reaches slabs `h_at` onwards, in `h_order`.  Scales are in slab order.
    """

    gates: int
    slabs: int
    h_at: int
    x_order: tuple[int, ...]
    h_order: tuple[int, ...]
    x_scale: tuple[float, ...]
    h_scale: tuple[float, ...]
    x_grad_scale: tuple[float, ...]
    h_grad_scale: tuple[float, ...]
    out_scale: float                    # the forward step writes out_scale * h_t
    has_c: bool
    keeps_gates: bool
    reads: str                          # which hidden state `factors` wants: "", "before" or "after" the step
    carries: bool                       # whether dL/dh_{t-1} has a part that does not pass through W_hh
    forward: Callable[..., None]
    factors: Callable[..., None]
    backward: Callable[..., None]


def _plain(forward: Callable[..., None], factors: Callable[..., None]) -> Cell:
    one = (1.0,)
    return Cell(1, 1, 0, (0,), (0,), one, one, one, one, 1.0, False, False, "after", False,
                forward, factors, rnn_cell_backward)


CELLS = {
    "lstm": Cell(
        gates=4, slabs=4, h_at=0, x_order=(3, 0, 1, 2), h_order=(3, 0, 1, 2),
        x_scale=(0.5, 0.5, 0.5, 1.0), h_scale=(0.5, 0.5, 0.5, 1.0),
        x_grad_scale=(0.25, 0.125, 0.125, 0.25), h_grad_scale=(0.25, 0.125, 0.125, 0.25),
        out_scale=2.0, has_c=True, keeps_gates=True, reads="", carries=False,
        forward=lstm_cell_forward, factors=lstm_cell_factors, backward=lstm_cell_backward),
    "gru": Cell(
        gates=3, slabs=4, h_at=1, x_order=(2, 0, 1), h_order=(0, 1, 2),
        x_scale=(1.0, 0.5, 0.5), h_scale=(0.5, 0.5, 0.5),
        x_grad_scale=(0.5, 0.25, 0.25), h_grad_scale=(0.25, 0.25, 0.25),
        out_scale=1.0, has_c=False, keeps_gates=True, reads="before", carries=True,
        forward=gru_cell_forward, factors=gru_cell_factors, backward=gru_cell_backward),
    "rnn_tanh": _plain(tanh_cell_forward, tanh_cell_factors),
    "rnn_relu": _plain(relu_cell_forward, relu_cell_factors),
}
