"""The three products that convolutions are made of, on arrays and, recorded, on Tensors.

Note [One trilinear form]
    A convolution is the form  f(x, w, g) = sum g[n, o, p] w[o, c, k] x[n, c, p * stride + k * dilation - lo]  with one
    argument left out: `correlate` leaves out g, `spread` leaves out x, `weigh` leaves out w. So the gradient of each of
    the three is two of the three, as often as one likes, and a transposed convolution is `spread`.

Note [Spreading is gathering]
    `spread` adds each g[p] to the positions of x that window p held. Those of one residue modulo the stride hear from
    taps of their own only, and over these they are a convolution of g without stride, with flipped taps. So all three
    products are `gather` of a backend, and nothing is ever added at positions that repeat.
"""

from __future__ import annotations

from itertools import product
from math import gcd, prod
from typing import Any

import numpy as np

from ..backend import backend_of
from ..cpu.conv import Product, Windows
from ..tensor import Tensor
from .define import Op, record
from .softmax import widened

__all__ = ["Windows", "convolve", "convolve_transposed", "correlate", "spread", "weigh"]


# -- arrays -------------------------------------------------------------------------------------------------------
def _gather(src: Any, weight: Any, bias: Any, other: Any, win: Windows, out: Any = None) -> tuple[Any, Any]:
    """As `cuframe.cpu.conv.gather`, for arrays of any backend: one product for each tap of the kernel."""
    n, channels = src.shape[:2]
    groups, count = win.groups, prod(win.out)
    span = win.span(win.out)
    base = np.zeros_like(src, shape=(n, channels, *span))
    both = (slice(None), slice(None))
    inner = [slice(max(0, -lo), max(0, -lo, min(size, s - lo))) for lo, s, size in zip(win.lo, span, src.shape[2:])]
    base[(*both, *(slice(i.start + lo, i.stop + lo) for i, lo in zip(inner, win.lo)))] = src[(*both, *inner)]
    total: Any = 0
    grads = []
    if weight is not None:
        w = weight.reshape((groups, weight.shape[0] // groups, channels // groups, *win.kernel))
    if other is not None:
        rows = other.reshape((n, groups, other.shape[1] // groups, count))
    for tap in np.ndindex(*win.kernel):
        part = [
            slice(k * d, k * d + (size - 1) * s + 1, s)
            for k, d, s, size in zip(tap, win.dilation, win.stride, win.out)
        ]
        x = base[(*both, *part)].reshape((n, groups, channels // groups, count))
        if weight is not None:
            total = total + np.matmul(w[(..., *tap)], x)
        if other is not None:
            grads.append(np.matmul(rows, x.swapaxes(2, 3)).sum(axis=0))
    if weight is not None:
        total = total.reshape((n, weight.shape[0], *win.out))
        if bias is not None:
            total = total + bias.reshape((-1, *(1,) * len(win.out)))
        if out is None:
            out = total
        else:
            out[...] = total
    if other is None:
        return out, None
    return out, np.stack(grads, axis=-1).reshape((other.shape[1], channels // groups, *win.kernel))


def gather(src: Any, weight: Any, bias: Any, other: Any, win: Windows, out: Any = None) -> tuple[Any, Any]:
    """See `cuframe.cpu.conv.gather`."""
    kernel = backend_of(src).kernel("conv")
    return (_gather if kernel is None else kernel.gather)(src, weight, bias, other, win, out)


def gathers(src: Any, products: list[Product]) -> list[tuple[Any, Any]]:
    """See `cuframe.cpu.conv.gathers`."""
    kernel = backend_of(src).kernel("conv")
    if kernel is not None:
        return kernel.gathers(src, products)
    done = []
    for p in products:
        out, grad = _gather(src, *p[:-1])
        if p.grad is not None:
            p.grad[...] = grad
        done.append((out, grad))
    return done


def _residues(size: int, kernel: int, stride: int, dilation: int, lo: int) -> list[tuple[slice, slice, int, int]]:
    """For each residue of a dimension: its positions, its taps, and `dilation` and `lo` of the gather over them."""
    step = stride // gcd(stride, dilation)
    found = []
    for r in range(min(stride, size)):
        first = next((k for k in range(min(step, kernel)) if (k * dilation - lo - r) % stride == 0), kernel)
        taps = slice(first, kernel, step)
        d = dilation * step // stride
        # Position r + stride * j hears from window j - (first * dilation - lo - r) / stride - m * d through tap m.
        last = len(range(kernel)[taps]) - 1
        found.append((slice(r, size, stride), taps, d, (first * dilation - lo - r) // stride + last * d))
    return found


def _alike(win: Windows, size: tuple[int, ...]) -> dict[Windows, list[tuple[tuple, tuple]]]:
    """Positions and taps of all residues, listed under the windows over which their gathers go.

    Where kernels do not overlap, those are the same for all, and one product serves them as further rows.
    """
    found: dict[Windows, list[tuple[tuple, tuple]]] = {}
    for parts in product(*map(_residues, size, win.kernel, win.stride, win.dilation, win.lo)):
        where, taps, dilation, lo = ((*t,) for t in zip(*parts))
        kernel = tuple(len(range(k)[t]) for k, t in zip(win.kernel, taps))
        shape = tuple(len(range(s)[p]) for s, p in zip(size, where))
        around = Windows(kernel, (1,) * len(size), dilation, lo, shape, win.groups)
        found.setdefault(around, []).append(((..., *where), (..., *taps)))
    return found


def _joined(arrays: list[Any], axis: int) -> Any:
    """Arrays side by side, element by element, along the axis before `axis`."""
    if len(arrays) == 1:
        return arrays[0]
    shape = list(arrays[0].shape)
    shape[axis - 1] *= len(arrays)
    return np.stack(arrays, axis=axis).reshape(tuple(shape))


def _spread(y: Any, weight: Any, bias: Any, other: Any, win: Windows, size: tuple[int, ...]) -> tuple[Any, Any]:
    """The result of `spread` or None without `weight`, and the gradient of the weight or None without `other`.

    Args:
        y: [N, O, *win.out]; weight: [O, C / groups, *kernel]; bias: [C] or None.
        other: [N, C, *size] or None.
        size: of the result.
    """
    n, rows = y.shape[:2]
    dims = len(size)
    groups = win.groups
    inside = other.shape[1] // groups if weight is None else weight.shape[1]
    out: Any = None
    grad: Any = None
    if weight is not None:
        out = np.empty_like(y, shape=(n, inside * groups, *size), order="C")
        turned = _turned(weight, groups)
    if other is not None:
        # Where there are no groups, what is filled is a view of what is returned.
        grad = np.zeros_like(y, shape=(rows // groups, groups * inside, *win.kernel), order="C").swapaxes(0, 1)
    flip = (..., *(slice(None, None, -1),) * dims)
    asked, products = [], []
    for around, parts in _alike(win, size).items():
        count = len(parts)
        if 0 in around.kernel:
            for where, _ in parts if out is not None else ():
                out[where] = 0 if bias is None else bias.reshape((-1, *(1,) * dims))
            continue
        target = out[parts[0][0]] if out is not None and count == 1 else None
        w = b = o = held = None
        if weight is not None:
            w = _joined([turned[taps][flip] for _, taps in parts], 1)
            b = bias if bias is None or count == 1 else np.repeat(bias, count)
        if grad is not None:
            o = _joined([other[where] for where, _ in parts], 2)
            held = grad[parts[0][1]][flip] if count == 1 else None
        asked.append(parts)
        products.append(Product(w, b, o, around, target, held))
    for parts, p, (values, g) in zip(asked, products, gathers(y, products)):
        for i, (where, taps) in enumerate(parts):
            if out is not None and p.out is None:
                out[where] = values[:, i :: len(parts)]
            if grad is not None and p.grad is None:
                grad[taps] = g[i :: len(parts)][flip]
    return out, None if grad is None else _turned(grad, groups)


def _turned(w: Any, groups: int) -> Any:
    """[groups * inside, rows, *kernel] from a weight [groups * rows, inside, *kernel]; without groups it is a view."""
    split = w.reshape((groups, w.shape[0] // groups, *w.shape[1:])).swapaxes(1, 2)
    return split.reshape((groups * w.shape[1], w.shape[0] // groups, *w.shape[2:]))


# -- arrays and Tensors -------------------------------------------------------------------------------------------
def _narrow(r: Any, like: Any) -> Any:
    return r if r is None or r.dtype == like.dtype else r.astype(like.dtype)


def correlate(x: Any, w: Any, win: Windows) -> Any:
    """[N, O, *win.out] from x [N, C, *size] and w [O, C / groups, *kernel]."""
    if isinstance(x, Tensor) or isinstance(w, Tensor):
        return record(correlate(x.array, w.array, win), _CORRELATE, (x, w), (x.array, w.array, win))
    return _narrow(gather(widened(x), widened(w), None, None, win)[0], x)


def spread(y: Any, w: Any, win: Windows, size: tuple[int, ...]) -> Any:
    """[N, C, *size] from y [N, O, *win.out] and w [O, C / groups, *kernel]."""
    if isinstance(y, Tensor) or isinstance(w, Tensor):
        return record(spread(y.array, w.array, win, size), _SPREAD, (y, w), (y.array, w.array, win))
    return _narrow(_spread(widened(y), widened(w), None, None, win, size)[0], y)


def weigh(x: Any, y: Any, win: Windows) -> Any:
    """[O, C / groups, *kernel] from x [N, C, *size] and y [N, O, *win.out]."""
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return record(weigh(x.array, y.array, win), _WEIGH, (x, y), (x.array, y.array, win))
    return _narrow(gather(widened(x), None, None, widened(y), win)[1], x)


def _bias_grad(g: Any) -> Any:
    kernel = None if isinstance(g, Tensor) else backend_of(g).kernel("conv")
    if kernel is not None:
        return _narrow(kernel.channel_sums(widened(g)), g)
    axes = (0, *range(2, g.ndim))
    return g.sum(axis=axes) if g.dtype.itemsize > 2 else g.sum(axis=axes, dtype=np.float32).astype(g.dtype)


def _correlate_vjp(g: Any, needs: tuple, x: Any, w: Any, win: Windows) -> tuple:
    gb = _bias_grad(g) if len(needs) > 2 and needs[2] is not None else None
    if needs[0] is None:
        return None, (None if needs[1] is None else weigh(x, g, win)), gb
    size = tuple((x if x.__class__ is tuple else x.shape)[2:])
    if isinstance(g, Tensor) or needs[1] is None:
        return spread(g, w, win, size), (None if needs[1] is None else weigh(x, g, win)), gb
    gx, gw = _spread(widened(g), widened(w), None, widened(x), win, size)
    return _narrow(gx, g), _narrow(gw, g), gb


def _spread_vjp(g: Any, needs: tuple, y: Any, w: Any, win: Windows) -> tuple:
    gb = _bias_grad(g) if len(needs) > 2 and needs[2] is not None else None
    if needs[0] is None or needs[1] is None or isinstance(g, Tensor):
        gy = None if needs[0] is None else correlate(g, w, win)
        return gy, (None if needs[1] is None else weigh(g, y, win)), gb
    gy, gw = gather(widened(g), widened(w), None, widened(y), win)
    return _narrow(gy, g), _narrow(gw, g), gb


def _weigh_vjp(g: Any, needs: tuple, x: Any, y: Any, win: Windows) -> tuple:
    gx = None if needs[0] is None else spread(y, g, win, tuple(x.shape[2:]))
    return gx, (None if needs[1] is None else correlate(x, g, win))


def _recorded(op: Op, r: Any, first: Tensor, weight: Tensor, bias: Tensor | None, win: Windows) -> Tensor:
    # What no gradient needs is kept as its shape.
    x, w = first.array, weight.array
    saved = (x if weight.node is not None else x.shape, w if first.node is not None else w.shape, win)
    return record(_narrow(r, x), op, (first, weight) if bias is None else (first, weight, bias), saved)


def convolve(input: Tensor, weight: Tensor, bias: Tensor | None, win: Windows) -> Tensor:
    """`correlate` plus a bias [O], as one node."""
    b = None if bias is None else widened(bias.array)
    r, _ = gather(widened(input.array), widened(weight.array), b, None, win)
    return _recorded(_CORRELATE, r, input, weight, bias, win)


def convolve_transposed(
    input: Tensor, weight: Tensor, bias: Tensor | None, win: Windows, size: tuple[int, ...]
) -> Tensor:
    """`spread` plus a bias [C], as one node."""
    b = None if bias is None else widened(bias.array)
    r, _ = _spread(widened(input.array), widened(weight.array), b, None, win, size)
    return _recorded(_SPREAD, r, input, weight, bias, win)


_SAVES = (0, 1, None)
_CORRELATE = Op("convolution", _correlate_vjp, _SAVES)
_SPREAD = Op("convolution_transpose", _spread_vjp, _SAVES)
_WEIGH = Op("convolution_weight", _weigh_vjp, _SAVES)
