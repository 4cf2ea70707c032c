"""Losses between two tensors of one shape; those over classes stand in `cross_entropy.py`.

Each is one node: the elementwise loss and its reduction together, with a gradient written in terms of both tensors, so
that it serves higher derivatives as it stands.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..tensor import Tensor
from .cross_entropy import cross_entropy, need_broadcast, nll_loss, reduced, reduction_of
from .define import Op, as_operands, as_result, check_floating, fit, need_tensor, record
from .margin_loss import (
    cosine_embedding_loss,
    hinge_embedding_loss,
    margin_ranking_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from .softmax import widened

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss", "cross_entropy",
    "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "margin_ranking_loss", "mse_loss",
    "nll_loss", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss", "triplet_margin_loss",
]  # fmt: skip


def _fit(d: Any, full: tuple, shape: tuple) -> Any:
    # A derivative may depend on one operand only, and so be smaller than the loss was.
    return fit(d if tuple(d.shape) == full else np.broadcast_to(d, full), shape)


def _pair_op(name: str, dx: Callable, dy: Callable | None = None) -> Op:
    """The Op of a loss with derivatives `dx(x, y, *settings)` and `dy`; without `dy` it is that of x - y."""

    def vjp(g: Any, needs: tuple, x: Any, y: Any, scale: float, settings: tuple) -> tuple:
        dtype, shapes = x.dtype, (tuple(x.shape), tuple(y.shape))
        full = shapes[0] if shapes[0] == shapes[1] else np.broadcast_shapes(*shapes)
        g, x, y = widened(g), widened(x), widened(y)
        if scale != 1:
            g = g * scale
        gx = gy = None
        d: Any = g * dx(x, y, *settings) if needs[0] is not None or dy is None else None
        if needs[0] is not None:
            gx = _fit(d, full, shapes[0]).astype(dtype, copy=False)
        if needs[1] is not None:
            gy = _fit(-d if dy is None else g * dy(x, y, *settings), full, shapes[1]).astype(dtype, copy=False)
        return gx, gy

    return Op(name, vjp, (0, 1, None, None))


def _pair_loss(
    op: Op, forward: Callable, input: Any, target: Any, reduction: str, *settings: Any, divide_by: int | None = None
) -> Tensor:
    """Forward and reduction in one node; `divide_by` stands in for the number of elements."""
    input, target = as_operands(op.name, input, target, floating=True)
    x, y = input.array, target.array
    r = forward(widened(x), widened(y), *settings)
    scale = 1.0
    if reduction != "none":
        n = r.size if divide_by is None else divide_by
        r = r.sum()
        if reduction != "sum":
            scale = 1 / n if n else np.nan
            r = r * r.dtype.type(scale)
    return record(as_result(r.astype(x.dtype, copy=False), x), op, (input, target), (x, y, scale, settings))


def _same_shape(name: str, input: Any, target: Any, strict: bool = False) -> None:
    check_floating(name, "input", input)
    need_tensor(name, "target", target)
    a, b = tuple(input.array.shape), tuple(target.array.shape)
    if a == b:
        return
    if strict:
        raise ValueError(f"{name}: target must be {a} as input is, got {b}")
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        raise RuntimeError(f"{name}: input of shape {a} and target of shape {b} cannot be broadcast together") from None
    warnings.warn(
        f"{name}: target of shape {b} is broadcast against input of shape {a}; this is seldom meant",
        UserWarning,
        stacklevel=3,
    )


def _weighted(
    op: Op, forward: Callable, input: Any, target: Any, reduction: str, weight: Any, *settings: Any
) -> Tensor:
    """With `weight`, a mean is over the weights."""
    if weight is None:
        return _pair_loss(op, forward, input, target, reduction, *settings)
    need_tensor(op.name, "weight", weight)
    if weight.array.shape != input.array.shape:
        raise ValueError(f"{op.name}: weight must be {tuple(input.array.shape)} as input is, got {weight.array.shape}")
    loss: Any = _pair_loss(op, forward, input, target, "none", *settings) * weight
    return loss if reduction == "none" else loss.sum() / weight.sum() if reduction == "mean" else loss.sum()


# -- regression ---------------------------------------------------------------------------------------------------
def _mse(x: Any, y: Any) -> Any:
    d = x - y
    return d * d


_MSE = _pair_op("mse_loss", lambda x, y: (x - y) * 2)
_L1 = _pair_op("l1_loss", lambda x, y: np.sign(x - y))


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """The squared difference `(input - target)**2`.

    Args:
        input: a floating-point tensor.
        target: one of the same shape; another shape is broadcast, with a warning.
        reduction: `"mean"`, `"sum"` or `"none"`.
        weight: a factor for each element, of the input's shape; the mean is then over the weights.
        size_average, reduce: deprecated, see `reduction`.

    Returns:
        A 0-d tensor, or one of the input's shape with `"none"`.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.mse_loss(cf.tensor([1.0, 2.0]), cf.tensor([1.0, 4.0]))
    tensor(2.)
    """
    reduction = reduction_of("mse_loss", reduction, size_average, reduce)
    _same_shape("mse_loss", input, target)
    return _weighted(_MSE, _mse, input, target, reduction, weight)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """The absolute difference `|input - target|`; arguments as for `mse_loss`.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.l1_loss(cf.tensor([1.0, 2.0]), cf.tensor([1.0, 4.0]))
    tensor(1.)
    """
    reduction = reduction_of("l1_loss", reduction, size_average, reduce)
    _same_shape("l1_loss", input, target)
    return _weighted(_L1, lambda x, y: np.abs(x - y), input, target, reduction, weight)


def _smooth_l1(x: Any, y: Any, beta: float) -> Any:
    d = np.abs(x - y)
    return np.where(d < beta, d * d * (0.5 / beta), d - 0.5 * beta)


def _huber(x: Any, y: Any, delta: float) -> Any:
    d = np.abs(x - y)
    return np.where(d <= delta, d * d * 0.5, (d - 0.5 * delta) * delta)


_SMOOTH_L1 = _pair_op("smooth_l1_loss", lambda x, y, beta: np.clip((x - y) / beta, -1, 1))
_HUBER = _pair_op("huber_loss", lambda x, y, delta: np.clip(x - y, -delta, delta))


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Quadratic for small differences d and linear beyond: `d**2 / (2 beta)` where |d| < beta, else `|d| - beta / 2`.

    Args:
        input: a floating-point tensor.
        target: one of the same shape; another shape is broadcast, with a warning.
        reduction: `"mean"`, `"sum"` or `"none"`.
        beta: where the two parts meet; not negative, and at 0 this is `l1_loss`.
        size_average, reduce: deprecated, see `reduction`.

    Raises:
        ValueError: beta is negative.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.smooth_l1_loss(cf.tensor([0.5, 3.0]), cf.zeros(2), reduction="none")
    tensor([0.1250, 2.5000])
    """
    reduction = reduction_of("smooth_l1_loss", reduction, size_average, reduce)
    _same_shape("smooth_l1_loss", input, target)
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    return _pair_loss(_SMOOTH_L1, _smooth_l1, input, target, reduction, float(beta))


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Quadratic for small differences d, linear beyond: `d**2 / 2` where |d| <= delta, else `delta (|d| - delta / 2)`.

    Args:
        input: a floating-point tensor.
        target: one of the same shape; another shape is broadcast, with a warning.
        reduction: `"mean"`, `"sum"` or `"none"`.
        delta: where the two parts meet; positive.
        weight: a factor for each element, of the input's shape; the mean is then over the weights.

    Raises:
        ValueError: delta is not positive.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.huber_loss(cf.tensor([0.5, 3.0]), cf.zeros(2), reduction="none")
    tensor([0.1250, 2.5000])
    """
    reduction = reduction_of("huber_loss", reduction, None, None)
    _same_shape("huber_loss", input, target)
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta}")
    return _weighted(_HUBER, _huber, input, target, reduction, weight, float(delta))


# -- probabilities ------------------------------------------------------------------------------------------------
def _bce(x: Any, y: Any) -> Any:
    # A logarithm stops at -100, so a certain and wrong prediction costs 100 and not infinity.
    return (y - 1) * np.maximum(np.log1p(-x), -100) - y * np.maximum(np.log(x), -100)


_BCE = _pair_op(
    "binary_cross_entropy",
    lambda x, y: (x - y) / np.maximum(x * (1 - x), 1e-12),
    lambda x, y: np.maximum(np.log1p(-x), -100) - np.maximum(np.log(x), -100),
)


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The cross entropy of probabilities: `-(target log(input) + (1 - target) log(1 - input))`.

    Args:
        input: probabilities in [0, 1]. Logarithms below -100 count as -100.
        target: probabilities of the same shape.
        weight: a factor for each element, broadcast to the input.
        reduction: `"mean"` over all elements, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    Raises:
        ValueError: the shapes differ.
        RuntimeError: an input is outside [0, 1].

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.binary_cross_entropy(cf.tensor([0.5, 0.5]), cf.tensor([0.0, 1.0]))
    tensor(0.6931)
    """
    name = "binary_cross_entropy"
    reduction = reduction_of(name, reduction, size_average, reduce)
    _same_shape(name, input, target, strict=True)
    x = input.array
    if x.size and not (x.min() >= 0 and x.max() <= 1):
        raise RuntimeError(f"{name}: input must be in [0, 1], got values from {x.min()} to {x.max()}")
    if weight is None:
        return _pair_loss(_BCE, _bce, input, target, reduction)
    return reduced(_pair_loss(_BCE, _bce, input, target, "none") * weight, reduction)


