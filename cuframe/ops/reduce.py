"""Reductions over dimensions: sums, means, products, and whether any or all are true."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.graph import Op
from ..dtypes import get_default_dtype, is_floating
from ..tensor import Tensor, record
from . import extremes, statistics
from .axes import (
    Dims,
    add_up,
    array_of,
    axes_of,
    axis_of,
    count_of,
    kept_shape,
    multiply_up,
    numpy_spelling,
    real_axes,
    with_dtype,
)
from .define import as_result, numpy_name
from .extremes import *  # noqa: F403
from .statistics import *  # noqa: F403
from .steps import masked

__all__ = [
    "all", "any", "count_nonzero", "logsumexp", "mean", "nanmean", "nansum", "prod", "sum", *extremes.__all__,
    *statistics.__all__,
]  # fmt: skip

_INT64 = np.dtype(np.int64)


# -- sums and means ---------------------------------------------------------------------------------
def _sum_vjp(g: Any, needs: tuple, shape: tuple, axes: Any) -> tuple:
    return (np.broadcast_to(g.reshape(kept_shape(shape, axes)), shape),)


_SUM = Op("sum", _sum_vjp, (None, None))


def _sum_array(x: Any, axes: tuple[int, ...] | None, keepdim: bool) -> Any:
    # 16-bit floats are added up in float32: their own sums stop growing at 2048 or 256.
    if x.dtype.itemsize == 2 and x.dtype.kind not in "iu":
        r = add_up(x, axes, keepdim, np.float32).astype(x.dtype)
    else:
        r = add_up(x, axes, keepdim, x.dtype)
    return r if r.__class__ is x.__class__ else as_result(r, x)


def sum(
    input: Tensor,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
    axis: Dims = None,
    keepdims: bool | None = None,
) -> Tensor:
    """The sum over dimensions.

        out = sum_i input_i

    Args:
        input: tensor of any shape and dtype; bools and integers are summed as int64.
        dim: the dimension or dimensions to sum over; None for all of them.
        keepdim: keep them, with size 1.
        dtype: cast the input first.
        axis, keepdims: NumPy's names for `dim` and `keepdim`.

    Raises:
        TypeError: the input is not a tensor.
        IndexError: a dimension is out of range.

    The order of additions is fixed, and pairwise along the last dimension, so that errors grow with log(n). 16-bit
    floats are summed in float32. Nothing is saved for backward.

    >>> import cuframe as cf
    >>> cf.sum(cf.tensor([[1.0, 2.0], [3.0, 4.0]]), dim=0)
    tensor([4., 6.])
    """
    x = array_of("sum", input)
    if dtype is not None or x.dtype.kind in "iub":
        input = with_dtype("sum", input, dtype, _INT64)
        x = input.array
    dim = dim if axis is None else axis
    axes = None if dim is None else axes_of("sum", dim, x.ndim)
    r = _sum_array(x, axes if x.ndim else None, keepdim if keepdims is None else bool(keepdims))
    return record(r, _SUM, (input,), (x.shape, axes))


def _mean_vjp(g: Any, needs: tuple, shape: tuple, axes: Any, n: int) -> tuple:
    return (np.broadcast_to((g / n).reshape(kept_shape(shape, axes)), shape),)


_MEAN = Op("mean", _mean_vjp, (None, None, None))


def mean(
    input: Tensor,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
    axis: Dims = None,
    keepdims: bool | None = None,
) -> Tensor:
    """The mean over dimensions.

        out = sum_i input_i / n

    Args:
        input: floating-point tensor of any shape.
        dim: the dimension or dimensions to average over; None for all of them.
        keepdim: keep them, with size 1.
        dtype: cast the input first.
        axis, keepdims: NumPy's names for `dim` and `keepdim`.

    Returns:
        The means; NaN where there is nothing to average.

    Raises:
        TypeError: the input is not a tensor.
        RuntimeError: it is not floating point, and no dtype was given.
        IndexError: a dimension is out of range.

    >>> import cuframe as cf
    >>> cf.mean(cf.tensor([[1.0, 2.0], [3.0, 4.0]]), dim=1)
    tensor([1.5000, 3.5000])
    """
    input = with_dtype("mean", input, dtype, None)
    x = input.array
    if x.dtype.kind in "iub":
        raise RuntimeError(f"mean: input must be floating point, got {x.dtype.name}; pass dtype=cf.float32")
    axes = axes_of("mean", dim if axis is None else axis, x.ndim)
    n = count_of(x.shape, axes)
    real = real_axes(axes, x.ndim)
    keep = keepdim if keepdims is None else bool(keepdims)
    if x.dtype.itemsize == 2:
        r = (add_up(x, real, keep, np.float32) / np.float32(n)).astype(x.dtype)
    else:
        r = add_up(x, real, keep)
        r = r / r.dtype.type(n)
    return record(as_result(r, x), _MEAN, (input,), (x.shape, axes, n))


def _nansum_vjp(g: Any, needs: tuple, valid: Any, kept: tuple) -> tuple:
    return (masked(g.reshape(kept), valid),)


_NANSUM = Op("nansum", _nansum_vjp, (None, None))


@numpy_spelling
def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over dimensions, with NaN counted as 0.

    Args and errors are those of `sum`. The gradient of NaN is 0.

    >>> import cuframe as cf
    >>> cf.nansum(cf.tensor([1.0, float("nan"), 2.0]))
    tensor(3.)
    """
    input = with_dtype("nansum", input, dtype, _INT64)
    x = input.array
    if not is_floating(x.dtype):
        return sum(input, dim, keepdim)
    axes = axes_of("nansum", dim, x.ndim)
    valid = as_result(x == x, x)
    r = _sum_array(as_result(np.where(valid, x, 0), x), real_axes(axes, x.ndim), keepdim)
    return record(r, _NANSUM, (input,), (valid, kept_shape(x.shape, axes)))


