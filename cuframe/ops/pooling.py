"""Means and power means over windows; see Note [Pooling one dimension at a time] in pool_windows.py."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..backend import backend_of
from ..tensor import Tensor
from .define import cast
from .linear_map import LinearMap
from .pool_windows import Axis, at, axes_of_windows, replaced, taps
from .shape import as_int
from .softmax import widened

__all__ = ["avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool1d", "lp_pool2d", "lp_pool3d"]


# -- means --------------------------------------------------------------------------------------------------------
def _sum_along(x: Any, w: Axis) -> Any:
    """The sums of the windows along one axis."""
    xp = backend_of(x).xp
    found, whole = taps(w)
    out = (xp.empty if whole else xp.zeros)(replaced(x.shape, w.axis, w.size), x.dtype)
    for tap in found:
        if tap.fresh:
            out[at(w.axis, tap.fresh[0])] = x[at(w.axis, tap.fresh[1])]
        if tap.seen:
            out[at(w.axis, tap.seen[0])] += x[at(w.axis, tap.seen[1])]
    return out


def _spread_along(g: Any, w: Axis) -> Any:
    """The transpose of `_sum_along`."""
    out = backend_of(g).xp.zeros(replaced(g.shape, w.axis, w.n), g.dtype)
    for tap in taps(w)[0]:
        if w.disjoint:
            out[at(w.axis, tap.both[1])] = g[at(w.axis, tap.both[0])]
        else:
            out[at(w.axis, tap.both[1])] += g[at(w.axis, tap.both[0])]
    return out


@lru_cache(maxsize=512)
def _counts(w: Axis, padded: bool) -> int | tuple[int, ...]:
    """How many elements each window along an axis has, one number where all have the same."""
    first = np.arange(w.size) * w.s - w.p
    last = np.minimum(first + w.k, w.n + w.p)
    if not padded:
        first, last = np.maximum(first, 0), np.minimum(last, w.n)
    count = last - first
    return int(count[0]) if (count == count[0]).all() else tuple(int(c) for c in count)


def _divide(a: Any, axes: tuple[Axis, ...], padded: bool, divisor: int | None) -> None:
    """Divide sums by what their windows count, in place."""
    if divisor is not None:
        a /= divisor
        return
    counts = [_counts(w, padded) for w in axes]
    a /= prod(c for c in counts if isinstance(c, int))
    for w, count in zip(axes, counts):
        if not isinstance(count, int):
            a /= backend_of(a).asarray(np.asarray(count, a.dtype), a).reshape((-1,) + (1,) * (a.ndim - 1 - w.axis))


def _mean(x: Any, axes: tuple[Axis, ...], padded: bool, divisor: int | None) -> Any:
    out = widened(x)
    for w in axes:
        out = _sum_along(out, w)
    _divide(out, axes, padded, divisor)
    return out.astype(x.dtype, copy=False)


def _mean_transpose(g: Any, axes: tuple[Axis, ...], padded: bool, divisor: int | None) -> Any:
    out = g.astype(np.float32) if g.dtype.itemsize == 2 else g.copy()
    _divide(out, axes, padded, divisor)
    for w in reversed(axes):
        out = _spread_along(out, w)
    return out.astype(g.dtype, copy=False)


_MEAN = {dims: LinearMap(f"avg_pool{dims}d", _mean, _mean_transpose) for dims in (1, 2, 3)}


def _avg_pool(
    dims: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:  # fmt: skip
    name = f"avg_pool{dims}d"
    axes = axes_of_windows(name, input, dims, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override is not None and not as_int(name, "divisor_override", divisor_override):
        raise RuntimeError(f"{name}: divisor_override must not be 0")
    return _MEAN[dims](input, axes, bool(count_include_pad), divisor_override)


def avg_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The means of windows along the last dimension.

        out[i] = sum over j < kernel_size of input[i * stride - padding + j] / count

    Args:
        input: (N, C, L) or (C, L), floating point.
        kernel_size: elements of a window.
        stride: distance of the windows; kernel_size by default.
        padding: zeros before and after the input; at most half a window.
        ceil_mode: also windows that reach beyond the padded input at its end; what is beyond is not counted.
        count_include_pad: count the zeros of the padding.

    Returns:
        (N, C, L_out) or (C, L_out) with L_out = (L + 2 padding - kernel_size) / stride + 1, rounded down, or up with
        ceil_mode.

    Raises:
        RuntimeError: shapes or settings do not fit.
        TypeError: the input is not floating point.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.avg_pool1d(cf.tensor([[1.0, 5.0, 2.0, 4.0]]), 2)
    tensor([[3., 3.]])
    """
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The means of windows over the last two dimensions, see `avg_pool1d`.

    Args:
        input: (N, C, H, W) or (C, H, W), floating point.
        kernel_size, stride, padding: an int for both dimensions, or (of H, of W).
        ceil_mode: also windows that reach beyond the padded input at its end.
        count_include_pad: count the zeros of the padding.
        divisor_override: divide all sums by this number.

    Returns:
        (N, C, H_out, W_out) or (C, H_out, W_out).

    Raises:
        RuntimeError: shapes or settings do not fit.
        TypeError: the input is not floating point.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.avg_pool2d(cf.arange(8.0).reshape(1, 2, 4), 2)
    tensor([[[2.5000, 4.5000]]])
    """
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The means of windows over the last three dimensions of (N, C, D, H, W) or (C, D, H, W), see `avg_pool2d`.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.avg_pool3d(cf.arange(16.0).reshape(1, 2, 2, 4), 2)
    tensor([[[[6.5000, 8.5000]]]])
    """
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


