"""Connectionist temporal classification in NumPy: all alignments of a batch at once.

Note [CTC on the CPU]
    A target of S labels becomes L = 2S + 1 states, a blank around every label. `alpha[t, s]` is the log probability of
    all beginnings that end in state s at step t; it comes from states s, s-1 and, past a blank between two different
    labels, s-2. The ends obey the same rule read backwards in time and states, so both run through one loop as 2N rows:
    a step is twelve NumPy calls whatever N and S are. States lie behind two columns that are never reached, which makes
    the two shifts views.

    Probabilities are float64 logarithms: at 1,000 steps of logits in the hundreds nothing vanishes and the posteriors
    keep float32's digits. Only what a step adds to the largest of three terms, a number from 0 to log 3, is computed in
    the input's precision: exponentials in float32 take a tenth of the time. -1e30 stands for log 0, so that differences
    of two are no NaN.

    What backward needs is one number per step and *different* label of a target. The softmax part of the gradient is
    recomputed from the log probabilities, in the one pass over all classes that backward has to take anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Saved", "backward", "forward"]

Array = npt.NDArray[Any]

_ZERO = -1e30  # log 0
_NEVER = -1e29  # below this, a logarithm is one of zero


@dataclass(slots=True)
class Saved:
    """What `backward` needs: `posterior` [T, U] for the U pairs of sequence and label at `columns` of [T, N*C]."""

    x: Array
    posterior: Array
    columns: Array
    lengths: Array
    impossible: Array


def forward(
    x: Array, labels: Array, lengths: Array, sizes: Array, blank: int, need_backward: bool = True
) -> tuple[Array, Saved | None]:
    """Minus the log probability that each sequence spells its labels.

    Args:
        x: [T, N, C] log probabilities, floating point; NaN past a sequence's length does no harm.
        labels: [N, S] int64 in [0, C); what is past a target's size is ignored.
        lengths: [N] int64 in [0, T], the steps of each sequence.
        sizes: [N] int64 in [0, S], the labels of each target.
        blank: the class that spells nothing.
        need_backward: also find the posteriors.

    Returns:
        The losses, [N] float64, inf where the labels do not fit into the steps; and what `backward` needs.

    Deterministic. Takes 28 T N (2S + 3) bytes while it runs (16 without backward) and keeps `Saved`.

    >>> import numpy as np
    >>> x = np.log(np.full((2, 1, 2), 0.5))
    >>> loss, _ = forward(x, np.array([[1]]), np.array([2]), np.array([1]), 0)
    >>> np.exp(-loss)  # 3 of the 4 paths: 1-, -1 and 11
    array([0.75])
    """
    steps, batch, classes = x.shape
    states = 2 * labels.shape[1] + 1
    e = _emissions(x, labels, lengths, blank)
    skip = np.full((batch, states), _ZERO)
    skip[:, 3::2][labels[:, 1:] != labels[:, :-1]] = 0
    # The states a sequence ends in: its last label and the blank after it.
    last = 2 * sizes + 2
    dtype = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
    a = _run(e, skip, lengths, last, dtype, need_backward)

    rows = np.arange(batch)
    final = a[np.maximum(lengths, 1) - 1, rows]
    blank_last, label_last = final[rows, last], np.where(sizes > 0, final[rows, last - 1], _ZERO)
    log_p = np.logaddexp(blank_last, label_last)
    log_p = np.where(lengths > 0, log_p, np.where(sizes > 0, _ZERO, 0.0))
    impossible = log_p < _NEVER
    loss = np.where(impossible, np.inf, -log_p) + 0.0  # never -0
    if not need_backward:
        return loss, None
    joint = a[:, :batch, 2:]
    joint -= e
    joint += a[::-1, batch:, :1:-1]
    posterior = np.empty(joint.shape, dtype)
    np.subtract(joint, np.where(impossible, 0.0, log_p)[:, None], posterior)
    np.exp(posterior, posterior)
    columns, sums = _by_label(posterior, labels, blank, classes)
    return loss, Saved(x, sums, columns, lengths, impossible)


def _emissions(x: Array, labels: Array, lengths: Array, blank: int) -> Array:
    """The log probability of each state's class, [T, N, L] float64."""
    steps, batch, classes = x.shape
    e = np.empty((steps, batch, 2 * labels.shape[1] + 1))
    e[:, :, ::2] = x[:, :, blank, None]
    flat = (labels + np.arange(batch)[:, None] * classes).ravel()
    e[:, :, 1::2] = x.reshape(steps, -1).take(flat, axis=1).reshape(steps, *labels.shape)
    for n in np.flatnonzero(lengths < steps):
        e[lengths[n]:, n] = 0
    return np.maximum(e, _ZERO, out=e)


