"""Normalisation in NumPy: rows with their own statistics, and channels whose statistics span many rows.

Note [Blocks of rows]
    Every pass works on so many rows that their temporaries stay in the L2 cache; memory is read once forward and once
    or twice backward. Sums along rows are matrix-vector products. Many float32 rows go to `norm_compiled` instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from . import norm_compiled as compiled

__all__ = [
    "apply", "channels_backward", "channels_forward", "follow", "operand", "row_moments", "row_sums", "rows_backward",
    "rows_forward",
]  # fmt: skip

Array = npt.NDArray[Any]

_BLOCK_BYTES = 1 << 17


def operand(x: Array) -> Array:
    """An array as the functions below take it: 16-bit floats as float32."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def _blocks(x: Array) -> Iterator[slice]:
    rows, size = x.shape
    step = max(1, _BLOCK_BYTES // max(1, size * x.itemsize))
    for first in range(0, rows, step):
        yield slice(first, min(rows, first + step))


# -- rows: LayerNorm and RMSNorm ----------------------------------------------------------------------------------
def rows_forward(
    x: Array, w: Array | None, b: Array | None, eps: float, centred: bool
) -> tuple[Array, Array | None, Array]:
    """out = (x - mean) * rstd * w + b for each row; without centring mean is left out.

    Args:
        x: [R, D].
        w, b: [D] or None.

    Returns:
        out [R, D], mean [R, 1] or None, rstd [R, 1].
    """
    if compiled.applies(x):
        return compiled.rows_forward(x, w, b, eps, centred)
    rows, size = x.shape
    out = np.empty_like(x, order="C")
    mean = np.empty((rows, 1), x.dtype) if centred else None
    rstd = np.empty((rows, 1), x.dtype)
    share = np.full((size, 1), 1 / max(1, size), x.dtype)
    for part in _blocks(x):
        d, o, r = x[part], out[part], rstd[part]
        if mean is not None:
            d = np.subtract(d, np.matmul(d, share, out=mean[part]), out=o)
        np.vecdot(d, d, out=r[:, 0])
        r /= max(1, size)
        r += eps
        np.sqrt(r, out=r)
        np.divide(1, r, out=r)
        np.multiply(d, r, out=o)
        if w is not None:
            o *= w
        if b is not None:
            o += b
    return out, mean, rstd


def rows_backward(
    g: Array, x: Array, w: Array | None, mean: Array | None, rstd: Array, needs: tuple[bool, bool, bool]
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of x [R, D], w [D] and b [D], where `needs` asks for them.

    With h = (x - mean) rstd and k = g w:  gx = rstd (k - mean(k) - h mean(k h)),  gw = sum g h,  gb = sum g.
    """
    if compiled.applies(x):
        return compiled.rows_backward(g, x, w, mean, rstd, needs)
    size = x.shape[1]
    gx = np.empty_like(x, order="C") if needs[0] else None
    gw = np.zeros(size, x.dtype) if needs[1] else None
    gb = np.zeros(size, x.dtype) if needs[2] else None
    share = np.full(size, 1 / max(1, size), x.dtype) if w is None else w / max(1, size)
    # Fresh arrays of this size would be mapped and unmapped by the system for each block.
    spare = np.empty((2, next(_blocks(x), slice(0, 0)).stop, size), x.dtype)
    ones = np.ones(spare.shape[1], x.dtype)
    for part in _blocks(x):
        u, d, r = g[part], x[part], rstd[part]
        centred, gd = spare[:, : len(u)]
        if mean is not None:
            d = np.subtract(d, mean[part], out=centred)
        np.multiply(u, d, out=gd)
        if gw is not None:
            gw += r[:, 0] @ gd
        if gb is not None:
            gb += ones[: len(u)] @ u
        if gx is None:
            continue
        slope = (gd @ share)[:, None] * r
        slope *= r
        d = np.multiply(d, slope, out=gd)
        if mean is not None:
            d += (u @ share)[:, None]
        o = gx[part]
        if w is None:
            np.subtract(u, d, out=o)
        else:
            np.multiply(u, w, out=o)
            o -= d
        o *= r
    return gx, gw, gb


# -- channels: BatchNorm, GroupNorm, InstanceNorm -----------------------------------------------------------------
def row_moments(x: Array) -> tuple[Array, Array]:
    """The mean of each row of x [R, L], and the sum of squares about it: both [R]."""
    if compiled.applies(x):
        return compiled.row_moments(x)
    rows, size = x.shape
    if size == 1:
        return x[:, 0], np.zeros(rows, x.dtype)
    mean, squares = np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    share = np.full(size, 1 / max(1, size), x.dtype)
    for part in _blocks(x):
        m = np.matmul(x[part], share, out=mean[part])
        d = x[part] - m[:, None]
        np.vecdot(d, d, out=squares[part])
    return mean, squares


def row_sums(g: Array, x: Array, shift: Array) -> tuple[Array, Array]:
    """sum g and sum g (x - shift) of each row; g and x [R, L], shift [R, 1]. Both are [R]."""
    if compiled.applies(x):
        return compiled.row_sums(g, x, shift)
    rows, size = x.shape
    if size == 1:
        return g[:, 0], g[:, 0] * (x - shift)[:, 0]
    first, second = np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    ones = np.ones(size, x.dtype)
    for part in _blocks(x):
        np.matmul(g[part], ones, out=first[part])
        d = x[part] - shift[part]
        np.vecdot(g[part], d, out=second[part])
    return first, second


def apply(terms: list[tuple[Array, Array]], constant: Array | None) -> Array:
    """The sum of array * factor over `terms`, plus a constant; arrays are [R, L], factors and constant [R, 1]."""
    if compiled.applies(terms[0][0]):
        return compiled.apply(terms, constant)
    out = np.empty_like(terms[0][0], order="C")
    for part in _blocks(out):
        o = out[part]
        for i, (array, factor) in enumerate(terms):
            if i == 0:
                np.multiply(array[part], factor[part], out=o)
            else:
                o += array[part] * factor[part]
        if constant is not None:
            o += constant[part]
    return out


def _joined(mean: Array, squares: Array, size: int, axis: tuple) -> tuple[Array, Array]:
    """Mean and population variance of rows joined along `axis`, from each row's own; kept as dimensions."""
    count = prod(mean.shape[i] for i in axis)
    total = np.add.reduce(mean, axis, keepdims=True) / max(1, count)
    d = mean - total
    return total, np.add.reduce(squares + size * d * d, axis, keepdims=True) / max(1, count * size)


def _grouped(n: int, c: int, groups: int) -> tuple[tuple, tuple]:
    """How the rows (n, c) are arranged so that those with common statistics lie along some axes: shape, axes.

    groups = 0 stands for batch statistics.
    """
    return ((n, 1, c), (0,)) if not groups else ((n, groups, c // groups), (2,))


def _spread(a: Array, n: int, c: int, groups: int) -> Array:
    """Numbers of statistics as one for each row, (N * C, 1)."""
    return np.ascontiguousarray(np.broadcast_to(a, _grouped(n, c, groups)[0])).reshape(n * c, 1)


def channels_forward(
    x: Array, w: Array | None, b: Array | None, groups: int, eps: float, fixed: tuple[Array, Array] | None
) -> tuple[Array, Array, Array, Array]:
    """out = (x - mean) * rstd * w + b for each channel, with statistics of the batch, of groups, or fixed ones.

    Args:
        x: [N, C, L].
        w, b: [C] or None.
        groups: how many groups of channels have statistics in each sample; 0 for those of channels over the batch.
        fixed: mean and variance [C] to be used instead, with groups = 0.

    Returns:
        out [N, C, L]; mean, population variance and rstd, (1, 1, C) of the batch or (N, G, 1) of groups.
    """
    if fixed is None and compiled.applies_to_units(x, groups):
        return compiled.units_forward(x, w, b, groups, eps)
    n, c, size = x.shape
    if fixed is None:
        arranged, axis = _grouped(n, c, groups)
        rows, squares = row_moments(x.reshape((n * c, size)))
        mean, var = _joined(rows.reshape(arranged), squares.reshape(arranged), size, axis)
    else:
        mean, var = (operand(f).astype(x.dtype, copy=False).reshape((1, 1, c)) for f in fixed)
    rstd = 1 / np.sqrt(var + eps)
    a = _spread(rstd, n, c, groups).reshape(n, c)
    if w is not None:
        a = a * w
    shift = -a * _spread(mean, n, c, groups).reshape(n, c)
    if b is not None:
        shift += b
    out = apply([(x.reshape((n * c, size)), a.reshape(-1, 1))], shift.reshape(-1, 1))
    return out.reshape(x.shape), mean, var, rstd


def channels_backward(
    g: Array, x: Array, w: Array | None, groups: int, mean: Array, rstd: Array, fixed: bool,
    needs: tuple[bool, bool, bool],
) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of x [N, C, L], w [C] and b [C], where `needs` asks for them; mean and rstd as forward gave them."""
    n, c, size = x.shape
    rows = (n * c, size)
    x2, g2 = x.reshape(rows), g.reshape(rows)
    arranged, axis = _grouped(n, c, groups)
    m, r = _spread(mean, n, c, groups), _spread(rstd, n, c, groups)
    gx = None
    in_one = not fixed and compiled.applies_to_units(x, groups)
    if in_one:
        s1, s2, gx = compiled.units_backward(g, x, w, groups, mean, rstd, needs[0])
    else:
        s1, s2 = row_sums(g2, x2, m)
    gw = (s2 * r[:, 0]).reshape(n, c).sum(axis=0) if needs[1] else None
    gb = s1.reshape(n, c).sum(axis=0) if needs[2] else None
    if needs[0] and not in_one:
        scale = np.ones((n, c), x.dtype) if w is None else np.broadcast_to(w, (n, c))
        a = scale.reshape(n * c, 1) * r
        if fixed:
            gx = apply([(g2, a)], None)
        else:
            count = max(1, size * prod(arranged[i] for i in axis))
            k1, k2 = ((scale * s.reshape(n, c)).reshape(arranged).sum(axis=axis, keepdims=True) / count
                      for s in (s1, s2))  # fmt: skip
            slope = _spread(-(rstd**3) * k2, n, c, groups)
            constant = _spread(-rstd * k1, n, c, groups) - slope * m
            gx = apply([(g2, a), (x2, slope)], constant)
    return None if gx is None else gx.reshape(x.shape), gw, gb


def follow(running: Array, values: Array, momentum: float, scale: float = 1.0) -> None:
    """running = (1 - momentum) * running + momentum * scale * mean of values over the batch, in place.

    Args:
        running: [C].
        values: [N, C].
    """
    value = values.mean(axis=0)
    if scale != 1:
        value = value * scale
    running *= running.dtype.type(1 - momentum)
    running += (value * momentum).astype(running.dtype)
