"""Rows, states, weights and options of a regularised recurrent layer, brought into the form `rnn_regularized` runs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .rnn_layout import Layout, gate_rows, pack
from .rnn_regularized_cells import Kind, Norm

__all__ = [
    "Block", "centred", "check_options", "column_of", "first_state", "make_blocks", "make_norm", "outputs", "set_roots",
    "shares", "slab_biases", "slab_weight", "sorted_state", "unsorted_state", "with_start", "zone_out", "zone_rows",
]  # fmt: skip

Array = npt.NDArray[Any]


class Block(NamedTuple):
    """Neighbouring steps: their packed rows, and the first row and the number of rows of each step."""

    rows: slice
    steps: list[tuple[int, int]]


def check_options(
    cell: str, x: Array, batch: int, hidden: int, features: int, kind: Kind, norms: tuple,
    mask: Array | None, zone_h: Any, zone_c: Any,
) -> None:  # fmt: skip
    """Refuse options that do not fit the layer."""
    ln_ih, ln_hh, ln_c, ln_c_bias = norms
    if (ln_ih is None) != (ln_hh is None) or (ln_c is None) != (ln_ih is None or not kind.has_c):
        raise ValueError(f"{cell}: ln_ih, ln_hh{' and ln_c' if kind.has_c else ''} must be given together")
    if ln_c is None and ln_c_bias is not None:
        raise ValueError(f"{cell}: ln_c_bias must be None without ln_c")
    wide, lead = (kind.gates * hidden,), x.shape[:-1]
    for name, a, shape in (("ln_ih", ln_ih, wide), ("ln_hh", ln_hh, wide), ("ln_c", ln_c, (hidden,)),
                           ("ln_c_bias", ln_c_bias, (hidden,)), ("mask", mask, (batch, features))):  # fmt: skip
        if a is not None and a.shape != shape:
            raise ValueError(f"{cell}: {name} must be {shape}, got {a.shape}")
        if a is not None and name != "mask" and a.dtype != x.dtype:
            raise ValueError(f"{cell}: {name} must be {x.dtype} like x, got {a.dtype}")
    if zone_c is not None and not kind.has_c:
        raise ValueError(f"{cell}: zone_c must be None, only lstm has a c")
    for name, zone, width in (("zone_h", zone_h, features), ("zone_c", zone_c, hidden)):
        if isinstance(zone, np.ndarray) and zone.ndim and zone.shape != (*lead, width):
            raise ValueError(f"{cell}: {name} must be {(*lead, width)} or a number, got {zone.shape}")


def make_norm(kind: Kind, ih: Array, hh: Array, c: Array | None, c_bias: Array | None, eps: float, hidden: int) -> Norm:
    """The gains as Note [Unit rows] wants them."""
    roots = set_roots(kind, hidden, ih.dtype)
    c_gain = None if c is None else c * ih.dtype.type(hidden**0.5)
    return Norm(ih * roots, hh * roots, c_gain, c_bias, *_pool(kind.x_sets, hidden, eps, ih.dtype),
                *_pool(kind.h_sets, hidden, eps, ih.dtype), np.array(hidden * eps, ih.dtype))  # fmt: skip


def _pool(sets: tuple[tuple[int, int], ...], hidden: int, eps: float, dtype: Any) -> tuple[Array | None, Array]:
    """Pool and floor of `Norm` for these sets of slabs."""
    sizes = np.repeat([stop - start for start, stop in sets], [stop - start for start, stop in sets])
    if len(sets) == 1:
        return None, np.array(sizes[0] * hidden * eps, dtype)
    member = np.repeat(np.arange(len(sets)), [stop - start for start, stop in sets])
    return (member[:, None] == member).astype(dtype), (sizes * hidden * eps).astype(dtype)


def set_roots(kind: Kind, hidden: int, dtype: Any) -> Array:
    """For each gate's unit, the square root of the number of units it is normalised with."""
    return np.repeat(np.sqrt(np.array(kind.shares) * hidden), hidden).astype(dtype)


def make_blocks(layout: Layout, most: int) -> list[Block]:
    """The steps, in blocks of at most `most` rows (or of one step)."""
    sizes = [layout.batch] * layout.steps if layout.sizes is None else layout.sizes.tolist()
    found: list[Block] = []
    row = 0
    for n in sizes:
        if n == 0:
            break
        if not found or row + n - found[-1].rows.start > most:
            found.append(Block(slice(row, row), []))
        block = found[-1]
        block.steps.append((row, n))
        row += n
        found[-1] = Block(slice(block.rows.start, row), block.steps)
    return found


