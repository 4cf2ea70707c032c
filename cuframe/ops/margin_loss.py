"""Losses that ask for a margin, composed of basic operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor import Tensor
from .cross_entropy import need_broadcast, reduced, reduction_of
from .define import check_floating, need_tensor
from .distance import cosine_similarity, pairwise_distance

__all__ = [
    "cosine_embedding_loss", "hinge_embedding_loss", "margin_ranking_loss", "soft_margin_loss", "triplet_margin_loss",
]  # fmt: skip


def _positive(t: Any) -> Any:
    return np.maximum(t, 0)


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`input` where the target is 1, and `max(0, margin - input)` where it is -1.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.hinge_embedding_loss(cf.tensor([0.5, 0.25]), cf.tensor([1.0, -1.0]), reduction="none")
    tensor([0.5000, 0.7500])
    """
    reduction = reduction_of("hinge_embedding_loss", reduction, size_average, reduce)
    check_floating("hinge_embedding_loss", "input", input)
    need_tensor("hinge_embedding_loss", "target", target)
    x: Any = input
    y: Any = target
    return reduced(np.where(y != 1, _positive(margin - x), 0.0) + np.where(y != -1, x, 0.0), reduction)


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`max(0, -target (input1 - input2) + margin)`: where the target is 1, `input1` should rank above `input2`.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.margin_ranking_loss(cf.tensor([1.0]), cf.tensor([3.0]), cf.tensor([1.0]))
    tensor(2.)
    """
    reduction = reduction_of("margin_ranking_loss", reduction, size_average, reduce)
    need_broadcast("margin_ranking_loss", input1=input1, input2=input2, target=target)
    y: Any = target
    return reduced(_positive(-y * (input1 - input2) + margin), reduction)


def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`log(1 + exp(-target input))` for targets of 1 and -1.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.soft_margin_loss(cf.zeros(2), cf.tensor([1.0, -1.0]))
    tensor(0.6931)
    """
    reduction = reduction_of("soft_margin_loss", reduction, size_average, reduce)
    check_floating("soft_margin_loss", "input", input)
    need_tensor("soft_margin_loss", "target", target)
    if target.array.shape != input.array.shape:
        raise ValueError(
            f"soft_margin_loss: target must be {tuple(input.array.shape)} as input is, got {tuple(target.array.shape)}"
        )
    z: Any = -(input * target)
    return reduced(np.log1p(np.exp(-np.abs(z))) + _positive(z), reduction)


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`1 - cos(input1, input2)` where the target is 1, and `max(0, cos(input1, input2) - margin)` where it is -1.

    Args:
        input1, input2: (N, D) or (D,).
        target: (N,) or (), of 1 and -1.
        margin: from -1 to 1.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    Raises:
        RuntimeError: the target's shape does not fit.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.cosine_embedding_loss(cf.tensor([[1.0, 0.0]]), cf.tensor([[0.0, 2.0]]), cf.tensor([1.0]))
    tensor(1.)
    """
    reduction = reduction_of("cosine_embedding_loss", reduction, size_average, reduce)
    need_tensor("cosine_embedding_loss", "input1", input1)
    need_tensor("cosine_embedding_loss", "input2", input2)
    need_tensor("cosine_embedding_loss", "target", target)
    if target.array.ndim > 1 or input1.array.ndim != target.array.ndim + 1:
        raise RuntimeError(
            f"cosine_embedding_loss: expected inputs (N, D) with target (N,), or (D,) with (), got "
            f"{tuple(input1.array.shape)}, {tuple(input2.array.shape)} and {tuple(target.array.shape)}"
        )
    try:
        np.broadcast_shapes(input1.array.shape[:-1], input2.array.shape[:-1], target.array.shape)
    except ValueError:
        raise RuntimeError(
            f"cosine_embedding_loss: target must be {tuple(input1.array.shape[:-1])} for inputs of shapes "
            f"{tuple(input1.array.shape)} and {tuple(input2.array.shape)}, got {tuple(target.array.shape)}"
        ) from None
    y: Any = target
    cos: Any = cosine_similarity(input1, input2, dim=-1)
    return reduced(np.where(y == 1, 1 - cos, 0.0) + np.where(y == -1, _positive(cos - margin), 0.0), reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`max(0, d(anchor, positive) - d(anchor, negative) + margin)` with the p-norm as distance d.

    Args:
        anchor, positive, negative: (N, D) or (D,).
        margin: positive.
        p: the norm; `eps` is added to each difference.
        swap: use d(positive, negative) instead of d(anchor, negative) where it is smaller.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    Raises:
        ValueError: the margin is not positive.
        RuntimeError: the shapes do not broadcast, or the numbers of dimensions differ.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> a = cf.zeros(1, 2)
    >>> F.triplet_margin_loss(a, a, cf.tensor([[0.0, 0.25]]))
    tensor(0.7500)
    """
    reduction = reduction_of("triplet_margin_loss", reduction, size_average, reduce)
    if not margin > 0:
        raise ValueError(f"triplet_margin_loss: margin must be positive, got {margin}")
    need_broadcast("triplet_margin_loss", anchor=anchor, positive=positive, negative=negative)
    dims = anchor.array.ndim, positive.array.ndim, negative.array.ndim
    if len(set(dims)) > 1:
        raise RuntimeError(
            f"triplet_margin_loss: anchor, positive and negative must have one number of dimensions, got {dims}"
        )
    near: Any = pairwise_distance(anchor, positive, p, eps)
    far: Any = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = np.minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduced(_positive(near - far + margin), reduction)
