"""scatter_reduce: sums, products, means and extremes of groups of entries."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.graph import Op
from ..backend import backend_of
from ..dtypes import is_floating
from ..tensor import Tensor, record
from .define import need_tensor
from .gather import along, gathered, grid, need_src, pad_to
from .index import clear
from .mask import blank
from .shape import reshape

__all__ = ["scatter_reduce"]

_KINDS = ("sum", "prod", "mean", "amax", "amin")


def _identity(kind: str, dtype: np.dtype) -> Any:
    if kind == "prod":
        return 1
    if kind in ("sum", "mean"):
        return 0
    if is_floating(dtype):
        return -np.inf if kind == "amax" else np.inf
    if dtype.kind == "b":
        return kind == "amin"
    limits = np.iinfo(dtype)
    return limits.min if kind == "amax" else limits.max


def _combine(x: Any, at: tuple, src: Any, kind: str, include_self: bool) -> Any:
    """The entries of `src` combined with those of `x` at a grid index; a mean is still a sum."""
    backend = backend_of(x)
    r = x.copy()
    if not include_self:
        r[at] = _identity(kind, x.dtype)
    if kind in ("sum", "mean"):
        backend.add_at(r, at, src)
    elif kind == "prod" and not backend.host:
        # CuPy has no multiply.at; what has one index along the dimension that is indexed goes to different places
        d = next((k for k, a in enumerate(at) if a.shape == src.shape), 0)
        for j in range(src.shape[d]):
            part = (slice(None),) * d + (slice(j, j + 1),)
            place = tuple(a if a.shape[d] == 1 else a[part] for a in at)
            r[place] = r[place] * src[part]
    else:
        backend.combine_at({"prod": "multiply", "amax": "maximum", "amin": "minimum"}[kind], r, at, src)
    return r


def _count(x: Any, at: tuple, include_self: bool, src: Any) -> Any:
    """How many of `src` (ones and zeros) each entry of the result took in, itself with it if asked for."""
    return _combine(x, at, src, "sum", include_self)


def _linear_vjp(g: Any, needs: tuple, index: Any, d: int, shape: tuple, include_self: bool, count: Any) -> tuple:
    if count is not None:
        g = g / count
    g_self = g_src = None
    if needs[0] is not None:
        g_self = g if include_self else clear(g, None, grid(index, d))
    if needs[1] is not None:
        g_src = pad_to(gathered(g, d, index), shape)
    return g_self, g_src


_SUM = Op("scatter_reduce", _linear_vjp, (None,) * 5)


def _extreme_vjp(
    g: Any, needs: tuple, index: Any, d: int, shape: tuple, count: Any, hit_self: Any, hit_src: Any
) -> tuple:
    g = g / count  # those that tie share the gradient
    return (
        blank(g, ~hit_self) if needs[0] is not None else None,
        pad_to(blank(gathered(g, d, index), ~hit_src), shape) if needs[1] is not None else None,
    )


_EXTREME = Op("scatter_reduce", _extreme_vjp, (None,) * 6)


def _raw(t: Any) -> Any:
    return t.array if isinstance(t, Tensor) else t


def _prod_vjp(g: Any, needs: tuple, x: Any, src: Any, index: Any, d: int, include_self: bool) -> tuple:
    """Each factor's gradient is the product of the others: with one zero in a group only that zero has any."""
    at = grid(index, d)
    shape = src.shape
    src = src[tuple([slice(n) for n in index.shape])]
    zero_x, zero_src = _raw(x) == 0, _raw(src) == 0
    ones_x, ones_src = (
        blank(x, zero_x) + zero_x.astype(x.dtype),
        blank(src, zero_src) + zero_src.astype(x.dtype),
    )
    if isinstance(g, Tensor):
        product = _reduced(ones_x, d, index, ones_src, "prod", include_self)
    else:
        product = _combine(ones_x, at, ones_src, "prod", include_self)
    zeros = _count(zero_x.astype(np.int64), at, include_self, zero_src.astype(np.int64))
    g_self = g_src = None
    spread = g * product
    if needs[0] is not None:
        g_self = blank(spread / ones_x, zeros > zero_x)
        if not include_self:
            touched = clear(np.ones_like(_raw(g)), None, at) == 0
            g_self = blank(g, touched)
    if needs[1] is not None:
        g_src = pad_to(blank(gathered(spread, d, index) / ones_src, gathered(zeros, d, index) > zero_src), shape)
    return g_self, g_src


_PROD = Op("scatter_reduce", _prod_vjp, (0, 1, None, None, None))


def _reduced(input: Tensor, d: int, i: Any, src: Tensor, kind: str, include_self: bool) -> Tensor:
    x = input.array
    s = need_src("scatter_reduce", input, i, src)
    at = grid(i, d)
    r = _combine(x, at, s, kind, include_self)
    shape = src.array.shape
    if kind == "prod":
        return record(r, _PROD, (input, src), (x, src.array, i, d, include_self))
    if kind == "sum":
        return record(r, _SUM, (input, src), (i, d, shape, include_self, None))
    if kind == "mean":
        count = np.maximum(_count(np.ones_like(x), at, include_self, np.ones_like(s)), np.ones_like(x))
        r = r / count if is_floating(x.dtype) else r // count
        return record(r, _SUM, (input, src), (i, d, shape, include_self, count))
    if input.node is None and src.node is None:
        return Tensor(r)
    hit_self, hit_src = x == r, s == gathered(r, d, i)
    if not include_self:
        hit_self[at] = False
    count = _count(hit_self.astype(x.dtype), at, True, hit_src.astype(x.dtype))
    return record(r, _EXTREME, (input, src), (i, d, shape, count, hit_self, hit_src))


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """A copy in which the entries of `src` that meet at a position are combined.

    Args:
        input: any tensor.
        dim: the dimension.
        index: integer tensor with as many dimensions: entry [i, j] of src goes to [index[i, j], j] for dim 0.
        src: tensor at least as large as `index`, of the dtype of `input`.
        reduce: `"sum"`, `"prod"`, `"mean"`, `"amax"` or `"amin"`.
        include_self: what is there takes part as well; if not, positions that no entry meets keep their value.

    Returns:
        Tensor like `input`. Entries that tie for an extreme share its gradient.

    Raises:
        IndexError: a position out of range, or no such dimension.
        RuntimeError: shapes, dtypes or devices do not fit.
        ValueError: an unknown reduce.

    >>> import cuframe as cf
    >>> index = cf.tensor([0, 0, 1])
    >>> cf.scatter_reduce(cf.zeros(3), 0, index, cf.tensor([1.0, 5.0, 2.0]), "amax")
    tensor([5., 2., 0.])
    """
    if reduce not in _KINDS:
        raise ValueError(f"scatter_reduce: reduce must be one of {', '.join(_KINDS)}, got {reduce!r}")
    need_tensor("scatter_reduce", "input", input)
    need_tensor("scatter_reduce", "src", src)
    if not input.array.ndim:
        need_tensor("scatter_reduce", "index", index)
        flat = reshape(input, 1), dim, reshape(index, -1), reshape(src, -1), reduce
        return reshape(scatter_reduce(*flat, include_self=include_self), ())
    d, i = along("scatter_reduce", input, dim, index)
    return _reduced(input, d, i, src, reduce, include_self)
