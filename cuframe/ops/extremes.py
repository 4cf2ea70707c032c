"""Reductions that choose an element: max, min, median, mode and where they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..autograd.graph import Op
from ..backend import backend_of
from ..tensor import Tensor, record
from .axes import Dims, array_of, axes_of, axis_of, count_of, kept_shape, numpy_spelling, real_axes
from .bounds import maximum, minimum
from .define import as_result, numpy_name
from .scans import running
from .steps import masked

__all__ = ["amax", "amin", "aminmax", "argmax", "argmin", "max", "median", "min", "mode", "nanmedian"]


class ValuesIndices(NamedTuple):
    """What `max`, `min`, `median` and `mode` give for one dimension: the values and where they were found."""

    values: Tensor
    indices: Tensor


class MinMax(NamedTuple):
    """What `aminmax` gives."""

    min: Tensor
    max: Tensor


def _shared_vjp(g: Any, needs: tuple, x: Any, out: Any, axes: Any, kept: tuple) -> tuple:
    hit = x == out.reshape(kept)
    return (masked(g.reshape(kept) / hit.sum(axis=axes, keepdims=True).astype(g.dtype), hit),)


def _at_index_vjp(g: Any, needs: tuple, index: Any, axis: int, shape: tuple) -> tuple:
    if not shape:
        return (g.reshape(()),)
    along = [1] * len(shape)
    along[axis] = shape[axis]
    kept = kept_shape(shape, (axis,))
    here = backend_of(index).xp.arange(shape[axis]).reshape(along) == index.reshape(kept)
    return (masked(g.reshape(kept), here),)


_SHARED = {
    name: Op(name, _shared_vjp, (0, "out", None, None))
    for name in ("amax", "amin", "max", "median", "min", "nanmedian")
}
_AT_INDEX = {
    name: Op(name, _at_index_vjp, (None, None, None))
    for name in ("max", "median", "min", "mode", "nanmedian", "quantile", "nanquantile")
}


def need_elements(name: str, x: Any, axes: tuple[int, ...] | None) -> None:
    """Raise where there is nothing to choose from: IndexError along dimensions, RuntimeError in all of the tensor."""
    if not count_of(x.shape, axes):
        raise (RuntimeError if axes is None else IndexError)(
            f"{name}: needs at least one element along the reduced dimensions, got shape {tuple(x.shape)}"
        )


def take_at(name: str, input: Tensor, index: Any, axis: int, keepdim: bool) -> ValuesIndices:
    """The elements of `input` at `index` (of size 1 along `axis`), and that index."""
    x = input.array
    values = np.take_along_axis(x, index, axis) if x.ndim else x.copy()
    if not keepdim and x.ndim:
        values, index = values.squeeze(axis), index.squeeze(axis)
    values, index = as_result(values, x), as_result(index, x)
    return ValuesIndices(record(values, _AT_INDEX[name], (input,), (index, axis, x.shape)), Tensor(index))


# -- the largest and the smallest -------------------------------------------------------------------
def _extreme(name: str, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    x = array_of(name, input)
    axes = axes_of(name, dim, x.ndim)
    need_elements(name, x, axes)
    real = real_axes(axes, x.ndim)
    r = x.max(axis=real, keepdims=keepdim) if name in ("amax", "max") else x.min(axis=real, keepdims=keepdim)
    r = as_result(r, x)
    return record(r, _SHARED[name], (input,), (x, r, real, kept_shape(x.shape, axes)))


def _along(name: str, input: Tensor, dim: Any, keepdim: bool) -> ValuesIndices:
    x = array_of(name, input)
    axis = axis_of(name, dim, x.ndim)
    need_elements(name, x, (axis,))
    if not x.ndim:
        return take_at(name, input, as_result(np.int64(0), x), axis, keepdim)
    return take_at(
        name, input, (x.argmax if name == "max" else x.argmin)(axis=axis, keepdims=True), axis, keepdim
    )


@numpy_spelling
def max(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element; with `dim` the largest along it and where they are; of two tensors the larger elements.

    Args:
        input: tensor of any shape and real dtype.
        dim: None, one dimension, or a second tensor (then this is `maximum`).
        keepdim: keep the dimension, with size 1.

    Returns:
        A tensor without dimensions; or `(values, indices)`, the first place of each maximum, int64. NaN counts as the
        largest. Without `dim` ties share the gradient evenly; with it, the element at `indices` gets all of it.

    Raises:
        TypeError: the input is not a tensor, or `dim` not an int.
        IndexError: the dimension is out of range.
        RuntimeError: there are no elements.

    >>> import cuframe as cf
    >>> x = cf.tensor([[1.0, 5.0], [4.0, 2.0]])
    >>> cf.max(x)
    tensor(5.)
    >>> cf.max(x, dim=1).indices
    tensor([1, 0])
    """
    if isinstance(dim, Tensor):
        return maximum(input, dim)
    return _extreme("max", input, None, keepdim) if dim is None else _along("max", input, dim, keepdim)


