"""Variances, norms and quantiles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd.graph import Op
from ..dtypes import is_floating
from ..tensor import Tensor, record
from .axes import (
    Dims,
    add_up,
    array_of,
    axes_of,
    axis_of,
    count_of,
    kept_shape,
    numpy_spelling,
    real_axes,
    with_dtype,
)
from .define import as_result, is_number, need_tensor, numpy_name
from .extremes import ascending, need_elements, take_at
from .steps import flat, wide_vjp

__all__ = ["dist", "nanquantile", "norm", "quantile", "std", "std_mean", "var", "var_mean"]


# -- variance ---------------------------------------------------------------------------------------
def _var_vjp(g: Any, needs: tuple, x: Any, axes: Any, kept: tuple, divisor: float) -> tuple:
    slope = 2 / divisor if divisor else math.inf
    return (g.reshape(kept) * slope * (x - x.mean(axis=axes, keepdims=True)),)


def _std_vjp(g: Any, needs: tuple, x: Any, out: Any, axes: Any, kept: tuple, divisor: float) -> tuple:
    out = out.reshape(kept)
    zero = out == 0
    slope = np.where(zero, 0, g.reshape(kept) / np.where(zero, 1, out)) * (
        1 / divisor if divisor else math.inf
    )
    return (slope * (x - x.mean(axis=axes, keepdims=True)),)


_VAR = Op("var", wide_vjp(_var_vjp), (0, None, None, None))
_STD = Op("std", wide_vjp(_std_vjp), (0, "out", None, None, None))


def _variance(
    name: str, input: Any, dim: Any, unbiased: Any, keepdim: bool, correction: float | None
) -> Tensor:
    x = array_of(name, input)
    if not is_floating(x.dtype):
        raise RuntimeError(f"{name}: input must be floating point, got {x.dtype.name}")
    if isinstance(dim, bool):  # var(input, unbiased)
        dim, unbiased = None, dim
    if unbiased is not None:
        if correction is not None:
            raise TypeError(f"{name}: unbiased and correction must not both be given")
        correction = 1 if unbiased else 0
    axes = axes_of(name, dim, x.ndim)
    real, kept = real_axes(axes, x.ndim), kept_shape(x.shape, axes)
    n = count_of(x.shape, axes)
    divisor = max(n - (1 if correction is None else correction), 0)
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    away = wide - add_up(wide, real, True) / wide.dtype.type(n)
    r = add_up(away * away, real, keepdim) / wide.dtype.type(divisor)
    if name == "std":
        r = as_result(np.sqrt(r), x).astype(x.dtype, copy=False)
        return record(r, _STD, (input,), (x, r, real, kept, divisor))
    return record(as_result(r, x).astype(x.dtype, copy=False), _VAR, (input,), (x, real, kept, divisor))


@numpy_spelling
def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The variance over dimensions.

        out = sum_i (input_i - mean)**2 / max(n - correction, 0)

    Args:
        input: floating-point tensor of any shape.
        dim: the dimension or dimensions to reduce; None for all of them.
        unbiased: the older name of the correction: True for 1, False for 0. May be given in place of `dim`.
        keepdim: keep the dimensions, with size 1.
        correction: what n is reduced by, 1 by default; 0 for the variance of a whole population.

    Returns:
        The variances; NaN where n <= correction.

    Raises:
        TypeError: the input is not a tensor, or both `unbiased` and `correction` were given.
        RuntimeError: it is not floating point.
        IndexError: a dimension is out of range.

    >>> import cuframe as cf
    >>> cf.var(cf.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor(1.6667)
    >>> cf.var(cf.tensor([1.0, 2.0, 3.0, 4.0]), correction=0)
    tensor(1.2500)
    """
    return _variance("var", input, dim, unbiased, keepdim, correction)