# -- power means --------------------------------------------------------------------------------------------------
def _lp_pool(dims: int, input: Tensor, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool) -> Tensor:
    name = f"lp_pool{dims}d"
    axes = axes_of_windows(name, input, dims, kernel_size, stride, 0, 1, ceil_mode)
    p = float(norm_type)
    if p == 0:
        raise ValueError(f"{name}: norm_type must not be 0")
    wide = cast(input, np.dtype(np.float32)) if input.array.dtype.itemsize == 2 else input
    mean: Any = _MEAN[dims](wide if p == 1 else wide**p, axes, True, None)
    total = mean * prod(w.k for w in axes)
    # The root has no gradient at 0: there it is taken of 1, and put back.
    zero = total == 0
    root: Any = np.where(zero, 0.0, np.where(zero, 1.0, total) ** (1 / p))
    return cast(root, input.array.dtype)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """The p-th roots of the sums of p-th powers over windows along the last dimension.

        out = (sum over the window of input^p)^(1/p)

    p = 1 gives sums, large p approaches maxima of positive inputs. The gradient is 0 where the sum of the powers is 0;
    where that is negative, the result is NaN.

    Args:
        input: (N, C, L) or (C, L), floating point.
        norm_type: p, not 0.
        kernel_size: elements of a window.
        stride: distance of the windows; kernel_size by default.
        ceil_mode: also windows that reach beyond the input; the sums of these are scaled up to a whole window.

    Raises:
        RuntimeError: shapes or settings do not fit.
        ValueError: norm_type is 0.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.lp_pool1d(cf.tensor([[3.0, 4.0, 0.0, 2.0]]), 2, 2)
    tensor([[5., 2.]])
    """
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """The p-th roots of the sums of p-th powers over windows of (N, C, H, W) or (C, H, W), see `lp_pool1d`.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.lp_pool2d(cf.ones(1, 2, 2), 2, 2)
    tensor([[[2.]]])
    """
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """The p-th roots of the sums of p-th powers over windows of (N, C, D, H, W) or (C, D, H, W), see `lp_pool1d`.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.lp_pool3d(cf.ones(1, 1, 2, 2), 2, (1, 2, 2))
    tensor([[[[2.]]]])
    """
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)