def sorted_state(state: Array | None, layout: Layout, width: int, dtype: Any) -> Array:
    """A state [N, F] in packed order, as an array of its own; zeros for None."""
    if state is None:
        return np.zeros((layout.batch, width), dtype)
    return np.array(state if layout.order is None else state[layout.order], dtype, order="C")


def unsorted_state(state: Array | None, layout: Layout, dtype: Any) -> Any:
    """Inverse of `sorted_state`."""
    if state is None or layout.order is None:
        return None if state is None else state.astype(dtype, copy=False)
    out = np.empty(state.shape, dtype)
    out[layout.order] = state
    return out


def with_start(state: Array | None, layout: Layout, width: int, reverse: bool, dtype: Any) -> Array:
    """Rows [S + N, width] with the initial state in place."""
    rows = np.empty((layout.total + layout.batch, width), dtype)
    first_state(rows, layout, reverse)[...] = sorted_state(state, layout, width, dtype)
    return rows


def first_state(rows: Array, layout: Layout, reverse: bool) -> Array:
    """The initial state's place in rows [S + N, F]."""
    return rows[layout.total :] if reverse else rows[: layout.batch]


def outputs(rows: Array, layout: Layout, reverse: bool) -> Array:
    """The packed rows without the initial state."""
    return rows[: layout.total] if reverse else rows[layout.batch :]


def column_of(layout: Layout) -> Array:
    """The sequence (its place in the packed order) of each packed row."""
    if layout.sizes is None:
        return np.tile(np.arange(layout.batch), layout.steps)
    return np.nonzero(np.arange(layout.batch) < layout.sizes[:, None])[1]


def zone_rows(zone: Any, layout: Layout, width: int, dtype: Any) -> Array | None:
    """Zoneout for each packed row: the mask, or a number seen that many times over."""
    if zone is None:
        return None
    if isinstance(zone, np.ndarray) and zone.ndim:
        return pack(zone, layout)
    return np.broadcast_to(np.asarray(zone, dtype), (layout.total, width))


def shares(zone: Array | None, block: Block, dtype: Any) -> tuple[Array, Array] | None:
    """A block's weights of the old state and of the new one."""
    if zone is None:
        return None
    old = zone[block.rows].astype(dtype, copy=False)
    return old, 1 - old


def zone_out(new: Array, old: Array, old_share: Array, new_share: Array, spare: Array) -> None:
    """new = old_share * old + new_share * new: exactly `old` where its share is 1."""
    np.multiply(new, new_share, new)
    np.multiply(old, old_share, spare)
    np.add(new, spare, new)


def slab_weight(w: Array, order: tuple[int, ...], scale: tuple[float, ...], sets: tuple | None, hidden: int) -> Array:
    """A weight in slab order; centred over each set of slabs for a norm, which has its scale in the gain."""
    if sets is None:
        return gate_rows(w, order, scale)
    return centred(gate_rows(w, order, (1.0,) * len(order)), sets, hidden)


def centred(w: Array, sets: tuple | None, hidden: int) -> Array:
    """Subtract, in place, the mean over the rows of each set of slabs: Note [Centred weights]."""
    for start, stop in sets or ():
        part = w[start * hidden : stop * hidden]
        part -= part.mean(0)
    return w


def slab_biases(kind: Kind, b_ih: Array | None, b_hh: Array | None, hidden: int) -> tuple[Array | None, Array | None]:
    """What the input side adds to all slabs, and what a GRU adds to the recurrent part of n."""
    given = b_ih if b_ih is not None else b_hh
    if given is None:
        return None, None
    total, own = np.zeros_like(given), None
    if b_ih is not None:
        total += gate_rows(b_ih[:, None], kind.x_order, kind.x_scale)[:, 0]
    if b_hh is not None:
        by_h = gate_rows(b_hh[:, None], kind.h_order, kind.h_scale)[:, 0]
        if kind.splits:
            total[hidden:] += by_h[:-hidden]
            own = by_h[-hidden:]
        else:
            total += by_h
    return total, own
