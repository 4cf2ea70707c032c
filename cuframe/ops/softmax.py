"""Softmax and its logarithm: one pass for the exponentials, one node, and a gradient from the result alone.

Note [Exponentials]
    Logits of ordinary size need no maximum subtracted, and are more exact without: nothing is rounded before the
    exponential. That saves two passes. Where the sum of a row comes near the ends of float32, or is not finite, every
    row has its maximum subtracted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ..backend import backend_of
from ..dtypes import as_dtype, is_floating
from ..tensor import Tensor
from .define import Op, cast, need_tensor, record
from .reduce import axis_of

__all__ = ["log_softmax", "softmax", "softmin"]

# Sums of exponentials for which no maximum need be subtracted, far within float32.
_LEAST, _MOST = 1e-30, 1e30
_SMALL = 1 << 11  # elements for which calls cost more than passes: to look whether a maximum is needed is two of them


def widened(x: Any) -> Any:
    """16-bit floats as float32, in which their exponentials are summed."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def row_max(x: Any, axis: int) -> Any:
    """The maximum along `axis`, kept as a dimension; 0 where there is nothing."""
    return x.max(axis=axis, keepdims=True) if x.size else x.sum(axis=axis, keepdims=True)


def _sums(e: Any, axis: int) -> Any:
    if axis != e.ndim - 1:
        return e.sum(axis=axis, keepdims=True)
    # BLAS adds up short rows faster than a reduction does.
    n = e.shape[-1]
    return (e.reshape((prod(e.shape[:-1]), n)) @ np.ones_like(e, shape=(n, 1))).reshape((*e.shape[:-1], 1))


def exponentials(x: Any, axis: int) -> tuple[Any, Any, Any]:
    """e = exp(x - m), its sums along `axis`, and m: None for 0, or one for each row; see Note [Exponentials]."""
    e = np.exp(x)
    s = _sums(e, axis)
    if not s.size or (s.min() > _LEAST and s.max() < _MOST):
        return e, s, None
    m = row_max(x, axis)
    np.subtract(x, m, out=e)
    np.exp(e, out=e)
    return e, _sums(e, axis), m


def _kernel_of(x: Any) -> Any:
    """The device's softmax, if it has one for an array like `x`; else None."""
    kernel = backend_of(x).kernel("softmax")
    return kernel if kernel is not None and kernel.takes(x) else None


def _softmax_array(x: Any, axis: int) -> Any:
    kernel = _kernel_of(x)
    if kernel is not None:
        return kernel.forward(x, axis, log=False)
    y = widened(x)
    if 0 < x.size < _SMALL:
        e = y - y.max(axis=axis, keepdims=True)
        np.exp(e, out=e)
        e /= e.sum(axis=axis, keepdims=True)
    else:
        e, s, _ = exponentials(y, axis)
        e /= s
    return e if e.dtype == x.dtype else e.astype(x.dtype)


def _log_softmax_array(x: Any, axis: int) -> Any:
    kernel = _kernel_of(x)
    if kernel is not None:
        return kernel.forward(x, axis, log=True)
    y = widened(x)
    y = y - row_max(y, axis)
    y -= np.log(np.exp(y).sum(axis=axis, keepdims=True))
    return y.astype(x.dtype, copy=False)


def _softmax_vjp(g: Any, needs: tuple, out: Any, axis: int) -> tuple:
    dtype = out.dtype
    if isinstance(g, Tensor):
        g, out = widened(g), widened(out)
        return ((out * (g - (g * out).sum(axis=axis, keepdims=True))).astype(dtype),)
    kernel = _kernel_of(out)
    if kernel is not None:
        return (kernel.backward(g, out, axis, log=False),)
    g, out = widened(g), widened(out)
    last = axis == out.ndim - 1
    dot = np.einsum("...i,...i->...", g, out)[..., None] if last else (g * out).sum(axis=axis, keepdims=True)
    gx = g - dot
    gx *= out
    return (gx.astype(dtype, copy=False),)


def _log_softmax_vjp(g: Any, needs: tuple, out: Any, axis: int) -> tuple:
    dtype = out.dtype
    kernel = None if isinstance(g, Tensor) else _kernel_of(out)
    if kernel is not None:
        return (kernel.backward(g, out, axis, log=True),)
    g, out = widened(g), widened(out)
    return ((g - np.exp(out) * g.sum(axis=axis, keepdims=True)).astype(dtype, copy=False),)


_SOFTMAX = Op("softmax", _softmax_vjp, ("out", None))
_LOG_SOFTMAX = Op("log_softmax", _log_softmax_vjp, ("out", None))


def _along(name: str, forward: Callable, op: Op, input: Tensor, dim: int | None, dtype: Any) -> Tensor:
    need_tensor(name, "input", input)
    if dtype is not None:
        input = cast(input, as_dtype(dtype))
    x = input.array
    if not is_floating(x.dtype):
        raise TypeError(f"{name}: input must be floating point, got {x.dtype.name}; pass dtype= to convert it")
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
        warnings.warn(f"{name}: without dim, dimension {dim} is taken; name it", DeprecationWarning, stacklevel=3)
    axis = axis_of(name, dim, x.ndim)
    if not x.ndim:
        out = _along(name, forward, op, input.reshape(1), 0, None)
        return out.reshape(())
    r = forward(x, axis)
    return record(r, op, (input,), (r, axis))


def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """Exponentials that sum to one along a dimension.

        out_i = exp(input_i) / sum_j exp(input_j)

    Args:
        input: a floating-point tensor.
        dim: the dimension to sum over. Leaving it out is deprecated: it is then 0 for 0, 1 or 3 dimensions, else 1.
        dtype: converts the input first.

    Returns:
        A tensor of the input's shape. The maximum is subtracted beforehand, so nothing overflows; a row of -inf gives
        NaN. Backward keeps the result.

    Raises:
        TypeError: the input is not floating point and no dtype is given.
        IndexError: there is no such dimension.

    >>> import cuframe as cf
    >>> cf.softmax(cf.tensor([[1000.0, 1000.0], [0.0, -1000.0]]), dim=1)
    tensor([[0.5000, 0.5000],
            [1.0000, 0.0000]])
    """
    return _along("softmax", _softmax_array, _SOFTMAX, input, dim, dtype)


def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """The logarithm of `softmax`, without the loss of precision of two steps.

        out_i = input_i - log sum_j exp(input_j)

    Args:
        input: a floating-point tensor.
        dim: the dimension to sum over. Leaving it out is deprecated: it is then 0 for 0, 1 or 3 dimensions, else 1.
        dtype: converts the input first.

    Returns:
        A tensor of the input's shape. Backward keeps the result.

    Raises:
        TypeError: the input is not floating point and no dtype is given.
        IndexError: there is no such dimension.

    >>> import cuframe as cf
    >>> cf.log_softmax(cf.tensor([0.0, 1000.0]), dim=0)
    tensor([-1000.,     0.])
    """
    return _along("log_softmax", _log_softmax_array, _LOG_SOFTMAX, input, dim, dtype)


def softmin(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """`softmax(-input)`: the smallest element gets the largest share.

    >>> import cuframe as cf
    >>> cf.softmin(cf.tensor([0.0, 0.0]), dim=0)
    tensor([0.5000, 0.5000])
    """
    need_tensor("softmin", "input", input)
    return softmax(-input, dim, dtype)
