"""Pointwise maths of the recurrent cells with options, on rows `[n, H]`, as `rnn_regularized` runs it.

Gates lie in slabs of a row: (o, i, f, g) for an LSTM, (n, r, z) for a GRU. Weights, gains and biases of sigmoids are
halved on the way in, so that one tanh serves all gates: sigmoid(p) = tanh(p / 2) / 2 + 1 / 2.

The gradients of a step's pre-activations are known factors times the gradient of h (or of c). The factors depend on the
forward pass alone, so `factors` computes them for many steps at once; `step_back` is what is left for each step.

Note [Unit rows]
    A normalised row is kept as a / sqrt(sum a^2 + D eps), of length 1 rather than of variance 1, with the missing
    sqrt(D) in the gain. That leaves four ufuncs of the normalisation and five of its gradient: small batches feel it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["KINDS", "Kind", "Norm", "Work", "normalise", "normalise_backward"]

Array = npt.NDArray[Any]
Zone = tuple[Array, Array] | None
_WHOLE = ((0, 1),)
_add, _subtract, _multiply, _divide = np.add, np.subtract, np.multiply, np.divide
_sqrt, _tanh, _vecdot = np.sqrt, np.tanh, np.vecdot


class Norm(NamedTuple):
    """The normalisations of a layer: gains times sqrt(D) in PyTorch's gate order, the bias of that of c, and D eps.

    Where one set of gates is all of them, rows `[n, D]` are normalised and the floor is a number. Otherwise slabs
    `[n, gates, H]` are: a product of their sums `[n, gates]` with the pool gives each slab the sum of its set.
    """

    ih: Array
    hh: Array
    c: Array | None
    c_bias: Array | None
    x_pool: Array | None
    x_floor: Array
    h_pool: Array | None
    h_floor: Array
    c_floor: Array


class Work:
    """Scratch rows for a step, `[n, P]`, `[n, gates * H]` and four of `[n, H]`, and constants; `resize` sets n."""

    __slots__ = ("_full", "carry", "features", "gates", "h_bias", "half", "hidden", "n", "share", "spare", "temp")

    def __init__(self, batch: int, hidden: int, features: int, gates: int, dtype: Any, h_bias: Array | None) -> None:
        widths = (features, gates * hidden, hidden, hidden, hidden, hidden)
        self._full = [np.empty((batch, width), dtype) for width in widths]
        self.share = np.full(hidden, 1 / hidden, dtype)  # a product with it is the mean of a row
        self.half = np.array(0.5, dtype)  # ufuncs convert a Python number at each call
        self.h_bias = h_bias
        self.resize(0)

    def resize(self, n: int) -> None:
        """Views of n rows, made only when n changes."""
        self.n = n
        self.features, self.gates, self.hidden, self.spare, self.carry, self.temp = (a[:n] for a in self._full)


def normalise(a: Array, length: Array, pool: Array | None, floor: Array) -> None:
    """Bring centred rows to length 1; `length` gets what theirs was."""
    _vecdot(a, a, length)
    _add(length if pool is None else np.dot(length, pool), floor, length)
    _divide(a, _sqrt(length, length)[..., None], a)


def normalise_backward(g: Array, unit: Array, length: Array, pool: Array | None, spare: Array) -> None:
    """Turn the gradient of unit rows into that of the centred rows, in place (Note [Centred weights])."""
    along = _vecdot(g, unit)
    if pool is not None:
        along = np.dot(along, pool)
    _subtract(g, _multiply(unit, along[..., None], spare), g)
    _divide(g, length[..., None], g)


def _sigmoid(a: Array, work: Work) -> None:
    """tanh(p / 2) to sigmoid(p)."""
    _multiply(a, work.half, a)
    _add(a, work.half, a)


# -- LSTM: slabs o, i, f, g -------------------------------------------------------------------------------------------
def lstm_step(s: Any, at: slice, u: Array, c: Array, c_new: Array, out: Array, work: Work) -> None:
    """c_new = f c + i g and out = o tanh(c_new), or o tanh(LN(c_new)); `u` is what W_hh h adds to the gates."""
    g, t, hidden = s.gates[at], s.tanh_c[at], c_new.shape[1]
    _add(g, u, g)
    _tanh(g, g)
    _sigmoid(g[:, : 3 * hidden], work)
    _multiply(g[:, 2 * hidden : 3 * hidden], c, c_new)
    new = _multiply(g[:, hidden : 2 * hidden], g[:, 3 * hidden :], work.temp)
    _add(c_new, new, c_new)
    norm = s.norm
    if norm is None:
        _tanh(c_new, t)
    else:
        unit, length = s.c_unit[at], s.c_length[at]
        _subtract(c_new, np.dot(c_new, work.share, length)[:, None], unit)
        normalise(unit, length, None, norm.c_floor)
        _multiply(unit, norm.c, t)
        if norm.c_bias is not None:
            _add(t, norm.c_bias, t)
        _tanh(t, t)
    _multiply(g[:, :hidden], t, out)


def lstm_factors(s: Any, rows: slice, before: Array, d: Array, through: Array, work: Work) -> None:
    """Factors of o (on dL/dh), of i, f and g (on dL/dc), and that from h to c, or to the normalised c."""
    g, t, hidden = s.gates[rows], s.tanh_c[rows], before.shape[1]
    sigmoids = d[:, : 3 * hidden]
    _subtract(1, g[:, : 3 * hidden], sigmoids)
    sigmoids *= g[:, : 3 * hidden]
    d[:, :hidden] *= t
    d[:, hidden : 2 * hidden] *= g[:, 3 * hidden :]
    d[:, 2 * hidden : 3 * hidden] *= before
    _one_minus_square(g[:, 3 * hidden :], d[:, 3 * hidden :])
    d[:, 3 * hidden :] *= g[:, hidden : 2 * hidden]
    _one_minus_square(t, through)
    through *= g[:, :hidden]


def lstm_step_back(
    s: Any, at: slice, gh: Array, d: Array, through: Array, gc: Array, zone: Zone, work: Work
) -> Array | None:
    """Gradients of the gates; `gc` becomes dL/dc_{t-1}. With a norm `through` ends as the gradient of its result."""
    n, hidden = gh.shape
    spare, norm = work.spare, s.norm
    d[:, :hidden] *= gh
    dc = _multiply(through, gh, through)
    if norm is not None:
        dc = _multiply(through, norm.c, work.temp)
        mean = np.dot(dc, work.share)
        normalise_backward(dc, s.c_unit[at], s.c_length[at], None, spare)
        mean /= s.c_length[at]
        _subtract(dc, mean[:, None], dc)
    f = s.gates[at, 2 * hidden : 3 * hidden]
    gates = d.reshape(n, 4, hidden)[:, 1:]
    if zone is None:
        # not into `through`, which the gain's gradient needs
        dc = _add(dc, gc, work.temp)
        _multiply(dc, f, gc)
    else:
        dc = _add(dc, _multiply(gc, zone[1], spare), work.temp)
        gc *= zone[0]
        gc += _multiply(dc, f, spare)
    _multiply(gates, dc[:, None], gates)
    return None


# -- GRU: slabs n, r, z; gradients n, r, z and the recurrent part of n -----------------------------------------------
def gru_step(s: Any, at: slice, u: Array, h: Array, c_new: Array | None, out: Array, work: Work) -> None:
    """out = (1 - z) n + z h; `u` is W_hh h for (r, z, n), whose last part gets its bias here."""
    g, hidden = s.gates[at], h.shape[1]
    n, sigmoids, part = g[:, :hidden], g[:, hidden:], u[:, 2 * hidden :]
    _add(sigmoids, u[:, : 2 * hidden], sigmoids)
    _tanh(sigmoids, sigmoids)
    _sigmoid(sigmoids, work)
    if work.h_bias is not None:
        _add(part, work.h_bias, part)
    _add(n, _multiply(g[:, hidden : 2 * hidden], part, work.temp), n)
    _tanh(n, n)
    _subtract(h, n, out)
    _multiply(out, g[:, 2 * hidden :], out)
    _add(out, n, out)


def gru_factors(s: Any, rows: slice, before: Array, d: Array, through: Array, work: Work) -> None:
    """Factors on dL/dh of (n, r, z, recurrent part of n); `through` is scratch."""
    g, hidden = s.gates[rows], before.shape[1]
    n, r, z = (g[:, k * hidden : (k + 1) * hidden] for k in range(3))
    dn, dr, dz, dpart = (d[:, k * hidden : (k + 1) * hidden] for k in range(4))
    _subtract(1, g[:, hidden:], d[:, hidden : 3 * hidden])
    _one_minus_square(n, dn)
    dn *= dz
    _multiply(dn, r, dpart)
    part = s.h_unit[rows, 2 * hidden :]
    if s.norm is not None:
        part = _multiply(part, s.norm.hh[2 * hidden :], through)
        if work.h_bias is not None:
            part += work.h_bias
    dr *= dpart
    dr *= part
    dz *= z
    dz *= _subtract(before, n, through)


def gru_step_back(
    s: Any, at: slice, gh: Array, d: Array, through: Array, gc: Array | None, zone: Zone, work: Work
) -> Array | None:
    """Gradients of the gates; returns what reaches h_{t-1} beside W_hh."""
    n, hidden = gh.shape
    d = d.reshape(n, 4, hidden)
    _multiply(d, gh[:, None], d)
    return _multiply(gh, s.gates[at, 2 * hidden :], work.carry)


# -- plain RNN --------------------------------------------------------------------------------------------------------
def tanh_step(s: Any, at: slice, u: Array, h: Array, c_new: Array | None, out: Array, work: Work) -> None:
    """out = tanh(gates + u)."""
    g = s.gates[at]
    _add(g, u, g)
    np.copyto(out, _tanh(g, g))


def relu_step(s: Any, at: slice, u: Array, h: Array, c_new: Array | None, out: Array, work: Work) -> None:
    """out = max(gates + u, 0)."""
    g = s.gates[at]
    _add(g, u, g)
    np.copyto(out, np.maximum(g, 0, out=g))


def tanh_factors(s: Any, rows: slice, before: Array, d: Array, through: Array, work: Work) -> None:
    """1 - h^2, of h before zoneout."""
    _one_minus_square(s.gates[rows], d)


def relu_factors(s: Any, rows: slice, before: Array, d: Array, through: Array, work: Work) -> None:
    """1 where h > 0."""
    np.sign(s.gates[rows], d)


def plain_step_back(
    s: Any, at: slice, gh: Array, d: Array, through: Array, gc: Array | None, zone: Zone, work: Work
) -> Array | None:
    """The gradient of the pre-activation."""
    _multiply(d, gh, d)
    return None


def _one_minus_square(a: Array, out: Array) -> None:
    _multiply(a, a, out)
    _subtract(1, out, out)


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of cell lays out its slabs, and its pointwise functions.

    `x_order[j]` is the weight block (PyTorch's gate order) of slab j of the input's product, `h_order[j]` that of the
    recurrent one; sets are the slabs (from, to) that share the statistics of a layer normalisation.
    Gradients have `d_slabs` slabs: the first `gates` of them are those of the input's product, the last `gates` those
    of the recurrent one. A cell that `splits` multiplies part of the latter by a gate, so that they differ.
    """

    gates: int
    d_slabs: int
    splits: bool
    has_c: bool
    x_order: tuple[int, ...]
    h_order: tuple[int, ...]
    x_scale: tuple[float, ...]
    h_scale: tuple[float, ...]
    x_sets: tuple[tuple[int, int], ...]
    h_sets: tuple[tuple[int, int], ...]
    shares: tuple[int, ...]  # for each gate, in PyTorch's order, how many gates are in its set
    step: Callable[..., None]
    factors: Callable[..., None]
    step_back: Callable[..., Array | None]


def _plain(step: Callable[..., None], factors: Callable[..., None]) -> Kind:
    return Kind(1, 1, False, False, (0,), (0,), (1.0,), (1.0,), _WHOLE, _WHOLE, (1,), step, factors, plain_step_back)


_HALVES = (0.5, 0.5, 0.5, 1.0)
KINDS = {
    "lstm": Kind(4, 4, False, True, (3, 0, 1, 2), (3, 0, 1, 2), _HALVES, _HALVES, ((0, 4),), ((0, 4),),
                 (4, 4, 4, 4), lstm_step, lstm_factors, lstm_step_back),
    "gru": Kind(3, 4, True, False, (2, 0, 1), (0, 1, 2), (1.0, 0.5, 0.5), (0.5, 0.5, 1.0), ((0, 1), (1, 3)),
                ((0, 2), (2, 3)), (2, 2, 1), gru_step, gru_factors, gru_step_back),
    "rnn_tanh": _plain(tanh_step, tanh_factors),
    "rnn_relu": _plain(relu_step, relu_factors),
}  # fmt: skip
