"""Reductions over dimensions: sums, means, extremes, variances and norms."""

from __future__ import annotations

import builtins
import math
from typing import Any, NamedTuple

import numpy as np

from ..autograd.graph import Op
from ..backend import backend_of
from ..dtypes import as_dtype, get_default_dtype, is_floating
from ..tensor import Tensor, record
from .define import as_result, cast, need_tensor, numpy_name

__all__ = ["amax", "amin", "max", "mean", "min", "sum"]

Dims = int | tuple[int, ...] | list[int] | None
_INT64 = np.dtype(np.int64)


class ValuesIndices(NamedTuple):
    """What `max`, `min`, `median` and `mode` return for one dimension: the values and where they were found."""

    values: Tensor
    indices: Tensor


def axes_of(name: str, dim: Any, ndim: int) -> tuple[int, ...] | None:
    """The dimensions that `dim` (an int, several or None) names, as non-negative axes; None for all of them.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: a dimension is given twice.
        TypeError: something that is not an int.
    """
    if dim is None:
        return None
    if dim.__class__ is int:
        return (axis_of(name, dim, ndim),)
    if isinstance(dim, (tuple, list)):
        axes = tuple([axis_of(name, d, ndim) for d in dim])
        if len(set(axes)) != len(axes):
            raise RuntimeError(f"{name}: dim names a dimension twice, got {tuple(dim)}")
        return axes or None
    return (axis_of(name, dim, ndim),)


def axis_of(name: str, dim: Any, ndim: int) -> int:
    """The dimension `dim` as a non-negative axis; a 0-d tensor counts as having one dimension.

    Raises:
        IndexError: it is out of range.
        TypeError: it is not an int.
    """
    try:
        axis = dim.__index__()
    except AttributeError:
        raise TypeError(f"{name}: dim must be an int, got {type(dim).__name__}") from None
    size = ndim or 1
    if not -size <= axis < size:
        raise IndexError(f"{name}: dim must be in [{-size}, {size - 1}], got {axis}")
    return axis % size


def kept_shape(shape: tuple, axes: tuple[int, ...] | None) -> tuple:
    """`shape` after reducing `axes` with `keepdim=True`."""
    if axes is None:
        return (1,) * len(shape)
    return tuple([1 if i in axes else size for i, size in enumerate(shape)])


def _count(shape: tuple, axes: tuple[int, ...] | None) -> int:
    return math.prod(shape) if axes is None else math.prod([shape[i] for i in axes])


def _array_of(name: str, input: Any) -> Any:
    need_tensor(name, "input", input)
    return input.array


def _real_axes(axes: tuple[int, ...] | None, ndim: int) -> tuple[int, ...] | None:
    """`axes` for NumPy, which has no dimension 0 in a 0-d array."""
    return axes if ndim else None


# -- sums and means ---------------------------------------------------------------------------------------------
def _sum_vjp(g: Any, needs: tuple, shape: tuple, kept: tuple) -> tuple:
    return (np.broadcast_to(g.reshape(kept), shape),)


_SUM = Op("sum", _sum_vjp, (None, None))


def _sum_array(x: Any, axes: tuple[int, ...] | None, keepdim: bool) -> Any:
    # 16-bit floats are added up in float32: their own sums stop growing at 2048 or 256.
    if x.dtype.itemsize == 2 and x.dtype.kind not in "iu":
        r = x.sum(axis=axes, keepdims=keepdim, dtype=np.float32).astype(x.dtype)
    else:
        r = x.sum(axis=axes, keepdims=keepdim)
    return r if r.__class__ is x.__class__ else as_result(r, x)


def _with_dtype(name: str, input: Any, dtype: Any, integers: np.dtype | None) -> Tensor:
    """`input` in the dtype it is to be reduced in; integers go to `integers` where no dtype is asked for."""
    x = _array_of(name, input)
    if dtype is not None:
        return cast(input, as_dtype(dtype))
    if integers is not None and x.dtype.kind in "iub":
        return cast(input, integers)
    return input


