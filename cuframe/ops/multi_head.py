"""Multi-head attention: projections, heads, masks, and attention with or without its weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import is_floating
from ..tensor import Tensor
from .attention import masked_softmax, scaled_dot_product_attention
from .create import zeros
from .define import check_floating, need_tensor
from .dropout import dropout
from .join import cat, split
from .linear import linear
from .matmul import matmul
from .shape import broadcast_to, permute, unsqueeze
from .softmax import softmax

__all__ = ["multi_head_attention_forward"]

_NAME = "multi_head_attention_forward"


class Projections:
    """The weights of the maps before and after attention: one matrix for query, key and value, or three."""

    __slots__ = ("in_bias", "in_weight", "out_bias", "out_weight", "separate")

    def __init__(
        self, in_weight: Tensor | None, in_bias: Tensor | None, separate: tuple, out_weight: Tensor, out_bias: Any
    ) -> None:
        self.in_weight = in_weight
        self.in_bias = in_bias
        self.separate = separate
        self.out_weight = out_weight
        self.out_bias = out_bias

    def project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value in the space of the heads, with as few matrix products as they allow."""
        w, b = self.in_weight, self.in_bias
        size = query.array.shape[-1]
        if w is None:
            biases = (None, None, None) if b is None else split(b, size)
            return tuple(linear(x, wi, bi) for x, wi, bi in zip((query, key, value), self.separate, biases))
        if query is key and key is value:
            return split(linear(query, w, b), size, -1)
        if key is value:
            w_q, w_kv = split(w, [size, 2 * size])
            b_q, b_kv = (None, None) if b is None else split(b, [size, 2 * size])
            return linear(query, w_q, b_q), *split(linear(key, w_kv, b_kv), size, -1)
        biases = (None, None, None) if b is None else split(b, size)
        return tuple(linear(x, wi, bi) for x, wi, bi in zip((query, key, value), split(w, size), biases))


def _hidden(mask: Tensor | None, name: str, like: Tensor) -> Tensor | None:
    """A checked mask: bool, True where hidden, or numbers of the dtype of `like` to add."""
    if mask is None:
        return None
    need_tensor(_NAME, name, mask)
    if mask.array.dtype == bool:
        return mask
    if not is_floating(mask.array.dtype):
        raise RuntimeError(f"{_NAME}: {name} must be bool or floating point, got {mask.array.dtype.name}")
    return mask.to(like.dtype)


