"""Multi-head attention as a layer."""

from __future__ import annotations

from typing import Any

from ...ops.create import empty
from ...ops.multi_head import Projections, attend
from ...tensor import Parameter, Tensor
from .. import init
from ..module import Module
from .linear import Linear

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """Attention of several heads, each on its own projection of query, key and value.

        out = concat(head_1, ..., head_h) W_out,  head_i = softmax(q_i k_i^T / sqrt(E / h)) v_i

    Vaswani et al., Attention Is All You Need (2017), section 3.2.2. Parameters have PyTorch's names: `in_proj_weight`
    (3 E, E), or `q_proj_weight` (E, E), `k_proj_weight` (E, kdim) and `v_proj_weight` (E, vdim) where the sizes differ;
    `in_proj_bias` (3 E,), `out_proj`, `bias_k` and `bias_v` (1, 1, E).

    Args:
        embed_dim: E, the size of query and result.
        num_heads: a divisor of E.
        dropout: the probability of dropping a weight in training.
        bias: have biases in the projections.
        add_bias_kv: learn one more key and value.
        add_zero_attn: one more key and value of zeros.
        kdim, vdim: the sizes of key and value; E by default.
        batch_first: (B, L, E) in the place of (L, B, E).
        device, dtype: of the parameters.

    Called with `(query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None,
    average_attn_weights=True, is_causal=False)`:
        query: (L, B, E), key: (S, B, kdim), value: (S, B, vdim), or with the batch first, or all without it.
        key_padding_mask: (B, S); bool, True where a key is hidden, or numbers to add. Without weights a bool one makes
            keys behind the last that a sample sees cost nothing on a GPU; where lengths are at hand,
            `F.scaled_dot_product_attention` takes them as `key_lengths`, and needs no mask.
        attn_mask: (L, S) or (B num_heads, L, S); bool, True where hidden, or numbers to add.
        need_weights: return the weights; without them attention is one node and its memory does not grow as L x S.
        average_attn_weights: the mean of the weights over the heads.
        is_causal: a hint that attn_mask hides the keys after each query.
    Returns the result, shaped as query, and the weights (B, L, S), or (B, num_heads, L, S) if not averaged, or None.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> layer = nn.MultiheadAttention(8, 2, batch_first=True)
    >>> out, weights = layer(cf.ones(3, 5, 8), cf.ones(3, 7, 8), cf.ones(3, 7, 8))
    >>> out.shape, weights.shape
    (cuframe.Size([3, 5, 8]), cuframe.Size([3, 5, 7]))
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, add_bias_kv: bool = False,
        add_zero_attn: bool = False, kdim: int | None = None, vdim: int | None = None, batch_first: bool = False,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ValueError(
                "MultiheadAttention: embed_dim must be a positive multiple of num_heads, "
                f"got {embed_dim} and {num_heads}"
            )
        if not 0 <= dropout <= 1:
            raise ValueError(f"MultiheadAttention: dropout must be in [0, 1], got {dropout}")
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        packed = self.kdim == embed_dim and self.vdim == embed_dim
        shapes: dict[str, tuple[int, ...] | None] = {
            "q_proj_weight": None if packed else (embed_dim, embed_dim),
            "k_proj_weight": None if packed else (embed_dim, self.kdim),
            "v_proj_weight": None if packed else (embed_dim, self.vdim),
            "in_proj_weight": (3 * embed_dim, embed_dim) if packed else None,
            "in_proj_bias": (3 * embed_dim,) if bias else None,
            "bias_k": (1, 1, embed_dim) if add_bias_kv else None,
            "bias_v": (1, 1, embed_dim) if add_bias_kv else None,
        }
        for name, shape in shapes.items():
            value = None if shape is None else Parameter(empty(*shape, device=device, dtype=dtype))
            self.register_parameter(name, value)
        self.out_proj = Linear(embed_dim, embed_dim, bias, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the input projections and the extra key and value by Xavier's rule, and set biases to zeros."""
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        for name, t, size in (("query", query, self.embed_dim), ("key", key, self.kdim), ("value", value, self.vdim)):
            if isinstance(t, Tensor) and t.array.shape[-1:] != (size,):
                raise RuntimeError(f"MultiheadAttention: {name} must be (..., {size}), got {tuple(t.shape)}")
        maps = Projections(
            self.in_proj_weight, self.in_proj_bias, (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight),
            self.out_proj.weight, self.out_proj.bias,
        )  # fmt: skip
        return attend(
            query, key, value, self.num_heads, maps, self.bias_k, self.bias_v, self.add_zero_attn,
            self.dropout if self.training else 0.0, key_padding_mask, need_weights, attn_mask, None, None,
            average_attn_weights, is_causal, self.batch_first,
        )  # fmt: skip