@numpy_spelling
def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean over dimensions of the elements that are not NaN; NaN where there is none.

    Args and errors are those of `mean`. The gradient of NaN is 0.

    >>> import cuframe as cf
    >>> cf.nanmean(cf.tensor([1.0, float("nan"), 2.0]))
    tensor(1.5000)
    """
    input = with_dtype("nanmean", input, dtype, None)
    x = input.array
    if not is_floating(x.dtype):
        raise RuntimeError(
            f"nanmean: input must be floating point, got {x.dtype.name}; pass dtype=cf.float32"
        )
    axes = axes_of("nanmean", dim, x.ndim)
    count = (x == x).sum(axis=real_axes(axes, x.ndim), keepdims=keepdim)
    return nansum(input, dim, keepdim) / Tensor(as_result(count.astype(x.dtype), x))


# -- products ---------------------------------------------------------------------------------------
def _others(x: Any, axis: int) -> Any:
    """The product of all other elements along `axis`, exact with zeros: what is on the left times on the right."""

    def part(start: int | None, stop: int | None) -> tuple:
        return (*(slice(None),) * axis, slice(start, stop))

    one = np.ones_like(x[part(None, 1)])
    left = np.concatenate([one, np.cumprod(x[part(None, -1)], axis=axis)], axis=axis)
    right = np.concatenate([one, np.cumprod(np.flip(x[part(1, None)], axis), axis=axis)], axis=axis)
    return left * np.flip(right, axis)


def _prod_vjp(g: Any, needs: tuple, x: Any, axis: int | None, kept: tuple) -> tuple:
    if x.ndim == 0:
        return (g.reshape(()),)
    if axis is None:
        return (g.reshape(kept) * _others(x.reshape(-1), 0).reshape(x.shape),)
    return (g.reshape(kept) * _others(x, axis),)


_PROD = Op("prod", _prod_vjp, (0, None, None))


@numpy_spelling
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over one dimension, or of all elements.

        out = prod_i input_i

    Args:
        input: tensor of any shape and dtype; bools and integers are multiplied as int64.
        dim: the dimension to multiply over; None for all of them.
        keepdim: keep it, with size 1.
        dtype: cast the input first.

    Returns:
        The products; 1 where there is nothing to multiply. The gradient is right where elements are 0.

    Raises:
        TypeError: the input is not a tensor, or `dim` not an int.
        IndexError: the dimension is out of range.

    >>> import cuframe as cf
    >>> cf.prod(cf.tensor([[1.0, 2.0], [3.0, 4.0]]), dim=1)
    tensor([ 2., 12.])
    """
    input = with_dtype("prod", input, dtype, _INT64)
    x = input.array
    axis = None if dim is None else axis_of("prod", dim, x.ndim)
    axes = None if axis is None else (axis,)
    half = x.dtype.itemsize == 2 and x.dtype.kind not in "iu"
    r = multiply_up(x, real_axes(axes, x.ndim), keepdim, np.float32 if half else x.dtype)
    r = as_result(r.astype(x.dtype) if half else r, x)
    return record(r, _PROD, (input,), (x, axis, kept_shape(x.shape, axes)))


# -- sums of exponentials ---------------------------------------------------------------------------
def _logsumexp_vjp(g: Any, needs: tuple, x: Any, out: Any, kept: tuple) -> tuple:
    out = out.reshape(kept)
    return (g.reshape(kept) * np.exp(x - np.where(out == -np.inf, 0, out)),)