@numpy_spelling
def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The standard deviation over dimensions: the square root of the variance.

    Args and errors are those of `var`. The gradient where the deviation is 0 is 0.

    >>> import cuframe as cf
    >>> cf.std(cf.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor(1.2910)
    """
    return _variance("std", input, dim, unbiased, keepdim, correction)


def _with_mean(
    name: str, input: Any, dim: Any, unbiased: Any, keepdim: bool, correction: float | None
) -> Any:
    spread = _variance(name, input, dim, unbiased, keepdim, correction)
    return spread, input.mean(None if isinstance(dim, bool) else dim, keepdim)


@numpy_spelling
def var_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The variance and the mean over dimensions; args and errors are those of `var`.

    >>> import cuframe as cf
    >>> cf.var_mean(cf.tensor([1.0, 2.0, 3.0]))
    (tensor(1.), tensor(2.))
    """
    return _with_mean("var", input, dim, unbiased, keepdim, correction)


@numpy_spelling
def std_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean over dimensions; args and errors are those of `var`.

    >>> import cuframe as cf
    >>> cf.std_mean(cf.tensor([1.0, 2.0, 3.0]))
    (tensor(1.), tensor(2.))
    """
    return _with_mean("std", input, dim, unbiased, keepdim, correction)


# -- norms ------------------------------------------------------------------------------------------
def _norm_vjp(g: Any, needs: tuple, x: Any, out: Any, p: float, axes: Any, kept: tuple) -> tuple:
    g, out = g.reshape(kept), out.reshape(kept)
    if p == 0:
        return (flat(g) * np.zeros_like(x),)
    if p == 1:
        return (g * np.sign(x),)
    if math.isinf(p):
        hit = np.abs(x) == out
        return (hit * (g * np.sign(x) / hit.sum(axis=axes, keepdims=True).astype(g.dtype)),)
    # Where the norm, or for p < 2 the element, is 0 the slope has no limit; PyTorch gives 0.
    nothing = out == 0
    root = np.where(nothing, 1, out)
    if p == 2:
        return (np.where(nothing, 0, g / root) * x,)
    zero = x == 0
    size = np.where(zero, 1, np.abs(x)) ** (p - 1) * np.sign(x)
    return (np.where(nothing, 0, g * root ** (1 - p)) * np.where(zero, 0, size),)


_NORM = Op("norm", wide_vjp(_norm_vjp), (0, "out", None, None, None))


def _norm_array(x: Any, p: float, axes: tuple[int, ...] | None, keepdim: bool) -> Any:
    if p == 2:
        return np.sqrt(add_up(x * x, axes, keepdim))
    if p == 0:
        return (x != 0).sum(axis=axes, keepdims=keepdim).astype(x.dtype)
    size = np.abs(x)
    if p == 1:
        return add_up(size, axes, keepdim)
    if math.isinf(p):
        return size.max(axis=axes, keepdims=keepdim) if p > 0 else size.min(axis=axes, keepdims=keepdim)
    return add_up(size**p, axes, keepdim) ** (1 / p)


@numpy_spelling
def norm(input: Tensor, p: Any = "fro", dim: Dims = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """The p-norm over dimensions.

        out = (sum_i |input_i|**p)**(1/p)

    Args:
        input: floating-point tensor of any shape.
        p: the order: a number, inf (the largest |input_i|), -inf (the smallest), 0 (how many are not 0), or `"fro"`,
            which is 2.
        dim: the dimension or dimensions to reduce; None for all of them.
        keepdim: keep them, with size 1.
        dtype: cast the input first.

    Returns:
        The norms. Where a norm is 0 the gradient is 0.

    Raises:
        TypeError: the input is not a tensor.
        ValueError: an order that is neither a number nor "fro".
        RuntimeError: the input is not floating point, or there are no elements for an infinite order.
        IndexError: a dimension is out of range.

    >>> import cuframe as cf
    >>> cf.norm(cf.tensor([[3.0, 4.0], [6.0, 8.0]]), dim=1)
    tensor([ 5., 10.])
    """
    input = with_dtype("norm", input, dtype, None)
    x = input.array
    if not is_floating(x.dtype):
        raise RuntimeError(f"norm: input must be floating point, got {x.dtype.name}")
    if p == "fro" or p is None:
        p = 2.0
    if not is_number(p):
        raise ValueError(f"norm: p must be a number or 'fro', got {p!r}")
    p = float(p)
    axes = axes_of("norm", dim, x.ndim)
    if math.isinf(p):
        need_elements("norm", x, axes)
    real = real_axes(axes, x.ndim)
    r = _norm_array(x.astype(np.float32) if x.dtype.itemsize == 2 else x, p, real, keepdim)
    r = as_result(r, x).astype(x.dtype, copy=False)
    return record(r, _NORM, (input,), (x, r, p, real, kept_shape(x.shape, axes)))


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of the difference of two tensors.

    Args:
        input, other: floating-point tensors of shapes that broadcast.
        p: the order; see `norm`.

    Raises:
        TypeError: an argument is not a tensor.
        RuntimeError: the shapes do not broadcast, or the tensors are not floating point.

    >>> import cuframe as cf
    >>> cf.dist(cf.tensor([1.0, 1.0]), cf.tensor([4.0, 5.0]))
    tensor(5.)
    """
    need_tensor("dist", "input", input)
    need_tensor("dist", "other", other)
    return norm(input - other, p)


# -- quantiles --------------------------------------------------------------------------------------
_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile(name: str, input: Tensor, q: Any, dim: int | None, keepdim: bool, interpolation: str) -> Tensor:
    x = array_of(name, input)
    if not is_floating(x.dtype):
        raise RuntimeError(f"{name}: input must be floating point, got {x.dtype.name}")
    if interpolation not in _INTERPOLATIONS:
        raise ValueError(
            f"{name}: interpolation must be one of {', '.join(_INTERPOLATIONS)}, got {interpolation!r}"
        )
    shares = q.array.tolist() if isinstance(q, Tensor) else q
    if isinstance(shares, list) and isinstance(q, Tensor) and q.array.ndim > 1:
        raise RuntimeError(f"{name}: q must be a number or 1-d, got shape {tuple(q.array.shape)}")
    for share in shares if isinstance(shares, list) else [shares]:
        if not is_number(share):
            raise TypeError(f"{name}: q must be a number or a Tensor, got {type(share).__name__}")
        if not 0 <= share <= 1:
            raise RuntimeError(f"{name}: q must be in [0, 1], got {share}")
    axis = None if dim is None else axis_of(name, dim, x.ndim)
    need_elements(name, x, None if axis is None else (axis,))
    flat_input: Any = input.reshape(-1) if axis is None or not x.ndim else input
    along = axis or 0
    values = flat_input.array
    order = ascending(values, along)
    missing = (values != values).sum(axis=along, keepdims=True)
    last = values.shape[along] - 1 - (missing if name == "nanquantile" else 0)

    def one(share: float, recorded: Any = None) -> Any:
        place = np.maximum(last, 0) * share
        low, high = np.floor(place).astype(np.int64), np.ceil(place).astype(np.int64)
        if interpolation == "lower":
            high = low
        elif interpolation == "higher":
            low = high
        elif interpolation == "nearest":
            low = high = np.rint(place).astype(np.int64)
        if name == "quantile":  # a NaN is the result
            low = np.where(missing > 0, values.shape[along] - 1, low)
            high = np.where(missing > 0, values.shape[along] - 1, high)
        a = take_at(name, flat_input, np.take_along_axis(order, low, along), along, True).values
        b = take_at(name, flat_input, np.take_along_axis(order, high, along), along, True).values
        share_of_b: Any = np.where(low == high, 0, 0.5 if interpolation == "midpoint" else place - low)
        share_of_b = Tensor(as_result(share_of_b, x).astype(x.dtype))
        if recorded is not None and interpolation == "linear":
            share_of_b = recorded * Tensor(as_result(last, x).astype(x.dtype)) - Tensor(low.astype(x.dtype))
        out: Any = a + share_of_b * (b - a)
        if axis is None or not x.ndim:
            return out.reshape((1,) * x.ndim if keepdim else ())
        return out if keepdim else out.squeeze(axis)

    recorded = q if isinstance(q, Tensor) and q.node is not None else None
    if not isinstance(shares, list):
        return one(shares, recorded)
    results: Any = [one(s, None if recorded is None else recorded[i]) for i, s in enumerate(shares)]
    stacked: Any = np.stack(results)
    return stacked


@numpy_spelling
def quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The value below which a share of the elements lies.

    Args:
        input: floating-point tensor of any shape.
        q: the share in [0, 1]: a number, or a one-dimensional tensor of them, whose results are stacked in front.
        dim: the dimension to reduce; None for all elements.
        keepdim: keep it, with size 1.
        interpolation: what to do between two elements: `"linear"`, `"lower"`, `"higher"`, `"midpoint"`, `"nearest"`.

    Returns:
        The quantiles; NaN where there is a NaN.

    Raises:
        TypeError: the input is not a tensor, or q neither a number nor a tensor.
        ValueError: an unknown interpolation.
        RuntimeError: the input is not floating point or has no elements, or q is not in [0, 1].
        IndexError: the dimension is out of range.

    >>> import cuframe as cf
    >>> cf.quantile(cf.tensor([1.0, 2.0, 3.0, 5.0]), cf.tensor([0.0, 0.5, 0.9]))
    tensor([1.0000, 2.5000, 4.4000])
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation)


@numpy_spelling
def nanquantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The value below which a share of the elements lies that are not NaN; NaN where there is none.

    Args and errors are those of `quantile`.

    >>> import cuframe as cf
    >>> cf.nanquantile(cf.tensor([1.0, float("nan"), 3.0]), 0.5)
    tensor(2.)
    """
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation)


# -- NumPy's names ----------------------------------------------------------------------------------
@numpy_name(np.var)
def _np_var(a: Tensor, axis: Dims = None, *, ddof: float = 0, keepdims: bool = False) -> Tensor:
    return var(a, axis, None, keepdims, correction=ddof)


@numpy_name(np.std)
def _np_std(a: Tensor, axis: Dims = None, *, ddof: float = 0, keepdims: bool = False) -> Tensor:
    return std(a, axis, None, keepdims, correction=ddof)