def _run(e: Array, skip: Array, lengths: Array, last: Array, dtype: np.dtype[Any], both: bool) -> Array:
    """Beginnings [T, N, 2 + L], and with `both` below them the ends, [T, 2N, 2 + L], time and states reversed."""
    steps, batch, states = e.shape
    rows = 2 * batch if both else batch
    a = np.full((steps, rows, states + 2), _ZERO)
    a[0, :batch, 2:4] = e[0, :, :2]
    entries: dict[int, list[int]] = {}
    if both:
        skip = np.concatenate([skip, skip])
        skip[batch:, 2:] = skip[:batch, :1:-1]
        for n in np.flatnonzero(lengths).tolist():
            entries.setdefault(steps - int(lengths[n]), []).append(n)
    work = np.empty((3, rows, states), dtype)
    stay, step, leap = work
    jump, top = np.empty((2, rows, states))
    for t in range(steps):
        new = a[t, :, 2:]
        if t:
            old = a[t - 1]
            np.add(old[:, :-2], skip, jump)
            np.maximum(old[:, 2:], old[:, 1:-1], out=top)
            np.maximum(top, jump, out=top)
            np.subtract(old[:, 2:], top, stay)
            np.subtract(old[:, 1:-1], top, step)
            np.subtract(jump, top, leap)
            np.exp(work, work)
            np.add(stay, step, stay)
            np.add(stay, leap, stay)
            np.log(stay, stay)
            np.add(stay, top, top)
            np.add(top[:batch], e[t], new[:batch])
            if both:
                np.add(top[batch:], e[-1 - t, :, ::-1], new[batch:])
        for n in entries.get(t, ()):
            first = states + 1 - last[n]  # the final blank, seen from the end
            new[batch + n, first:first + 2] = e[-1 - t, n, ::-1][first:first + 2]
    return a


def _by_label(posterior: Array, labels: Array, blank: int, classes: int) -> tuple[Array, Array]:
    """Sums of `posterior` [T, N, L] over states of one class: their columns in [T, N*C], and [T, U]."""
    steps, batch, states = posterior.shape
    of_state = np.full((batch, states), blank)
    of_state[:, 1::2] = labels
    of_state += np.arange(batch)[:, None] * classes
    order = of_state.argsort(axis=None, kind="stable")
    columns, starts = np.unique(of_state.ravel()[order], return_index=True)
    # Not a product with a 0/1 matrix: so small a one takes BLAS longer to spread over threads than to compute.
    return columns, np.add.reduceat(posterior.reshape(steps, -1).take(order, axis=1), starts, axis=1)


def backward(saved: Saved, g: Array) -> Array:
    """The gradient of `forward` through a softmax: `g[n] (exp(x) - posterior)` up to each length, zero beyond.

    Args:
        saved: from `forward`; it is only read.
        g: [N], the gradient of each loss.

    Returns:
        [T, N, C] in the dtype of x; NaN for sequences that cannot spell their labels, unless g is zero there.

    >>> import numpy as np
    >>> x = np.log(np.full((2, 1, 2), 0.5))
    >>> _, saved = forward(x, np.array([[1]]), np.array([2]), np.array([1]), 0)
    >>> backward(saved, np.ones(1))[0].round(4)
    array([[ 0.1667, -0.1667]])
    """
    s = saved
    steps, batch, classes = s.x.shape
    g = g.astype(s.posterior.dtype, copy=False)
    grad = np.exp(s.x.astype(g.dtype, copy=False), order="C")  # so that `flat` is a view
    grad *= g[:, None]
    flat = grad.reshape(steps, batch * classes)
    flat[:, s.columns] -= s.posterior * g[s.columns // classes]
    for n in np.flatnonzero(s.lengths < steps):
        grad[s.lengths[n]:, n] = 0
    for n in np.flatnonzero(s.impossible):
        grad[:s.lengths[n], n] = np.nan if g[n] else 0
    return grad.astype(s.x.dtype, copy=False)
