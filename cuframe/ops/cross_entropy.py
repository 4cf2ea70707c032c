"""Negative log likelihood and cross entropy over classes.

Note [Cross entropy]
    The fused node takes one pass of exponentials (see Note [Exponentials] in softmax.py), in the forward pass; they are
    kept, unnormalised, and the gradient is one multiplication by row and a subtraction at the target. The loss is
    log(sum / exp(target)), in which nothing cancels, unless the exponential of a target vanishes. The kernels of GPUs
    keep each row's maximum and the logarithm of its sum instead, and take the exponentials again. With class
    probabilities it is a composite of log_softmax everywhere.
"""

from __future__ import annotations

import warnings
from math import prod
from typing import Any

import numpy as np

from ..backend import backend_of
from ..dtypes import is_floating
from ..tensor import Tensor
from .define import Op, as_result, check_floating, need_tensor, record
from .softmax import exponentials, log_softmax, widened

__all__ = ["cross_entropy", "nll_loss"]

_LEAST = 1e-30  # smaller exponentials are on their way to losing digits in float32


def reduction_of(name: str, reduction: Any, size_average: Any, reduce: Any, others: tuple[str, ...] = ()) -> str:
    """The reduction to use, after checking it and reading the two arguments it has replaced.

    Raises:
        ValueError: it is not known.
    """
    if size_average is not None or reduce is not None:
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
        warnings.warn(
            f"{name}: size_average and reduce are deprecated, use reduction={reduction!r}",
            DeprecationWarning,
            stacklevel=3,
        )
    known = ("none", "mean", "sum", *others)
    if reduction not in known:
        raise ValueError(f"{name}: reduction must be one of {', '.join(known)}, got {reduction!r}")
    return reduction


def need_broadcast(name: str, **tensors: Any) -> None:
    """Raise TypeError unless all are Tensors, RuntimeError unless their shapes broadcast together."""
    for argument, t in tensors.items():
        need_tensor(name, argument, t)
    shapes = [tuple(t.array.shape) for t in tensors.values()]
    if shapes.count(shapes[0]) == len(shapes):
        return
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        raise RuntimeError(
            f"{name}: {', '.join(tensors)} must broadcast together, got shapes {', '.join(map(str, shapes))}"
        ) from None


def reduced(loss: Any, reduction: str) -> Tensor:
    """A Tensor of losses after `reduction`."""
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()


class Targets:
    """Class indices made ready: the logits as (N, C) or (N, C, L), where each target stands in them, its weight."""

    __slots__ = ("count", "index", "kept", "shape", "view", "weight")

    def __init__(self, name: str, x: Any, t: Any, w: Any, ignore_index: int) -> None:
        n, c, rest = _sizes(name, x, t, w)
        self.shape = t.shape
        backend = backend_of(x)
        size = prod(rest)
        t = t.reshape((n, size) if rest else (n,)).astype(np.int64, copy=False)
        ignored = t == ignore_index
        some = bool(ignored.any())
        if some:
            t = t * ~ignored
        backend.check_index(name, "target", t, c)
        self.view = (n, c, size) if rest else (n, c)
        # Where each target stands among all logits in row-major order.
        rows = backend.xp.arange(0, n * c, c)
        self.index = (rows[:, None] + t) * size + backend.xp.arange(size) if rest else rows + t
        self.kept = ~ignored if some else None
        self.weight = None if w is None else w[t]
        if some:
            self.weight = ~ignored * (x.dtype.type(1) if w is None else self.weight)
        self.weight = None if self.weight is None else widened(self.weight)
        # What a mean divides by: the targets that count, or their weights.
        self.count = t.size if self.weight is None else self.weight.sum()


def _check(name: str, input: Any, target: Any, weight: Any) -> None:
    check_floating(name, "input", input)
    need_tensor(name, "target", target)
    x, t = input.array, target.array
    if not x.ndim or not x.shape[0 if x.ndim == 1 else 1]:
        raise ValueError(f"{name}: input must be (C,), (N, C) or (N, C, ...) with at least one class, got {x.shape}")
    if x.__class__ is not t.__class__:
        raise RuntimeError(f"{name}: input and target must be on one device, got {input.device} and {target.device}")
    if weight is not None:
        need_tensor(name, "weight", weight)
        if weight.array.dtype != x.dtype:
            raise RuntimeError(f"{name}: weight must be {x.dtype.name} as input is, got {weight.array.dtype.name}")


