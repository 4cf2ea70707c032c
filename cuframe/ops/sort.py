"""Order: sort, topk, kthvalue, unique and histograms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..autograd.graph import Op
from ..backend import backend_of
from ..dtypes import is_floating
from ..tensor import Tensor, record_outputs
from .define import check_floating, need_tensor
from .gather import place_along
from .shape import reshape, wrap_dim

__all__ = ["argsort", "histc", "kthvalue", "msort", "sort", "topk", "unique", "unique_consecutive"]


class SortResult(NamedTuple):
    """What `sort`, `topk` and `kthvalue` return: values, and where along the dimension they were."""

    values: Tensor
    indices: Tensor


def _picked_vjp(g: list, needs: tuple, index: Any, shape: tuple, d: int) -> tuple:
    return (place_along(g[0], shape, d, index, once=True),)


def _kth_vjp(g: list, needs: tuple, index: Any, shape: tuple, d: int) -> tuple:
    return (place_along(g[0].reshape(index.shape), shape, d, index),)


_SORT = Op("sort", _picked_vjp, (None, None, None))
_TOPK = Op("topk", _picked_vjp, (None, None, None))
_KTH = Op("kthvalue", _kth_vjp, (None, None, None))


def _comparable(x: Any) -> Any:
    """Half precision compares in float32: NumPy orders it faster, and bfloat16's NaN only there."""
    return x.astype(np.float32) if is_floating(x.dtype) and x.dtype.itemsize == 2 else x


def _order(x: Any, d: int, descending: bool) -> Any:
    """Stable order along a dimension; NaN counts as the largest, as in PyTorch."""
    x = _comparable(x)
    small = x.dtype.itemsize < 4 or x.dtype in (np.int32, np.float32)
    if small and x.size:
        return _packed_order(x.swapaxes(d, -1), descending).swapaxes(d, -1)
    if not descending:
        return np.argsort(x, axis=d, kind="stable")
    # Equal elements keep their order: sort the reversed array upwards and read the result backwards.
    reverse = np.flip(np.argsort(np.flip(x, d), axis=d, kind="stable"), d)
    return (x.shape[d] - 1) - reverse


def _packed_order(x: Any, descending: bool) -> Any:
    """Stable order along the last dimension of at most 32 bits: value and position packed into one int64.

    No two keys are alike, so the fast unstable sort will do: 512 x 1024 float32 in a quarter of a stable argsort's
    time.
    """
    if x.dtype == np.float32:
        x = x + np.float32(0)  # minus zero becomes zero, which it equals
        bits = np.where(x != x, np.int32(0x7FFFFFFF), backend_of(x).xp.ascontiguousarray(x).view(np.int32))
        x = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))  # negative floats count downwards in their bits
    key = x.astype(np.int64)
    if descending:
        key = ~key
    key = (key << 32) | backend_of(x).xp.arange(x.shape[-1])
    key.sort(axis=-1)
    return key & 0xFFFFFFFF