def _softplus(x: Any) -> Any:
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def _sigmoid(x: Any) -> Any:
    # By tanh, whose derivatives stay finite for any x.
    return (np.tanh(x / 2) + 1) / 2


_BCE_LOGITS = _pair_op(
    "binary_cross_entropy_with_logits",
    lambda x, y: _sigmoid(x) - y,
    lambda x, y: -x,
)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """The binary cross entropy of `sigmoid(input)`, computed from the logits so that nothing overflows.

        loss = (1 - target) input + (1 + (pos_weight - 1) target) log(1 + exp(-input))

    Args:
        input: logits.
        target: probabilities of the same shape.
        weight: a factor for each element, broadcast to the input.
        reduction: `"mean"` over all elements, `"sum"` or `"none"`.
        pos_weight: a factor for the positive part, broadcast to the input.
        size_average, reduce: deprecated, see `reduction`.

    Raises:
        ValueError: the shapes differ.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.binary_cross_entropy_with_logits(cf.tensor([0.0, 1000.0]), cf.tensor([0.0, 1.0]), reduction="none")
    tensor([0.6931, 0.0000])
    """
    name = "binary_cross_entropy_with_logits"
    reduction = reduction_of(name, reduction, size_average, reduce)
    _same_shape(name, input, target, strict=True)
    plain = weight is None and pos_weight is None
    forward = lambda x, y: _softplus(-x) + (1 - y) * x  # noqa: E731
    loss: Any = _pair_loss(_BCE_LOGITS, forward, input, target, reduction if plain else "none")
    if pos_weight is not None:
        # The positive part counts pos_weight times: once is in the loss already.
        loss = loss + (pos_weight - 1) * target * _softplus(-input)
    if weight is not None:
        loss = loss * weight
    return loss if plain else reduced(loss, reduction)


