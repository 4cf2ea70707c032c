"""Pointwise maths of the recurrent cells, as the NumPy sequence engine in `rnn` runs it.

Every array of a step is stored *transposed*: `[rows, n]` with the batch innermost.  A gate is then one contiguous slab
`[H, n]`, so that a ufunc runs over it (or over several neighbouring gates) in one sweep, and `W @ h` is the fastest of
the GEMM layouts in OpenBLAS at recurrent sizes.  Slabs are ordered for such sweeps, not in PyTorch's gate order;
`Cell.x_order` and `Cell.h_order` hold the map.

Note [Sigmoid from tanh]
sigmoid(p) = (tanh(p / 2) + 1) / 2 never overflows.  The halving of `p` is folded into the rows of the weights (a power
of two, hence exact), so one `tanh` sweep serves all gates; slabs hold `2 * sigmoid(p)`, and the factor 2 is folded into
weights again or into a scale on the finished gradient: `Cell.x_grad_scale` and `Cell.h_grad_scale` turn the gradient a
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

__all__ = ["CELLS", "Cell", "Constants"]

Array = npt.NDArray[Any]
_add, _subtract, _multiply, _tanh = np.add, np.subtract, np.multiply, np.tanh


class Constants:
    """Small numbers as 0-d arrays: a ufunc takes those without the conversion a Python float costs at each call."""

    __slots__ = ("half", "one", "two", "zero")

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.zero, self.half, self.one, self.two = (np.array(v, dtype) for v in (0.0, 0.5, 1.0, 2.0))


def lstm_views(gates: Array, after: list[Array]) -> tuple[Any, ...]:
    """The parts of `gates` [m, 5, H, n], slabs (o, i, f, candidate, c_{t-1}), that `lstm_cell_forward` works on."""
    return gates[:, :4], gates[:, :3], gates[:, 1:3], gates[:, 3:], gates[:, 0], after


def lstm_cell_forward(gx: Array, h_prev: Array, h: Array, tmp: Array, k: Constants, g: Array, sigmoids: Array,
                      input_forget: Array, candidate_c: Array, o: Array, c: Array) -> None:
    """One LSTM step: `g` = W_hh h + b comes in, (2o, 2i, 2f, candidate) goes out; `h` gets `2 * h_t`, `c` gets c_t."""
    _add(g, gx, g)
    _tanh(g, g)
    _add(sigmoids, k.one, sigmoids)
    _multiply(input_forget, candidate_c, tmp)
    _add(tmp[0], tmp[1], c)
    _multiply(c, k.half, c)
    _tanh(c, h)
    _multiply(o, h, h)


def lstm_cell_factors(gates: Array, h: Array, c_last: Array, out: Array, k: Constants) -> None:
    """Factors `out` [m, 6, H, n]: d(2c)/dh, then those of o, i, f and the candidate, then f = dc_t/dc_{t-1}."""
    sigmoids, slopes = gates[:, :3], out[:, 1:4]
    _subtract(k.two, sigmoids, slopes)
    _multiply(slopes, sigmoids, slopes)
    through, candidate = out[:, 0], gates[:, 3]
    _tanh(gates[1:, 4], through[:-1])
    _tanh(c_last, through[-1])
    _multiply(out[:, 1], through, out[:, 1])
    _multiply(out[:, 2:4], gates[:, 3:], out[:, 2:4])
    _one_minus_square(candidate, out[:, 4], k)
    _multiply(out[:, 4], gates[:, 1], out[:, 4])
    _one_minus_square(through, through, k)
    _multiply(through, gates[:, 0], through)
    _multiply(gates[:, 2], k.half, out[:, 5])


def lstm_backward_views(factors: Array) -> tuple[Array, ...]:
    """The parts of `factors` [m, 6, H, n] that `lstm_cell_backward` works on."""
    return factors[:, :2], factors[:, 0], factors[:, 2:], factors[:, 5]


def lstm_cell_backward(dh: Array, dc2: Array, by_h: Array, through: Array, by_c: Array, keep: Array) -> Array:
    """One LSTM step back: factors become gradients; `dc2` is twice dL/dc_t without its part through h_t, and what is
    returned is the same for c_{t-1}."""
    _multiply(by_h, dh, by_h)
    _add(through, dc2, through)
    _multiply(by_c, through, by_c)
    return keep


def gru_views(gates: Array, after: list[Array]) -> tuple[Any, ...]:
    """The parts of `gates` [m, 4, H, n], slabs (candidate, r, z, hidden n-part), that `gru_cell_forward` works on."""
    return gates[:, 1:3], gates[:, 0], gates[:, 1], gates[:, 2], gates[:, 3]


def gru_cell_forward(gx: Array, h_prev: Array, h: Array, tmp: Array, k: Constants, sigmoids: Array, candidate: Array,
                     r: Array, z: Array, hidden: Array) -> None:
    """One GRU step: slabs 1 to 3 hold W_hh h + b_hh and become (2r, 2z, half of the hidden n-part)."""
    _add(sigmoids, gx[1:], sigmoids)
    _tanh(sigmoids, sigmoids)
    _add(sigmoids, k.one, sigmoids)
    _multiply(hidden, r, candidate)
    _add(candidate, gx[0], candidate)
    _tanh(candidate, candidate)
    _subtract(h_prev, candidate, h)
    _multiply(h, z, h)
    _multiply(h, k.half, h)
    _add(h, candidate, h)


def gru_cell_factors(gates: Array, before: Array, c_last: Array | None, out: Array, k: Constants) -> None:
    """Factors `out` [m, 5, H, n] on dL/dh_t: z = what passes straight to h_{t-1}, then (n, r, z, hidden n-part)."""
    keep, dn, dr, dz, dhidden = (out[:, j] for j in range(5))
    candidate, z = gates[:, 0], gates[:, 2]
    _subtract(k.two, gates[:, 1:3], out[:, 2:4])
    _one_minus_square(candidate, dn, k)
    _multiply(dn, dz, dn)
    _multiply(dz, z, dz)
    _subtract(before, candidate, keep)
    _multiply(dz, keep, dz)
    _multiply(dn, gates[:, 1], dhidden)
    _multiply(dr, dhidden, dr)
    _multiply(dr, gates[:, 3], dr)
    _multiply(z, k.half, keep)


def gru_backward_views(factors: Array) -> tuple[Array, ...]:
    """The parts of `factors` [m, 5, H, n] that `gru_cell_backward` works on."""
    return factors, factors[:, 0]


def gru_cell_backward(dh: Array, carry: Array, factors: Array, keep: Array) -> Array:
    """One GRU step back: factors become gradients; returns the part of dL/dh_{t-1} that does not pass through W_hh."""
    _multiply(factors, dh, factors)
    return keep


def rnn_views(gates: Array, after: list[Array]) -> tuple[Any, ...]:
    """The only slab of `gates` [m, 1, H, n]."""
    return gates, gates[:, 0]


def tanh_cell_forward(gx: Array, h_prev: Array, h: Array, tmp: Array, k: Constants, g: Array, slab: Array) -> None:
    """One step of the plain RNN: h = tanh(g + gx)."""
    _add(g, gx, g)
    _tanh(slab, h)


def relu_cell_forward(gx: Array, h_prev: Array, h: Array, tmp: Array, k: Constants, g: Array, slab: Array) -> None:
    """One step of the plain RNN: h = max(g + gx, 0)."""
    _add(g, gx, g)
    np.maximum(slab, k.zero, out=h)


def tanh_cell_factors(gates: Array, after: Array, c_last: Array | None, out: Array, k: Constants) -> None:
    """Factor `out` [m, 1, H, n] from `after` [m, H, n] = h_t: 1 - h**2."""
    _one_minus_square(after, out[:, 0], k)


def relu_cell_factors(gates: Array, after: Array, c_last: Array | None, out: Array, k: Constants) -> None:
    """Factor `out` [m, 1, H, n] from `after` [m, H, n] = h_t: 1 where h > 0, else 0."""
    np.sign(after, out[:, 0])


def rnn_backward_views(factors: Array) -> tuple[Array, ...]:
    """The only slab of `factors` [m, 1, H, n]."""
    return (factors[:, 0],)


def rnn_cell_backward(dh: Array, carry: Array, g: Array) -> Array:
    """One step of the plain RNN back: the factor becomes the gradient of the pre-activation."""
    _multiply(g, dh, g)
    return carry


def _one_minus_square(a: Array, out: Array, k: Constants) -> None:
    _multiply(a, a, out)
    _subtract(k.one, out, out)


@dataclass(frozen=True, slots=True)
class Cell:
    """How one kind of cell lays out its slabs, and its pointwise functions.

    `x_order[j]` is the weight block (PyTorch's gate order) behind slab `j`, the first of the `len(x_order)` slabs that
    the input reaches; the hidden state reaches slabs `h_at` onwards, in `h_order`.  Scales are in slab order.
    The gradients start at slab `back_at` of the `back_slabs` factors, in the same order.
    """

    name: str
    gates: int
    slabs: int
    h_at: int
    back_slabs: int
    back_at: int
    x_order: tuple[int, ...]
    h_order: tuple[int, ...]
    x_scale: tuple[float, ...]
    h_scale: tuple[float, ...]
    x_grad_scale: tuple[float, ...]
    h_grad_scale: tuple[float, ...]
    out_scale: float                    # the forward step writes out_scale * h_t
    has_c: bool                         # the last slab is c_{t-1}
    keeps_gates: bool
    reads: str                          # which hidden state `factors` wants: "", "before" or "after" the step
    carries: bool                       # what the backward step returns is part of dL/dh_{t-1}
    views: Callable[[Array, list[Array]], tuple[Any, ...]]
    forward: Callable[..., None]
    factors: Callable[..., None]
    backward_views: Callable[[Array], tuple[Array, ...]]
    backward: Callable[..., Array]


def _plain(name: str, forward: Callable[..., None], factors: Callable[..., None]) -> Cell:
    one = (1.0,)
    return Cell(name=name, gates=1, slabs=1, h_at=0, back_slabs=1, back_at=0, x_order=(0,), h_order=(0,), x_scale=one,
                h_scale=one, x_grad_scale=one, h_grad_scale=one, out_scale=1.0, has_c=False, keeps_gates=False,
                reads="after", carries=False, views=rnn_views, forward=forward, factors=factors,
                backward_views=rnn_backward_views, backward=rnn_cell_backward)


CELLS = {
    "lstm": Cell(
        name="lstm", gates=4, slabs=5, h_at=0, back_slabs=6, back_at=1, x_order=(3, 0, 1, 2), h_order=(3, 0, 1, 2),
        x_scale=(0.5, 0.5, 0.5, 1.0), h_scale=(0.5, 0.5, 0.5, 1.0),
        x_grad_scale=(0.25, 0.125, 0.125, 0.25), h_grad_scale=(0.25, 0.125, 0.125, 0.25),
        out_scale=2.0, has_c=True, keeps_gates=True, reads="", carries=False, views=lstm_views,
        forward=lstm_cell_forward, factors=lstm_cell_factors, backward_views=lstm_backward_views,
        backward=lstm_cell_backward),
    "gru": Cell(
        name="gru", gates=3, slabs=4, h_at=1, back_slabs=5, back_at=1, x_order=(2, 0, 1), h_order=(0, 1, 2),
        x_scale=(1.0, 0.5, 0.5), h_scale=(0.5, 0.5, 0.5),
        x_grad_scale=(0.5, 0.25, 0.25), h_grad_scale=(0.25, 0.25, 0.25),
        out_scale=1.0, has_c=False, keeps_gates=True, reads="before", carries=True, views=gru_views,
        forward=gru_cell_forward, factors=gru_cell_factors, backward_views=gru_backward_views,
        backward=gru_cell_backward),
    "rnn_tanh": _plain("rnn_tanh", tanh_cell_forward, tanh_cell_factors),
    "rnn_relu": _plain("rnn_relu", relu_cell_forward, relu_cell_factors),
}