@numpy_spelling
def min(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element; with `dim` the smallest along it and where they are; of two tensors the smaller elements.

    Args, results and errors are those of `max`; NaN counts as the smallest.

    >>> import cuframe as cf
    >>> cf.min(cf.tensor([[1.0, 5.0], [4.0, 2.0]]), dim=1).values
    tensor([1., 2.])
    """
    if isinstance(dim, Tensor):
        return minimum(input, dim)
    return _extreme("min", input, None, keepdim) if dim is None else _along("min", input, dim, keepdim)


@numpy_spelling
def amax(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The largest elements over dimensions.

    Args:
        input: tensor of any shape and real dtype.
        dim: the dimension or dimensions to reduce; None for all of them.
        keepdim: keep them, with size 1.

    Returns:
        The maxima, NaN where there is a NaN. Ties share the gradient evenly.

    Raises:
        TypeError: the input is not a tensor.
        IndexError: a dimension is out of range.
        RuntimeError: there are no elements.

    >>> import cuframe as cf
    >>> cf.amax(cf.tensor([[1.0, 5.0], [4.0, 2.0]]), dim=0)
    tensor([4., 5.])
    """
    return _extreme("amax", input, dim, keepdim)


@numpy_spelling
def amin(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The smallest elements over dimensions.

    Args, results and errors are those of `amax`.

    >>> import cuframe as cf
    >>> cf.amin(cf.tensor([[1.0, 5.0], [4.0, 2.0]]), dim=0)
    tensor([1., 2.])
    """
    return _extreme("amin", input, dim, keepdim)


@numpy_spelling
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """The smallest and the largest elements, as `amin` and `amax` give them.

    >>> import cuframe as cf
    >>> low, high = cf.aminmax(cf.tensor([3.0, 1.0, 2.0]))
    >>> low, high
    (tensor(1.), tensor(3.))
    """
    return MinMax(_extreme("amin", input, dim, keepdim), _extreme("amax", input, dim, keepdim))


def _where_extreme(name: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    x = array_of(name, input)
    axis = None if dim is None else axis_of(name, dim, x.ndim)
    need_elements(name, x, None if axis is None else (axis,))
    find = x.argmax if name == "argmax" else x.argmin
    index = find(axis=axis if x.ndim else None, keepdims=keepdim)
    return Tensor(as_result(index, x).astype(np.int64, copy=False))


@numpy_spelling
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the largest element is: the first place along a dimension, or in the flattened tensor.

    Args:
        input: tensor of any shape and real dtype.
        dim: the dimension to search; None for the flattened tensor.
        keepdim: keep it (or all of them), with size 1.

    Returns:
        An int64 tensor. NaN counts as the largest.

    Raises:
        TypeError: the input is not a tensor, or `dim` not an int.
        IndexError: the dimension is out of range.
        RuntimeError: there are no elements.

    >>> import cuframe as cf
    >>> cf.argmax(cf.tensor([[1.0, 5.0], [4.0, 2.0]]), dim=1)
    tensor([1, 0])
    """
    return _where_extreme("argmax", input, dim, keepdim)


@numpy_spelling
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the smallest element is: the first place along a dimension, or in the flattened tensor.

    Args, results and errors are those of `argmax`; NaN counts as the smallest.

    >>> import cuframe as cf
    >>> cf.argmin(cf.tensor([[1.0, 5.0], [4.0, 2.0]]), dim=1)
    tensor([0, 1])
    """
    return _where_extreme("argmin", input, dim, keepdim)


# -- by rank ----------------------------------------------------------------------------------------
def ascending(x: Any, axis: int) -> Any:
    """The order that sorts `x` along `axis`, NaN last; equal elements keep theirs."""
    return np.argsort(
        x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind not in "iu" else x, axis, kind="stable"
    )


def _median(name: str, input: Tensor, dim: int | None, keepdim: bool) -> Any:
    x = array_of(name, input)
    axis = None if dim is None else axis_of(name, dim, x.ndim)
    need_elements(name, x, None if axis is None else (axis,))
    if not x.ndim:
        found = take_at(name, input, as_result(np.int64(0), x), 0, keepdim)
        return found.values if axis is None else found
    flat = x.reshape(-1) if axis is None else x
    along = axis or 0
    order = ascending(flat, along)
    missing = (flat != flat).sum(axis=along, keepdims=True)
    n = flat.shape[along]
    rank = (n - 1 - missing) // 2 if name == "nanmedian" else np.where(missing > 0, n - missing, (n - 1) // 2)
    index = np.take_along_axis(order, np.maximum(rank, 0), along)
    if axis is not None:
        return take_at(name, input, index, axis, keepdim)
    r = as_result(np.take_along_axis(flat, index, 0).reshape(()), x)
    return record(r, _SHARED[name], (input,), (x, r, None, kept_shape(x.shape, None)))


@numpy_spelling
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median; of an even number of elements the lower of the two in the middle.

    Args:
        input: tensor of any shape and real dtype.
        dim: the dimension to reduce; None for the median of all elements.
        keepdim: keep it, with size 1.

    Returns:
        A tensor without dimensions; with `dim` `(values, indices)`. NaN where there is a NaN. Without `dim` elements
        equal to the median share the gradient evenly; with it, the element at `indices` gets all of it.

    Raises:
        TypeError: the input is not a tensor, or `dim` not an int.
        IndexError: the dimension is out of range.
        RuntimeError: there are no elements.

    >>> import cuframe as cf
    >>> cf.median(cf.tensor([3.0, 1.0, 4.0, 2.0]))
    tensor(2.)
    """
    return _median("median", input, dim, keepdim)


@numpy_spelling
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median of the elements that are not NaN; NaN where there is none.

    Args, results and errors are those of `median`.

    >>> import cuframe as cf
    >>> cf.nanmedian(cf.tensor([3.0, float("nan"), 1.0, 2.0]))
    tensor(2.)
    """
    return _median("nanmedian", input, dim, keepdim)


@numpy_spelling
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """The element that occurs most often along a dimension, the smallest of them where several do.

    Args:
        input: tensor of any shape and real dtype.
        dim: the dimension to reduce.
        keepdim: keep it, with size 1.

    Returns:
        `(values, indices)`: the elements, and the last place of each.

    Raises:
        TypeError: the input is not a tensor, or `dim` not an int.
        IndexError: the dimension is out of range.
        RuntimeError: there are no elements.

    >>> import cuframe as cf
    >>> cf.mode(cf.tensor([3, 1, 3, 1, 2])).values
    tensor(1)
    """
    x = array_of("mode", input)
    axis = axis_of("mode", dim, x.ndim)
    need_elements("mode", x, (axis,))
    if not x.ndim:
        return take_at("mode", input, as_result(np.int64(0), x), axis, keepdim)
    order = ascending(x, axis)
    ranked = np.take_along_axis(x, order, axis)
    # Equal elements stand together now. How far each is from the start of its run is largest at the end of the longest.
    places = backend_of(x).xp.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    fresh = ranked != np.roll(ranked, 1, axis)
    length = places - running(np.maximum, np.where(fresh, places, 0), axis)
    best = length.argmax(axis=axis, keepdims=True)
    return take_at("mode", input, np.take_along_axis(order, best, axis), axis, keepdim)


# -- NumPy's names ----------------------------------------------------------------------------------
@numpy_name(np.amax, np.max)
def _np_amax(a: Tensor, axis: Dims = None, *, keepdims: bool = False) -> Tensor:
    return amax(a, axis, keepdims)


@numpy_name(np.amin, np.min)
def _np_amin(a: Tensor, axis: Dims = None, *, keepdims: bool = False) -> Tensor:
    return amin(a, axis, keepdims)


@numpy_name(np.argmax)
def _np_argmax(a: Tensor, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
    return argmax(a, axis, keepdims)


@numpy_name(np.argmin)
def _np_argmin(a: Tensor, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
    return argmin(a, axis, keepdims)
