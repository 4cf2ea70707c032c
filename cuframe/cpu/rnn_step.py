"""A recurrent layer over a single step, as the cells run it: plain products and the cell's formulas, batch first.

The weights are used as they lie; what `rnn` does to them first pays only over many steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .blas import product

__all__ = ["Saved", "backward", "forward"]

Array = npt.NDArray[Any]
_Weights = tuple[Array, Array, Array | None, Array | None]


@dataclass(slots=True)
class Saved:
    """What `backward` needs: the caller's arrays, the gates [N, G*H] after their functions, the result, and for LSTM
    tanh(c), for GRU what the reset gate multiplies."""

    cell: str
    dtype: np.dtype[Any]
    x: Array
    h0: Array | None
    c0: Array | None
    weights: _Weights
    gates: Array
    out: Array
    extra: Array | None


def _sides(x: Array, h0: Array | None, weights: _Weights) -> tuple[Array, Array | None]:
    """W_ih x + b_ih, and W_hh h + b_hh, None for zeros."""
    w_ih, w_hh, b_ih, b_hh = weights
    sides: list[Array | None] = []
    for a, w, b in ((x, w_ih, b_ih), (h0, w_hh, b_hh)):
        side = None if a is None else product(a, w.T)
        if side is not None and b is not None:
            side += b
        elif b is not None:
            side = np.repeat(b[None], len(x), 0)
        sides.append(side)
    return sides[0], sides[1]  # type: ignore[return-value]


def _sigmoid(z: Array) -> None:
    """In place; tanh is the faster half of it in NumPy."""
    half = z.dtype.type(0.5)
    z *= half
    np.tanh(z, out=z)
    z *= half
    z += half


def _parts(z: Array, count: int) -> list[Array]:
    return np.split(z, count, 1)


def forward(
    cell: str, x: Array, weights: _Weights, h0: Array | None, c0: Array | None, dtype: np.dtype[Any]
) -> tuple[Array, Array | None, Saved]:
    """h [N, H], c [N, H] or None, and what `backward` needs; all in the dtype of x [N, I], the gradients in `dtype`."""
    z, zh = _sides(x, h0, weights)
    c = extra = None
    if cell == "gru":
        zh = np.zeros_like(z) if zh is None else zh
        hidden = z.shape[1] // 3
        gates = z[:, : 2 * hidden]
        gates += zh[:, : 2 * hidden]
        _sigmoid(gates)
        r, u, n = _parts(z, 3)
        extra = zh[:, 2 * hidden :]
        n += r * extra
        np.tanh(n, out=n)
        out = n - u * n if h0 is None else n + u * (h0 - n)
    else:
        if zh is not None:
            z += zh
        if cell == "lstm":
            i, f, g, o = _parts(z, 4)
            hidden = i.shape[1]
            _sigmoid(z[:, : 2 * hidden])
            np.tanh(g, out=g)
            _sigmoid(o)
            c = i * g
            if c0 is not None:
                c += f * c0
            extra = np.tanh(c)
            out = o * extra
        else:
            out = np.tanh(z) if cell == "rnn_tanh" else np.maximum(z, 0)
    return out, c, Saved(cell, dtype, x, h0, c0, weights, z, out, extra)


def backward(s: Saved, gh: Array, gc: Array | None, needs: Sequence[bool]) -> list[Array | None]:
    """Gradients in the order of `rnn.Grads` from those of h and c, [N, H] both."""
    need_x, need_h0, need_c0, need_w_ih, need_w_hh, need_b_ih, need_b_hh, _ = needs
    w_ih, w_hh, b_ih, b_hh = s.weights
    gh0 = gc0 = None
    if s.cell == "lstm":
        i, f, g, o = _parts(s.gates, 4)
        t = s.extra
        dz = np.empty_like(s.gates)
        di, df, dg, do = _parts(dz, 4)
        dc = gh * o * (1 - t * t)  # type: ignore[operator]
        if gc is not None:
            dc += gc
        np.multiply(dc * g, i * (1 - i), out=di)
        np.multiply(dc * i, 1 - g * g, out=dg)
        np.multiply(gh * t, o * (1 - o), out=do)  # type: ignore[operator]
        if s.c0 is None:
            df[...] = 0
        else:
            np.multiply(dc * s.c0, f * (1 - f), out=df)
            gc0 = dc * f if need_c0 else None
        dzh = dz
    elif s.cell == "gru":
        r, u, n = _parts(s.gates, 3)
        dz = np.empty_like(s.gates)
        dr, du, dn = _parts(dz, 3)
        np.multiply(gh * (1 - u), 1 - n * n, out=dn)
        np.multiply(gh * (-n if s.h0 is None else s.h0 - n), u * (1 - u), out=du)
        np.multiply(dn * s.extra, r * (1 - r), out=dr)
        dzh = dz.copy()
        np.multiply(dn, r, out=_parts(dzh, 3)[2])
        gh0 = gh * u if need_h0 and s.h0 is not None else None
    else:
        dz = dzh = gh * (1 - s.out * s.out if s.cell == "rnn_tanh" else s.out > 0)
    if need_h0 and s.h0 is not None:
        through = product(dzh, w_hh)
        gh0 = through if gh0 is None else np.add(gh0, through, out=gh0)
    gx = product(dz, w_ih) if need_x else None
    gw_ih = product(dz.T, s.x) if need_w_ih else None
    gw_hh = None
    if need_w_hh:
        gw_hh = np.zeros_like(w_hh) if s.h0 is None else product(dzh.T, s.h0)
    gb_ih = dz.sum(0) if b_ih is not None and need_b_ih else None
    gb_hh = None
    if b_hh is not None and need_b_hh:
        gb_hh = gb_ih.copy() if dzh is dz and gb_ih is not None else dzh.sum(0)
    grads = (None if gx is None else gx[None], gh0, gc0, gw_ih, gw_hh, gb_ih, gb_hh, None)
    return [None if g is None else g.astype(s.dtype, copy=False) for g in grads]
