"""Maxima over windows, and back to where they came from; see Note [Pooling one dimension at a time] in pool_windows.py.

Note [Which of several maxima]
    The gradient goes to the first maximum in row-major order, or to the last NaN, as in PyTorch. Pooling along the last
    axis first keeps that order: the first in its row wins, and then the first row.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..backend import backend_of
from ..tensor import Tensor
from .define import need_tensor
from .linear_map import LinearMap
from .pool_windows import Axis, at, axes_of_windows, numbers, replaced, spatial_shape, taps
from .softmax import widened
from .steps import masked

__all__ = [
    "max_pool1d", "max_pool1d_with_indices", "max_pool2d", "max_pool2d_with_indices", "max_pool3d",
    "max_pool3d_with_indices", "max_unpool1d", "max_unpool2d", "max_unpool3d",
]  # fmt: skip

Step = tuple[Axis, Any]


# -- along one axis -----------------------------------------------------------------------------------------------
def _max_along(x: Any, w: Axis, where: bool) -> tuple[Any, Any]:
    """The maxima of the windows along one axis and, if asked for, which tap each is."""
    xp = backend_of(x).xp
    shape = replaced(x.shape, w.axis, w.size)
    found, whole = taps(w)
    best = xp.empty(shape, x.dtype) if whole else xp.full(shape, -np.inf, x.dtype)
    strided = w.s > 1 and w.axis == x.ndim - 1  # read three times: once in steps, then in a row
    which: Any = xp.zeros(shape, np.min_scalar_type(w.k - 1)) if where else None
    for tap in found:
        if tap.fresh:
            windows, elements = at(w.axis, tap.fresh[0]), at(w.axis, tap.fresh[1])
            best[windows] = x[elements]
            if where:
                which[windows] = tap.j
        if tap.seen:
            windows, elements = at(w.axis, tap.seen[0]), at(w.axis, tap.seen[1])
            top, value = best[windows], x[elements]
            if where:
                if strided:
                    value = value.copy()
                better = value > top
                better |= value != value
                part = which[windows]
                # j grows, so the maximum keeps the last tap that was better
                np.maximum(part, better.astype(part.dtype) * part.dtype.type(tap.j), out=part)
            np.maximum(top, value, out=top)
    return best, which


def _taken(x: Any, w: Axis, which: Any) -> Any:
    """Tap `which` of each window."""
    out = backend_of(x).xp.zeros(which.shape, x.dtype)
    for tap in taps(w)[0]:
        windows, elements = at(w.axis, tap.both[0]), at(w.axis, tap.both[1])
        np.copyto(out[windows], x[elements], where=which[windows] == tap.j)
    return out


def _put_back(g: Any, w: Axis, which: Any) -> Any:
    """The transpose of `_taken`."""
    out = backend_of(g).xp.zeros(replaced(g.shape, w.axis, w.n), g.dtype)
    for tap in taps(w)[0]:
        windows, elements = at(w.axis, tap.both[0]), at(w.axis, tap.both[1])
        value = masked(g[windows], which[windows] == tap.j)
        if w.disjoint:
            out[elements] = value
        else:
            out[elements] += value
    return out


# -- over all rows ------------------------------------------------------------------------------------------------
# A pooled input: for each block of rows (samples times channels) its place, and the steps from the last axis on.
Blocks = tuple[tuple[slice, tuple[Step, ...]], ...]
_BLOCK = 1 << 20  # bytes of input: every pass but the first then finds its operands in the caches


def _row_slices(x: Any) -> list[slice]:
    """The rows of an array in blocks that fit into a CPU's caches; one block where nothing is gained by that."""
    rows = x.shape[0]
    per_block = rows if not backend_of(x).host else max(1, _BLOCK * rows // max(1, x.nbytes))
    return [slice(i, min(i + per_block, rows)) for i in range(0, rows, per_block)] if rows else [slice(0, 0)]


def _as_rows(x: Any, dims: int) -> Any:
    """(rows, ...) of (N, C, ...) or (C, ...)."""
    return x.reshape((prod(x.shape[:-dims]), *x.shape[-dims:]))


def _picked(x: Any, blocks: Blocks) -> Any:
    axes = [w for w, _ in blocks[0][1]]
    rows = _as_rows(x, len(axes))
    out = backend_of(x).xp.empty((rows.shape[0], *(w.size for w in sorted(axes))), x.dtype)
    for place, steps in blocks:
        part = rows[place]
        for w, which in steps:
            part = _taken(part, w, which)
        out[place] = part
    return out.reshape((*x.shape[: x.ndim - len(axes)], *out.shape[1:]))


def _picked_transpose(g: Any, blocks: Blocks) -> Any:
    axes = [w for w, _ in blocks[0][1]]
    rows = _as_rows(g, len(axes))
    out = backend_of(g).xp.empty((rows.shape[0], *(w.n for w in sorted(axes))), g.dtype)
    for place, steps in blocks:
        part = widened(rows[place])
        for w, which in reversed(steps):
            part = _put_back(part, w, which)
        out[place] = part
    return out.reshape((*g.shape[: g.ndim - len(axes)], *out.shape[1:]))


# -- pooling ------------------------------------------------------------------------------------------------------
def maximum_map(name: str) -> LinearMap:
    """An operation that takes the taps that `pool_maxima` found."""
    return LinearMap(name, _picked, _picked_transpose)


_MAX = {dims: maximum_map(f"max_pool{dims}d_with_indices") for dims in (1, 2, 3)}


def pool_maxima(op: LinearMap, input: Tensor, axes: tuple[Axis, ...], return_indices: bool) -> Any:
    """The maxima of windows as an operation and, if asked for, their flat positions."""
    x = input.array
    xp = backend_of(x).xp
    dims = len(axes)
    where = return_indices or input.node is not None
    rows = _as_rows(x, dims)
    inner = [w._replace(axis=w.axis - x.ndim + dims + 1) for w in axes]
    sizes = tuple(w.size for w in axes)
    out = xp.empty((rows.shape[0], *sizes), x.dtype)
    blocks = []
    for place in _row_slices(rows):
        part, steps = widened(rows[place]), []
        for w in reversed(inner) if where else inner:
            part, which = _max_along(part, w, where)
            steps.append((w, which))
        out[place] = part
        blocks.append((place, tuple(steps)))
    shape = (*x.shape[: x.ndim - dims], *sizes)
    result = op.record(out.reshape(shape), input, tuple(blocks))
    if not return_indices:
        return result
    spatial = x.shape[x.ndim - dims :]
    positions = xp.broadcast_to(xp.arange(prod(spatial), dtype=np.int64).reshape(spatial), rows.shape)
    return result, Tensor(_picked(positions, tuple(blocks)).reshape(shape))


def _max_pool(
    dims: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
    return_indices: bool,
) -> Any:  # fmt: skip
    axes = axes_of_windows(
        f"max_pool{dims}d", input, dims, kernel_size, stride, padding, dilation, ceil_mode
    )
    return pool_maxima(_MAX[dims], input, axes, return_indices)


def max_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maxima of windows along the last dimension.

        out[i] = max over j < kernel_size of input[i * stride - padding + j * dilation]

    What lies outside the input does not count. NaN in a window gives NaN.

    Args:
        input: (N, C, L) or (C, L), floating point.
        kernel_size: elements of a window.
        stride: distance of the windows; kernel_size by default.
        padding: positions before and after the input; at most half a window.
        dilation: distance of a window's elements.
        ceil_mode: also windows that reach beyond the padded input at its end.
        return_indices: also return where the maxima are.

    Returns:
        (N, C, L_out) or (C, L_out) with L_out = (L + 2 padding - dilation (kernel_size - 1) - 1) / stride + 1, rounded
        down, or up with ceil_mode; with return_indices also their indices in the dimension, int64. The gradient goes
        to the first of equal maxima.

    Raises:
        RuntimeError: shapes or settings do not fit.
        TypeError: the input is not floating point.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.max_pool1d(cf.tensor([[1.0, 5.0, 2.0, 3.0]]), 2, return_indices=True)
    (tensor([[5., 3.]]), tensor([[1, 3]]))
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maxima of windows over the last two dimensions, see `max_pool1d`.

    Args:
        input: (N, C, H, W) or (C, H, W), floating point.
        kernel_size, stride, padding, dilation: an int for both dimensions, or (of H, of W).
        ceil_mode: also windows that reach beyond the padded input at its end.
        return_indices: also return where the maxima are, as h * W + w.

    Returns:
        (N, C, H_out, W_out) or (C, H_out, W_out); with return_indices also the indices, int64.

    Raises:
        RuntimeError: shapes or settings do not fit.
        TypeError: the input is not floating point.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.max_pool2d(cf.arange(8.0).reshape(1, 2, 4), 2)
    tensor([[[5., 7.]]])
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maxima of windows over the last three dimensions, see `max_pool1d`.

    Args:
        input: (N, C, D, H, W) or (C, D, H, W), floating point.
        kernel_size, stride, padding, dilation: an int for all dimensions, or (of D, of H, of W).
        ceil_mode: also windows that reach beyond the padded input at its end.
        return_indices: also return where the maxima are, as (d * H + h) * W + w.

    Returns:
        (N, C, D_out, H_out, W_out) or (C, D_out, H_out, W_out); with return_indices also the indices, int64.

    Raises:
        RuntimeError: shapes or settings do not fit.
        TypeError: the input is not floating point.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.max_pool3d(cf.arange(16.0).reshape(1, 2, 2, 4), 2)
    tensor([[[[13., 15.]]]])
    """
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool1d_with_indices(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = True,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`max_pool1d` that always returns the indices as well.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> F.max_pool1d_with_indices(cf.tensor([[1.0, 2.0, 3.0, 0.0]]), 2)
    (tensor([[2., 3.]]), tensor([[1, 2]]))
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool2d_with_indices(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = True,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`max_pool2d` that always returns the indices as well.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> F.max_pool2d_with_indices(cf.tensor([[[1.0, 2.0, 3.0, 0.0]]]), (1, 2))
    (tensor([[[2., 3.]]]), tensor([[[1, 2]]]))
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool3d_with_indices(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = True,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`max_pool3d` that always returns the indices as well.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> F.max_pool3d_with_indices(cf.tensor([[[[1.0, 2.0, 3.0, 0.0]]]]), (1, 1, 2))
    (tensor([[[[2., 3.]]]]), tensor([[[[1, 2]]]]))
    """
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, True)


