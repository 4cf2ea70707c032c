"""Connectionist temporal classification in NumPy: all alignments of a batch at once.

Note [CTC on the CPU]
    A target of S labels becomes L = 2S + 1 states, a blank around every label. `alpha[t, s]` is the log probability of
    all beginnings that end in state s at step t; it comes from states s, s-1 and, past a blank between two different
    labels, s-2. The ends obey the same rule read backwards in time and states, so both run through one loop: a step is
    a dozen NumPy calls whatever N and S are. States lie behind two rows that are never reached and have the sequences
    as columns, which makes the two shifts contiguous views.

    Logarithms let nothing vanish, whatever the logits are, but a float32 of -1400 has lost four digits. So every few
    steps the best state of each sequence is set back to 0, and the sum of what was taken off is kept in float64: the
    states that matter keep their digits. -1e30 stands for log 0, so that differences of two are no NaN.

    What backward needs is one number per step and *different* label of a target. The softmax part of the gradient is
    recomputed from the log probabilities, in the one pass over all classes that backward has to take anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import ctc_compiled

__all__ = ["Saved", "alignments", "backward", "forward"]

Array = npt.NDArray[Any]

_ZERO = -1e30  # log 0
_NEVER = -1e29  # below this, a logarithm is one of zero
_REBASE = 8  # steps between two times that the best state is set back to 0


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

    Deterministic. Takes 4 T N (2S + 3) numbers while it runs (2 without backward) and keeps `Saved`.

    >>> import numpy as np
    >>> x = np.log(np.full((2, 1, 2), 0.5))
    >>> loss, _ = forward(x, np.array([[1]]), np.array([2]), np.array([1]), 0)
    >>> np.exp(-loss)  # 3 of the 4 paths: 1-, -1 and 11
    array([0.75])
    """
    find = ctc_compiled.alignments if ctc_compiled.applies(x, labels) else alignments
    log_p, posteriors = find(x, labels, lengths, sizes, blank, need_backward)
    impossible = log_p < _NEVER
    loss = np.where(impossible, np.inf, -log_p) + 0.0  # never -0
    if posteriors is None:
        return loss, None
    columns, sums = posteriors
    return loss, Saved(x, sums, columns, lengths, impossible)


def alignments(
    x: Array, labels: Array, lengths: Array, sizes: Array, blank: int, need_backward: bool
) -> tuple[Array, tuple[Array, Array] | None]:
    """The log probability of all paths of each sequence, [N] float64, and `columns` and `posterior` of `Saved`."""
    classes = x.shape[2]
    labels = labels.T
    dtype = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
    e = _emissions(x, labels, lengths, blank, dtype)
    skip = np.full(e.shape[1:], _ZERO, dtype)
    skip[3::2][labels[1:] != labels[:-1]] = 0
    # The states a sequence ends in: its last label and the blank after it.
    last = 2 * sizes + 2
    a, base = _run(e, skip, lengths, last, need_backward)

    end, columns = np.maximum(lengths, 1) - 1, np.arange(x.shape[1])
    label_last = np.where(sizes > 0, a[end, 0, last - 1, columns], _ZERO).astype(np.float64)
    log_p = np.logaddexp(a[end, 0, last, columns], label_last) + base[end, 0, columns]
    log_p = np.where(lengths > 0, log_p, np.where(sizes > 0, _ZERO, 0.0))
    if not need_backward:
        return log_p, None
    posterior = a[:, 0, 2:] + a[::-1, 1, :1:-1]
    posterior -= e
    posterior += (base[:, 0] + base[::-1, 1] - np.where(log_p < _NEVER, 0, log_p)).astype(dtype)[:, None]
    np.exp(posterior, posterior)
    return log_p, _by_label(posterior, labels, blank, classes)


def _emissions(x: Array, labels: Array, lengths: Array, blank: int, dtype: np.dtype[Any]) -> Array:
    """The log probability of each state's class, [T, L, N], for labels [S, N]."""
    steps, batch, classes = x.shape
    e = np.empty((steps, 2 * len(labels) + 1, batch), dtype)
    e[:, ::2] = x[:, None, :, blank]
    flat = (labels + np.arange(batch) * classes).ravel()
    e[:, 1::2] = x.reshape(steps, -1).take(flat, axis=1).reshape(steps, *labels.shape)
    for n in np.flatnonzero(lengths < steps):
        e[lengths[n]:, :, n] = 0
    return np.maximum(e, _ZERO, out=e)


def _run(e: Array, skip: Array, lengths: Array, last: Array, both: bool) -> tuple[Array, Array]:
    """Beginnings [T, 1, 2 + L, N], and with `both` the ends beside them [T, 2, 2 + L, N], time and states reversed.

    Then what is to be added to them, [T, ways, N] float64.
    """
    steps, states, batch = e.shape
    ways = 2 if both else 1
    a = np.empty((steps, ways, states + 2, batch), e.dtype)
    a[:, :, :2] = _ZERO
    a[0] = _ZERO
    a[0, 0, 2:4] = e[0, :2]
    base = np.zeros((steps, ways, batch))
    entries: dict[int, list[int]] = {}
    if both:
        skip = np.stack([skip, skip])
        skip[1, 2:] = skip[0, :1:-1]
        for n in np.flatnonzero(lengths).tolist():
            entries.setdefault(steps - int(lengths[n]), []).append(n)
    work = np.empty((3, ways, states, batch), e.dtype)
    stay, step, jump = work
    top = np.empty_like(stay)
    for t in range(steps):
        new = a[t, :, 2:]
        if t:
            old = a[t - 1]
            np.add(old[:, :-2], skip, jump)
            np.maximum(old[:, 2:], old[:, 1:-1], out=top)
            np.maximum(top, jump, out=top)
            np.subtract(old[:, 2:], top, stay)
            np.subtract(old[:, 1:-1], top, step)
            np.subtract(jump, top, jump)
            np.exp(work, work)
            np.add(stay, step, stay)
            np.add(stay, jump, stay)
            np.log(stay, stay)
            np.add(stay, top, top)
            np.add(top[0], e[t], new[0])
            if both:
                np.add(top[1], e[-1 - t, ::-1], new[1])
        for n in entries.get(t, ()):
            first = states + 1 - last[n]  # the final blank, seen from the end
            new[1, first:first + 2, n] = e[-1 - t, ::-1, n][first:first + 2]
        if t:
            base[t] = base[t - 1]
        if t % _REBASE == 0:
            best = new.max(axis=1)
            best[best < _NEVER] = 0
            new -= best[:, None]
            base[t] += best
    return a, base


def _by_label(posterior: Array, labels: Array, blank: int, classes: int) -> tuple[Array, Array]:
    """Sums of `posterior` [T, L, N] over states of one class: their columns in [T, N*C], and [T, U]."""
    steps, states, batch = posterior.shape
    of_state = np.full((states, batch), blank)
    of_state[1::2] = labels
    of_state += np.arange(batch) * classes
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