def _of_vector(operation: Callable[..., SortResult], input: Tensor, *args: Any) -> SortResult:
    """A 0-d tensor as a vector of one, and back."""
    values, indices = operation(reshape(input, 1), *args)
    return SortResult(reshape(values, ()), reshape(indices, ()))


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> SortResult:
    """The entries along a dimension in order.

    Args:
        input: any tensor.
        dim: the dimension.
        descending: largest first. NaN counts as larger than any number.
        stable: accepted for PyTorch's sake; equal entries always keep their order.

    Returns:
        (values, indices): both of the shape of `input`, indices int64.

    Raises:
        IndexError: no such dimension.

    >>> import cuframe as cf
    >>> cf.sort(cf.tensor([3, 1, 2])).indices
    tensor([1, 2, 0])
    """
    need_tensor("sort", "input", input)
    x = input.array
    d = wrap_dim("sort", "dim", dim, x.ndim)
    if not x.ndim:
        return _of_vector(sort, input)
    order = _order(x, d, descending)
    return SortResult(
        *record_outputs((np.take_along_axis(x, order, d), order), _SORT, (input,), (order, x.shape, d), 1)
    )


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The positions that would put the entries along a dimension in order: `sort(...).indices`.

    Args:
        input: any shape and dtype.
        dim: along which.
        descending: from the largest.
        stable: equal entries keep their order, which they do in any case.

    Returns:
        int64, of the shape of input.

    Raises:
        IndexError: no such dimension.

    >>> import cuframe as cf
    >>> cf.argsort(cf.tensor([3, 1, 2]), descending=True)
    tensor([0, 2, 1])
    """
    need_tensor("argsort", "input", input)
    x = input.array
    d = wrap_dim("argsort", "dim", dim, x.ndim)
    return Tensor(_order(x, d, descending) if x.ndim else backend_of(x).xp.zeros((), np.int64))


def msort(input: Tensor) -> Tensor:
    """The entries along dimension 0 in order: `sort(input, 0).values`.

    >>> import cuframe as cf
    >>> cf.msort(cf.tensor([3, 1, 2]))
    tensor([1, 2, 3])
    """
    return sort(input, 0).values


def _largest(x: Any, k: int) -> Any:
    """Positions of the k largest along the last dimension, largest first, the earlier of equals first."""
    n = x.shape[-1]
    if n < 256 or 4 * k > n or k == 0 or bool((x != x).any()):
        return _order(x, x.ndim - 1, True)[..., :k]
    # Linear in n: everything above the k-th value, and as many of its equals as fit.
    least = np.partition(x, n - k, axis=-1)[..., n - k : n - k + 1]
    above, equal = x > least, x == least
    room = k - above.sum(axis=-1, keepdims=True)
    chosen = above | (equal & (equal.cumsum(axis=-1) <= room))
    where = chosen.nonzero()[-1].reshape(*x.shape[:-1], k)
    return np.take_along_axis(where, _order(np.take_along_axis(x, where, -1), x.ndim - 1, True), -1)


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> SortResult:
    """The k largest entries along a dimension, in order.

    Args:
        input: any tensor.
        k: how many, at most the size of `dim`.
        dim: the dimension.
        largest: False for the smallest.
        sorted: accepted for PyTorch's sake; the result is always in order, the earlier of equals first.

    Returns:
        (values, indices): the shape of `input` with k entries in `dim`.

    Raises:
        IndexError: no such dimension.
        RuntimeError: k is out of range.

    >>> import cuframe as cf
    >>> cf.topk(cf.tensor([1, 4, 3, 2]), 2).values
    tensor([4, 3])
    """
    need_tensor("topk", "input", input)
    x = input.array
    d = wrap_dim("topk", "dim", dim, x.ndim)
    size = x.shape[d] if x.ndim else 1
    if not 0 <= k <= size:
        raise RuntimeError(f"topk: k must be in [0, {size}] for dim {dim}, got {k}")
    if not x.ndim:
        return SortResult(*[reshape(t, ()) for t in topk(reshape(input, 1), 1)])
    if largest:
        order = _largest(_comparable(x).swapaxes(d, -1), k).swapaxes(d, -1)
    else:
        order = _order(x, d, False)[(slice(None),) * d + (slice(k),)]
    return SortResult(
        *record_outputs((np.take_along_axis(x, order, d), order), _TOPK, (input,), (order, x.shape, d), 1)
    )


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> SortResult:
    """The k-th smallest entry along a dimension.

    Args:
        input: any tensor.
        k: 1 for the smallest.
        dim: the dimension.
        keepdim: keep it with size one.

    Returns:
        (values, indices): the first of equals counts as the smaller.

    Raises:
        IndexError: no such dimension.
        RuntimeError: k is out of range.

    >>> import cuframe as cf
    >>> cf.kthvalue(cf.tensor([3, 1, 2]), 2).values
    tensor(2)
    """
    need_tensor("kthvalue", "input", input)
    x = input.array
    d = wrap_dim("kthvalue", "dim", dim, x.ndim)
    size = x.shape[d] if x.ndim else 1
    if not 1 <= k <= size:
        raise RuntimeError(f"kthvalue: k must be in [1, {size}] for dim {dim}, got {k}")
    if not x.ndim:
        return _of_vector(kthvalue, input, 1, 0, True)
    where = _order(x, d, False)[(slice(None),) * d + (slice(k - 1, k),)]
    values = np.take_along_axis(x, where, d)
    shape = x.shape[:d] + ((1,) if keepdim else ()) + x.shape[d + 1 :]
    results = values.reshape(shape), where.reshape(shape)
    return SortResult(*record_outputs(results, _KTH, (input,), (where, x.shape, d), 1))


# -- without gradient ---------------------------------------------------------------------------------------------
def _packed(values: Any, inverse: Any, counts: Any) -> Any:
    found = [Tensor(a) for a in (values, inverse, counts) if a is not None]
    return found[0] if len(found) == 1 else tuple(found)


def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The different elements, or the different entries along a dimension, in order.

    Args:
        input: any tensor.
        sorted: accepted for PyTorch's sake; the result is always in order.
        return_inverse: also where each element stands in the result.
        return_counts: also how often each occurs.
        dim: compare whole entries along this dimension; None compares elements.

    Returns:
        Tensor, or a tuple (values[, inverse][, counts]); no gradient.

    Raises:
        IndexError: no such dimension.

    >>> import cuframe as cf
    >>> cf.unique(cf.tensor([2, 1, 2]), return_counts=True)
    (tensor([1, 2]), tensor([1, 2]))
    """
    need_tensor("unique", "input", input)
    x = input.array
    d = None if dim is None else wrap_dim("unique", "dim", dim, x.ndim)
    values, inverse, counts = backend_of(x).xp.unique(
        _comparable(x), return_inverse=True, return_counts=True, axis=d, equal_nan=False
    )
    shape = x.shape if d is None else (x.shape[d],)
    return _packed(
        values.astype(x.dtype),
        inverse.reshape(shape).astype(np.int64) if return_inverse else None,
        counts.astype(np.int64) if return_counts else None,
    )


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The elements, or the entries along a dimension, without those that equal the one before.

    Args:
        input: any tensor.
        return_inverse: also where each element stands in the result.
        return_counts: also how many each stands for.
        dim: compare whole entries along this dimension; None compares the flattened elements.

    Returns:
        Tensor, or a tuple (values[, inverse][, counts]); no gradient.

    Raises:
        IndexError: no such dimension.

    >>> import cuframe as cf
    >>> cf.unique_consecutive(cf.tensor([1, 1, 2, 1]))
    tensor([1, 2, 1])
    """
    need_tensor("unique_consecutive", "input", input)
    x = input.array
    xp = backend_of(x).xp
    if dim is None:
        rows, d, shape = x.reshape(-1, 1), 0, x.shape
    else:
        d = wrap_dim("unique_consecutive", "dim", dim, x.ndim)
        rows = np.moveaxis(x, d, 0).reshape(x.shape[d], math.prod(x.shape[:d] + x.shape[d + 1 :]))
        shape = (x.shape[d],)
    n = len(rows)
    fresh = xp.ones(n, np.bool_)
    fresh[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    starts = fresh.nonzero()[0]
    values = x.reshape(-1)[starts] if dim is None else x.take(starts, axis=d)
    return _packed(
        values,
        (fresh.cumsum() - 1).astype(np.int64).reshape(shape) if return_inverse else None,
        np.diff(xp.concatenate((starts, xp.array([n])))).astype(np.int64) if return_counts else None,
    )


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements fall into each of `bins` equal intervals from `min` to `max`.

    Args:
        input: floating point tensor.
        bins: how many.
        min, max: the range; equal ones stand for the extremes of the data. Elements outside do not count.

    Returns:
        Tensor (bins,) of the dtype of `input`; no gradient.

    Raises:
        RuntimeError: bins is not positive, max is below min, or the range is not finite.
        TypeError: input is not floating point.

    >>> import cuframe as cf
    >>> cf.histc(cf.tensor([1.0, 2.0, 1.0]), 4, 0, 3)
    tensor([0., 2., 1., 0.])
    """
    check_floating("histc", "input", input)
    x = _comparable(input.array)
    if bins <= 0:
        raise RuntimeError(f"histc: bins must be positive, got {bins}")
    if max < min:
        raise RuntimeError(f"histc: max must not be below min, got min={min}, max={max}")
    low, high = float(min), float(max)
    if low == high and x.size:
        low, high = float(x.min()), float(x.max())
    if low == high:
        low, high = low - 1, high + 1
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"histc: the range [{low}, {high}] is not finite")
    counts, _ = backend_of(x).xp.histogram(x, bins, (low, high))
    return Tensor(counts.astype(input.array.dtype))
