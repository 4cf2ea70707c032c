"""Pooling to a given size: adaptive means and maxima, and maxima over windows drawn at random."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..backend import backend_of
from ..tensor import Tensor
from .define import need_tensor
from .linear_map import LinearMap
from .max_pooling import flat_take, maximum_map, pool_maxima
from .pool_windows import Axis, at, numbers, replaced, spatial_shape
from .random import rand
from .shape import as_int
from .softmax import widened

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d", "adaptive_max_pool3d_with_indices", "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices", "fractional_max_pool3d", "fractional_max_pool3d_with_indices",
]  # fmt: skip


def _sizes(name: str, input: Tensor, dims: int, output_size: Any) -> tuple[int, ...]:
    """The output sizes; None stands for the input's."""
    shape = spatial_shape(name, input, dims, ValueError)
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * dims
    if len(given) != dims:
        raise RuntimeError(f"{name}: output_size must be an int or {dims} of them, got {output_size}")
    sizes = tuple([n if o is None else as_int(name, "output_size", o) for n, o in zip(shape, given)])
    if min(sizes) < 0:
        raise RuntimeError(f"{name}: output_size must not be negative, got {sizes}")
    return sizes


def _windows(n: int, size: int) -> list[slice]:
    """Where `size` windows that cover n elements begin and end; they overlap where n is no multiple."""
    return [slice(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]


# -- means --------------------------------------------------------------------------------------------------------
def _mean_along(x: Any, axis: int, size: int) -> Any:
    n = x.shape[axis]
    if size and n % size == 0:
        total = x.reshape(replaced(x.shape, axis, size, n // size)).sum(axis=axis + 1)
        total /= n // size
        return total
    out = backend_of(x).xp.empty(replaced(x.shape, axis, size), x.dtype)
    for i, window in enumerate(_windows(n, size)):
        out[at(axis, slice(i, i + 1))] = x[at(axis, window)].sum(axis=axis, keepdims=True)
        out[at(axis, slice(i, i + 1))] /= window.stop - window.start
    return out


def _spread_along(g: Any, axis: int, n: int) -> Any:
    """The transpose of `_mean_along`."""
    xp = backend_of(g).xp
    size = g.shape[axis]
    if size and n % size == 0:
        out = xp.empty(replaced(g.shape, axis, size, n // size), g.dtype)
        out[...] = xp.expand_dims(g / (n // size), axis + 1)
        return out.reshape(replaced(g.shape, axis, n))
    out = xp.zeros(replaced(g.shape, axis, n), g.dtype)
    for i, window in enumerate(_windows(n, size)):
        out[at(axis, window)] += g[at(axis, slice(i, i + 1))] / (window.stop - window.start)
    return out


def _mean(x: Any, shape: tuple, sizes: tuple) -> Any:
    out = widened(x)
    lead = x.ndim - len(shape)
    if sizes == (1,) * len(sizes):  # all dimensions in one pass
        total = out.reshape((*x.shape[:lead], prod(shape))).sum(axis=lead)
        total /= prod(shape)
        return total.reshape((*x.shape[:lead], *sizes)).astype(x.dtype, copy=False)
    for i, (n, size) in enumerate(zip(shape, sizes)):
        if n != size:
            out = _mean_along(out, lead + i, size)
    return x.copy() if out is x else out.astype(x.dtype, copy=False)


def _mean_transpose(g: Any, shape: tuple, sizes: tuple) -> Any:
    out = widened(g)
    for i, (n, size) in reversed(list(enumerate(zip(shape, sizes)))):
        if n != size:
            out = _spread_along(out, g.ndim - len(shape) + i, n)
    return out.astype(g.dtype, copy=False)


_MEAN = {dims: LinearMap(f"adaptive_avg_pool{dims}d", _mean, _mean_transpose) for dims in (1, 2, 3)}


def _adaptive_avg_pool(dims: int, input: Tensor, output_size: Any) -> Tensor:
    sizes = _sizes(f"adaptive_avg_pool{dims}d", input, dims, output_size)
    return _MEAN[dims](input, tuple(input.array.shape[-dims:]), sizes)


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """The means of `output_size` windows that cover the last dimension.

        out[i] = mean of input[floor(i L / output_size) : ceil((i + 1) L / output_size)]

    Args:
        input: (N, C, L) or (C, L), floating point.
        output_size: how many windows; None for L.

    Returns:
        (N, C, output_size) or (C, output_size).

    Raises:
        RuntimeError: an empty input, or sizes that do not fit.
        TypeError: the input is not floating point.
        ValueError: the input has another number of dimensions.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.adaptive_avg_pool1d(cf.tensor([[1.0, 2.0, 3.0]]), 2)
    tensor([[1.5000, 2.5000]])
    """
    return _adaptive_avg_pool(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """The means of windows that cover (N, C, H, W) or (C, H, W), see `adaptive_avg_pool1d`.

    Args:
        output_size: an int for both dimensions, or (of H, of W); None for the input's size.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.adaptive_avg_pool2d(cf.arange(8.0).reshape(1, 2, 4), (1, None))
    tensor([[[2., 3., 4., 5.]]])
    """
    return _adaptive_avg_pool(2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """The means of windows that cover (N, C, D, H, W) or (C, D, H, W), see `adaptive_avg_pool1d`.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.adaptive_avg_pool3d(cf.arange(8.0).reshape(1, 2, 2, 2), 1)
    tensor([[[[3.5000]]]])
    """
    return _adaptive_avg_pool(3, input, output_size)


# -- maxima at any positions --------------------------------------------------------------------------------------
def _flat_add(g: Any, index: Any, lead: int, shape: tuple) -> Any:
    """Zeros of a shape with g added at flat positions within the dimensions behind the first `lead`."""
    rows, n = prod(shape[:lead]), prod(shape[lead:])
    xp = backend_of(g).xp
    start = (xp.arange(rows, dtype=np.int64) * n)[:, None]
    flat = (index.reshape((rows, prod(index.shape[lead:]))) + start).reshape(-1)
    return backend_of(g).sum_at((rows * n,), flat, g.reshape(-1)).reshape(shape)


def _take(x: Any, index: Any, lead: int, shape: tuple) -> Any:
    return flat_take(x, index, lead)


def _last_nan_or_top(x: Any, axis: int) -> Any:
    """Where the first maximum along an axis is, or the last NaN: what `max_pool` finds."""
    nan = np.flip(x != x, axis)
    last = x.shape[axis] - 1 - nan.argmax(axis=axis)
    return np.where(nan.any(axis=axis), last, x.argmax(axis=axis))


def _adaptive_index(x: Any, sizes: tuple) -> Any:
    """The flat positions of the windows' maxima within the last dimensions; the last axis is searched first, so the
    first of equal elements in row-major order is found."""
    dims = len(sizes)
    xp = backend_of(x).xp
    spatial = x.shape[-dims:]
    place = xp.broadcast_to(xp.arange(prod(spatial), dtype=np.int64).reshape(spatial), x.shape)
    for axis, size in reversed(list(zip(range(x.ndim - dims, x.ndim), sizes))):
        best = xp.empty(replaced(x.shape, axis, size), x.dtype)
        where = xp.empty(best.shape, np.int64)
        for i, window in enumerate(_windows(x.shape[axis], size)):
            part = x[at(axis, window)]
            top = xp.expand_dims(_last_nan_or_top(part, axis), axis)
            best[at(axis, slice(i, i + 1))] = np.take_along_axis(part, top, axis)
            where[at(axis, slice(i, i + 1))] = np.take_along_axis(place[at(axis, window)], top, axis)
        x, place = best, where
    return place


_ADAPTIVE_MAX = {dims: LinearMap(f"adaptive_max_pool{dims}d", _take, _flat_add) for dims in (1, 2, 3)}
_UNIFORM_MAX = {dims: maximum_map(f"adaptive_max_pool{dims}d") for dims in (1, 2, 3)}


def _adaptive_max_pool(dims: int, input: Tensor, output_size: Any, return_indices: bool) -> Any:
    sizes = _sizes(f"adaptive_max_pool{dims}d", input, dims, output_size)
    x = input.array
    spatial = x.shape[-dims:]
    if all(o and n % o == 0 for n, o in zip(spatial, sizes)):
        lead = x.ndim - dims
        axes = [Axis(lead + i, n, n // o, n // o, 0, 1, o) for i, (n, o) in enumerate(zip(spatial, sizes))]
        return pool_maxima(_UNIFORM_MAX[dims], input, tuple(axes), return_indices)
    index = _adaptive_index(widened(x), sizes)
    out = _ADAPTIVE_MAX[dims](input, index, x.ndim - dims, x.shape)
    return (out, Tensor(index)) if return_indices else out


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of `output_size` windows that cover the last dimension.

        out[i] = max of input[floor(i L / output_size) : ceil((i + 1) L / output_size)]

    Args:
        input: (N, C, L) or (C, L), floating point.
        output_size: how many windows.
        return_indices: also return where the maxima are.

    Returns:
        (N, C, output_size) or (C, output_size); with return_indices also the indices, int64. The gradient goes to the
        first of equal maxima.

    Raises:
        RuntimeError: an empty input, or sizes that do not fit.
        TypeError: the input is not floating point.
        ValueError: the input has another number of dimensions.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.adaptive_max_pool1d(cf.tensor([[1.0, 2.0, 3.0]]), 2, return_indices=True)
    (tensor([[2., 3.]]), tensor([[1, 2]]))
    """
    return _adaptive_max_pool(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of windows that cover (N, C, H, W) or (C, H, W), see `adaptive_max_pool1d`.

    Args:
        output_size: an int for both dimensions, or (of H, of W); None for the input's size.
        return_indices: also return where the maxima are, as h * W + w.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.adaptive_max_pool2d(cf.arange(8.0).reshape(1, 2, 4), (1, 2))
    tensor([[[5., 7.]]])
    """
    return _adaptive_max_pool(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of windows that cover (N, C, D, H, W) or (C, D, H, W), see `adaptive_max_pool1d`.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.adaptive_max_pool3d(cf.arange(8.0).reshape(1, 2, 2, 2), 1)
    tensor([[[[7.]]]])
    """
    return _adaptive_max_pool(3, input, output_size, return_indices)


def adaptive_max_pool1d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = True
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool1d` that always returns the indices as well.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> F.adaptive_max_pool1d_with_indices(cf.tensor([[1.0, 2.0, 3.0]]), 2)
    (tensor([[2., 3.]]), tensor([[1, 2]]))
    """
    return _adaptive_max_pool(1, input, output_size, True)


def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = True
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool2d` that always returns the indices as well.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> F.adaptive_max_pool2d_with_indices(cf.tensor([[[1.0, 2.0, 3.0]]]), (1, 2))
    (tensor([[[2., 3.]]]), tensor([[[1, 2]]]))
    """
    return _adaptive_max_pool(2, input, output_size, True)


def adaptive_max_pool3d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = True
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool3d` that always returns the indices as well.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> F.adaptive_max_pool3d_with_indices(cf.tensor([[[[1.0, 2.0, 3.0]]]]), (1, 1, 2))
    (tensor([[[[2., 3.]]]]), tensor([[[[1, 2]]]]))
    """
    return _adaptive_max_pool(3, input, output_size, True)


# -- windows drawn at random --------------------------------------------------------------------------------------
def _starts(samples: Any, n: int, size: int, k: int) -> Any:
    """Where the windows of each (sample, channel) begin: (N, C, size) from numbers in [0, 1) of shape (N, C)."""
    xp = backend_of(samples).xp
    last = xp.full((*samples.shape, 1), n - k, np.int64)
    if size == 1:
        return last
    alpha = (n - k) / (size - 1)
    i = xp.arange(size - 1)
    u = samples.astype(np.float64)[..., None]
    first = ((i + u) * alpha).astype(np.int64) - (u * alpha).astype(np.int64)
    return xp.concatenate([first, last], axis=-1)


def _fractional_index(x: Any, samples: Any, kernel: tuple, sizes: tuple) -> Any:
    """The flat positions of the windows' maxima: (N, C, *sizes)."""
    dims = len(sizes)
    spatial = x.shape[-dims:]
    # Two dimensions draw for W first, three for D first; that is PyTorch's order.
    order = range(dims) if dims == 3 else range(dims - 1, -1, -1)
    base: Any = 0
    for i, (which, n, size, k) in enumerate(zip(order, spatial, sizes, kernel)):
        shape = [*x.shape[:-dims], *(1,) * dims]
        shape[x.ndim - dims + i] = size
        base = base * n + _starts(samples[..., which], n, size, k).reshape(shape)
    best = index = None
    for offsets in np.ndindex(*kernel):
        step = 0
        for offset, n in zip(offsets, spatial):
            step = step * n + offset
        place = base + step
        value = flat_take(x, place, x.ndim - dims)
        if best is None:
            best, index = value, place
        else:
            better = (value > best) | (value != value)
            best, index = np.where(better, value, best), np.where(better, place, index)
    return index


_FRACTIONAL = {dims: LinearMap(f"fractional_max_pool{dims}d", _take, _flat_add) for dims in (2, 3)}


def _fractional_max_pool(
    dims: int, input: Tensor, kernel_size: Any, output_size: Any, output_ratio: Any, return_indices: bool,
    samples: Tensor | None,
) -> Any:  # fmt: skip
    name = f"fractional_max_pool{dims}d"
    shape = spatial_shape(name, input, dims)
    if (output_size is None) == (output_ratio is None):
        raise ValueError(f"{name}: needs either output_size or output_ratio")
    kernel = numbers(name, "kernel_size", kernel_size, dims)
    if output_size is None:
        ratios = output_ratio if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * dims
        if len(ratios) != dims or not all(0 < r < 1 for r in ratios):
            raise ValueError(f"{name}: output_ratio must be a number in (0, 1) or {dims} of them, got {output_ratio}")
        sizes = tuple([int(n * r) for n, r in zip(shape, ratios)])
    else:
        sizes = numbers(name, "output_size", output_size, dims)
    for n, k, size in zip(shape, kernel, sizes):
        if k < 1 or size < 1 or size + k - 1 > n:
            raise RuntimeError(
                f"{name}: {size} different windows of {k} must fit into a dimension of input, got size {n}"
            )
    x = input.array
    lead = (*x.shape[: x.ndim - dims],) if x.ndim == dims + 2 else (1, x.shape[0])
    if samples is None:
        drawn = rand(*lead, dims, device=input.device).array
    else:
        need_tensor(name, "_random_samples", samples)
        drawn = samples.array
        if drawn.ndim != 3 or drawn.shape[1:] != (lead[1], dims) or drawn.shape[0] < lead[0]:
            raise RuntimeError(f"{name}: _random_samples must be {(*lead, dims)}, got {tuple(drawn.shape)}")
        drawn = drawn[: lead[0]]
    drawn = drawn.reshape((*x.shape[:-dims], dims))
    index = _fractional_index(widened(x), drawn, kernel, sizes)
    out = _FRACTIONAL[dims](input, index, x.ndim - dims, x.shape)
    return (out, Tensor(index)) if return_indices else out


def fractional_max_pool2d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """The maxima of windows whose distances are drawn at random, so that the output has any size asked for.

    Graham, Fractional Max-Pooling (2014), with overlapping windows.

    Args:
        input: (N, C, H, W) or (C, H, W), floating point.
        kernel_size: an int for both dimensions, or (of H, of W).
        output_size: the output's size, an int or (H_out, W_out); or else
        output_ratio: its ratio to the input's, a number in (0, 1) or one for each dimension.
        return_indices: also return where the maxima are, as h * W + w.
        _random_samples: numbers in [0, 1), (N or more, C, 2) for W and H, in place of drawn ones.

    Returns:
        (N, C, H_out, W_out) or (C, H_out, W_out); with return_indices also the indices, int64.

    Raises:
        RuntimeError: the windows do not fit.
        ValueError: not exactly one of output_size and output_ratio is given.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.fractional_max_pool2d(cf.arange(9.0).reshape(1, 3, 3), 2, output_size=2)
    tensor([[[4., 5.],
             [7., 8.]]])
    """
    return _fractional_max_pool(2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool3d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """`fractional_max_pool2d` over the last three dimensions of (N, C, D, H, W) or (C, D, H, W).

    `_random_samples` is (N, C, 3) for D, H and W.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.fractional_max_pool3d(cf.arange(8.0).reshape(1, 2, 2, 2), 1, output_size=(1, 1, 2))
    tensor([[[[6., 7.]]]])
    """
    return _fractional_max_pool(3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool2d_with_indices(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = True,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`fractional_max_pool2d` that always returns the indices as well.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> out, indices = F.fractional_max_pool2d_with_indices(cf.arange(9.0).reshape(1, 3, 3), 2, output_size=2)
    >>> out.tolist(), indices.tolist()
    ([[[4.0, 5.0], [7.0, 8.0]]], [[[4, 5], [7, 8]]])
    """
    return _fractional_max_pool(2, input, kernel_size, output_size, output_ratio, True, _random_samples)


def fractional_max_pool3d_with_indices(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = True,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`fractional_max_pool3d` that always returns the indices as well.

    >>> import cuframe as cf
    >>> from cuframe.nn import functional as F
    >>> x = cf.arange(27.0).reshape(1, 3, 3, 3)
    >>> out, indices = F.fractional_max_pool3d_with_indices(x, 2, output_size=2)
    >>> out.shape, bool((out == indices).all())  # each element of x is its own index
    (cuframe.Size([1, 2, 2, 2]), True)
    """
    return _fractional_max_pool(3, input, kernel_size, output_size, output_ratio, True, _random_samples)
