"""Running sums, products and extremes along a dimension, and differences."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..autograd.graph import Op
from ..backend import backend_of
from ..dtypes import get_default_dtype
from ..tensor import Tensor, record
from .axes import array_of, axis_of, with_dtype
from .define import as_result, need_tensor, numpy_name
from .gather import grid
from .scans import along, reverse_recurrence, running

__all__ = [
    "cummax", "cummin", "cumprod", "cumsum", "cumulative_trapezoid", "diff", "logcumsumexp", "trapezoid", "trapz",
]  # fmt: skip

_INT64 = np.dtype(np.int64)


class Running(NamedTuple):
    """What `cummax` and `cummin` give: the running extremes and where they were found."""

    values: Tensor
    indices: Tensor


def _accumulated(name: str, x: Any, axis: int) -> Any:
    """The running sums ("add") or products ("multiply"), with 16-bit floats accumulated in float32."""
    ufunc = getattr(backend_of(x).xp, name)
    if x.dtype.itemsize == 2 and x.dtype.kind not in "iu":
        return ufunc.accumulate(x, axis=axis, dtype=np.float32).astype(x.dtype)
    return ufunc.accumulate(x, axis=axis, dtype=x.dtype)


# -- sums -------------------------------------------------------------------------------------------
def _cumsum_vjp(g: Any, needs: tuple, axis: int) -> tuple:
    return (_from_the_end(g, axis),)


def _from_the_end_vjp(g: Any, needs: tuple, axis: int) -> tuple:
    return (np.cumsum(g, axis=axis) if g.ndim else g,)


_CUMSUM = Op("cumsum", _cumsum_vjp, (None,))
_FROM_THE_END = Op("cumsum_from_the_end", _from_the_end_vjp, (None,))


def _from_the_end(g: Any, axis: int) -> Any:
    """The sums of all elements from each to the last."""
    x = g.array if isinstance(g, Tensor) else g
    r = x if not x.ndim else np.flip(_accumulated("add", np.flip(x, axis), axis), axis)
    return record(r, _FROM_THE_END, (g,), (axis,)) if isinstance(g, Tensor) else r


def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The running sums along a dimension.

        out_i = input_0 + ... + input_i

    Args:
        input: tensor of any shape and dtype; bools and integers are summed as int64.
        dim: the dimension.
        dtype: cast the input first.

    Returns:
        A tensor of the same shape. 16-bit floats are summed in float32.

    Raises:
        TypeError: the input is not a tensor, or `dim` not an int.
        IndexError: the dimension is out of range.

    >>> import cuframe as cf
    >>> cf.cumsum(cf.tensor([1.0, 2.0, 3.0]), dim=0)
    tensor([1., 3., 6.])
    """
    input = with_dtype("cumsum", input, dtype, _INT64)
    x = input.array
    axis = axis_of("cumsum", dim, x.ndim)
    r = _accumulated("add", x, axis) if x.ndim else x.copy()
    return record(as_result(r, x), _CUMSUM, (input,), (axis,))


# -- products ---------------------------------------------------------------------------------------
def _cumprod_vjp(g: Any, needs: tuple, x: Any, out: Any, axis: int) -> tuple:
    # With the product L_i of all before i and s_i = g_i + x_{i+1} * s_{i+1} this is L_i * s_i: nothing is divided
    # by, so zeros are no special case.
    if not x.ndim or not x.shape[axis]:
        return (g,)
    one = np.ones_like(x[along(axis, None, 1)])
    before = np.concatenate([one, out[along(axis, None, -1)]], axis=axis)
    after = np.concatenate([x[along(axis, 1, None)], one], axis=axis)
    return (before * reverse_recurrence(after, g, axis),)


_CUMPROD = Op("cumprod", _cumprod_vjp, (0, "out", None))