# -- back ---------------------------------------------------------------------------------------------------------
def flat_take(x: Any, index: Any, lead: int) -> Any:
    """Elements of x at the positions `index` within the dimensions behind the first `lead`; of the shape of `index`."""
    kept = x.shape[:lead]
    rows, n = prod(kept), prod(x.shape[lead:])
    m = prod(index.shape[lead:])
    return np.take_along_axis(x.reshape((rows, n)), index.reshape((rows, m)), 1).reshape(index.shape)


def _flat_put(x: Any, index: Any, lead: int, shape: tuple) -> Any:
    """Zeros of a shape with x at the positions `index`; of several values for one position the last stays."""
    rows, m = prod(x.shape[:lead]), prod(x.shape[lead:])
    out = backend_of(x).xp.zeros((rows, prod(shape[lead:])), x.dtype)
    np.put_along_axis(out, index.reshape((rows, m)), x.reshape((rows, m)), 1)
    return out.reshape(shape)


def _flat_put_transpose(g: Any, index: Any, lead: int, shape: tuple) -> Any:
    return flat_take(g, index, lead)


_UNPOOL = {dims: LinearMap(f"max_unpool{dims}d", _flat_put, _flat_put_transpose) for dims in (1, 2, 3)}


def _unpooled_shape(
    name: str, shape: tuple, kernel: tuple, stride: tuple, padding: tuple, output_size: Any
) -> tuple[int, ...]:
    """The spatial shape to unpool to: the smallest that pooling would give `shape` for, unless another is asked for."""
    least = tuple([(n - 1) * s - 2 * p + k for n, k, s, p in zip(shape, kernel, stride, padding)])
    if output_size is None:
        if min(least) < 1:
            raise RuntimeError(f"{name}: the output would be empty, of shape {least}")
        return least
    wanted = tuple(output_size)
    if len(wanted) == len(shape) + 2:
        wanted = wanted[2:]
    if len(wanted) != len(shape):
        raise ValueError(f"{name}: output_size must have {len(shape)} or {len(shape) + 2} sizes, got {wanted}")
    for size, default, s in zip(wanted, least, stride):
        if not default - s < size < default + s:
            raise ValueError(
                f"{name}: output_size must lie within less than a stride of {least}, got {wanted}"
            )
    return wanted