_LOGSUMEXP = Op("logsumexp", _logsumexp_vjp, (0, "out", None))


@numpy_spelling
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """The logarithm of the sum of exponentials over dimensions, without overflow.

        out = log(sum_i exp(input_i))

    Args:
        input: tensor of any shape; bools and integers are computed in the default dtype.
        dim: the dimension or dimensions to reduce; None for all of them.
        keepdim: keep them, with size 1.

    Returns:
        The logarithms; -inf where all elements are -inf, or there are none.

    Raises:
        TypeError: the input is not a tensor.
        IndexError: a dimension is out of range.

    >>> import cuframe as cf
    >>> cf.logsumexp(cf.tensor([[100.0, 100.0], [0.0, -float("inf")]]), dim=1)
    tensor([100.6931,   0.0000])
    """
    x = array_of("logsumexp", input)
    if x.dtype.kind in "iub":
        input = with_dtype("logsumexp", input, get_default_dtype(), None)
        x = input.array
    axes = axes_of("logsumexp", dim, x.ndim)
    real = real_axes(axes, x.ndim)
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    if count_of(x.shape, axes):
        top = wide.max(axis=real, keepdims=True)
        top = np.where(np.isfinite(top), top, 0).astype(wide.dtype)
    else:
        top = np.zeros_like(wide, shape=kept_shape(x.shape, axes))
    r = np.log(add_up(np.exp(wide - top), real, True)) + top
    if not keepdim:
        r = r.reshape([n for i, n in enumerate(x.shape) if axes is not None and i not in axes])
    r = as_result(r, x).astype(x.dtype, copy=False)
    return record(r, _LOGSUMEXP, (input,), (x, r, kept_shape(x.shape, axes)))


# -- truth ------------------------------------------------------------------------------------------
@numpy_spelling
def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether any element is true, that is, not zero.

    Args:
        input: tensor of any shape and dtype.
        dim: the dimension or dimensions to reduce; None for all of them.
        keepdim: keep them, with size 1.

    Returns:
        A bool tensor; False where there is nothing.

    Raises:
        TypeError: the input is not a tensor.
        IndexError: a dimension is out of range.

    >>> import cuframe as cf
    >>> cf.any(cf.tensor([[0, 1], [0, 0]]), dim=1)
    tensor([ True, False])
    """
    x = array_of("any", input)
    axes = real_axes(axes_of("any", dim, x.ndim), x.ndim)
    return Tensor(as_result((x != 0).any(axis=axes, keepdims=keepdim), x))


@numpy_spelling
def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are true, that is, not zero.

    Args and errors are those of `any`; True where there is nothing.

    >>> import cuframe as cf
    >>> cf.all(cf.tensor([[1, 1], [1, 0]]), dim=1)
    tensor([ True, False])
    """
    x = array_of("all", input)
    axes = real_axes(axes_of("all", dim, x.ndim), x.ndim)
    return Tensor(as_result((x != 0).all(axis=axes, keepdims=keepdim), x))


@numpy_spelling
def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """How many elements are not zero.

    Args:
        input: tensor of any shape and dtype.
        dim: the dimension or dimensions to count over; None for all of them.

    Returns:
        An int64 tensor.

    Raises:
        TypeError: the input is not a tensor.
        IndexError: a dimension is out of range.

    >>> import cuframe as cf
    >>> cf.count_nonzero(cf.tensor([[0, 1], [2, 3]]), dim=1)
    tensor([1, 2])
    """
    x = array_of("count_nonzero", input)
    axes = real_axes(axes_of("count_nonzero", dim, x.ndim), x.ndim)
    return Tensor(as_result((x != 0).sum(axis=axes, dtype=np.int64), x))


# -- NumPy's names ----------------------------------------------------------------------------------
def _numpy_reduction(operation: Any, *names: Any) -> None:
    @numpy_name(*names)
    def call(a: Tensor, axis: Dims = None, dtype: Any = None, *, keepdims: bool = False) -> Tensor:
        return operation(a, axis, keepdims, dtype=dtype)


_numpy_reduction(sum, np.sum)
_numpy_reduction(mean, np.mean)
_numpy_reduction(prod, np.prod)
_numpy_reduction(nansum, np.nansum)
_numpy_reduction(nanmean, np.nanmean)


def _numpy_test(operation: Any, name: Any) -> None:
    @numpy_name(name)
    def call(a: Tensor, axis: Dims = None, *, keepdims: bool = False) -> Tensor:
        return operation(a, axis, keepdims)


_numpy_test(any, np.any)
_numpy_test(all, np.all)
numpy_name(np.count_nonzero)(count_nonzero)
