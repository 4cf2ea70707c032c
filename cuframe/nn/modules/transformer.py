"""The Transformer: layers of encoder and decoder, stacks of them, and both together."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from ...ops.create import full
from ...tensor import Tensor
from .. import functional as F
from .. import init
from ..containers import ModuleList
from ..module import Module
from .attention import MultiheadAttention
from .dropout import Dropout
from .linear import Linear
from .normalization import LayerNorm

__all__ = [
    "Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer",
]  # fmt: skip


def _activation(name: str, activation: Any) -> Callable[[Tensor], Tensor]:
    if isinstance(activation, str):
        if activation not in ("relu", "gelu"):
            raise RuntimeError(f"{name}: activation must be 'relu', 'gelu' or a callable, got {activation!r}")
        return F.relu if activation == "relu" else F.gelu
    if not callable(activation):
        raise TypeError(f"{name}: activation must be 'relu', 'gelu' or a callable, got {type(activation).__name__}")
    return activation


def _causal_mask(size: int, device: Any, dtype: Any) -> Tensor:
    """(size, size): -inf above the diagonal, zeros elsewhere."""
    return full((size, size), -np.inf, device=device, dtype=dtype).triu(1)


def _is_causal(mask: Tensor | None, hint: bool | None, size: int) -> bool:
    """The hint, or without one, whether the mask hides the keys after each query and nothing else."""
    if hint is not None or mask is None:
        return bool(hint) and mask is not None
    m = mask.array
    if m.shape != (size, size):
        return False
    above = np.arange(size) > np.arange(size)[:, None]
    host = mask.detach().numpy(force=True)
    return bool((host == above).all() if m.dtype == bool else (host == np.where(above, -np.inf, 0)).all())


class _Layer(Module):
    """What layers of encoder and decoder share: the settings, the feed-forward part, norms and dropouts."""

    activation: Any

    def __init__(
        self, attentions: tuple[str, ...], d_model: int, nhead: int, dim_feedforward: int, dropout: float,
        activation: Any, layer_norm_eps: float, batch_first: bool, norm_first: bool, bias: bool, device: Any,
        dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        activation = _activation(type(self).__name__, activation)
        place = {"device": device, "dtype": dtype}
        for name in attentions:
            layer = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, **place)
            setattr(self, name, layer)
        self.linear1 = Linear(d_model, dim_feedforward, bias, **place)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **place)
        self.norm_first = norm_first
        count = len(attentions) + 1
        for i in range(1, count + 1):
            setattr(self, f"norm{i}", LayerNorm(d_model, layer_norm_eps, bias=bias, **place))
        for i in range(1, count + 1):
            setattr(self, f"dropout{i}", Dropout(dropout))
        self.activation = activation

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))

    def _residual(self, x: Tensor, index: int, part: Callable[[Tensor], Tensor]) -> Tensor:
        """One part with its dropout, its norm before or after, and the way around it."""
        norm, dropout = getattr(self, f"norm{index}"), getattr(self, f"dropout{index}")
        if self.norm_first:
            return x + dropout(part(norm(x)))
        return norm(x + dropout(part(x)))


class TransformerEncoderLayer(_Layer):
    """Self-attention and a feed-forward network, each with a residual and a LayerNorm.

        x = norm1(x + dropout1(self_attn(x))),  x = norm2(x + dropout2(linear2(dropout(activation(linear1(x))))))

    With `norm_first` each norm stands before its part: x + dropout1(self_attn(norm1(x))).
    Vaswani et al., Attention Is All You Need (2017).

    Args:
        d_model: the size of the input.
        nhead: the number of heads.
        dim_feedforward: the size between the two linear maps.
        dropout: the probability of a zero, everywhere.
        activation: `"relu"`, `"gelu"` or a callable.
        layer_norm_eps: of the norms.
        batch_first: (B, L, d_model) in the place of (L, B, d_model).
        norm_first: put the norms first.
        bias: have biases in linear maps and norms.
        device, dtype: of the parameters.

    Called with `(src, src_mask=None, src_key_padding_mask=None, is_causal=False)`; masks as in `MultiheadAttention`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)(cf.ones(3, 5, 8)).shape
    cuframe.Size([3, 5, 8])
    """

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1, activation: Any = F.relu,
        layer_norm_eps: float = 1e-5, batch_first: bool = False, norm_first: bool = False, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            ("self_attn",), d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first,
            norm_first, bias, device, dtype,
        )  # fmt: skip

    def forward(
        self, src: Tensor, src_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        def attention(x: Tensor) -> Tensor:
            return self.self_attn(
                x, x, x, attn_mask=src_mask, key_padding_mask=src_key_padding_mask, need_weights=False,
                is_causal=is_causal,
            )[0]  # fmt: skip

        return self._residual(self._residual(src, 1, attention), 2, self._feed_forward)


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to the encoder's result, and a feed-forward network.

        x = norm1(x + dropout1(self_attn(x))),  x = norm2(x + dropout2(multihead_attn(x, memory))),
        x = norm3(x + dropout3(linear2(dropout(activation(linear1(x))))))

    With `norm_first` each norm stands before its part. Vaswani et al., Attention Is All You Need (2017).

    Args:
        d_model: the size of the input.
        nhead: the number of heads.
        dim_feedforward: the size between the two linear maps.
        dropout: the probability of a zero, everywhere.
        activation: `"relu"`, `"gelu"` or a callable.
        layer_norm_eps: of the norms.
        batch_first: (B, L, d_model) in the place of (L, B, d_model).
        norm_first: put the norms first.
        bias: have biases in linear maps and norms.
        device, dtype: of the parameters.

    Called with `(tgt, memory, tgt_mask=None, memory_mask=None, tgt_key_padding_mask=None,
    memory_key_padding_mask=None, tgt_is_causal=False, memory_is_causal=False)`; masks as in `MultiheadAttention`.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.TransformerDecoderLayer(8, 2, 16)(cf.ones(5, 3, 8), cf.ones(7, 3, 8)).shape
    cuframe.Size([5, 3, 8])
    """

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1, activation: Any = F.relu,
        layer_norm_eps: float = 1e-5, batch_first: bool = False, norm_first: bool = False, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            ("self_attn", "multihead_attn"), d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps,
            batch_first, norm_first, bias, device, dtype,
        )  # fmt: skip

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        def attention(x: Tensor) -> Tensor:
            return self.self_attn(
                x, x, x, attn_mask=tgt_mask, key_padding_mask=tgt_key_padding_mask, need_weights=False,
                is_causal=tgt_is_causal,
            )[0]  # fmt: skip

        def lookup(x: Tensor) -> Tensor:
            return self.multihead_attn(
                x, memory, memory, attn_mask=memory_mask, key_padding_mask=memory_key_padding_mask, need_weights=False,
                is_causal=memory_is_causal,
            )[0]  # fmt: skip

        x = self._residual(self._residual(tgt, 1, attention), 2, lookup)
        return self._residual(x, 3, self._feed_forward)