def _max_unpool(
    dims: int, input: Tensor, indices: Tensor, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Tensor:
    name = f"max_unpool{dims}d"
    shape = spatial_shape(name, input, dims)
    need_tensor(name, "indices", indices)
    x, index = input.array, indices.array
    if index.dtype != np.int64:
        raise RuntimeError(f"{name}: indices must be int64, got {index.dtype.name}")
    if index.shape != x.shape:
        raise RuntimeError(f"{name}: indices must have the shape of input {tuple(x.shape)}, got {tuple(index.shape)}")
    kernel = numbers(name, "kernel_size", kernel_size, dims)
    steps = kernel if stride is None or stride in ((), []) else numbers(name, "stride", stride, dims)
    if min(steps) < 1:
        raise RuntimeError(f"{name}: stride must be at least 1, got {steps}")
    spatial = _unpooled_shape(name, shape, kernel, steps, numbers(name, "padding", padding, dims), output_size)
    backend_of(index).check_index(name, "indices", index, prod(spatial))
    lead = x.ndim - dims
    return _UNPOOL[dims](input, index, lead, (*x.shape[:lead], *spatial))


def max_unpool1d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Put maxima back to where `max_pool1d` found them, with zeros elsewhere.

    Args:
        input: (N, C, L) or (C, L), floating point.
        indices: of the input's shape, int64, as pooling returned them; each must occur once.
        kernel_size, stride, padding: those of the pooling.
        output_size: the size, or the shape, of what was pooled; by default the smallest that fits.

    Returns:
        (N, C, L_out) or (C, L_out) with L_out = (L - 1) stride - 2 padding + kernel_size, or output_size.

    Raises:
        IndexError: an index is outside the output.
        RuntimeError: shapes or dtypes do not fit.
        ValueError: output_size is not within a stride of the default.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.max_unpool1d(cf.tensor([[5.0, 3.0]]), cf.tensor([[1, 3]]), 2)
    tensor([[0., 5., 0., 3.]])
    """
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Put maxima back to where `max_pool2d` found them, with zeros elsewhere; see `max_unpool1d`.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.max_unpool2d(cf.tensor([[[5.0]]]), cf.tensor([[[2]]]), 2)
    tensor([[[0., 0.],
             [5., 0.]]])
    """
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Put maxima back to where `max_pool3d` found them, with zeros elsewhere; see `max_unpool1d`.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.max_unpool3d(cf.tensor([[[[5.0]]]]), cf.tensor([[[[1]]]]), (1, 1, 2))
    tensor([[[[0., 5.]]]])
    """
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)
