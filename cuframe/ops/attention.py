"""Scaled dot-product attention as one node of the graph."""

from __future__ import annotations

import math
from math import prod
from typing import Any

import numpy as np

from .. import random
from ..backend import backend_of
from ..cpu.attention import Dropout, dropout_blocks, dropout_mask
from ..tensor import Tensor
from .define import Op, check_floating, need_tensor, record
from .mask import where
from .matmul import matmul
from .rearrange import repeat_interleave
from .shape import broadcast_to
from .softmax import row_max

__all__ = ["scaled_dot_product_attention"]

_NAME = "scaled_dot_product_attention"


def _attention_vjp(
    g: Any, needs: tuple, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, drop: Any, lengths: Any,
    out: Any, lse: Any,
) -> tuple:  # fmt: skip
    kernel = backend_of(q).kernel("attention")
    needs_mask = len(needs) > 3 and needs[3] is not None
    grads = kernel.backward(g, q, k, v, mask, causal, scale, drop, out, lse, needs_mask, lengths)
    return tuple([
        None if n is None else r.astype(a.dtype, copy=False) for n, r, a in zip(needs, grads, (q, k, v, mask))
    ])  # fmt: skip


def masked_softmax(scores: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """The softmax along the last dimension of scores (..., L, S) under masks, zeros where a row has nothing to see."""
    x = scores
    if causal:
        xp = backend_of(x.array).xp
        rows, columns = x.array.shape[-2:]
        x = where(Tensor(xp.arange(columns) <= xp.arange(rows)[:, None]), x, -math.inf)
    if mask is not None:
        x = where(mask, x, -math.inf) if mask.array.dtype == bool else x + mask
    top = row_max(x.array, -1)
    e: Any = np.exp(x - Tensor(np.where(top == -np.inf, top.dtype.type(0), top)))
    total = e.sum(axis=-1, keepdims=True)
    return e / (total + Tensor((total.array == 0).astype(total.dtype)))


def _attention_composite(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float, drop: Any,
    lengths: Any = None,
) -> Tensor:  # fmt: skip
    dtype = query.dtype
    q, k, v = (t.float() if dtype.itemsize == 2 else t for t in (query, key, value))
    if lengths is not None:
        there = backend_of(lengths).xp.arange(k.shape[-2]) < lengths[..., None]
        k, v = (where(Tensor(there[..., None, :, None]), t, 0.0) for t in (k, v))
        seen = there[..., None, None, :]
        if mask is None or mask.array.dtype == bool:
            mask = Tensor(seen if mask is None else seen & mask.array)
        else:
            mask = where(Tensor(seen), mask, -math.inf)
    if q.ndim > 2 and k.shape[-3] != q.shape[-3]:
        k, v = (repeat_interleave(t, q.shape[-3] // t.shape[-3], -3) for t in (k, v))
    p = masked_softmax(matmul(q * scale, k.swapaxes(-1, -2)), mask, causal)
    if drop is not None:
        *batch, rows, columns = p.shape
        kept = dropout_mask(drop, 0, prod(batch) * rows, columns).reshape(p.array.shape)
        p = p * Tensor(backend_of(p.array).asarray(kept, p.array).astype(p.dtype)) * (1 / (1 - drop.p))
    return matmul(p, v).to(dtype)


_SAVES = (0, 1, 2, 3, "constant", "constant", "constant", "constant", "out", None)
_ATTENTION = Op(_NAME, _attention_vjp, _SAVES, _attention_composite)


def _check(query: Any, key: Any, value: Any, p: float, is_causal: bool, mask: Any) -> None:
    """Types, dtypes and the last two dimensions."""
    check_floating(_NAME, "query", query)
    q = query.array
    for argument, t in (("key", key), ("value", value)):
        need_tensor(_NAME, argument, t)
        if t.array.dtype != q.dtype:
            raise RuntimeError(f"{_NAME}: {argument} must be {q.dtype.name} as query is, got {t.array.dtype.name}")
        if t.array.__class__ is not q.__class__:
            raise RuntimeError(f"{_NAME}: {argument} must be on the device of query, got {t.device}")
    k, v = key.array, value.array
    for argument, a in (("query", q), ("key", k), ("value", v)):
        if a.ndim < 2:
            raise RuntimeError(f"{_NAME}: {argument} must have at least 2 dimensions, got shape {tuple(a.shape)}")
    if k.shape[-1] != q.shape[-1]:
        raise RuntimeError(f"{_NAME}: key must be (..., S, {q.shape[-1]}) as query is wide, got {tuple(k.shape)}")
    if v.shape[-2] != k.shape[-2]:
        raise RuntimeError(f"{_NAME}: value must be (..., {k.shape[-2]}, Ev) as key is long, got {tuple(v.shape)}")
    if not 0 <= p <= 1:
        raise ValueError(f"{_NAME}: dropout_p must be in [0, 1], got {p}")
    if is_causal and mask is not None:
        raise RuntimeError(f"{_NAME}: give either attn_mask or is_causal=True, not both")


def _check_mask(mask: Any, query: Tensor, shape: tuple) -> None:
    need_tensor(_NAME, "attn_mask", mask)
    a = mask.array
    if a.dtype != bool and a.dtype != query.dtype:
        raise RuntimeError(f"{_NAME}: attn_mask must be bool or {query.dtype.name} as query is, got {a.dtype.name}")
    if a.__class__ is not query.array.__class__:
        raise RuntimeError(f"{_NAME}: attn_mask must be on the device of query, got {mask.device}")
    try:
        fits = np.broadcast_shapes(a.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise RuntimeError(f"{_NAME}: attn_mask must broadcast to {shape}, got {tuple(a.shape)}")


def _check_lengths(lengths: Any, query: Tensor, key: Tensor) -> None:
    need_tensor(_NAME, "key_lengths", lengths)
    a, q = lengths.array, query.array
    if a.dtype.kind != "i":
        raise RuntimeError(f"{_NAME}: key_lengths must be integers, got {a.dtype.name}")
    if a.__class__ is not q.__class__:
        raise RuntimeError(f"{_NAME}: key_lengths must be on the device of query, got {lengths.device}")
    if q.ndim < 3:
        raise RuntimeError(f"{_NAME}: key_lengths needs a query (N, L, E) or (N, H, L, E), got {tuple(q.shape)}")
    wanted = q.shape[:1] if q.ndim == 3 else q.shape[:-3]
    if a.shape != wanted:
        raise RuntimeError(f"{_NAME}: key_lengths must be {tuple(wanted)} for query {tuple(q.shape)}, "
                           f"got {tuple(a.shape)}")
    backend_of(a).check_index(_NAME, "key_lengths", a, key.array.shape[-2] + 1)


def _one_batch(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> tuple[Tensor, Tensor, Tensor]:
    """All three with the same leading dimensions, but that key and value may have fewer heads."""
    kept = 2  # dimensions from the end that are not broadcast
    if enable_gqa:
        if min(t.array.ndim for t in (query, key, value)) < 3:
            raise RuntimeError(f"{_NAME}: enable_gqa needs a dimension of heads, got query {tuple(query.shape)}")
        heads = query.array.shape[-3]
        for argument, t in (("key", key), ("value", value)):
            own = t.array.shape[-3]
            if not own or heads % own:
                raise RuntimeError(f"{_NAME}: the {heads} heads of query must be a multiple of {argument}'s, got {own}")
        if key.array.shape[-3] == value.array.shape[-3]:
            kept = 3
        else:
            key, value = (repeat_interleave(t, heads // t.array.shape[-3], -3) for t in (key, value))
    tensors = (query, key, value)
    try:
        batch = np.broadcast_shapes(*(t.array.shape[:-kept] for t in tensors))
    except ValueError:
        raise RuntimeError(
            f"{_NAME}: the leading dimensions of query {tuple(query.shape)}, key {tuple(key.shape)} and value "
            f"{tuple(value.shape)} cannot be broadcast together"
        ) from None
    query, key, value = (
        t if t.array.shape[:-kept] == batch else broadcast_to(t, (*batch, *t.array.shape[-kept:])) for t in tensors
    )
    return query, key, value


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    key_lengths: Tensor | None = None,
) -> Tensor:
    """Averages of values, weighted by how well queries and keys agree.

        out = dropout(softmax(scale query key^T + attn_mask)) value

    Vaswani et al., Attention Is All You Need (2017). It is computed in blocks: memory grows with L + S, not L x S.

    Args:
        query: (..., H, L, E), floating point.
        key: (..., H, S, E), of the same dtype; leading dimensions are broadcast.
        value: (..., H, S, Ev).
        attn_mask: broadcasts to (..., H, L, S); bool, True where a key takes part, or numbers to add.
        dropout_p: the probability of dropping a weight; it applies whatever the mode, so pass 0 in evaluation.
        is_causal: query l sees the keys up to l; not together with attn_mask.
        scale: 1 / sqrt(E) by default.
        enable_gqa: key and value may have fewer heads, each of which serves several of query.
        key_lengths: how many keys each sample has, integers from 0 to S on the device of query: (N,) for a query
            (N, H, L, E) or (N, L, E), otherwise the dimensions in front of the heads. Keys and values behind are not
            read, whatever they hold; their gradients are zeros. A GPU skips them, at no cost, where a mask would
            have it compute their scores.

    Returns:
        (..., H, L, Ev). A row that sees no key gives zeros. Backward keeps the three inputs, the result and one
        number for each row; dropout is drawn again from the generator's counter. 16-bit floats are computed in float32.

    Raises:
        RuntimeError: shapes, dtypes or devices do not agree, or both attn_mask and is_causal are given.
        ValueError: dropout_p is outside [0, 1].
        IndexError: key_lengths outside [0, S], on a CPU; a GPU clamps them.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> q, k = cf.zeros(1, 2, 4), cf.zeros(1, 2, 4)
    >>> F.scaled_dot_product_attention(q, k, cf.tensor([[[2.0], [4.0]]]), is_causal=True)
    tensor([[[2.],
             [3.]]])
    """
    _check(query, key, value, dropout_p, is_causal, attn_mask)
    query, key, value = _one_batch(query, key, value, enable_gqa)
    if key_lengths is not None:
        _check_lengths(key_lengths, query, key)
        if query.array.ndim == 3:
            # a head for each sample
            if attn_mask is not None and attn_mask.array.ndim == 3:
                attn_mask = attn_mask.unsqueeze(-3)
            q4, k4, v4 = (t.unsqueeze(-3) for t in (query, key, value))
            out = scaled_dot_product_attention(
                q4, k4, v4, attn_mask, dropout_p, is_causal, scale, key_lengths=key_lengths
            )
            return out.squeeze(-3)
    lengths = None if key_lengths is None else key_lengths.array
    q, k, v = query.array, key.array, value.array
    shape = (*q.shape[:-1], k.shape[-2])
    mask = None
    if attn_mask is not None:
        _check_mask(attn_mask, query, shape)
        mask = attn_mask.array
        if mask.ndim < 2:
            attn_mask = broadcast_to(attn_mask, (1, shape[-1])) if mask.ndim else attn_mask.reshape(1, 1)
            mask = attn_mask.array
    if scale is None:
        scale = 1 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0
    drop = None
    if dropout_p == 1:
        value = value * 0.0
        v = value.array
    elif dropout_p:
        heads = prod(q.shape[:-2])
        drop = Dropout(*random.default_generator.reserve(dropout_blocks(heads, *shape[-2:])), float(dropout_p))
    kernel = backend_of(q).kernel("attention")
    if kernel is None:
        return _attention_composite(query, key, value, attn_mask, is_causal, scale, drop, lengths)
    out, lse = kernel.forward(q, k, v, mask, is_causal, scale, drop, lengths)
    saved = (q, k, v, mask, is_causal, scale, drop, lengths, out, lse)
    return record(out, _ATTENTION, (query, key, value, attn_mask), saved)