def _merged(attn: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
    """Both masks in one, as scaled_dot_product_attention takes it: bool, True where seen, or numbers to add."""
    given = [m for m in (attn, padding) if m is not None]
    if not given:
        return None
    if all(m.array.dtype == bool for m in given):
        hidden = given[0].array if len(given) == 1 else given[0].array | given[1].array
        return Tensor(~hidden)
    total: Any = None
    for m in given:
        if m.array.dtype == bool:
            m = Tensor(np.where(m.array, like.dtype.type(-math.inf), like.dtype.type(0)))
        total = m if total is None else total + m
    return total


def _check_batches(query: Any, key: Any, value: Any, padding: Any, attn: Any) -> bool:
    """True for batched input; all arguments must agree in their number of dimensions."""
    check_floating(_NAME, "query", query)
    for name, t in (("key", key), ("value", value)):
        need_tensor(_NAME, name, t)
    ndim = query.array.ndim
    if ndim not in (2, 3):
        raise RuntimeError(f"{_NAME}: query must have 2 or 3 dimensions, got shape {tuple(query.shape)}")
    for name, t in (("key", key), ("value", value)):
        if t.array.ndim != ndim:
            raise RuntimeError(f"{_NAME}: {name} must have {ndim} dimensions as query has, got shape {tuple(t.shape)}")
    if padding is not None:
        need_tensor(_NAME, "key_padding_mask", padding)
        if padding.array.ndim != ndim - 1:
            raise RuntimeError(
                f"{_NAME}: key_padding_mask must have {ndim - 1} dimensions, got shape {tuple(padding.shape)}"
            )
    if attn is not None:
        need_tensor(_NAME, "attn_mask", attn)
        if attn.array.ndim not in (2, 3):
            raise RuntimeError(f"{_NAME}: attn_mask must have 2 or 3 dimensions, got shape {tuple(attn.shape)}")
    return ndim == 3


def _need_shape(name: str, t: Tensor, shape: tuple, note: str = "") -> None:
    if tuple(t.array.shape) != shape:
        raise RuntimeError(f"{_NAME}: {name} must be {shape}{note}, got {tuple(t.array.shape)}")


def _heads(x: Tensor, heads: int, batch_first: bool) -> Tensor:
    """(L, B, E) or (B, L, E) as (B, H, L, E / H), without a copy."""
    a, b, size = x.array.shape
    return permute(x.reshape(a, b, heads, size // heads), (0, 2, 1, 3) if batch_first else (1, 2, 0, 3))


def attend(
    query: Tensor, key: Tensor, value: Tensor, num_heads: int, maps: Projections, bias_k: Tensor | None,
    bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float, key_padding_mask: Tensor | None, need_weights: bool,
    attn_mask: Tensor | None, static_k: Tensor | None, static_v: Tensor | None, average_attn_weights: bool,
    is_causal: bool, batch_first: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """`multi_head_attention_forward` in either layout, with dropout as it is to be applied."""
    batched = _check_batches(query, key, value, key_padding_mask, attn_mask)
    along = 0 if batch_first else 1
    if not batched:
        # One tensor given three times must remain one.
        fresh = {id(t): unsqueeze(t, along) for t in (query, key, value)}
        query, key, value = (fresh[id(t)] for t in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else unsqueeze(key_padding_mask, 0)
    batch, length, size = query.array.shape[along], query.array.shape[1 - along], query.array.shape[-1]
    if size % num_heads:
        raise RuntimeError(f"{_NAME}: embed_dim {size} must be a multiple of num_heads {num_heads}")
    _need_shape("value", value, (*key.array.shape[:2], value.array.shape[-1]), " in its leading dimensions")
    if key.array.shape[along] != batch:
        raise RuntimeError(f"{_NAME}: key must have batch size {batch} as query has, got {tuple(key.shape)}")
    if is_causal and attn_mask is None:
        raise RuntimeError(f"{_NAME}: is_causal is a hint about attn_mask, which must be given")
    attn, padding = _hidden(attn_mask, "attn_mask", query), _hidden(key_padding_mask, "key_padding_mask", query)
    q, k, v = maps.project(query, key, value)
    keys = key.array.shape[1 - along] if static_k is None else static_k.array.shape[1]
    if attn is not None:
        if attn.array.ndim == 2:
            _need_shape("attn_mask", attn, (length, keys))
            attn = attn.reshape(1, 1, length, keys)
        else:
            _need_shape("attn_mask", attn, (batch * num_heads, length, keys))
            attn = attn.reshape(batch, num_heads, length, keys)
    if padding is not None:
        _need_shape("key_padding_mask", padding, (batch, keys))
        padding = padding.reshape(batch, 1, 1, keys)
    extra = 0
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise RuntimeError(f"{_NAME}: bias_k and bias_v cannot be added to static_k and static_v")
        shape = (batch, 1, size) if batch_first else (1, batch, size)
        k, v = (cat([x, broadcast_to(b, shape)], 1 - along) for x, b in ((k, bias_k), (v, bias_v)))
        extra += 1
    q = _heads(q, num_heads, batch_first)
    k, v = (
        _heads(x, num_heads, batch_first) if own is None else own.reshape(batch, num_heads, *own.array.shape[1:])
        for x, own in ((k, static_k), (v, static_v))
    )
    if add_zero_attn:
        k, v = (cat([x, zeros(*x.shape[:2], 1, x.shape[3], dtype=x.dtype, device=x.device)], 2) for x in (k, v))
        extra += 1
    if extra:
        attn, padding = (
            None if m is None else cat([m, zeros(*m.shape[:-1], extra, dtype=m.dtype, device=m.device)], -1)
            for m in (attn, padding)
        )
    weights = None
    if need_weights:
        scores = matmul(q * (1 / math.sqrt(size // num_heads)), k.swapaxes(-1, -2))
        mask = _merged(attn, padding, query)
        weights = softmax(scores, -1) if mask is None else masked_softmax(scores, mask, False)
        weights = dropout(weights, dropout_p)
        out = matmul(weights, v)
        weights = weights.mean(1) if average_attn_weights else weights
        weights = weights if batched else weights.squeeze(0)
    elif is_causal and padding is None and not extra:
        out = scaled_dot_product_attention(q, k, v, None, dropout_p, True)
    else:
        out = scaled_dot_product_attention(q, k, v, _merged(attn, padding, query), dropout_p)
    out = permute(out, (0, 2, 1, 3) if batch_first else (2, 0, 1, 3)).reshape(*query.shape[:2], size)
    out = linear(out, maps.out_weight, maps.out_bias)
    return out if batched else out.squeeze(along), weights


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of several heads with the projections around it, as `nn.MultiheadAttention` runs it.

    Args:
        query: (L, B, E) or (L, E).
        key: (S, B, K) or (S, K); value: (S, B, V) or (S, V).
        embed_dim_to_check: E.
        num_heads: a divisor of E.
        in_proj_weight: (3 E, E), for query, key and value; in_proj_bias: (3 E,) or None.
        bias_k, bias_v: (1, 1, E), one more key and value, or None.
        add_zero_attn: one more key and value of zeros.
        dropout_p: the probability of dropping a weight, in training.
        out_proj_weight: (E, E); out_proj_bias: (E,) or None.
        key_padding_mask: (B, S) or (S,); bool, True where a key is hidden, or numbers to add.
        need_weights: return the weights too; without them memory does not grow as L x S.
        attn_mask: (L, S) or (B num_heads, L, S); bool, True where hidden, or numbers to add.
        use_separate_proj_weight: take q_proj_weight (E, E), k_proj_weight (E, K) and v_proj_weight (E, V) instead.
        static_k, static_v: (B num_heads, S, E / num_heads), in the place of projected keys and values.
        average_attn_weights: the mean of the weights over the heads.
        is_causal: a hint that attn_mask hides the keys after each query.

    Returns:
        The result, of the shape of query, and the weights (B, L, S), (B, num_heads, L, S) if not averaged, without B
        if unbatched; None if they are not needed. A row that sees no key gives zeros before the output projection.

    Raises:
        RuntimeError: shapes or dtypes do not agree.

    >>> import cuframe as cf
    >>> import cuframe.nn.functional as F
    >>> x, w = cf.ones(3, 4), cf.ones(12, 4)
    >>> out, weights = F.multi_head_attention_forward(
    ...     x, x, x, 4, 2, w, None, None, None, False, 0.0, cf.ones(4, 4), None)
    >>> out.shape, weights.shape
    (cuframe.Size([3, 4]), cuframe.Size([3, 3]))
    """
    need_tensor(_NAME, "query", query)
    if query.array.shape[-1:] != (embed_dim_to_check,):
        raise RuntimeError(f"{_NAME}: query must be (..., {embed_dim_to_check}), got {tuple(query.shape)}")
    separate: tuple = ()
    if use_separate_proj_weight:
        separate = (q_proj_weight, k_proj_weight, v_proj_weight)
        if any(w is None for w in separate):
            raise RuntimeError(f"{_NAME}: q_proj_weight, k_proj_weight and v_proj_weight must be given")
    elif in_proj_weight is None:
        raise RuntimeError(f"{_NAME}: in_proj_weight must be given")
    maps = Projections(
        None if use_separate_proj_weight else in_proj_weight, in_proj_bias, separate, out_proj_weight, out_proj_bias
    )
    return attend(
        query, key, value, num_heads, maps, bias_k, bias_v, add_zero_attn, dropout_p if training else 0.0,
        key_padding_mask, need_weights, attn_mask, static_k, static_v, average_attn_weights, is_causal, False,
    )  # fmt: skip
