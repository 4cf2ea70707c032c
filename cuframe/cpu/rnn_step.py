"""A recurrent layer over a single step, as the cells run it: plain products and the cell's formulas, batch first.

The weights are used as they lie; what `rnn` does to them first pays only over many steps. The formulas here are for all
dtypes; those of large float32 states are compiled: `rnn_step_compiled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import rnn_step_compiled as compiled
from .blas import product
from .rnn_checks import check

__all__ = ["Saved", "backward", "forward"]

Array = npt.NDArray[Any]

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(slots=True)
class Saved:
    """What `backward` needs: the caller's arrays, or float32 copies of 16-bit ones, the gates [N, G*H] after their
    functions (for RNN without), the result, and for LSTM tanh(c), for GRU what the reset gate multiplies."""

    cell: str
    dtype: np.dtype[Any]
    x: Array
    h0: Array | None
    c0: Array | None
    w_ih: Array
    w_hh: Array
    has_bias: tuple[bool, bool]
    gates: Array
    out: Array
    extra: Array | None


def _sigmoid(z: Array) -> None:
    """In place; tanh is the faster half of it in NumPy."""
    half = z.dtype.type(0.5)
    z *= half
    np.tanh(z, out=z)
    z *= half
    z += half


def _parts(z: Array, hidden: int) -> list[Array]:
    return [z[:, i : i + hidden] for i in range(0, z.shape[1], hidden)]


def _gates(
    cell: str, z: Array, zh: Array | None, b_ih: Array | None, b_hh: Array | None, h0: Array | None, c0: Array | None,
    hidden: int,
) -> tuple[Array, Array | None, Array | None]:  # fmt: skip
    """h, c and what is kept beside the gates, which z becomes; z is W_ih x, zh is W_hh h or None for zeros."""
    if b_ih is not None:
        z += b_ih
    if cell == "gru":
        if zh is None:
            zh = np.zeros_like(z)
        if b_hh is not None:
            zh += b_hh
        gates = z[:, : 2 * hidden]
        gates += zh[:, : 2 * hidden]
        _sigmoid(gates)
        r, u, n = _parts(z, hidden)
        extra = zh[:, 2 * hidden :]
        n += r * extra
        np.tanh(n, out=n)
        return (n - u * n if h0 is None else n + u * (h0 - n)), None, extra
    for side in (zh, b_hh):
        if side is not None:
            z += side
    if cell != "lstm":
        return (np.tanh(z) if cell == "rnn_tanh" else np.maximum(z, 0)), None, None
    i, f, g, o = _parts(z, hidden)
    _sigmoid(z[:, : 2 * hidden])
    np.tanh(g, out=g)
    _sigmoid(o)
    c = i * g
    if c0 is not None:
        c += f * c0
    extra = np.tanh(c)
    return o * extra, c, extra


def forward(
    cell: str, x: Array, h0: Array | None, c0: Array | None, w_ih: Array, w_hh: Array, b_ih: Array | None,
    b_hh: Array | None,
) -> tuple[Array, Array | None, Saved]:  # fmt: skip
    """One step of a cell, with the formulas of `rnn.forward`.

    Args:
        cell: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        x: [N, I]; h0: [N, H] or None for zeros; c0: [N, H], LSTM only, or None.
        w_ih: [G*H, I]; w_hh: [G*H, H]; b_ih, b_hh: [G*H] or None.

    Returns:
        h [N, H], c [N, H] or None, and what `backward` needs, of which h is a part unless it was rounded to 16 bits.

    Raises:
        ValueError: an argument does not fit; nothing has been computed then.

    >>> import numpy as np
    >>> forward("rnn_tanh", np.ones((1, 1)), None, None, np.eye(1), np.eye(1), None, None)[0].round(4)
    array([[0.7616]])
    """
    check(cell, _GATES[cell], cell == "lstm", x[None], w_ih, w_hh, b_ih, b_hh, None, h0, c0, None)
    dtype = x.dtype
    if dtype.itemsize == 2:
        x, w_ih, w_hh = (a.astype(np.float32) for a in (x, w_ih, w_hh))
        h0, c0, b_ih, b_hh = (None if a is None else a.astype(np.float32) for a in (h0, c0, b_ih, b_hh))
    hidden = w_hh.shape[1]
    z = product(x, w_ih.T)
    zh = None if h0 is None else product(h0, w_hh.T)
    formulas = compiled.gates if compiled.applies(x, hidden) else _gates
    out, c, extra = formulas(cell, z, zh, b_ih, b_hh, h0, c0, hidden)
    saved = Saved(cell, dtype, x, h0, c0, w_ih, w_hh, (b_ih is not None, b_hh is not None), z, out, extra)
    return out.astype(dtype, copy=False), None if c is None else c.astype(dtype, copy=False), saved


def _gradients(
    cell: str, gates: Array, out: Array, extra: Any, h0: Array | None, c0: Array | None, gh: Array | None,
    gc: Array | None,
) -> tuple[Array, Array, Array | None, Array | None, Array, Array]:  # fmt: skip
    """Gradients of W_ih x and W_hh h, that of h0 past W_hh or None, that of c0 or None, and those of the biases."""
    hidden = out.shape[1]
    gh = np.zeros_like(out) if gh is None else gh
    gh0 = gc0 = None
    dz = np.empty_like(gates)
    if cell == "lstm":
        i, f, g, o = _parts(gates, hidden)
        di, df, dg, do = _parts(dz, hidden)
        dc = gh * o * (1 - extra * extra)
        if gc is not None:
            dc += gc
        np.multiply(dc * g, i * (1 - i), out=di)
        np.multiply(dc * i, 1 - g * g, out=dg)
        np.multiply(gh * extra, o * (1 - o), out=do)
        np.multiply(0 if c0 is None else dc * c0, f * (1 - f), out=df)
        gc0 = dc * f
    elif cell == "gru":
        r, u, n = _parts(gates, hidden)
        dr, du, dn = _parts(dz, hidden)
        np.multiply(gh * (1 - u), 1 - n * n, out=dn)
        np.multiply(gh * (-n if h0 is None else h0 - n), u * (1 - u), out=du)
        np.multiply(dn * extra, r * (1 - r), out=dr)
        dzh = dz.copy()
        np.multiply(dn, r, out=dzh[:, 2 * hidden :])
        return dz, dzh, gh * u, None, dz.sum(0), dzh.sum(0)
    else:
        np.multiply(gh, 1 - out * out if cell == "rnn_tanh" else out > 0, out=dz)
    sums = dz.sum(0)
    return dz, dz, gh0, gc0, sums, sums


def backward(s: Saved, gh: Array | None, gc: Array | None, needs: Sequence[bool]) -> list[Array | None]:
    """Gradients in the order of `forward`'s arrays, where `needs` asks for them, from those of h and c."""
    need_x, need_h0, need_c0, need_w_ih, need_w_hh, need_b_ih, need_b_hh = needs
    work = s.out.dtype
    gh, gc = (None if g is None else g.astype(work, copy=False) for g in (gh, gc))
    formulas = compiled.gradients if compiled.applies(s.x, s.out.shape[1]) else _gradients
    dz, dzh, gh0, gc0, gb_ih, gb_hh = formulas(s.cell, s.gates, s.out, s.extra, s.h0, s.c0, gh, gc)
    if need_h0 and s.h0 is not None:
        through = product(dzh, s.w_hh)
        gh0 = through if gh0 is None else np.add(gh0, through, out=gh0)
    else:
        gh0 = None
    gw_hh = None
    if need_w_hh:
        gw_hh = np.zeros_like(s.w_hh) if s.h0 is None else product(dzh.T, s.h0)
    wants_b_ih, wants_b_hh = (need and has for need, has in zip((need_b_ih, need_b_hh), s.has_bias))
    grads = (
        product(dz, s.w_ih) if need_x else None, gh0, gc0 if need_c0 and s.c0 is not None else None,
        product(dz.T, s.x) if need_w_ih else None, gw_hh, gb_ih if wants_b_ih else None,
        None if not wants_b_hh else gb_hh.copy() if gb_hh is gb_ih else gb_hh,
    )  # fmt: skip
    return [None if g is None else g.astype(s.dtype, copy=False) for g in grads]
