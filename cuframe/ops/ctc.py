"""Connectionist temporal classification: the loss of a label sequence whose place in the input is unknown."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.graph import mode
from ..backend import backend_of
from ..tensor import Tensor
from .cross_entropy import reduction_of
from .define import Op, as_result, check_floating, record
from .join import cat, stack
from .mask import where
from .reduce import logsumexp
from .softmax import log_softmax, widened

__all__ = ["ctc_loss"]

_ZERO = -1e30  # log 0, see Note [CTC on the CPU] in cuframe/cpu/ctc.py
_NEVER = -1e29


def _integers(argument: str, value: Any) -> np.ndarray:
    """A tensor, array or sequence of integers as a host array."""
    try:
        array = backend_of(value.array).to_host(value.array) if isinstance(value, Tensor) else np.asarray(value)
    except ValueError:
        raise ValueError(f"ctc_loss: {argument} must have rows of one length; pad them or put all in a row") from None
    if array.dtype.kind not in "iu" and (array.size or isinstance(value, Tensor)):
        raise TypeError(f"ctc_loss: {argument} must hold integers, got {array.dtype.name}")
    return array.astype(np.int64)


def _lengths(argument: str, value: Any, batch: int, most: int | None) -> np.ndarray:
    lengths = _integers(argument, value)
    if lengths.shape != (batch,) and not (batch == 1 and lengths.ndim == 0):
        raise ValueError(f"ctc_loss: {argument} must be ({batch},), one for each sequence, got {lengths.shape}")
    lengths = lengths.reshape(batch)
    low, high = int(lengths.min()), int(lengths.max())
    if low < 0 or (most is not None and high > most):
        allowed = "0 or more" if most is None else f"in [0, {most}]"
        raise ValueError(f"ctc_loss: {argument} must be {allowed}, got {low if low < 0 else high}")
    return lengths


def _labels(targets: Any, sizes: np.ndarray, classes: int) -> np.ndarray:
    """The targets as [N, S], padded with class 0."""
    given = _integers("targets", targets)
    batch, most, total = len(sizes), int(sizes.max()), int(sizes.sum())
    inside = np.arange(most) < sizes[:, None]
    labels = np.zeros((batch, most), np.int64)
    if given.ndim == 1:
        if len(given) != total:
            raise ValueError(
                f"ctc_loss: concatenated targets must be ({total},), the sum of target_lengths, got {given.shape}"
            )
        labels[inside] = given
    elif given.ndim == 2:
        if len(given) != batch or given.shape[1] < most:
            raise ValueError(
                f"ctc_loss: padded targets must be ({batch}, {most}) or wider for these target_lengths, "
                f"got {given.shape}"
            )
        labels[inside] = given[:, :most][inside]
    else:
        raise ValueError(f"ctc_loss: targets must be (N, S), or (sum of target_lengths,), got {given.shape}")
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        bad = labels.min() if labels.min() < 0 else labels.max()
        raise IndexError(f"ctc_loss: targets must be in [0, {classes}), got {bad}")
    return labels


def _reduced(loss: Any, reduction: str, sizes: np.ndarray, single: bool) -> Any:
    """Losses [N], an array or a Tensor, after the reduction."""
    if reduction == "none":
        return loss.reshape(()) if single else loss
    if reduction == "mean":
        x = getattr(loss, "array", loss)
        count = backend_of(x).asarray(np.maximum(sizes, 1).astype(loss.dtype), x)
        loss = loss / (Tensor(count) if isinstance(loss, Tensor) else count)
        return loss.mean()
    return loss.sum()


def _device_targets(kernel: Any, x: Any, steps: int, batch: int, classes: int, given: tuple) -> Any:
    """Targets and lengths beside `x`, checked as far as that takes no waiting for the device."""
    backend = backend_of(x)

    def place(argument: str, value: Any) -> tuple[Any, bool]:
        if isinstance(value, Tensor) and value.array.__class__ is x.__class__:
            if value.array.dtype.kind not in "iu":
                raise TypeError(f"ctc_loss: {argument} must hold integers, got {value.array.dtype.name}")
            return value.array.astype(np.int64), True
        return _integers(argument, value), False

    (labels, there), (lengths, lengths_there), (sizes, sizes_there) = map(
        place, ("targets", "input_lengths", "target_lengths"), given)
    if not lengths_there:
        lengths = _lengths("input_lengths", lengths, batch, steps)
    if not sizes_there:
        sizes = _lengths("target_lengths", sizes, batch, None)
    if not (there or sizes_there):
        labels = _labels(labels, sizes, classes)
    for argument, value in (("input_lengths", lengths), ("target_lengths", sizes)):
        if value.size != batch:
            raise ValueError(
                f"ctc_loss: {argument} must be ({batch},), one for each sequence, got {tuple(value.shape)}"
            )
    if labels.ndim not in (1, 2) or labels.ndim == 2 and len(labels) != batch:
        raise ValueError(f"ctc_loss: targets must be (N, S), or (sum of target_lengths,), got {tuple(labels.shape)}")
    width = None if labels.ndim == 1 else labels.shape[1]
    most = min(labels.shape[-1], steps)
    labels, lengths, sizes = (backend.asarray(a, x).reshape(-1) for a in (labels, lengths, sizes))
    return kernel.Targets(labels, width, sizes, lengths, most)


def _on_host(labels: Any, lengths: Any, sizes: Any, classes: int) -> tuple[Any, Any, Any]:
    """Targets of a device as host arrays, for double backward."""
    if isinstance(labels, np.ndarray):
        return labels, lengths, sizes
    backend = backend_of(labels.sizes)
    lengths, sizes, flat = (backend.to_host(a) for a in (labels.lengths, labels.sizes, labels.labels))
    given = flat if labels.width is None else flat.reshape(len(sizes), labels.width)
    return _labels(Tensor(given), sizes, classes), lengths, sizes


def _ctc_vjp(
    g: Any, needs: tuple, x: Any, labels: Any, lengths: Any, sizes: Any, blank: int, reduction: str,
    zero_infinity: bool, from_logits: bool, kept: Any,
) -> tuple:  # fmt: skip
    batch = len(sizes)
    each = np.broadcast_to(np.reshape(g, -1), (batch,))
    if reduction == "mean":
        each = each / (batch * np.maximum(sizes, 1))
    if zero_infinity:
        each = np.where(kept.impossible, 0, each)
    return (backend_of(x).kernel("ctc").backward(kept, each).reshape(x.shape),)


def _ctc_composite(
    log_probs: Tensor, labels: Any, lengths: Any, sizes: Any, blank: int, reduction: str, zero_infinity: bool,
    from_logits: bool = False,
) -> Tensor:  # fmt: skip
    """The loss in basic operations, step by step, with the fused gradient: that of a softmax below."""
    if from_logits:
        log_probs = log_softmax(log_probs, -1)
    like = log_probs.array
    labels, lengths, sizes = _on_host(labels, lengths, sizes, like.shape[-1])
    backend = backend_of(like)

    def constant(array: np.ndarray) -> Tensor:
        return Tensor(backend.asarray(array, like))

    single = like.ndim == 2
    x: Any = widened(log_probs)
    x = x.reshape((like.shape[0], 1, like.shape[1])) if single else x
    steps, batch, classes = x.shape
    states = 2 * labels.shape[1] + 1
    inside = np.arange(steps)[:, None] < lengths
    x = where(constant(inside[:, :, None]), x, 0.0)
    of_state = np.full((batch, states), blank)
    of_state[:, 1::2] = labels
    e: Any = x.reshape((steps, batch * classes))[:, constant(of_state + np.arange(batch)[:, None] * classes)]
    e = np.maximum(e, _ZERO)

    never = constant(np.full((batch, 2), _ZERO, x.dtype))
    jumps = np.full((batch, states), _ZERO, x.dtype)
    jumps[:, 3::2][labels[:, 1:] != labels[:, :-1]] = 0
    skip = constant(jumps)
    alpha: Any = where(constant(np.arange(states) < 2), e[0], _ZERO)
    for t in range(1, steps):
        wide: Any = cat([never, alpha], 1)
        before: Any = stack([alpha, wide[:, 1:-1], wide[:, :-2] + skip])
        alpha = where(constant(inside[t][:, None]), logsumexp(before, 0) + e[t], alpha)
    rows, last = constant(np.arange(batch)), 2 * sizes
    ends: Any = [alpha[rows, constant(last)], alpha[rows, constant(np.maximum(last - 1, 0))]]
    ends[1] = where(constant(sizes > 0), ends[1], _ZERO)
    log_p: Any = logsumexp(stack(ends), 0)
    log_p = where(constant(lengths > 0), log_p, constant(np.where(sizes > 0, _ZERO, 0).astype(x.dtype)))
    impossible = log_p.detach() < _NEVER
    # It adds nothing to the loss, and exp(x) to the gradient.
    total = np.exp(x).sum(axis=(0, 2))
    loss = where(impossible, 0.0 if zero_infinity else np.inf, total - total.detach() - log_p)
    return _reduced(loss, reduction, sizes, single).astype(like.dtype)


_CTC = Op("ctc_loss", _ctc_vjp, (0, *("constant",) * 7, None), _ctc_composite)


def ctc_loss(
    log_probs: Tensor,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
    *,
    from_logits: bool = False,
) -> Tensor:
    """Minus the log probability that a sequence of class distributions spells a sequence of labels.

        loss_n = -log(sum over paths p that spell target_n of prod_t exp(log_probs[t, n, p_t]))

    A path names a class for each step; it spells what is left after repeats are merged and blanks removed.

    Args:
        log_probs: (T, N, C), or (T, C) for one sequence: log probabilities, as `log_softmax` gives them.
        targets: class indices, (N, S) with anything past the target lengths, or all targets in a row,
            (sum of target_lengths,); a tensor or a sequence.
        input_lengths: (N,) integers in [0, T], or one for a single sequence; what follows counts for nothing.
        target_lengths: (N,) integers, 0 for an empty target.
        blank: the class that spells nothing.
        reduction: `"mean"` divides each loss by its target length (at least 1) and takes the mean over the batch;
            `"sum"` or `"none"`.
        zero_infinity: count targets that do not fit into their steps as 0, without gradient; otherwise their loss is
            infinite and their gradient NaN.
        from_logits: `log_probs` holds logits; on a GPU the log_softmax is part of the kernels.

    Returns:
        A 0-d tensor, or (N,) with `"none"`.

    Raises:
        ValueError: shapes and lengths do not agree.
        TypeError: a dtype does not fit.
        IndexError: a target is no class.

    As in PyTorch the gradient is that of a log_softmax below: `exp(log_probs)` minus the posterior probability of each
    class at each step. Deterministic. One node, which keeps the log probabilities and one number for each step and
    different label of a target. On a GPU nothing waits for the device where targets and lengths are there; a target
    that is no class then makes its loss infinite instead of raising. Graves et al., Connectionist temporal
    classification (2006), equations 6 to 16.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> log_probs = F.log_softmax(cf.zeros(2, 1, 2), dim=2)
    >>> (-F.ctc_loss(log_probs, [[1]], [2], [1])).exp()  # 3 of the 4 paths spell it
    tensor(0.7500)
    """
    reduction = reduction_of("ctc_loss", reduction, None, None)
    check_floating("ctc_loss", "log_probs", log_probs)
    x = log_probs.array
    if x.ndim not in (2, 3) or not x.size:
        raise ValueError(f"ctc_loss: log_probs must be (T, N, C) or (T, C) and not empty, got {tuple(x.shape)}")
    steps, classes = x.shape[0], x.shape[-1]
    batch = x.shape[1] if x.ndim == 3 else 1
    if not isinstance(blank, (int, np.integer)) or not 0 <= blank < classes:
        raise ValueError(f"ctc_loss: blank must be a class in [0, {classes}), got {blank!r}")
    backend = backend_of(x)
    kernel, rows = backend.kernel("ctc"), x.reshape(steps, batch, classes)
    needed = mode.grad and log_probs.node is not None
    given = (targets, input_lengths, target_lengths)
    if not backend.host:
        labels = _device_targets(kernel, x, steps, batch, classes, given)
        lengths, sizes = labels.lengths, labels.sizes
        loss, kept = kernel.forward(rows, labels, int(blank), bool(from_logits), needed)
    elif from_logits:
        return ctc_loss(log_softmax(log_probs, -1), *given, blank, reduction, zero_infinity)
    else:
        lengths = _lengths("input_lengths", input_lengths, batch, steps)
        sizes = _lengths("target_lengths", target_lengths, batch, None)
        labels = _labels(targets, sizes, classes)
        loss, kept = kernel.forward(rows, labels, lengths, sizes, int(blank), needed)
    constants = (labels, lengths, sizes, int(blank), reduction, bool(zero_infinity), bool(from_logits))
    if zero_infinity:
        loss = np.where(np.isinf(loss), 0, loss)  # not in place: backward reads it
    r = as_result(_reduced(loss, reduction, sizes, x.ndim == 2).astype(x.dtype), x)
    return record(r, _CTC, (log_probs,), (x, *constants, kept))