def _sizes(name: str, x: Any, t: Any, w: Any) -> tuple[int, int, tuple]:
    """Batch, classes and further dimensions of x, with which target and weight agree."""
    if x.ndim == 1:
        n, c, rest, lead = 1, x.shape[0], (), ()
    else:
        (n, c), rest = x.shape[:2], x.shape[2:]
        lead = (n, *rest)
    if t.shape != lead:
        raise ValueError(f"{name}: target must be {lead} for an input of shape {tuple(x.shape)}, got {t.shape}")
    if w is not None and w.shape != (c,):
        raise ValueError(f"{name}: weight must be ({c},), got {tuple(w.shape)}")
    return n, c, rest


def _need_classes(name: str, target: Tensor) -> None:
    if target.array.dtype.kind not in "iu":
        raise TypeError(f"{name}: target must hold class indices of an integer dtype, got {target.array.dtype.name}")


def _reduced(loss: Any, reduction: str, targets: Targets, x: Any) -> Any:
    if reduction == "none":
        r = loss.reshape(targets.shape)
    else:
        r = loss.sum()
        if reduction == "mean":
            r = np.divide(r, targets.count)
    return as_result(r.astype(x.dtype, copy=False), x)


def _scales(g: Any, reduction: str, targets: Targets) -> Any:
    """The gradient of each target's loss: a number, or an array where the losses were not reduced."""
    if reduction == "none":
        return g.reshape(targets.index.shape)
    # Where no target counts the loss is NaN, and yet no logit has a part in it.
    return g / (targets.count + (targets.count == 0)) if reduction == "mean" else g


# -- negative log likelihood --------------------------------------------------------------------------------------
def _nll_vjp(g: Any, needs: tuple, shape: tuple, dtype: Any, targets: Targets, reduction: str) -> tuple:
    scale = _scales(g, reduction, targets)
    recorded = isinstance(g, Tensor)
    like = g.array if recorded else g
    out = backend_of(like).xp.zeros(targets.view, dtype)
    flat = out.reshape(-1)
    if not recorded:
        flat[targets.index] = -scale if targets.weight is None else -(scale * targets.weight)
        return (out.reshape(shape),)
    flat[targets.index] = -1 if targets.weight is None else -targets.weight
    if reduction == "none":
        scale = scale.reshape((targets.view[0], 1, *targets.view[2:]))
    return ((scale * out).astype(dtype).reshape(shape),)


def _nll_kernel_vjp(g: Any, needs: tuple, saved: Any) -> tuple:
    recorded = isinstance(g, Tensor)
    kernel = backend_of(saved.targets).kernel("loss")
    if not recorded:
        return (kernel.nll_backward(g, saved),)
    slopes = Tensor(kernel.nll_backward(np.ones_like(g.array), saved))
    return (slopes * (g.reshape((g.shape[0], 1, *g.shape[1:])) if g.ndim else g),)