def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The running products along a dimension.

        out_i = input_0 * ... * input_i

    Args:
        input: tensor of any shape and dtype; bools and integers are multiplied as int64.
        dim: the dimension.
        dtype: cast the input first.

    Returns:
        A tensor of the same shape. The gradient is right where elements are 0.

    Raises:
        TypeError: the input is not a tensor, or `dim` not an int.
        IndexError: the dimension is out of range.

    >>> import cuframe as cf
    >>> cf.cumprod(cf.tensor([1.0, 2.0, 3.0]), dim=0)
    tensor([1., 2., 6.])
    """
    input = with_dtype("cumprod", input, dtype, _INT64)
    x = input.array
    axis = axis_of("cumprod", dim, x.ndim)
    r = as_result(_accumulated("multiply", x, axis) if x.ndim else x.copy(), x)
    return record(r, _CUMPROD, (input,), (x, r, axis))


# -- extremes ---------------------------------------------------------------------------------------
def _take_vjp(g: Any, needs: tuple, index: Any, axis: int) -> tuple:
    return (_put(g, index, axis),)


def _put_vjp(g: Any, needs: tuple, index: Any, axis: int) -> tuple:
    return (_take(g, index, axis),)


_TAKE = Op("take_along", _take_vjp, (None, None))
_PUT = Op("put_along", _put_vjp, (None, None))
_EXTREMES = {name: Op(name, _take_vjp, (None, None)) for name in ("cummax", "cummin")}


def _take(x: Any, index: Any, axis: int) -> Any:
    if isinstance(x, Tensor):
        return record(np.take_along_axis(x.array, index, axis), _TAKE, (x,), (index, axis))
    return np.take_along_axis(x, index, axis)


def _put(g: Any, index: Any, axis: int) -> Any:
    """Add each element of `g` where `index` says it was taken from."""
    x = g.array if isinstance(g, Tensor) else g
    r = np.zeros_like(x)
    backend_of(x).add_at(r, grid(index, axis), x)
    return record(r, _PUT, (g,), (index, axis)) if isinstance(g, Tensor) else r


def _running_extreme(name: str, input: Tensor, dim: int) -> Running:
    x = array_of(name, input)
    axis = axis_of(name, dim, x.ndim)
    if not x.ndim:
        return Running(input.clone(), Tensor(as_result(np.int64(0), x)))
    values = running(np.maximum if name == "cummax" else np.minimum, x, axis)
    places = backend_of(x).xp.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    # The last place that reaches the extreme so far; once there is a NaN, the last NaN.
    index = running(np.maximum, np.where((x == values) | (x != x), places, 0), axis)
    values = values.copy() if values is x else values
    return Running(record(values, _EXTREMES[name], (input,), (index, axis)), Tensor(index))


def cummax(input: Tensor, dim: int) -> Running:
    """The largest element so far along a dimension, and where it is.

    Args:
        input: tensor of any shape and real dtype.
        dim: the dimension.

    Returns:
        `(values, indices)` of the shape of the input; of equal elements the last counts. NaN counts as the largest.

    Raises:
        TypeError: the input is not a tensor, or `dim` not an int.
        IndexError: the dimension is out of range.

    >>> import cuframe as cf
    >>> values, indices = cf.cummax(cf.tensor([1.0, 3.0, 2.0, 3.0]), dim=0)
    >>> values, indices
    (tensor([1., 3., 3., 3.]), tensor([0, 1, 1, 3]))
    """
    return _running_extreme("cummax", input, dim)


def cummin(input: Tensor, dim: int) -> Running:
    """The smallest element so far along a dimension, and where it is.

    Args, results and errors are those of `cummax`; NaN counts as the smallest.

    >>> import cuframe as cf
    >>> cf.cummin(cf.tensor([3.0, 1.0, 2.0]), dim=0).values
    tensor([3., 1., 1.])
    """
    return _running_extreme("cummin", input, dim)


# -- sums of exponentials ---------------------------------------------------------------------------
def _logcumsumexp_vjp(g: Any, needs: tuple, x: Any, out: Any, axis: int) -> tuple:
    # d out_k / d x_i = exp(x_i - out_k), as exp(x_i - out_i) * exp(out_i - out_{i+1}) * ... * exp(out_{k-1} - out_k):
    # factors <= 1, which cannot overflow.
    if not x.ndim or not x.shape[axis]:
        return (g,)
    finite = np.where(out == -np.inf, 0, out)  # exp(-inf - -inf) is NaN
    steps = np.exp(out[along(axis, None, -1)] - finite[along(axis, 1, None)])
    steps = np.concatenate([steps, np.ones_like(x[along(axis, None, 1)])], axis=axis)
    return (np.exp(x - finite) * reverse_recurrence(steps, g, axis),)


_LOGCUMSUMEXP = Op("logcumsumexp", _logcumsumexp_vjp, (0, "out", None))


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """The logarithm of the running sum of exponentials along a dimension, without overflow.

        out_i = log(exp(input_0) + ... + exp(input_i))

    Args:
        input: tensor of any shape; bools and integers are computed in the default dtype.
        dim: the dimension.

    Returns:
        A tensor of the same shape.

    Raises:
        TypeError: the input is not a tensor, or `dim` not an int.
        IndexError: the dimension is out of range.

    >>> import cuframe as cf
    >>> cf.logcumsumexp(cf.tensor([1.0, 1.0, 1.0]), dim=0)
    tensor([1.0000, 1.6931, 2.0986])
    """
    x = array_of("logcumsumexp", input)
    axis = axis_of("logcumsumexp", dim, x.ndim)
    if x.dtype.kind in "iub":
        input = with_dtype("logcumsumexp", input, get_default_dtype(), None)
        x = input.array
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    r = running(np.logaddexp, wide, axis).astype(x.dtype) if x.ndim else x.copy()
    return record(as_result(r, x), _LOGCUMSUMEXP, (input,), (x, r, axis))


# -- differences ------------------------------------------------------------------------------------
@numpy_name(np.diff)
def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """The differences of neighbours along a dimension.

        out_i = input_{i+1} - input_i

    Args:
        input: tensor with at least one dimension; of bools the differences are bool.
        n: how many times to take differences, >= 0; 0 gives a copy of the input.
        dim: the dimension.
        prepend, append: tensors to put before and behind the input first, along the dimension.

    Returns:
        A tensor that is n elements shorter along the dimension.

    Raises:
        TypeError: the input is not a tensor, or `dim` not an int.
        RuntimeError: it has no dimensions, or n is negative.
        IndexError: the dimension is out of range.

    >>> import cuframe as cf
    >>> cf.diff(cf.tensor([1.0, 4.0, 9.0]))
    tensor([3., 5.])
    """
    x = array_of("diff", input)
    if not x.ndim:
        raise RuntimeError("diff: input must have at least one dimension, got a 0-d tensor")
    if n < 0:
        raise RuntimeError(f"diff: n must not be negative, got {n}")
    axis = axis_of("diff", dim, x.ndim)
    parts = [p for p in (prepend, input, append) if p is not None]
    for p in parts:
        need_tensor("diff", "prepend" if p is prepend else "append", p)
    if n == 0:
        return input.clone()
    out: Any = np.concatenate(parts, axis=axis) if len(parts) > 1 else input
    for _ in range(min(n, out.array.shape[axis])):
        later, earlier = out[along(axis, 1, None)], out[along(axis, None, -1)]
        out = later != earlier if x.dtype.kind == "b" else later - earlier
    return out


def _pieces(name: str, y: Tensor, x: Tensor | None, dx: float | None, dim: int) -> Tensor:
    """The areas between neighbours, times 2."""
    array = array_of(name, y)
    if not array.ndim:
        raise RuntimeError(f"{name}: y must have at least one dimension, got a 0-d tensor")
    axis = axis_of(name, dim, array.ndim)
    heights: Any = y[along(axis, 1, None)] + y[along(axis, None, -1)]
    if x is None:
        return heights * (1 if dx is None else dx)
    if dx is not None:
        raise RuntimeError(f"{name}: x and dx must not both be given")
    need_tensor(name, "x", x)
    if x.array.ndim == 1:
        if x.array.shape[0] != array.shape[axis]:
            raise RuntimeError(f"{name}: x must have {array.shape[axis]} elements, got {x.array.shape[0]}")
        widths: Any = diff(x).reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    else:
        widths = diff(x, dim=dim)
    return heights * widths


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float | None = None, dim: int = -1) -> Tensor:
    """The integral along a dimension by the trapezoidal rule.

        out = sum_i (y_i + y_{i+1}) / 2 * (x_{i+1} - x_i)

    Args:
        y: the values, at least one-dimensional.
        x: where they were taken: as many as `y` has along the dimension, or a tensor that broadcasts with it.
        dx: the distance of the values where `x` is not given; 1 by default.
        dim: the dimension.

    Raises:
        TypeError: an argument is of the wrong type.
        RuntimeError: `y` has no dimensions, the sizes do not fit, or both `x` and `dx` were given.
        IndexError: the dimension is out of range.

    >>> import cuframe as cf
    >>> cf.trapezoid(cf.tensor([1.0, 2.0, 4.0]))
    tensor(4.5000)
    """
    return _pieces("trapezoid", y, x, dx, dim).sum(dim) / 2


def cumulative_trapezoid(
    y: Tensor, x: Tensor | None = None, *, dx: float | None = None, dim: int = -1
) -> Tensor:
    """The running integral along a dimension by the trapezoidal rule; one element shorter than `y`.

    Args and errors are those of `trapezoid`.

    >>> import cuframe as cf
    >>> cf.cumulative_trapezoid(cf.tensor([1.0, 2.0, 4.0]))
    tensor([1.5000, 4.5000])
    """
    return cumsum(_pieces("cumulative_trapezoid", y, x, dx, dim), dim) / 2


trapz = trapezoid


# -- NumPy's names ----------------------------------------------------------------------------------
@numpy_name(np.cumsum)
def _np_cumsum(a: Tensor, axis: int | None = None, dtype: Any = None) -> Tensor:
    return cumsum(a.reshape(-1) if axis is None else a, axis or 0, dtype=dtype)


@numpy_name(np.cumprod)
def _np_cumprod(a: Tensor, axis: int | None = None, dtype: Any = None) -> Tensor:
    return cumprod(a.reshape(-1) if axis is None else a, axis or 0, dtype=dtype)
