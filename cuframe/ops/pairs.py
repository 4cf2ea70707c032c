"""Distances between all pairs of vectors.

Note [Distances without gradient]
    A distance has no derivative where it is 0 (and for p < 1 where one coordinate agrees). There the gradient is 0, as
    in PyTorch, so that no NaN comes of a vector that is compared with itself. At a largest coordinate difference that
    several share (p = inf) each of them takes the whole gradient.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import backend_of
from ..tensor import Tensor
from .define import Op, as_operands, as_result, cast, check_floating, record

__all__ = ["cdist"]

_MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")
_FEW = 25  # rows up to which Euclidean distances are computed difference by difference by default
_BLOCK = 1 << 18  # elements of differences that are held at a time


def _differences(x1: Any, x2: Any) -> Any:
    return x1[..., :, None, :] - x2[..., None, :, :]


def _norm(diff: Any, p: float) -> Any:
    """The p-norm along the last dimension of an array."""
    if p == 2:
        return np.sqrt((diff * diff).sum(axis=-1))
    if p == 0:
        return (diff != 0).sum(axis=-1).astype(diff.dtype)
    size = np.abs(diff)
    if p == 1:
        return size.sum(axis=-1)
    if p == math.inf:
        return size.max(axis=-1) if size.shape[-1] else size.sum(axis=-1)
    return (size**p).sum(axis=-1) ** (1 / p)


def _slope(diff: Any, dist: Any, p: float) -> Any:
    """The derivative of a distance by each difference; see Note [Distances without gradient]."""
    dist = dist[..., None]
    if p == 1:
        return np.sign(diff)
    if p == math.inf:
        return np.sign(diff) * (np.abs(diff) == dist)
    none = (dist == 0) | (diff == 0)
    if p == 2:
        return np.where(none, 0.0, diff / np.where(dist == 0, 1.0, dist))
    ratio = np.abs(np.where(none, 1.0, diff)) / np.where(dist == 0, 1.0, dist)
    return np.where(none, 0.0, np.sign(diff) * ratio ** (p - 1))


def _blocks(x1: Any, x2: Any) -> list[slice]:
    """Which rows of `x1` to take at a time, so that the differences from all of `x2` stay in the cache."""
    rows = max(1, _BLOCK // max(1, math.prod(x1.shape[:-2]) * x2.shape[-2] * x2.shape[-1]))
    return [slice(i, i + rows) for i in range(0, x1.shape[-2], rows)]


def _pairs_vjp(g: Any, needs: tuple, x1: Any, x2: Any, dist: Any, p: float) -> tuple:
    if p == 0:
        return tuple(None if node is None else np.zeros_like(x) for node, x in zip(needs, (x1, x2)))
    if isinstance(g, Tensor):
        pull: Any = g[..., None] * _slope(_differences(x1, x2), dist, p)
        return pull.sum(axis=-2), -pull.sum(axis=-3)
    g1, g2 = np.zeros_like(x1), np.zeros_like(x2)
    for part in _blocks(x1, x2):
        pull = g[..., part, :, None] * _slope(_differences(x1[..., part, :], x2), dist[..., part, :], p)
        g1[..., part, :] = pull.sum(axis=-2)
        g2 -= pull.sum(axis=-3)
    return g1, g2


def _product_vjp(g: Any, needs: tuple, x1: Any, x2: Any, dist: Any, centre: Any) -> tuple:
    """Of Euclidean distances, without the differences: what is added to row i is sum_j w_ij (x1_i - x2_j)."""
    zero = dist == 0
    w = np.where(zero, 0.0, g / np.where(zero, 1.0, dist))
    if isinstance(g, Tensor):
        centre = Tensor(centre)
    x1, x2 = x1 - centre, x2 - centre
    g1 = g2 = None
    if needs[0] is not None:
        g1 = x1 * w.sum(axis=-1)[..., None] - np.matmul(w, x2)
    if needs[1] is not None:
        g2 = x2 * w.sum(axis=-2)[..., None] - np.matmul(w.swapaxes(-1, -2), x1)
    return g1, g2


_PAIRS = Op("cdist", _pairs_vjp, (0, 1, "out", None))
_PRODUCT = Op("cdist", _product_vjp, (0, 1, "out", None))


def _by_product(x1: Tensor, x2: Tensor) -> Tensor:
    a, b = x1.array, x2.array
    # Distances do not change when all vectors are moved, and the squares below cancel less near the origin.
    centre = b.mean(axis=-2, keepdims=True)
    a, b = a - centre, b - centre
    squares = (a * a).sum(axis=-1)[..., None] + (b * b).sum(axis=-1)[..., None, :]
    squares -= 2 * np.matmul(a, b.swapaxes(-1, -2))
    dist = np.sqrt(np.maximum(squares, 0))
    return record(dist, _PRODUCT, (x1, x2), (x1.array, x2.array, dist, centre))


def _distances(x1: Tensor, x2: Tensor, p: float) -> Tensor:
    a, b = x1.array, x2.array
    parts = [_norm(_differences(a[..., part, :], b), p) for part in _blocks(a, b)]
    empty = (*a.shape[:-2], 0, b.shape[-2])
    dist = np.concatenate(parts, axis=-2) if parts else backend_of(a).xp.zeros(empty, a.dtype)
    return record(as_result(dist, a), _PAIRS, (x1, x2), (a, b, dist, p))


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """The p-norm distance of every row of `x1` from every row of `x2`.

        out[..., i, j] = (sum over m of |x1[..., i, m] - x2[..., j, m]| ** p) ** (1 / p)

    Args:
        x1: (..., P, M) floating point.
        x2: (..., R, M); the dimensions before broadcast with those of `x1`.
        p: the order, 0 or more; 0 counts the coordinates that differ, `math.inf` takes the largest difference.
        compute_mode: whether Euclidean distances come from a matrix product, which is fast, and less accurate for
            vectors that nearly agree: `"use_mm_for_euclid_dist"`, `"donot_use_mm_for_euclid_dist"`, or
            `"use_mm_for_euclid_dist_if_necessary"`, for more than 25 rows.

    Returns:
        (..., P, R). Where a distance is 0 its gradient is 0.

    Raises:
        TypeError: an argument is not a floating point Tensor.
        RuntimeError: fewer than 2 dimensions, other numbers of columns, or a negative `p`.
        ValueError: an unknown `compute_mode`.

    >>> import cuframe as cf
    >>> cf.cdist(cf.tensor([[0.0, 0.0], [3.0, 0.0]]), cf.tensor([[0.0, 4.0]]))
    tensor([[4.],
            [5.]])
    """
    check_floating("cdist", "x1", x1)
    check_floating("cdist", "x2", x2)
    for name, x in (("x1", x1), ("x2", x2)):
        if x.array.ndim < 2:
            raise RuntimeError(f"cdist: {name} must have at least 2 dimensions, got shape {tuple(x.array.shape)}")
    if x1.array.shape[-1] != x2.array.shape[-1]:
        raise RuntimeError(
            f"cdist: x1 and x2 must have the same number of columns, got {tuple(x1.array.shape)} and "
            f"{tuple(x2.array.shape)}"
        )
    if compute_mode not in _MODES:
        raise ValueError(f"cdist: compute_mode must be one of {', '.join(map(repr, _MODES))}, got {compute_mode!r}")
    _check_order("cdist", p)
    x1, x2 = as_operands("cdist", x1, x2)
    s1, s2 = x1.array.shape, x2.array.shape
    try:
        batch = np.broadcast_shapes(s1[:-2], s2[:-2])
    except ValueError:
        raise RuntimeError(
            f"cdist: the dimensions before the last two must broadcast, got {tuple(s1)} and {tuple(s2)}"
        ) from None
    dtype = x1.array.dtype
    if dtype.itemsize == 2:
        x1, x2 = cast(x1, np.dtype(np.float32)), cast(x2, np.dtype(np.float32))
    a: Any = np.broadcast_to(x1, (*batch, *s1[-2:]))  # type: ignore[call-overload]
    b: Any = np.broadcast_to(x2, (*batch, *s2[-2:]))  # type: ignore[call-overload]
    many = compute_mode == _MODES[1] or (compute_mode == _MODES[0] and max(s1[-2], s2[-2]) > _FEW)
    return cast(_by_product(a, b) if p == 2 and many and s2[-2] else _distances(a, b, p), dtype)


def _check_order(name: str, p: float) -> None:
    if not p >= 0:
        raise RuntimeError(f"{name}: p must be 0 or more, got {p}")


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances of all pairs of different rows.

        out = [distance(input[i], input[j]) for i in range(N) for j in range(i + 1, N)]

    Args:
        input: (N, M) floating point.
        p: the order, as for `cdist`.

    Returns:
        (N (N - 1) / 2,). Where a distance is 0 its gradient is 0.

    Raises:
        TypeError: the input is not a floating point Tensor.
        RuntimeError: it does not have 2 dimensions, or `p` is negative.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.pdist(cf.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]))
    tensor([3., 4., 5.])
    """
    check_floating("pdist", "input", input)
    if input.array.ndim != 2:
        raise RuntimeError(f"pdist: input must have 2 dimensions, got shape {tuple(input.array.shape)}")
    _check_order("pdist", p)
    first, second = backend_of(input.array).xp.triu_indices(input.array.shape[0], 1)
    return cdist(input, input, p, _MODES[2])[Tensor(first), Tensor(second)]
