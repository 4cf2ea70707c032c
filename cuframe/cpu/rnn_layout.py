"""How a batch of sequences is laid out for the recurrent engine: packed rows, spans, transposed states, gate order."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Layout", "Span", "batch_major", "columns", "gate_rows", "make_layout", "pack", "previous_rows", "resize",
           "spans", "unpack", "weight_gradient"]

Array = npt.NDArray[Any]


class Span(NamedTuple):
    """Steps of equal batch size: the first packed row, the number of steps, the batch size."""

    row: int
    steps: int
    n: int


class Layout(NamedTuple):
    """Where the packed rows come from; the fields after `total` are `None` when every sequence has all the steps.

    Packed rows are time-major; within a step come the sequences still running, longest first.
    """

    steps: int
    batch: int
    total: int
    sizes: Array | None                 # [T] sequences running in each step
    source: Array | None                # [total] row of the padded [T * N, ...] behind each packed row
    order: Array | None                 # [N] sequence behind each column of the packed state


def make_layout(steps: int, batch: int, lengths: Array | None, batch_sizes: Array | None) -> Layout:
    """Layout of padded sequences (`lengths` or neither) or of packed ones (`batch_sizes`)."""
    if batch_sizes is not None:
        return Layout(len(batch_sizes), batch, int(batch_sizes.sum()), batch_sizes, None, None)
    if lengths is None or bool((lengths == steps).all()):
        return Layout(steps, batch, steps * batch, None, None, None)
    order = np.argsort(-lengths, kind="stable")
    running = np.arange(steps)[:, None] < lengths[order]
    step, column = np.nonzero(running)
    return Layout(steps, batch, len(step), running.sum(1), step * batch + order[column], order)


def spans(layout: Layout, step_bytes: int, budget: int) -> list[Span]:
    """Cut the steps into spans of equal batch size whose gates fit in `budget` bytes."""
    sizes = None if layout.sizes is None else layout.sizes[layout.sizes > 0]
    if sizes is None:
        edges = [0, layout.steps] if layout.total else []
    else:
        edges = [*np.flatnonzero(np.diff(sizes, prepend=0)).tolist(), len(sizes)]
    found: list[Span] = []
    row = 0
    for start, stop in zip(edges, edges[1:]):
        n = layout.batch if sizes is None else int(sizes[start])
        longest = max(1, budget // (step_bytes * n))
        for first in range(start, stop, longest):
            steps = min(longest, stop - first)
            found.append(Span(row, steps, n))
            row += n * steps
    return found


def pack(a: Array, layout: Layout) -> Array:
    """Packed rows [total, F] of padded [T, N, F]; a view where the memory already lies so."""
    rows = a.reshape(-1, a.shape[-1]) if a.ndim == 3 else a
    return rows if layout.source is None else rows[layout.source]


def unpack(rows: Array, layout: Layout, packed: bool) -> Array:
    """Inverse of `pack`, zero in the padding; rows stay rows if the caller's data are `packed`."""
    if packed:
        return rows
    shape = (layout.steps, layout.batch, rows.shape[-1])
    if layout.source is None:
        return rows.reshape(shape)
    out = np.zeros(shape, rows.dtype)
    out.reshape(-1, shape[-1])[layout.source] = rows
    return out


def previous_rows(rows: Array, layout: Layout, reverse: bool) -> Array:
    """The state [total, P] each packed row started from, given `rows`: the outputs with the initial state in front
    (behind, if reversed)."""
    if layout.sizes is None:
        return rows[layout.batch:] if reverse else rows[:layout.total]
    sizes = layout.sizes
    step, column = np.nonzero(np.arange(layout.batch) < sizes[:, None])
    ends = np.cumsum(sizes)
    starts = ends - sizes
    if reverse:
        later = np.append(sizes[1:], 0)[step]
        return rows[np.where(column < later, ends[step] + column, layout.total + column)]
    return rows[np.where(step > 0, layout.batch + starts[step - 1] + column, column)]


def columns(state: Array | None, order: Array | None, features: int, batch: int, dtype: Any) -> Array:
    """A state [N, F] as columns [F, N] in packed order; zeros for `None`."""
    if state is None:
        return np.zeros((features, batch), dtype)
    return np.ascontiguousarray((state if order is None else state[order]).T, dtype)


def batch_major(state: Array, order: Array | None, dtype: Any) -> Array:
    """Inverse of `columns`: [F, N] in packed order back to [N, F]."""
    out = np.empty(state.shape[::-1], dtype)
    out[slice(None) if order is None else order] = state.T
    return out


def resize(state: Array, n: int, incoming: Array, outgoing: Array) -> Array:
    """Running columns cut or grown to `n`: those that end go to `outgoing`, those that start come from `incoming`.

    Rows of `state` beyond those of `incoming` are the ones that carry the bias.
    """
    have = state.shape[1]
    if n == have:
        return state
    outgoing[:, n:have] = state[:len(outgoing), n:]
    resized = np.ones((len(state), n), state.dtype)
    resized[:, :have] = state[:, :n]
    resized[:len(incoming), have:] = incoming[:, have:n]
    return resized


def gate_rows(weight: Array, order: tuple[int, ...], scale: Sequence[float]) -> Array:
    """Row blocks of `weight` [G*H, F] in the order of the slabs, each times its (power of two) scale."""
    blocks = weight.reshape(len(order), -1, weight.shape[1])
    out = np.empty_like(blocks, order="C")
    for j, (gate, factor) in enumerate(zip(order, scale)):
        np.multiply(blocks[gate], weight.dtype.type(factor), out=out[j])
    return out.reshape(weight.shape)


def weight_gradient(slab_rows: Array, order: tuple[int, ...], scale: Sequence[float], dtype: Any) -> Array:
    """Inverse of `gate_rows` for a finished gradient, or for a bias gradient [G*H]."""
    blocks = slab_rows.reshape(len(order), -1)
    out = np.empty_like(blocks, dtype=dtype)
    for j, (gate, factor) in enumerate(zip(order, scale)):
        np.multiply(blocks[j], slab_rows.dtype.type(factor), out=out[gate], casting="same_kind")
    return out.reshape(slab_rows.shape)
