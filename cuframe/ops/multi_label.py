"""Losses that compare the scores of classes with each other, and a triplet loss of any distance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import backend_of
from ..tensor import Tensor
from .activation import logsigmoid
from .cross_entropy import reduced, reduction_of
from .define import check_floating, need_tensor
from .distance import pairwise_distance
from .gather import gather
from .mask import where

__all__ = [
    "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss", "triplet_margin_with_distance_loss",
]  # fmt: skip


def _positive(t: Any) -> Any:
    # Not a maximum: at 0 it would pass half of the gradient.
    return where(t > 0, t, 0.0)


def _scores(name: str, input: Tensor, target: Tensor) -> tuple[Any, Any]:
    """`input` as (N, C), a single number as one class, and the target's array, an integer one."""
    check_floating(name, "input", input)
    need_tensor(name, "target", target)
    x, t = input.array, target.array
    classes = x.shape[-1] if x.ndim else 1
    if x.ndim > 2 or not classes:
        raise ValueError(f"{name}: input must be (N, C) or (C,) with at least one class, got {tuple(x.shape)}")
    if t.dtype.kind not in "iu":
        raise TypeError(f"{name}: target must hold class indices of an integer dtype, got {t.dtype.name}")
    return input.reshape((-1, classes)), t


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The hinge loss between the target class y and all others: a class should score `margin` below it.

        loss_n = weight[y] / C sum_{i != y} max(0, margin - input[n, y] + input[n, i])**p

    Args:
        input: scores, (N, C) or (C,).
        target: class indices, (N,) or ().
        p: 1 or 2.
        margin: the distance to keep.
        weight: (C,), a factor for each target class.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    Returns:
        A 0-d tensor, or one of the target's shape with `"none"`.

    Raises:
        ValueError: a shape does not fit, or p is neither 1 nor 2.
        IndexError: a target is no class.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.multi_margin_loss(cf.tensor([[0.25, 0.75]]), cf.tensor([0]))
    tensor(0.7500)
    """
    name = "multi_margin_loss"
    reduction = reduction_of(name, reduction, size_average, reduce)
    x, t = _scores(name, input, target)
    if p not in (1, 2):
        raise ValueError(f"{name}: p must be 1 or 2, got {p}")
    n, c = x.shape
    lead = tuple(input.array.shape[:-1])
    if tuple(t.shape) != lead and not (not lead and t.shape == (1,)):
        raise ValueError(f"{name}: target must be {lead} for an input of shape {input.array.shape}, got {t.shape}")
    if weight is not None:
        need_tensor(name, "weight", weight)
        if weight.array.shape != (c,):
            raise ValueError(f"{name}: weight must be ({c},), got {tuple(weight.array.shape)}")
    backend = backend_of(t)
    backend.check_index(name, "target", t, c)
    column = t.reshape(-1, 1).astype(np.int64, copy=False)
    excess: Any = x - gather(x, 1, Tensor(column)) + margin
    other = Tensor(column != backend.xp.arange(c))
    hinge: Any = _positive(where(other, excess, 0.0))
    if p == 2:
        hinge = hinge * hinge
    if weight is not None:
        hinge = hinge * weight[Tensor(column)]
    return reduced((hinge.sum(axis=1) / c).reshape(tuple(t.shape)), reduction)


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The hinge loss between all classes that apply and all that do not: the latter should score 1 below.

        loss_n = 1 / C sum_{y in target_n} sum_{i not in target_n} max(0, 1 - input[n, y] + input[n, i])

    Args:
        input: scores, (N, C) or (C,).
        target: of the same shape: the class indices that apply, then -1; what follows it is ignored.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    Returns:
        A 0-d tensor, or (N,) with `"none"`.

    Raises:
        ValueError: the shapes differ.
        IndexError: a target is no class.

    Takes N C**2 numbers.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.multilabel_margin_loss(cf.tensor([[0.1, 0.2, 0.4, 0.8]]), cf.tensor([[3, 0, -1, 1]]))
    tensor(0.8500)
    """
    name = "multilabel_margin_loss"
    reduction = reduction_of(name, reduction, size_average, reduce)
    x, t = _scores(name, input, target)
    if t.shape != input.array.shape:
        raise ValueError(f"{name}: target must be {tuple(input.array.shape)} as input is, got {tuple(t.shape)}")
    n, c = x.shape
    backend = backend_of(t)
    t = t.reshape(n, c).astype(np.int64)
    applies = (t != -1).cumprod(axis=1).astype(bool)
    t = t * applies
    backend.check_index(name, "target", t, c)
    classes = backend.xp.arange(c)
    among = ((t[:, :, None] == classes) & applies[:, :, None]).any(axis=1)
    excess: Any = x.unsqueeze(1) - gather(x, 1, Tensor(t)).unsqueeze(2) + 1
    pairs = Tensor(applies[:, :, None] & ~among[:, None, :])
    loss: Any = _positive(where(pairs, excess, 0.0)).sum(axis=(1, 2)) / c
    return reduced(loss if input.array.ndim == 2 else loss.reshape(()), reduction)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The binary cross entropy of each class's logit, averaged over the classes.

        loss_n = -1 / C sum_i (target[n, i] log(sigmoid(input[n, i])) + (1 - target[n, i]) log(sigmoid(-input[n, i])))

    Args:
        input: logits, (..., C).
        target: of the same shape, 1 where the class applies and 0 where not.
        weight: a factor for each class, broadcast to the input.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    Returns:
        A 0-d tensor, or one of the input's shape without its last dimension with `"none"`.

    Raises:
        ValueError: the shapes differ.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.multilabel_soft_margin_loss(cf.zeros(2, 3), cf.ones(2, 3))
    tensor(0.6931)
    """
    name = "multilabel_soft_margin_loss"
    reduction = reduction_of(name, reduction, size_average, reduce)
    check_floating(name, "input", input)
    need_tensor(name, "target", target)
    if target.array.shape != input.array.shape or not input.array.ndim:
        raise ValueError(
            f"{name}: target and input must be (..., C) and of one shape, got {tuple(target.array.shape)} and "
            f"{tuple(input.array.shape)}"
        )
    y: Any = target
    loss: Any = -(y * logsigmoid(input) + (1 - y) * logsigmoid(-input))
    if weight is not None:
        need_tensor(name, "weight", weight)
        loss = loss * weight
    return reduced(loss.mean(axis=-1), reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`max(0, d(anchor, positive) - d(anchor, negative) + margin)` with any distance d.

    Args:
        anchor, positive, negative: tensors of one number of dimensions, commonly (N, D).
        distance_function: d; the Euclidean distance of the last dimension by default.
        margin: positive.
        swap: use d(positive, negative) instead of d(anchor, negative) where it is smaller.
        reduction: `"mean"`, `"sum"` or `"none"`.

    Raises:
        ValueError: the margin is not positive.
        RuntimeError: the numbers of dimensions differ.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> a = cf.zeros(1, 2)
    >>> b = cf.tensor([[0.0, 0.25]])
    >>> F.triplet_margin_with_distance_loss(a, a, b, distance_function=lambda x, y: (x - y).abs().sum(-1))
    tensor(0.7500)
    """
    name = "triplet_margin_with_distance_loss"
    reduction = reduction_of(name, reduction, None, None)
    for argument, t in (("anchor", anchor), ("positive", positive), ("negative", negative)):
        need_tensor(name, argument, t)
    if not margin > 0:
        raise ValueError(f"{name}: margin must be positive, got {margin}")
    dims = anchor.array.ndim, positive.array.ndim, negative.array.ndim
    if len(set(dims)) > 1:
        raise RuntimeError(f"{name}: anchor, positive and negative must have one number of dimensions, got {dims}")
    distance = pairwise_distance if distance_function is None else distance_function
    near: Any = distance(anchor, positive)
    far: Any = distance(anchor, negative)
    if swap:
        far = np.minimum(far, distance(positive, negative))
    return reduced(np.maximum(near - far + margin, 0), reduction)