def _xlogy(y: Any) -> Any:
    return np.where(y == 0, y, y * np.log(np.where(y == 0, np.ones_like(y), y)))


_KL = _pair_op(
    "kl_div",
    lambda x, y: -y,
    lambda x, y: np.log(y) + 1 - x,
)
_KL_LOG = _pair_op(
    "kl_div",
    lambda x, y: -np.exp(y),
    lambda x, y: np.exp(y) * (y - x + 1),
)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """The Kullback-Leibler divergence `target (log(target) - input)`, with 0 where the target is 0.

    Args:
        input: log probabilities.
        target: probabilities, or with `log_target` their logarithms; broadcast against the input.
        reduction: `"batchmean"`, the sum over the size of the first dimension, which is what the name promises;
            `"mean"` over all elements, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    Raises:
        ValueError: the reduction is not known.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> p = cf.tensor([[0.5, 0.5]])
    >>> F.kl_div(p.log(), p, reduction="batchmean")
    tensor(0.)
    """
    reduction = reduction_of("kl_div", reduction, size_average, reduce, ("batchmean",))
    check_floating("kl_div", "input", input)
    need_broadcast("kl_div", input=input, target=target)
    batch = input.array.shape[0] if input.array.ndim and reduction == "batchmean" else None
    if log_target:
        return _pair_loss(_KL_LOG, lambda x, y: np.exp(y) * (y - x), input, target, reduction, divide_by=batch)
    return _pair_loss(_KL, lambda x, y: _xlogy(y) - y * x, input, target, reduction, divide_by=batch)


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log probability of counts under a Poisson distribution.

        loss = exp(input) - target input                 with log_input, else
        loss = input - target log(input + eps)

    Args:
        input: the rate, or its logarithm with `log_input`.
        target: counts.
        full: add Stirling's approximation of log(target!) where the target is above 1.
        eps: added to the rate before the logarithm.
        reduction: `"mean"`, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.poisson_nll_loss(cf.tensor([0.0]), cf.tensor([3.0]))
    tensor(1.)
    """
    reduction = reduction_of("poisson_nll_loss", reduction, size_average, reduce)
    need_broadcast("poisson_nll_loss", input=input, target=target)
    x: Any = input
    y: Any = target
    loss = np.exp(x) - y * x if log_input else x - y * np.log(x + eps)
    if full:
        big = np.where(y > 1, y, np.ones_like(y.array))
        loss = loss + np.where(y > 1, big * np.log(big) - big + 0.5 * np.log(big * (2 * np.pi)), 0.0)
    return reduced(loss, reduction)


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """Minus the log probability under a normal distribution: `(log(var) + (input - target)**2 / var) / 2`.

    Args:
        input: means.
        target: values.
        var: variances, broadcast to the input, or of its shape without the last dimension, or a number. At least `eps`
            is taken, and the gradient is that of `var` all the same.
        full: add the constant log(2 pi) / 2.
        reduction: `"mean"`, `"sum"` or `"none"`.

    Raises:
        ValueError: a variance is negative.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.gaussian_nll_loss(cf.tensor([1.0]), cf.tensor([3.0]), cf.tensor([1.0]))
    tensor(2.)
    """
    reduction = reduction_of("gaussian_nll_loss", reduction, None, None)
    check_floating("gaussian_nll_loss", "input", input)
    need_broadcast("gaussian_nll_loss", input=input, target=target)
    x = input.array
    v: Any = var if isinstance(var, Tensor) else Tensor(np.full_like(x, var))
    if v.array.shape != x.shape:
        if x.ndim and v.array.shape == x.shape[:-1]:
            v = v.reshape((*v.array.shape, 1))
        try:
            fits = np.broadcast_shapes(v.array.shape, x.shape) == x.shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"gaussian_nll_loss: var must broadcast to {tuple(x.shape)}, got {tuple(v.array.shape)}")
    if v.array.size and v.array.min() < 0:
        raise ValueError(f"gaussian_nll_loss: var must not be negative, got {v.array.min()}")
    # PyTorch clamps the value and lets the gradient through.
    v = v + Tensor(np.maximum(eps - v.array, 0).astype(v.array.dtype))
    d: Any = input - target
    loss = (np.log(v) + d * d / v) * 0.5
    return reduced(loss + 0.5 * float(np.log(2 * np.pi)) if full else loss, reduction)