def _length(x: Tensor, layer: Any) -> int:
    """The length of a sequence, by the layout that the layer's attention has."""
    attention = getattr(layer, "self_attn", None)
    return x.shape[1 if x.ndim == 3 and getattr(attention, "batch_first", False) else 0]


class TransformerEncoder(Module):
    """A stack of encoder layers, copies of one, and a norm at the end.

    Args:
        encoder_layer: the layer that is copied, parameters and all.
        num_layers: how many.
        norm: a module for the result, or None.
        enable_nested_tensor, mask_check: accepted as PyTorch does; there are no nested tensors.

    Called with `(src, mask=None, src_key_padding_mask=None, is_causal=None)`; without `is_causal` the mask is looked
    at.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2)(cf.ones(5, 3, 8)).shape
    cuframe.Size([5, 3, 8])
    """

    def __init__(
        self, encoder_layer: Module, num_layers: int, norm: Module | None = None, enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(encoder_layer) for _ in range(num_layers)])
        self.num_layers = num_layers
        self.norm = norm
        self.enable_nested_tensor = enable_nested_tensor
        self.mask_check = mask_check

    def forward(
        self, src: Tensor, mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:  # fmt: skip
        if len(self.layers):
            is_causal = _is_causal(mask, is_causal, _length(src, self.layers[0]))
        x = src
        for layer in self.layers:
            x = layer(x, src_mask=mask, src_key_padding_mask=src_key_padding_mask, is_causal=is_causal)
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(Module):
    """A stack of decoder layers, copies of one, and a norm at the end.

    Args:
        decoder_layer: the layer that is copied, parameters and all.
        num_layers: how many.
        norm: a module for the result, or None.

    Called with `(tgt, memory, ...)` and the masks of `TransformerDecoderLayer`; without `tgt_is_causal` the mask is
    looked at.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 2)(cf.ones(5, 3, 8), cf.ones(7, 3, 8)).shape
    cuframe.Size([5, 3, 8])
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(decoder_layer) for _ in range(num_layers)])
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        if len(self.layers):
            tgt_is_causal = _is_causal(tgt_mask, tgt_is_causal, _length(tgt, self.layers[0]))
        x = tgt
        for layer in self.layers:
            x = layer(
                x, memory, tgt_mask=tgt_mask, memory_mask=memory_mask, tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal,
                memory_is_causal=memory_is_causal,
            )  # fmt: skip
        return x if self.norm is None else self.norm(x)


class Transformer(Module):
    """An encoder of one sequence and a decoder of another that looks at the encoder's result.

    Vaswani et al., Attention Is All You Need (2017). Matrices start by Xavier's rule.

    Args:
        d_model: the size of both inputs.
        nhead: the number of heads.
        num_encoder_layers, num_decoder_layers: how many layers.
        dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias: as in
            `TransformerEncoderLayer`.
        custom_encoder, custom_decoder: modules in the place of the two stacks.
        device, dtype: of the parameters.

    Called with `(src, tgt, src_mask=None, tgt_mask=None, memory_mask=None, src_key_padding_mask=None,
    tgt_key_padding_mask=None, memory_key_padding_mask=None, src_is_causal=None, tgt_is_causal=None,
    memory_is_causal=False)`:
        src: (S, B, d_model), tgt: (T, B, d_model), or with the batch first, or both without it.
        src_mask: (S, S), tgt_mask: (T, T), memory_mask: (T, S); bool, True where hidden, or numbers to add.
        *_key_padding_mask: (B, S) or (B, T), likewise.
    Returns (T, B, d_model).

    Raises:
        RuntimeError: src and tgt differ in batch size, or are not of size d_model.

    >>> import cuframe as cf
    >>> from cuframe import nn
    >>> model = nn.Transformer(8, 2, 1, 1, 16)
    >>> model(cf.ones(5, 3, 8), cf.ones(4, 3, 8), tgt_mask=model.generate_square_subsequent_mask(4)).shape
    cuframe.Size([4, 3, 8])
    """

    def __init__(
        self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
        dim_feedforward: int = 2048, dropout: float = 0.1, activation: Any = F.relu, custom_encoder: Any = None,
        custom_decoder: Any = None, layer_norm_eps: float = 1e-5, batch_first: bool = False, norm_first: bool = False,
        bias: bool = True, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        settings = (
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias,
        )  # fmt: skip
        if custom_encoder is None:
            layer: Module = TransformerEncoderLayer(*settings, **place)
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, **place)
            custom_encoder = TransformerEncoder(layer, num_encoder_layers, norm)
        if custom_decoder is None:
            layer = TransformerDecoderLayer(*settings, **place)
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, **place)
            custom_decoder = TransformerDecoder(layer, num_decoder_layers, norm)
        self.encoder = custom_encoder
        self.decoder = custom_decoder
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first
        for p in self.parameters():
            if p.ndim > 1:
                init.xavier_uniform_(p)

    def forward(
        self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None, tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None, tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        along = 0 if self.batch_first else 1
        if src.ndim == 3 and tgt.ndim == 3 and src.shape[along] != tgt.shape[along]:
            raise RuntimeError(
                f"Transformer: src and tgt must agree in batch size, got {tuple(src.shape)} and {tuple(tgt.shape)}"
            )
        for name, x in (("src", src), ("tgt", tgt)):
            if x.shape[-1] != self.d_model:
                raise RuntimeError(f"Transformer: {name} must be (..., {self.d_model}), got {tuple(x.shape)}")
        memory = self.encoder(
            src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal
        )
        return self.decoder(
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask, tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )  # fmt: skip

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """A mask (sz, sz) that hides the keys after each query: -inf above the diagonal, zeros elsewhere.

        >>> from cuframe import nn
        >>> nn.Transformer.generate_square_subsequent_mask(2)
        tensor([[0., -inf],
                [0., 0.]])
        """
        return _causal_mask(sz, device, dtype)
