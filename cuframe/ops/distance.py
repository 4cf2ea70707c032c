"""Norms and distances along one dimension, as `cuframe.nn.functional` offers them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import get_default_dtype, is_floating
from ..tensor import Tensor
from .define import cast, check_floating, need_tensor
from .reduce import axis_of

__all__ = ["cosine_similarity", "normalize", "pairwise_distance"]


def floating(name: str, argument: str, t: Any) -> Tensor:
    """A Tensor, integers as the default dtype."""
    need_tensor(name, argument, t)
    return t if is_floating(t.array.dtype) else cast(t, get_default_dtype())


def vector_norm(x: Any, p: float, axis: int) -> Any:
    """The p-norm along a dimension, kept with size 1; its gradient is 0 where all elements are 0."""
    if p == 1:
        return np.abs(x).sum(axis=axis, keepdims=True)
    if p == np.inf:
        return np.abs(x).amax(axis, True)
    if p == 0:
        return (x != 0).astype(x.dtype).sum(axis=axis, keepdims=True)
    total = (x * x if p == 2 else np.abs(x) ** p).sum(axis=axis, keepdims=True)
    # The root has no gradient at 0: there it is taken of 1, and put back.
    zero = total == 0
    root = np.where(zero, 1.0, total)
    root = np.sqrt(root) if p == 2 else root ** (1 / p)
    return np.where(zero, 0.0, root)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """The input divided by its p-norm along a dimension: `input / max(norm, eps)`.

    Args:
        input: any shape, floating.
        p: of the norm.
        dim: the dimension whose norm becomes 1.
        eps: the least norm to divide by.

    Returns:
        Of the shape of input.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.normalize(cf.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """
    check_floating("normalize", "input", input)
    axis = axis_of("normalize", dim, input.array.ndim)
    x: Any = input
    return x / np.maximum(vector_norm(x, p, axis), eps)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along a dimension: `(x1 . x2) / (max(|x1|, eps) max(|x2|, eps))`.

    Args:
        x1, x2: tensors that broadcast together.
        dim: the dimension of the broadcast shape that holds the vectors.
        eps: the least norm to divide by.

    Returns:
        A tensor of the broadcast shape without `dim`.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.cosine_similarity(cf.tensor([[3.0, 4.0]]), cf.tensor([[4.0, 3.0]]))
    tensor([0.9600])
    """
    x1, x2 = floating("cosine_similarity", "x1", x1), floating("cosine_similarity", "x2", x2)
    try:
        shape = np.broadcast_shapes(x1.array.shape, x2.array.shape)
    except ValueError:
        raise RuntimeError(
            f"cosine_similarity: shapes {tuple(x1.array.shape)} and {tuple(x2.array.shape)} cannot be broadcast "
            "together"
        ) from None
    axis = axis_of("cosine_similarity", dim, len(shape))
    a: Any = np.broadcast_to(x1, shape)
    b: Any = np.broadcast_to(x2, shape)
    a = a / np.maximum(vector_norm(a, 2, axis), eps)
    b = b / np.maximum(vector_norm(b, 2, axis), eps)
    return (a * b).sum(axis=axis)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of `x1 - x2 + eps` along the last dimension.

    Args:
        x1, x2: (..., D), floating, that broadcast together.
        p: of the norm.
        eps: added to each difference.
        keepdim: keep the last dimension with size 1.

    Returns:
        (...), or (..., 1).

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.pairwise_distance(cf.tensor([[3.0, 0.0]]), cf.tensor([[0.0, 4.0]]))
    tensor([5.])
    """
    x1, x2 = floating("pairwise_distance", "x1", x1), floating("pairwise_distance", "x2", x2)
    try:
        np.broadcast_shapes(x1.array.shape, x2.array.shape)
    except ValueError:
        raise RuntimeError(
            f"pairwise_distance: shapes {tuple(x1.array.shape)} and {tuple(x2.array.shape)} cannot be broadcast "
            "together"
        ) from None
    d: Any = x1 - x2 + eps
    norm = vector_norm(d, p, d.array.ndim - 1)
    return norm if keepdim else norm.reshape(norm.array.shape[:-1])
