"""Recurrent layers with layer normalisation, recurrent dropout and zoneout: whole sequences in NumPy.

`forward` and `backward` run one direction of one layer, as `rnn` does for the plain layer; `rnn_regularized_cells` has
the pointwise maths. Layouts, packing and the checks are those of the plain engine.

Note [How a regularised sequence is run]
    Rows are packed as in `rnn_layout`, batch first: a step is a block `[n, gates * H]`, because statistics are taken
    along a row. Gates are in slabs, sigmoids side by side, not in PyTorch's order (`Kind`). Steps are run in blocks
    that stay in the cache: one input GEMM a block, one GEMM a step, and one GEMM for each weight gradient at the end.

Note [Centred weights]
    The mean of W h over a set of gate rows is a linear function of h, so layer normalisation's subtraction of it is
    made once in the weights: with W' = W - mean over these rows of W, W' h is centred for every h. What is left for a
    step is the variance. Backward the same holds: the gradient of W is that of W', centred once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from .blas import product
from .rnn_checks import check, check_lengths
from .rnn_layout import Layout, gate_rows, make_layout, pack, previous_rows, unpack, weight_gradient
from .rnn_regularized_cells import KINDS, Kind, Norm, Work, normalise, normalise_backward
from .rnn_regularized_rows import (
    Block,
    centred,
    check_options,
    column_of,
    first_state,
    make_blocks,
    make_norm,
    outputs,
    set_roots,
    shares,
    slab_biases,
    slab_weight,
    sorted_state,
    unsorted_state,
    with_start,
    zone_out,
    zone_rows,
)

__all__ = ["Grads", "Saved", "backward", "forward"]

Array = npt.NDArray[Any]

_BLOCK_BYTES = 1 << 22


class Grads(NamedTuple):
    """Gradients of one layer direction, `None` where not needed or not given; shapes and dtypes as the inputs."""

    x: Array | None = None
    h0: Array | None = None
    c0: Array | None = None
    w_ih: Array | None = None
    w_hh: Array | None = None
    b_ih: Array | None = None
    b_hh: Array | None = None
    w_hr: Array | None = None
    ln_ih: Array | None = None
    ln_hh: Array | None = None
    ln_c: Array | None = None
    ln_c_bias: Array | None = None


@dataclass(slots=True)
class Saved:
    """What `backward` needs from `forward`; all arrays of rows are packed, `S` rows.

    That is, for each unit and row: the gates (4 numbers for an LSTM, 3 for a GRU and its recurrent product, 1 for a
    plain RNN), the state and, for an LSTM, c and tanh of the cell's output; with layer normalisation both normalised
    products and the normalised c as well, which makes 16, 10 and 4. Masks take one byte an element.
    """

    kind: Kind
    dtype: np.dtype[Any]
    reverse: bool
    packed: bool
    layout: Layout
    blocks: list[Block]
    x: Array
    weights: tuple[Array, Array, Array | None, Array | None, Array | None]
    norm: Norm | None
    states: Array               # [S + N, P] h, with the initial state in front (behind, if reversed)
    cells: Array | None         # [S + N, H] c likewise
    gates: Array                # [S, gates * H] after their nonlinearity, in slab order
    h_unit: Array | None        # [S, gates * H] W_hh h, brought to length 1 if there is a norm
    x_unit: Array | None        # [S, gates * H] W_ih x, likewise
    c_unit: Array | None        # [S, H] c, likewise
    h_length: Array | None      # [S] or [S, gates] the lengths they had: Note [Unit rows]
    x_length: Array | None      # likewise
    c_length: Array | None      # [S]
    tanh_c: Array | None        # [S, H]
    mask: Array | None          # [N, P] factors on h where it meets W_hh
    zone_h: Array | None        # [S, P] bool, or a number that is seen [S, P]
    zone_c: Array | None        # [S, H]


def forward(
    cell: str, x: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None,
    w_hr: Array | None = None, h0: Array | None = None, c0: Array | None = None,
    ln_ih: Array | None = None, ln_hh: Array | None = None, ln_c: Array | None = None, ln_c_bias: Array | None = None,
    *, lengths: npt.ArrayLike | None = None, batch_sizes: npt.ArrayLike | None = None, reverse: bool = False,
    mask: Array | None = None, zone_h: Array | float | None = None, zone_c: Array | float | None = None,
    eps: float = 1e-5, need_backward: bool = True,
) -> tuple[Array, Array, Array | None, Saved | None]:  # fmt: skip
    """Run one direction of one recurrent layer with any of the options over a whole sequence.

    Arguments and results are those of `rnn.forward`, and:

    Args:
        ln_ih, ln_hh: [G*H] gains of the layer normalisation of W_ih x and of W_hh h, both or neither. The biases b_ih
            and b_hh are added after it. The means and variances are taken over all gates of an LSTM; over (r, z)
            and over n of a GRU.
        ln_c, ln_c_bias: [H] gain of the normalisation of c within h = o tanh(LN(c)), and its bias or None; LSTM only.
        mask: [N, P] factors on h_{t-1} where it enters W_hh h, the same at each step.
        zone_h: [T, N, P] ([S, P] for packed x) bool, True where h_t is h_{t-1}; or the weight of h_{t-1}.
        zone_c: [T, N, H] ([S, H]) likewise for c, LSTM only.
        eps: added to the variances.

    Raises:
        ValueError: an argument does not fit; nothing has been computed then.

    >>> import numpy as np
    >>> y, *_ = forward("rnn_tanh", np.ones((3, 1, 1)), np.eye(1), np.eye(1), zone_h=0.5)
    >>> y[:, 0, 0].round(2)
    array([0.38, 0.63, 0.78])
    """
    if cell not in KINDS:
        raise ValueError(f"rnn: cell must be one of {', '.join(KINDS)}, got {cell!r}")
    kind = KINDS[cell]
    sizes = None if batch_sizes is None else np.asarray(batch_sizes)
    batch = check(cell, kind.gates, kind.has_c, x, w_ih, w_hh, b_ih, b_hh, w_hr, h0, c0, sizes)
    steps = len(x) if sizes is None else len(sizes)
    layout = make_layout(steps, batch, check_lengths(cell, lengths, steps, batch), sizes)
    hidden, features = len(w_hh) // kind.gates, w_hh.shape[1]
    check_options(cell, x, batch, hidden, features, kind, (ln_ih, ln_hh, ln_c, ln_c_bias), mask,
                   zone_h, zone_c)  # fmt: skip
    dtype = x.dtype
    work = np.dtype(np.float64 if dtype == np.float64 else np.float32)

    def wide(a: Array | None) -> Any:
        return None if a is None else a.astype(work, copy=False)

    x, weights = wide(x), (wide(w_ih), wide(w_hh), wide(b_ih), wide(b_hh), wide(w_hr))
    norm = None
    if ln_ih is not None:
        norm = make_norm(kind, wide(ln_ih), wide(ln_hh), wide(ln_c), wide(ln_c_bias), eps, hidden)
    total, wide_gates = layout.total, kind.gates * hidden
    blocks = make_blocks(layout, max(1, _BLOCK_BYTES // (3 * wide_gates * work.itemsize)))
    kept = total if need_backward else max((b.rows.stop - b.rows.start for b in blocks), default=0)

    def rows(width: int, wanted: bool, count: int = kept) -> Any:
        return np.empty((count, width), work) if wanted else None

    def lengths_of(pool: Array | None, wanted: bool) -> Any:
        return np.empty((kept,) if pool is None else (kept, kind.gates), work) if wanted else None

    s = Saved(
        kind, dtype, reverse, sizes is not None, layout, blocks, x, weights, norm,
        states=with_start(h0, layout, features, reverse, work),
        cells=with_start(c0, layout, hidden, reverse, work) if kind.has_c else None,
        gates=rows(wide_gates, True),
        h_unit=rows(wide_gates, True, kept if norm or kind.splits else batch),
        x_unit=rows(wide_gates, norm is not None),
        c_unit=rows(hidden, kind.has_c and norm is not None),
        h_length=lengths_of(norm and norm.h_pool, norm is not None),
        x_length=lengths_of(norm and norm.x_pool, norm is not None),
        c_length=lengths_of(None, kind.has_c and norm is not None),
        tanh_c=rows(hidden, kind.has_c),
        mask=None if mask is None else wide(mask if layout.order is None else mask[layout.order]),
        zone_h=zone_rows(zone_h, layout, features, work), zone_c=zone_rows(zone_c, layout, hidden, work),
    )  # fmt: skip
    h_n, c_n = _run_forward(s, need_backward)
    y = unpack(outputs(s.states, layout, reverse), layout, s.packed)
    if not need_backward:
        return y.astype(dtype, copy=False), unsorted_state(h_n, layout, dtype), unsorted_state(c_n, layout, dtype), None
    if norm is None and not kind.splits:
        s.h_unit = None
    return y.astype(dtype, copy=False), unsorted_state(h_n, layout, dtype), unsorted_state(c_n, layout, dtype), s


def _run_forward(s: Saved, keep: bool) -> tuple[Array, Array | None]:
    """Fill the rows of `s` (without `keep` those of one block over and over); return the last states."""
    kind, norm, (w_ih, w_hh, b_ih, b_hh, w_hr) = s.kind, s.norm, s.weights
    dtype, batch, hidden = w_hh.dtype, s.layout.batch, len(w_hh) // kind.gates
    w_x = slab_weight(w_ih, kind.x_order, kind.x_scale, kind.x_sets if norm else None, hidden).T
    by_row = slab_weight(w_hh, kind.h_order, kind.h_scale, kind.h_sets if norm else None, hidden)
    # rows a power of two apart would share cache sets; unlike np.dot, np.matmul takes padded rows without a copy
    w_h = np.empty((by_row.shape[1], len(by_row) + 16), dtype)[:, : len(by_row)]
    np.copyto(w_h, by_row.T)
    bias, h_bias = slab_biases(kind, b_ih, b_hh, hidden)
    gain_x: Any = None
    gain_h: Any = None
    if norm is not None:
        gain_x = gate_rows(norm.ih[:, None], kind.x_order, kind.x_scale)[:, 0]
        gain_h = gate_rows(norm.hh[:, None], kind.h_order, kind.h_scale)[:, 0]
    x_rows = pack(s.x, s.layout)
    y_rows = outputs(s.states, s.layout, s.reverse)
    c_rows = None if s.cells is None else outputs(s.cells, s.layout, s.reverse)
    h_last = first_state(s.states, s.layout, s.reverse).copy()
    c_last = None if s.cells is None else first_state(s.cells, s.layout, s.reverse).copy()
    h: Array = h_last[:0]
    c: Any = None if c_last is None else c_last[:0]
    work = Work(batch, hidden, h_last.shape[1], kind.gates, dtype, h_bias)
    h_unit, h_length, every = cast(Array, s.h_unit), cast(Array, s.h_length), norm is not None or kind.splits
    h_groups = _groups(h_unit, norm and norm.h_pool, hidden)
    way = slice(None, None, -1 if s.reverse else 1)
    for block in s.blocks[way]:
        first = block.rows.start
        shift = 0 if keep else first
        here = slice(first - shift, block.rows.stop - shift)
        gates = s.gates[here]
        if norm is None:
            product(x_rows[block.rows], w_x, gates)
        else:
            assert s.x_unit is not None and s.x_length is not None
            product(x_rows[block.rows], w_x, s.x_unit[here])
            normalise(_groups(s.x_unit, norm.x_pool, hidden)[here], s.x_length[here], norm.x_pool, norm.x_floor)
            np.multiply(s.x_unit[here], gain_x, gates)
        if bias is not None:
            gates += bias
        zone_h, zone_c = shares(s.zone_h, block, dtype), shares(s.zone_c, block, dtype)
        for row, n in block.steps[way]:
            if n != work.n:
                work.resize(n)
                h_last[: len(h)] = h
                h = h_last[:n]
                if c_last is not None:
                    c_last[: len(c)] = c
                    c = c_last[:n]
            at, local = slice(row - shift, row - shift + n), slice(row - first, row - first + n)
            # the product with W_hh, normalised
            h_in = h if s.mask is None else np.multiply(h, s.mask[:n], work.features)
            u = h_unit[at] if every else h_unit[:n]
            np.matmul(h_in, w_h, u)
            if norm is not None:
                normalise(h_groups[at], h_length[at], norm.h_pool, norm.h_floor)
                u = np.multiply(u, gain_h, work.gates)
            # the gates, and what h and c would become
            y = y_rows[row : row + n]
            new = work.hidden if w_hr is not None else y
            if c_rows is None:
                kind.step(s, at, u, h, None, new, work)
            else:
                c_new = c_rows[row : row + n]
                kind.step(s, at, u, c, c_new, new, work)
                if zone_c is not None:
                    zone_out(c_new, c, zone_c[0][local], zone_c[1][local], work.spare)
                c = c_new
            if w_hr is not None:
                np.dot(new, w_hr.T, y)
            if zone_h is not None:
                zone_out(y, h, zone_h[0][local], zone_h[1][local], work.features)
            h = y
    h_last[: len(h)] = h
    if c_last is not None:
        c_last[: len(c)] = c
    return h_last, c_last


def backward(
    saved: Saved, gy: Array | None, gh_n: Array | None = None, gc_n: Array | None = None,
    needs: Sequence[bool] = (True,) * 12,
) -> Grads:  # fmt: skip
    """Gradients of `forward`; arguments and determinism as for `rnn.backward`, `needs` in the order of `Grads`.

    >>> import numpy as np
    >>> w = np.full((1, 1), 0.5)
    >>> y, h_n, _, saved = forward("rnn_relu", np.ones((2, 1, 1)), w, w, mask=np.full((1, 1), 2.0))
    >>> backward(saved, None, gh_n=np.ones((1, 1))).w_hh
    array([[1.]])
    """
    s, kind, norm, layout = saved, saved.kind, saved.norm, saved.layout
    w_ih, w_hh, b_ih, b_hh, w_hr = s.weights
    dtype, total, hidden = w_hh.dtype, layout.total, len(w_hh) // kind.gates
    x_width = kind.gates * hidden
    d = np.empty((total, kind.d_slabs * hidden), dtype)
    # gradients of the products; those of W_ih x overwrite `d`, once nothing else needs it
    d_h = d[:, kind.d_slabs * hidden - x_width :] if norm is None else np.empty((total, x_width), dtype)
    d_x = d[:, :x_width]
    gh = sorted_state(gh_n, layout, w_hh.shape[1], dtype)
    gc = sorted_state(gc_n, layout, hidden, dtype) if kind.has_c else None
    g_rows = None if gy is None else pack(gy, layout)
    g_out = np.empty((total, len(w_hr)), dtype) if w_hr is not None and needs[7] else None
    sums: dict[str, Array] = {
        name: np.zeros(width, dtype)
        for name, width, wanted in (
            ("d", d.shape[1], needs[5] or needs[6]),
            ("ln_ih", x_width, norm is not None and needs[8]),
            ("ln_hh", x_width, norm is not None and needs[9]),
            ("ln_c", hidden, s.c_unit is not None and needs[10]),
            ("ln_c_bias", hidden, s.c_unit is not None and needs[11]),
        )
        if wanted
    }
    _run_backward(s, g_rows, gh, gc, d, d_h, g_out, sums)

    gx = gw_ih = gw_hh = gb_ih = gb_hh = gw_hr = None
    x_ones, h_ones = (1.0,) * len(kind.x_order), (1.0,) * len(kind.h_order)
    if needs[0]:
        w = slab_weight(w_ih, kind.x_order, x_ones, kind.x_sets if norm else None, hidden)
        gx = unpack(product(d_x, w), layout, s.packed).astype(s.dtype, copy=False)
    if needs[3]:
        g = centred(product(d_x.T, pack(s.x, layout)), kind.x_sets if norm else None, hidden)
        gw_ih = weight_gradient(g, kind.x_order, x_ones, s.dtype)
    if needs[4]:
        before = previous_rows(s.states, layout, s.reverse)
        if s.mask is not None:
            before = before * s.mask[column_of(layout)]
        g = centred(product(d_h.T, before), kind.h_sets if norm else None, hidden)
        gw_hh = weight_gradient(g, kind.h_order, h_ones, s.dtype)
    if needs[5] and b_ih is not None:
        gb_ih = weight_gradient(sums["d"][:x_width], kind.x_order, x_ones, s.dtype)
    if needs[6] and b_hh is not None:
        gb_hh = weight_gradient(sums["d"][-x_width:], kind.h_order, h_ones, s.dtype)
    if g_out is not None:
        full = s.tanh_c * s.gates[:, :hidden]  # type: ignore[operator]
        gw_hr = product(g_out.T, full).astype(s.dtype, copy=False)
    gains: list[Array | None] = []
    for name, order in (("ln_ih", kind.x_order), ("ln_hh", kind.h_order)):
        if name in sums:
            g = weight_gradient(sums[name], order, h_ones, dtype) * set_roots(kind, hidden, dtype)
            gains.append(g.astype(s.dtype, copy=False))
        else:
            gains.append(None)
    for name, factor in (("ln_c", hidden**0.5), ("ln_c_bias", 1.0)):
        gains.append((sums[name] * dtype.type(factor)).astype(s.dtype, copy=False) if name in sums else None)
    return Grads(gx, unsorted_state(gh, layout, s.dtype) if needs[1] else None,
                 unsorted_state(gc, layout, s.dtype) if needs[2] else None, gw_ih, gw_hh, gb_ih, gb_hh, gw_hr,
                 *gains)  # fmt: skip


def _run_backward(
    s: Saved, gy: Array | None, gh: Array, gc: Array | None, d: Array, d_h: Array, g_out: Array | None,
    sums: dict[str, Array],
) -> None:  # fmt: skip
    """Turn `gh` and `gc` into the gradients of the first states; fill `d`, `d_h` and `g_out`, add to `sums`."""
    kind, norm, (_, w_hh, _, _, w_hr) = s.kind, s.norm, s.weights
    dtype, hidden, batch = w_hh.dtype, len(w_hh) // kind.gates, s.layout.batch
    ones = (1.0,) * len(kind.h_order)
    w_h = slab_weight(w_hh, kind.h_order, ones, kind.h_sets if norm else None, hidden)
    gain_x: Any = None
    gain_h: Any = None
    if norm is not None:
        gain_h = gate_rows(norm.hh[:, None], kind.h_order, ones)[:, 0]
        gain_x = gate_rows(norm.ih[:, None], kind.x_order, ones)[:, 0]
    before = s.states if s.cells is None else s.cells
    before = previous_rows(before, s.layout, s.reverse)
    x_width, h_at = kind.gates * hidden, (kind.d_slabs - kind.gates) * hidden
    work = Work(batch, hidden, gh.shape[1], kind.gates, dtype, slab_biases(kind, *s.weights[2:4], hidden)[1])
    back = slice(None, None, 1 if s.reverse else -1)
    h_unit, h_length = cast(Array, s.h_unit), cast(Array, s.h_length)
    pool = norm and norm.h_pool
    h_groups, d_groups = _groups(h_unit, pool, hidden), _groups(d_h, pool, hidden)
    most = max((b.rows.stop - b.rows.start for b in s.blocks), default=0)
    space, wide_space = np.empty((most, hidden), dtype), np.empty((most, x_width), dtype)
    for block in s.blocks[back]:
        rows, first = block.rows, block.rows.start
        count = rows.stop - first
        # `d` gets the factors that need no gradient, for all steps at once; a step multiplies them by its gradient
        through = space[:count]
        kind.factors(s, rows, before[rows], d[rows], through, work)
        zone_h, zone_c = shares(s.zone_h, block, dtype), shares(s.zone_c, block, dtype)
        for row, n in block.steps[back]:
            if n != work.n:
                work.resize(n)
            at, local = slice(row, row + n), slice(row - first, row - first + n)
            g = gh[:n]
            if gy is not None:
                g += gy[at]
            stay = None
            if zone_h is not None:
                stay = np.multiply(g, zone_h[0][local], work.features)
                g *= zone_h[1][local]
            if g_out is not None:
                g_out[at] = g
            full = g if w_hr is None else np.dot(g, w_hr, work.hidden)
            d_t = d[at]
            carry = kind.step_back(
                s, at, full, d_t, through[local], None if gc is None else gc[:n],
                None if zone_c is None else (zone_c[0][local], zone_c[1][local]), work,
            )  # fmt: skip
            u = d_h[at]
            if norm is not None:
                np.multiply(d_t[:, h_at:], gain_h, u)
                spare = work.gates if norm.h_pool is None else work.gates.reshape(n, kind.gates, hidden)
                normalise_backward(d_groups[at], h_groups[at], h_length[at], norm.h_pool, spare)
            np.matmul(u, w_h, g)
            if s.mask is not None:
                g *= s.mask[:n]
            if carry is not None:
                g += carry
            if stay is not None:
                g += stay
        _block_sums(s, rows, d, through, sums)
        if norm is not None:
            assert s.x_unit is not None and s.x_length is not None
            d[rows, :x_width] *= gain_x
            part = d[rows] if norm.x_pool is None else d.reshape(-1, kind.d_slabs, hidden)[rows, : kind.gates]
            unit = _groups(s.x_unit, norm.x_pool, hidden)[rows]
            spare = _groups(wide_space[:count], norm.x_pool, hidden)
            normalise_backward(part, unit, s.x_length[rows], norm.x_pool, spare)


def _groups(rows: Array, pool: Array | None, hidden: int) -> Array:
    """Rows as `Norm` has them normalised: whole, or in slabs."""
    return rows if pool is None else rows.reshape(-1, len(pool), hidden)


def _block_sums(s: Saved, rows: slice, d: Array, through: Array, sums: dict[str, Array]) -> None:
    """Add a block's share of the gradients that are sums over rows: biases and gains."""
    for name, a, b in (
        ("d", d, None),
        ("ln_ih", d, s.x_unit),
        ("ln_hh", d, s.h_unit),
        ("ln_c", None, s.c_unit),
        ("ln_c_bias", None, None),
    ):
        if name not in sums:
            continue
        g = through if a is None else a[rows]
        if b is None:
            sums[name] += np.ones(len(g), g.dtype) @ g
        else:
            g = g[:, : b.shape[1]] if name == "ln_ih" else g[:, g.shape[1] - b.shape[1] :]
            sums[name] += np.einsum("rj,rj->j", g, b[rows])