def sum(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None, axis: Dims = None, keepdims: Any = None
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
        IndexError: a dimension is out of range.

    The order of additions is fixed, and pairwise along the last dimension, so errors grow with log(n). 16-bit floats
    are summed in float32. Nothing is saved for backward.

    >>> import cuframe as cf
    >>> cf.sum(cf.tensor([[1.0, 2.0], [3.0, 4.0]]), dim=0)
    tensor([4., 6.])
    """
    input = _with_dtype("sum", input, dtype, _INT64)
    x = input.array
    axes = axes_of("sum", dim if axis is None else axis, x.ndim)
    r = _sum_array(x, _real_axes(axes, x.ndim), keepdim if keepdims is None else bool(keepdims))
    return record(r, _SUM, (input,), (x.shape, kept_shape(x.shape, axes)))


def _mean_vjp(g: Any, needs: tuple, shape: tuple, kept: tuple, n: int) -> tuple:
    return (np.broadcast_to((g / n).reshape(kept), shape),)


_MEAN = Op("mean", _mean_vjp, (None, None, None))


def mean(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None, axis: Dims = None, keepdims: Any = None
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
        RuntimeError: the input is not floating point.
        IndexError: a dimension is out of range.

    >>> import cuframe as cf
    >>> cf.mean(cf.tensor([[1.0, 2.0], [3.0, 4.0]]), dim=1)
    tensor([1.5000, 3.5000])
    """
    input = _with_dtype("mean", input, dtype, None)
    x = input.array
    if x.dtype.kind in "iub":
        raise RuntimeError(f"mean: input must be floating point, got {x.dtype.name}; pass dtype=cf.float32")
    axes = axes_of("mean", dim if axis is None else axis, x.ndim)
    n = _count(x.shape, axes)
    real = _real_axes(axes, x.ndim)
    keep = keepdim if keepdims is None else bool(keepdims)
    if x.dtype.itemsize == 2:
        r = (x.sum(axis=real, keepdims=keep, dtype=np.float32) / np.float32(n)).astype(x.dtype)
    else:
        r = x.sum(axis=real, keepdims=keep)
        r = r / r.dtype.type(n)
    return record(as_result(r, x), _MEAN, (input,), (x.shape, kept_shape(x.shape, axes), n))


# -- extremes ---------------------------------------------------------------------------------------------------
def _extreme_vjp(g: Any, needs: tuple, x: Any, out: Any, axes: Any, kept: tuple) -> tuple:
    # Ties share the gradient evenly.
    hit = x == out.reshape(kept)
    return (np.where(hit, (g.reshape(kept) / hit.sum(axis=axes, keepdims=True).astype(g.dtype)), 0),)


def _at_index_vjp(g: Any, needs: tuple, index: Any, axis: int, shape: tuple) -> tuple:
    kept = kept_shape(shape, (axis,))
    along = [1] * len(shape)
    if not shape:
        return (g,)
    along[axis] = shape[axis]
    here = backend_of(index).xp.arange(shape[axis]).reshape(along) == index.reshape(kept)
    return (np.where(here, g.reshape(kept), 0),)


_EXTREMES = {name: Op(name, _extreme_vjp, (0, "out", None, None)) for name in ("amax", "amin", "max", "min")}
_AT_INDEX = {name: Op(name, _at_index_vjp, (None, None, None)) for name in ("max", "min", "median", "mode")}


def _nonempty(name: str, x: Any, axes: tuple[int, ...] | None) -> None:
    if not _count(x.shape, _real_axes(axes, x.ndim)):
        raise RuntimeError(f"{name}: needs at least one element along the reduced dimensions, got {tuple(x.shape)}")


def _extreme(name: str, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    x = _array_of(name, input)
    axes = axes_of(name, dim, x.ndim)
    _nonempty(name, x, axes)
    real = _real_axes(axes, x.ndim)
    r = x.max(axis=real, keepdims=keepdim) if name in ("amax", "max") else x.min(axis=real, keepdims=keepdim)
    return record(as_result(r, x), _EXTREMES[name], (input,), (x, r, real, kept_shape(x.shape, axes)))


def _at(name: str, input: Tensor, index: Any, axis: int, keepdim: bool) -> ValuesIndices:
    """The values of `input` at `index` (with the dimension kept) along `axis`, and the index."""
    x = input.array
    values = np.take_along_axis(x, index, axis) if x.ndim else x.copy()
    if not keepdim and x.ndim:
        values, index = values.squeeze(axis), index.squeeze(axis)
    values, index = as_result(values, x), as_result(index, x)
    return ValuesIndices(record(values, _AT_INDEX[name], (input,), (index, axis, x.shape)), Tensor(index))


def _max_or_min(name: str, input: Any, dim: Any, keepdim: bool) -> Any:
    if dim is None:
        return _extreme(name, input, None, keepdim)
    if isinstance(dim, Tensor):
        from . import arithmetic

        return (arithmetic.maximum if name == "max" else arithmetic.minimum)(input, dim)
    x = _array_of(name, input)
    axis = axis_of(name, dim, x.ndim)
    _nonempty(name, x, (axis,))
    if not x.ndim:
        return _at(name, input, as_result(np.int64(0), x), axis, keepdim)
    find = x.argmax if name == "max" else x.argmin
    return _at(name, input, find(axis=axis, keepdims=True), axis, keepdim)


def max(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element, or the largest along one dimension and where they are, or that of two tensors."""
    return _max_or_min("max", input, dim, keepdim)


def min(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element, or the smallest along one dimension and where they are, or that of two tensors."""
    return _max_or_min("min", input, dim, keepdim)


def amax(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The largest elements over dimensions; ties share the gradient evenly."""
    return _extreme("amax", input, dim, keepdim)


def amin(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The smallest elements over dimensions; ties share the gradient evenly."""
    return _extreme("amin", input, dim, keepdim)


# -- NumPy's names ----------------------------------------------------------------------------------------------
def _numpy_reduction(operation: Any, *names: Any) -> None:
    @numpy_name(*names)
    def call(a: Tensor, axis: Dims = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
        return operation(a, axis, keepdims, **({} if dtype is None else {"dtype": dtype}))


_numpy_reduction(sum, np.sum)
_numpy_reduction(mean, np.mean)


@numpy_name(np.amax, np.max)
def _np_amax(a: Tensor, axis: Dims = None, *, keepdims: bool = False) -> Tensor:
    return amax(a, axis, keepdims)


@numpy_name(np.amin, np.min)
def _np_amin(a: Tensor, axis: Dims = None, *, keepdims: bool = False) -> Tensor:
    return amin(a, axis, keepdims)