_NLL = Op("nll_loss", _nll_vjp, (None, None, None, None))
_NLL_KERNEL = Op("nll_loss", _nll_kernel_vjp, (None,))


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log probability of the target classes.

        loss_n = -weight[target_n] input[n, target_n]

    Args:
        input: log probabilities, (C,), (N, C) or (N, C, d1, ...).
        target: class indices of an integer dtype, (), (N,) or (N, d1, ...).
        weight: (C,), a factor for each class; it takes no gradient.
        ignore_index: targets of this value add nothing to loss and gradient.
        reduction: `"mean"` over the weights of the targets that count, `"sum"` or `"none"`.
        size_average, reduce: deprecated, see `reduction`.

    Returns:
        A 0-d tensor, or one of the target's shape with `"none"`. The mean over no targets is NaN.

    Raises:
        ValueError: the shapes do not agree.
        IndexError: a target is no class. A GPU is not waited for: there the loss is NaN, and the gradient zero.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.nll_loss(cf.tensor([[-1.0, -2.0], [-3.0, -4.0]]), cf.tensor([0, 1]))
    tensor(2.5000)
    """
    reduction = reduction_of("nll_loss", reduction, size_average, reduce)
    _check("nll_loss", input, target, weight)
    _need_classes("nll_loss", target)
    x, t = input.array, target.array
    w = None if weight is None else weight.array
    kernel = backend_of(x).kernel("loss")
    if kernel is not None:
        _sizes("nll_loss", x, t, w)
        r, kept = kernel.nll_forward(x, t, w, ignore_index, reduction)
        return record(r, _NLL_KERNEL, (input,), (kept,))
    targets = Targets("nll_loss", x, t, w, ignore_index)
    loss = -widened(x.reshape(-1)[targets.index])
    if targets.weight is not None:
        loss *= targets.weight
    r = _reduced(loss, reduction, targets, x)
    return record(r, _NLL, (input,), (x.shape, x.dtype, targets, reduction))


# -- cross entropy ------------------------------------------------------------------------------------------------
def _cross_entropy_vjp(
    g: Any, needs: tuple, x: Any, t: Any, w: Any, ignore_index: int, reduction: str, smoothing: float,
    targets: Targets, e: Any, s: Any,
) -> tuple:  # fmt: skip
    scale = _scales(widened(g), reduction, targets)
    at_target = scale if targets.weight is None else scale * targets.weight
    total: Any = at_target
    if smoothing:
        c = e.shape[1]
        spread = scale * (smoothing / c)
        if targets.kept is not None:
            spread = spread * targets.kept
        at_target = at_target * (1 - smoothing)
        total = at_target + spread * (c if w is None else widened(w).sum())
    column = (s.shape[0], *s.shape[2:])
    gx = e * (np.broadcast_to(total, column) / s.reshape(column)).reshape(s.shape).astype(e.dtype, copy=False)
    gx.reshape(-1)[targets.index] -= at_target
    if smoothing:
        spread = np.broadcast_to(spread, column).reshape(s.shape)
        gx -= spread if w is None else spread * widened(w).reshape((-1,) + (1,) * (e.ndim - 2))
    # A reshaped array would be a view, which the leaf would have to copy.
    gx = gx if gx.shape == x.shape else gx.reshape(x.shape)
    return (gx.astype(x.dtype, copy=False),)


def _cross_entropy_composite(
    input: Tensor, t: Any, w: Any, ignore_index: int, reduction: str, smoothing: float
) -> Tensor:
    dim = 0 if input.array.ndim == 1 else 1
    logp = log_softmax(input, dim)
    target, weight = Tensor(t), None if w is None else Tensor(w)
    loss: Any = nll_loss(logp, target, weight, ignore_index=ignore_index, reduction=reduction)
    if not smoothing:
        return loss
    counts = t != ignore_index
    shape = [1] * input.array.ndim
    shape[dim] = -1
    smooth: Any = logp if w is None else logp * w.reshape(shape)
    smooth = -smooth.sum(axis=dim) * counts.astype(input.dtype)
    if reduction != "none":
        smooth = smooth.sum()
    if reduction == "mean":
        total = counts if w is None else w[t * counts] * counts
        total = total.sum(dtype=np.float64 if input.dtype == np.float64 else np.float32)
        smooth = (smooth / Tensor(as_result(total, t))).astype(input.dtype)
    return loss * (1 - smoothing) + smooth * (smoothing / input.array.shape[dim])


_CROSS_ENTROPY = Op(
    "cross_entropy", _cross_entropy_vjp, (0, *("constant",) * 5, None, None, None), _cross_entropy_composite
)


def _cross_entropy_kernel_vjp(g: Any, needs: tuple, *saved: Any) -> tuple:
    return (backend_of(g).kernel("loss").cross_entropy_backward(g, saved[-1]),)


_CROSS_ENTROPY_KERNEL = Op(
    "cross_entropy", _cross_entropy_kernel_vjp, (0, *("constant",) * 5, None), _cross_entropy_composite
)


def _with_probabilities(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float
) -> Tensor:
    x, p = input.array, target.array
    if p.shape != x.shape:
        raise ValueError(f"cross_entropy: class probabilities must be {tuple(x.shape)} as input is, got {p.shape}")
    dim = 0 if x.ndim == 1 else 1
    c = x.shape[dim]
    q: Any = target
    if smoothing:
        q = q * (1 - smoothing) + smoothing / c
    if weight is not None:
        if weight.array.shape != (c,):
            raise ValueError(f"cross_entropy: weight must be ({c},), got {tuple(weight.array.shape)}")
        shape = [1] * x.ndim
        shape[dim] = c
        q = q * weight.detach().reshape(shape)
    loss = -(log_softmax(input, dim) * q).sum(axis=dim)
    return reduced(loss, reduction)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross entropy between the softmax of logits and target classes.

        loss_n = -weight[t] log(exp(input[n, t]) / sum_c exp(input[n, c])),  t = target_n

    With label smoothing e, the target is the class with probability 1 - e and uniform with e.

    Args:
        input: logits, (C,), (N, C) or (N, C, d1, ...).
        target: class indices of an integer dtype, (), (N,) or (N, d1, ...); or class probabilities of the shape and
            dtype of `input`.
        weight: (C,), a factor for each class; it takes no gradient.
        ignore_index: class indices of this value add nothing to loss and gradient.
        reduction: `"mean"` over the weights of the targets that count (with probabilities, over their number), `"sum"`
            or `"none"`.
        label_smoothing: from 0 to 1.
        size_average, reduce: deprecated, see `reduction`.

    Returns:
        A 0-d tensor, or one of the shape of the class indices with `"none"`. The mean over no targets is NaN.

    Raises:
        ValueError: the shapes do not agree, or the smoothing is outside [0, 1].
        IndexError: a target is no class. A GPU is not waited for: there the loss is NaN, and the gradient zero.

    With class indices it is one node, which keeps the logits and their exponentials, or on a GPU two numbers a row; see
    Note [Cross entropy].

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> F.cross_entropy(cf.zeros(3, 4), cf.tensor([0, 1, 2]))
    tensor(1.3863)
    """
    reduction = reduction_of("cross_entropy", reduction, size_average, reduce)
    _check("cross_entropy", input, target, weight)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1], got {label_smoothing}")
    if is_floating(target.array.dtype):
        if target.array.dtype != input.array.dtype:
            raise RuntimeError(
                f"cross_entropy: class probabilities must be {input.array.dtype.name} as input is, "
                f"got {target.array.dtype.name}"
            )
        if ignore_index >= 0:
            raise RuntimeError(
                f"cross_entropy: ignore_index is for class indices, got {ignore_index} with class probabilities"
            )
        return _with_probabilities(input, target, weight, reduction, label_smoothing)
    _need_classes("cross_entropy", target)
    x, t = input.array, target.array
    w = None if weight is None else weight.array
    kernel = backend_of(x).kernel("loss")
    if kernel is not None:
        _sizes("cross_entropy", x, t, w)
        r, kept = kernel.cross_entropy_forward(x, t, w, ignore_index, reduction, label_smoothing)
        constants = (t, w, ignore_index, reduction, label_smoothing)
        return record(r, _CROSS_ENTROPY_KERNEL, (input,), (x, *constants, kept))
    targets = Targets("cross_entropy", x, t, w, ignore_index)
    wide = backend_of(x).xp.ascontiguousarray(widened(x)).reshape(targets.view)
    e, s, m = exponentials(wide, 1)
    rows = (s.shape[0], *s.shape[2:])
    sums, top = s.reshape(rows), 0 if m is None else m.reshape(rows)
    at_target = e.reshape(-1)[targets.index]
    if not at_target.size or at_target.min() > _LEAST:
        loss = np.log(sums / at_target)
    else:
        loss = np.log(sums) - (wide.reshape(-1)[targets.index] - top)
    if targets.weight is not None:
        loss *= targets.weight
    if label_smoothing:
        loss *= 1 - label_smoothing
        loss += _smoothed(wide, np.log(sums) + top, w, targets) * (label_smoothing / e.shape[1])
    saved = (x, t, w, ignore_index, reduction, label_smoothing, targets, e, s)
    return record(_reduced(loss, reduction, targets, x), _CROSS_ENTROPY, (input,), saved)


def _smoothed(x: Any, log_sum: Any, w: Any, targets: Targets) -> Any:
    """Minus the weighted sum of the log probabilities of all classes, zero where the target is ignored."""
    if w is None:
        total = log_sum * x.shape[1] - x.sum(axis=1)
    else:
        w = widened(w)
        total = log_sum * w.sum() - (x * w.reshape((-1,) + (1,) * (x.ndim - 2))).sum(axis=1)
    return total if targets.kept is None else total * targets.kept
