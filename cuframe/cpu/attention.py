"""Attention in NumPy, block by block, so that memory grows with L + S and not with L x S.

Note [Blocks of attention]
    A block is some rows of queries against some columns of keys, small enough for the L2 cache; where a whole head is
    smaller, several of one sample go together. Forward keeps, besides
    its result, one number a row: the logarithm of the sum of exponentials, lse. Backward makes the probabilities of a
    block again from it: p = exp(q k - lse). The subtraction is one more column of the matrix product, [q, -lse] against
    [k, 1], and likewise [g, -delta] against [v, 1] with delta = g . out; what remains is one pass of exponentials and
    one of products.

    Softmax needs no maximum where |q| |k| is small for all rows (the exponentials then neither overflow nor vanish).
    Otherwise, and under a mask of numbers, the maximum of each row is kept while blocks of keys go by
    (Milakov and Gimelshein, Online normalizer calculation for softmax, 2018; Dao et al., FlashAttention, 2022).

    Dropout reads a counter-based generator: element (n, l, s) takes number (n L + l) S' + s with S' = S rounded up to
    a multiple of 8, whatever the blocks are, so that backward sees what forward saw and nothing is stored.

    Many float32 scores go to `attention_compiled` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import attention_compiled as compiled
from . import philox
from .blas import one_thread
from .jit import cpus
from .threads import parallel

__all__ = ["Dropout", "backward", "dropout_blocks", "dropout_mask", "forward"]

Array = npt.NDArray[Any]

_ELEMENTS = 1 << 16  # of one block
_KEYS = 256
_ALONE = 1 << 18  # scores that are not worth a second thread
_CAUSAL_ROWS = 128  # smaller blocks waste less above the diagonal
_SAFE = 40.0  # exp(+-40) and sums of it are far from the limits of float32


class Dropout(NamedTuple):
    """Where the generator stands, the probability of a zero, and the keys of a row if those given are not all."""

    seed: int
    offset: int
    p: float
    keys: int = 0


def dropout_blocks(heads: int, rows: int, keys: int) -> int:
    """How many blocks of the generator dropout takes; see Note [Blocks of attention]."""
    return heads * rows * -(-keys // 8)


def dropout_mask(drop: Dropout, first: int, rows: int, keys: int) -> Array:
    """True where kept: (rows, keys), for `rows` rows from row number `first` of all heads together."""
    wide = -(-(drop.keys or keys) // 8)
    kept = philox.bernoulli(drop.seed, drop.offset + first * wide, rows * wide * 8, 1 - drop.p)
    return np.ascontiguousarray(kept.reshape(rows, wide * 8)[:, : -(-keys // 8) * 8])[:, :keys]


def _drawn(drop: Dropout | None, keys: int) -> tuple[float | None, Callable[[int, int], Array] | None]:
    """The probability of a zero, and what gives the mask of `count` rows from a row on."""
    if drop is None:
        return None, None
    return drop.p, lambda first, count: dropout_mask(drop, first, count, keys)


def _row_blocks(length: int, keys: int, causal: bool) -> Iterator[tuple[int, int]]:
    step = max(16, _ELEMENTS // max(1, min(keys, _KEYS)))
    if causal:
        step = min(step, _CAUSAL_ROWS)
    for first in range(0, length, step):
        yield first, min(length, first + step)


def _key_blocks(stop: int, keys: int, causal: bool) -> Iterator[tuple[int, int]]:
    """The blocks of keys that rows before `stop` see."""
    limit = min(keys, stop) if causal else keys
    for first in range(0, limit, _KEYS):
        yield first, min(limit, first + _KEYS)


def _groups(
    batch: tuple[int, ...], length: int, keys: int, causal: bool, across: bool = True
) -> Iterator[tuple[int, tuple]]:
    """The first head of each group, counted over all of them, and the index of the group.

    A group is some heads of a sample, or all heads of some samples: unless `across` forbids it.
    """
    heads = batch[-1]
    whole = next(_row_blocks(length, keys, causal), (0, length))[1] == length
    size = max(1, _ELEMENTS // max(1, length * keys)) if whole else 1
    if across and len(batch) == 2 and heads and size >= 2 * heads:
        step = size // heads
        for first in range(0, batch[0], step):
            yield first * heads, (slice(first, min(batch[0], first + step)),)
        return
    for number, at in enumerate(np.ndindex(batch[:-1])):
        for first in range(0, heads, size):
            yield number * heads + first, (*at, slice(first, min(heads, first + size)))


class _Scratch:
    """One array that serves every block."""

    def __init__(self, dtype: Any) -> None:
        self.flat = np.empty(0, dtype)
        self._other: _Scratch | None = None

    @property
    def other(self) -> _Scratch:
        """A second one, that lives as long."""
        if self._other is None:
            self._other = _Scratch(self.flat.dtype)
        return self._other

    def take(self, *shape: int) -> Array:
        count = prod(shape)
        if self.flat.size < count:
            self.flat = np.empty(count, self.flat.dtype)
        return self.flat[:count].reshape(shape)


def _each(
    groups: Iterator[tuple[int, tuple]], run: Callable[[int, tuple, _Scratch], None], dtype: Any, scores: int
) -> None:
    """Run all groups, by turns in our own threads if there are many scores.

    OpenBLAS's threads would serve the products alone, and spin in between; and the bits do not depend on who ran what.
    """
    todo = list(groups)

    def part(i: int, count: int) -> None:
        scratch = _Scratch(dtype)
        for first, at in todo[i::count]:
            run(first, at, scratch)

    with one_thread() as allowed:
        parallel(part, min(cpus(), allowed, len(todo)) if scores > _ALONE and len(todo) > 1 else 1)


def _hide(s: Array, mask: Array | None, causal: bool, q0: int, k0: int) -> None:
    """Apply the mask to a block of scores [..., rows, columns] that starts at row q0 and key k0.

    The mask has the dimensions of all scores, those along which it does not change with size 1.
    """
    count, columns = s.shape[-2:]
    if mask is not None:
        part = mask if mask.shape[-2] == 1 else mask[..., q0 : q0 + count, :]
        part = part if mask.shape[-1] == 1 else part[..., k0 : k0 + columns]
        if part.dtype == bool:
            np.copyto(s, -np.inf, where=~part)
        else:
            s += part
    if causal and k0 + columns > q0 + 1:
        # Only columns from q0 on can lie above the diagonal.
        start = max(0, q0 - k0)
        above = np.arange(k0 + start, k0 + columns) > np.arange(q0, q0 + count)[:, None]
        np.copyto(s[..., start:], -np.inf, where=above)


def _part(mask: Array | None, at: tuple) -> Array | None:
    """The mask of a group of heads; a dimension of size 1 stays as it is."""
    if mask is None:
        return None
    own = (0 if isinstance(i, int) else slice(None) for i in at)
    return mask[tuple(o if size == 1 else i for o, i, size in zip(own, at, mask.shape))]


def _bounded(q: Array, k: Array, scale: float, mask: Array | None) -> bool:
    """No score is beyond what exponentials bear without subtracting a maximum."""
    if mask is not None and mask.dtype != bool:
        return False
    sizes = [np.einsum("...e,...e->...", a, a).max(initial=0.0) for a in (q, k)]
    return bool(abs(scale) * np.sqrt(float(sizes[0]) * float(sizes[1])) <= _SAFE)


def _kept(
    drop: Dropout | None, first: int, lead: tuple[int, ...], length: int, q0: int, q1: int, keys: int
) -> Array | None:
    """The dropout of a block of rows; several heads only with all of their rows."""
    if drop is None:
        return None
    return dropout_mask(drop, first * length + q0, prod(lead) * (q1 - q0), keys).reshape(*lead, q1 - q0, keys)


def _widened(a: Array | None) -> Array | None:
    """16-bit floats as float32."""
    return a.astype(np.float32) if a is not None and a.dtype.itemsize == 2 else a


def _own_heads(k: Array, q: Array) -> Array:
    """Keys or values with a head for each of q."""
    return k if k.shape[-3] == q.shape[-3] else np.repeat(k, q.shape[-3] // k.shape[-3], axis=-3)


def _wide(mask: Array | None, dimensions: int) -> Array | None:
    """A mask with all dimensions of the scores."""
    return None if mask is None else mask.reshape((1,) * (dimensions - mask.ndim) + mask.shape)


class _Sample(NamedTuple):
    """A sample of a batch whose samples have different numbers of keys."""

    at: tuple[int, ...]
    keys: tuple
    mask_at: tuple
    drop: Dropout | None


def _samples(q: Array, keys: int, mask: Array | None, drop: Dropout | None, lengths: Array) -> Iterator[_Sample]:
    """Those that have any keys."""
    batch, rows = q.shape[:-3], q.shape[-3] * q.shape[-2]
    for number, at in enumerate(np.ndindex(batch)):
        count = min(max(int(lengths[at]), 0), keys)
        if not count:
            continue
        mask_at: tuple = ()
        if mask is not None:
            own = (0 if size == 1 else i for i, size in zip(at, mask.shape))
            mask_at = (*own, slice(None), slice(None), slice(count))  # as many as there are where it has one column
        if drop is not None:
            moved = drop.offset + dropout_blocks(number, rows, keys)
            yield _Sample(at, (*at, ..., slice(count), slice(None)), mask_at, drop._replace(offset=moved, keys=keys))
        else:
            yield _Sample(at, (*at, ..., slice(count), slice(None)), mask_at, None)


def forward(
    q: Array, k: Array, v: Array, mask: Array | None, causal: bool, scale: float, drop: Dropout | None,
    lengths: Array | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """softmax(scale q k^T + mask) v; rows without any key give zeros.

    Args:
        q: [..., L, E]; k: [..., S, E]; v: [..., S, D]; one float dtype and the same leading dimensions, but that k and
            v may have fewer heads, each of which serves several of q.
        mask: broadcasts to [..., L, S]; bool (True takes part) or numbers to add.
        causal: row l sees keys up to l.
        lengths: how many keys each sample has, integers with the dimensions in front of the heads; what lies behind is
            not read.

    Returns:
        out [..., L, D], in the memory order of q, and lse [..., L].
    """
    if q.dtype.itemsize == 2:
        q32, k32, v32 = (a.astype(np.float32) for a in (q, k, v))
        out, lse = forward(q32, k32, v32, _widened(mask), causal, scale, drop, lengths)
        return out.astype(q.dtype), lse
    if q.ndim == 2:
        out, lse = forward(q[None], k[None], v[None], mask, causal, scale, drop)
        return out[0], lse[0]
    mask = _wide(mask, q.ndim)
    if lengths is not None:
        out = np.zeros_like(q, shape=(*q.shape[:-1], v.shape[-1]))
        lse = np.full(q.shape[:-1], compiled.NOTHING, q.dtype)
        for s in _samples(q, k.shape[-2], mask, drop, lengths):
            part = None if mask is None else mask[s.mask_at]
            out[s.at], lse[s.at] = forward(q[s.at], k[s.keys], v[s.keys], part, causal, scale, s.drop)
        return out, lse
    if compiled.applies(q, k, v, mask):
        return compiled.forward(q, k, v, mask, causal, scale, *_drawn(drop, k.shape[-2]))
    k, v = _own_heads(k, q), _own_heads(v, q)
    batch, length, keys = q.shape[:-2], q.shape[-2], k.shape[-2]
    out = np.empty_like(q, shape=(*q.shape[:-1], v.shape[-1]))
    lse = np.empty(q.shape[:-1], q.dtype)
    safe = not _bounded(q, k, scale, mask)

    def group(first: int, at: tuple, scratch: _Scratch) -> None:
        q_heads, out_heads, lse_heads = q[at], out[at], lse[at]
        for q0, q1 in _row_blocks(length, keys, causal):
            rows = q_heads[..., q0:q1, :] * q.dtype.type(scale)
            kept = _kept(drop, first, rows.shape[:-2], length, q0, q1, keys)
            total, top, o = _row_block(rows, k[at], v[at], _part(mask, at), causal, q0, kept, safe, scratch)
            empty = total == 0
            if empty.any():
                total[empty] = 1
                top = np.where(empty, q.dtype.type(compiled.NOTHING), top)
            lse_heads[..., q0:q1] = np.log(total) + top
            if drop is not None:
                total *= q.dtype.type(1 - drop.p)
            np.divide(o, total[..., None], out=out_heads[..., q0:q1, :])

    _each(_groups(batch, length, keys, causal), group, q.dtype, lse.size * keys)
    return out, lse


def _row_block(
    rows: Array, k: Array, v: Array, mask: Array | None, causal: bool, q0: int, kept: Array | None, safe: bool,
    scratch: _Scratch,
) -> tuple[Array, Any, Array]:  # fmt: skip
    """Sums of exponentials, what was subtracted from their arguments, and the exponentials times v."""
    lead = rows.shape[:-1]
    total = np.zeros(lead, rows.dtype)
    o = np.zeros((*lead, v.shape[-1]), rows.dtype)
    top: Any = np.full(lead, -np.inf, rows.dtype) if safe else 0
    for k0, k1 in _key_blocks(q0 + lead[-1], k.shape[-2], causal):
        s = np.matmul(rows, k[..., k0:k1, :].swapaxes(-1, -2), out=scratch.take(*lead, k1 - k0))
        _hide(s, mask, causal, q0, k0)
        if safe:
            new = np.maximum(top, s.max(axis=-1))
            # A row of -inf so far: nothing is subtracted, its exponentials are zero.
            shift = np.where(new == -np.inf, 0, new).astype(rows.dtype, copy=False)
            s -= shift[..., None]
            if k0:
                fade = np.exp(top - shift)
                total *= fade
                o *= fade[..., None]
            top = new
        np.exp(s, out=s)
        total += (s.reshape(-1, k1 - k0) @ np.ones(k1 - k0, rows.dtype)).reshape(lead)
        if kept is not None:
            s *= kept[..., k0:k1]
        o += s @ v[..., k0:k1, :]
    return total, top, o


def _with_column(a: Array, column: Any) -> Array:
    """[a, column], in one matrix for each head."""
    wide = np.empty((*a.shape[:-1], a.shape[-1] + 1), a.dtype)
    wide[..., :-1] = a
    wide[..., -1] = column
    return wide


def backward(
    g: Array, q: Array, k: Array, v: Array, mask: Array | None, causal: bool, scale: float, drop: Dropout | None,
    out: Array, lse: Array, needs_mask: bool, lengths: Array | None = None,
) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
    """The gradients of q, k, v, and of a mask of numbers if it is wanted, from what `forward` was given and gave."""
    if q.dtype.itemsize == 2:
        g, q, k, v, out = (a.astype(np.float32) for a in (g, q, k, v, out))
        mask = _widened(mask)
    if q.ndim == 2:
        gq, gk, gv, gmask = backward(
            g[None], q[None], k[None], v[None], mask, causal, scale, drop, out[None], lse[None], needs_mask
        )
        return gq[0], gk[0], gv[0], gmask
    if lengths is not None:
        return _backward_of_samples(g, q, k, v, mask, causal, scale, drop, out, lse, needs_mask, lengths)
    if k.shape[-3] != q.shape[-3]:
        gq, gk, gv, gmask = backward(
            g, q, _own_heads(k, q), _own_heads(v, q), mask, causal, scale, drop, out, lse, needs_mask
        )
        gk, gv = (a.reshape(*b.shape[:-2], -1, *b.shape[-2:]).sum(axis=-3) for a, b in ((gk, k), (gv, v)))
        return gq, gk, gv, gmask
    whole = _wide(mask, q.ndim)
    if not (needs_mask and mask is not None) and compiled.applies(q, k, v, whole):
        drawn = _drawn(drop, k.shape[-2])
        return *compiled.backward(g, q, k, v, whole, causal, scale, *drawn, out, lse), None
    batch, length, keys = q.shape[:-2], q.shape[-2], k.shape[-2]
    gq, gk, gv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
    gmask = np.zeros(mask.shape, q.dtype) if needs_mask and mask is not None else None
    delta = np.einsum("...d,...d->...", g, out)
    factor = q.dtype.type(scale)

    def group(first: int, at: tuple, scores: _Scratch) -> None:
        slopes = scores.other
        q_heads, k_heads, g_heads, gk_heads, gv_heads = q[at], k[at], g[at], gk[at], gv[at]
        lead = q_heads.shape[:-2]
        k_wide = _with_column(k_heads, 1)
        # With dropout delta is subtracted after the mask.
        v_wide = _with_column(v[at], 1) if drop is None else v[at]
        for q0, q1 in _row_blocks(length, keys, causal):
            count = q1 - q0
            rows = _with_column(q_heads[..., q0:q1, :] * factor, -lse[at][..., q0:q1])
            g_rows = g_heads[..., q0:q1, :]
            g_wide = _with_column(g_rows, -delta[at][..., q0:q1]) if drop is None else g_rows
            kept = _kept(drop, first, lead, length, q0, q1, keys)
            total: Any = 0
            for k0, k1 in _key_blocks(q1, keys, causal):
                block, part = (*lead, count, k1 - k0), (..., slice(k0, k1), slice(None))
                p = np.matmul(rows, k_wide[part].swapaxes(-1, -2), out=scores.take(*block))
                _hide(p, _part(whole, at), causal, q0, k0)
                np.exp(p, out=p)
                ds = np.matmul(g_wide, v_wide[part].swapaxes(-1, -2), out=slopes.take(*block))
                if drop is not None and kept is not None:
                    weight = kept[..., k0:k1] * q.dtype.type(1 / (1 - drop.p))
                    gv_heads[part] += (p * weight).swapaxes(-1, -2) @ g_rows
                    ds *= weight
                    ds -= delta[at][..., q0:q1, None]
                else:
                    gv_heads[part] += p.swapaxes(-1, -2) @ g_rows
                ds *= p
                total = total + ds @ k_heads[part]
                gk_heads[part] += ds.swapaxes(-1, -2) @ rows[..., :-1]
                if gmask is not None:
                    for i in range(lead[0]):
                        _add_to_mask(gmask, ds[i], (*at[:-1], at[-1].start + i), q0, k0)
            np.multiply(total, factor, out=gq[at][..., q0:q1, :])

    # groups may share a row of the mask
    work = 0 if gmask is not None else lse.size * keys
    _each(_groups(batch, length, keys, causal, gmask is None), group, q.dtype, work)
    return gq, gk, gv, gmask


def _backward_of_samples(
    g: Array, q: Array, k: Array, v: Array, mask: Array | None, causal: bool, scale: float, drop: Dropout | None,
    out: Array, lse: Array, needs_mask: bool, lengths: Array,
) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
    gq, gk, gv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    whole = _wide(mask, q.ndim)
    gmask = np.zeros(whole.shape, q.dtype) if needs_mask and whole is not None else None
    for s in _samples(q, k.shape[-2], whole, drop, lengths):
        part = None if whole is None else whole[s.mask_at]
        gq[s.at], gk[s.keys], gv[s.keys], own = backward(
            g[s.at], q[s.at], k[s.keys], v[s.keys], part, causal, scale, s.drop, out[s.at], lse[s.at], needs_mask
        )
        if gmask is not None and own is not None:
            gmask[s.mask_at] += own
    return gq, gk, gv, None if gmask is None or mask is None else gmask.reshape(mask.shape)


def _add_to_mask(gmask: Array, ds: Array, at: tuple[int, ...], q0: int, k0: int) -> None:
    """Add a block's gradient to that of a mask which may be broadcast in any dimension."""
    lead = gmask.shape[:-2]
    own = tuple(0 if size == 1 else i for size, i in zip(lead, at[len(at) - len(lead) :]))
    target = gmask[own]
    if target.shape[1] == 1:
        ds, k0 = ds.sum(axis=1, keepdims=True), 0
    if target.shape[0] == 1:
        ds, q0 = ds.sum(axis=0, keepdims=True), 0
    target[q0 : q0 + ds.shape[0], k0 : k0 + ds.shape[1]] += ds
