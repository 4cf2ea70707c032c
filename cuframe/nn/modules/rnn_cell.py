"""Recurrent cells, one step a call: RNNCell, LSTMCell, GRUCell."""

from __future__ import annotations

from typing import Any

from ...ops.create import empty
from ...ops.rnn import rnn_cell
from ...ops.rnn_options import rnn_options_layer
from ...tensor import Parameter, Tensor
from ..module import Module
from .rnn_base import GATES, check_sizes, reset
from .rnn_options import NORM_KINDS, check_switch, draw_noise, norm_shapes, zoneout_pair

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RNNCellBase"]


class RNNCellBase(Module):
    """What the cells share: the weights of one step.

    They are `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh`; `layer_norm=True` adds `weight_ln_ih` and
    `weight_ln_hh`, for LSTMCell `weight_ln_c` and `bias_ln_c`. Recurrent dropout is for whole sequences only: its mask
    outlives a step.

    Args:
        cell: `"lstm"`, `"gru"`, `"rnn_tanh"` or `"rnn_relu"`; the others are as in `LSTMCell`.

    >>> from cuframe import nn
    >>> cell = nn.GRUCell(2, 3)
    >>> isinstance(cell, nn.RNNCellBase), cell.weight_ih.shape
    (True, cuframe.Size([9, 2]))
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        bias: bool,
        device: Any = None,
        dtype: Any = None,
        *,
        zoneout: float | tuple[float, float] = 0.0,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_sizes(name, input_size, hidden_size)
        zoneout_pair(name, cell, zoneout)
        self.cell = cell
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self.zoneout = zoneout
        self.layer_norm = check_switch(name, "layer_norm", layer_norm)
        gates = GATES[cell] * hidden_size
        self.weight_ih = Parameter(empty(gates, input_size, device=device, dtype=dtype))
        self.weight_hh = Parameter(empty(gates, hidden_size, device=device, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(gates, device=device, dtype=dtype)) if bias else None)
        if layer_norm:
            for kind, shape in norm_shapes(cell, gates, hidden_size, bias).items():
                self.register_parameter(kind, Parameter(empty(*shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights from U(-1/sqrt(H), 1/sqrt(H)); gains of layer normalisations become 1, their biases 0."""
        reset(self, self.hidden_size)

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        for name, default in (("bias", True), ("zoneout", 0.0), ("layer_norm", False)):
            value = getattr(self, name)
            if value != default:
                parts.append(f"{name}={value}")
        return ", ".join(parts)

    def _step(self, input: Any, hx: Any, cx: Any = None) -> tuple[Tensor, Tensor | None]:
        name = type(self).__name__
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}: input must be a Tensor, got {type(input).__name__}")
        shape = input.array.shape
        if len(shape) not in (1, 2) or shape[-1] != self.input_size:
            raise RuntimeError(f"{name}: input must be (N, {self.input_size}) or ({self.input_size},), got {shape}")
        expected = (*shape[:-1], self.hidden_size)
        for label, state in (("hx", hx), ("cx", cx)):
            if state is not None and state.shape != expected:
                kind = RuntimeError if state.ndim in (1, 2) else ValueError
                raise kind(f"{name}: {label} must have shape {expected}, got {tuple(state.shape)}")
        batched = len(shape) == 2
        if not batched:
            input, hx, cx = (t if t is None else t.unsqueeze(0) for t in (input, hx, cx))
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        if self.layer_norm or self.zoneout:
            norms: Any = tuple(getattr(self, kind, None) for kind in NORM_KINDS) if self.layer_norm else None
            share, size, x = zoneout_pair(name, self.cell, self.zoneout), self.hidden_size, input.unsqueeze(0)
            noise = draw_noise(x, None, None, size, size, 0.0, share, self.training)
            _, h, c = rnn_options_layer(self.cell, x, (*weights, None), norms, hx, cx, **noise)
        else:
            h, c = rnn_cell(self.cell, input, weights, hx, cx)
        return (h, c) if batched else (h.squeeze(0), None if c is None else c.squeeze(0))


class RNNCell(RNNCellBase):
    """One step of an Elman RNN: h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu.

    Called with `(input [N, I] or [I], hx [N, H] or [H] = None)`; returns h' of the shape of hx. `zoneout` and
    `layer_norm` are those of `RNN`, with parameters `weight_ln_ih` and `weight_ln_hh`.

    Args:
        input_size: I, the size of the input's last dimension.
        hidden_size: H.
        bias: have `bias_ih` and `bias_hh`.
        nonlinearity: `"tanh"` or `"relu"`.
        device, dtype: of the weights.
        zoneout, layer_norm: as in `RNN`.

    >>> import cuframe as cf
    >>> cf.nn.RNNCell(10, 20)(cf.zeros(3, 10)).shape
    cuframe.Size([3, 20])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
        *,
        zoneout: float = 0.0,
        layer_norm: bool = False,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNNCell: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(
            f"rnn_{nonlinearity}", input_size, hidden_size, bias, device, dtype, zoneout=zoneout, layer_norm=layer_norm
        )
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step; see the class."""
        return self._step(input, hx)[0]


class GRUCell(RNNCellBase):
    """One step of a GRU, with the formula of `GRU`.

    Called with `(input [N, I] or [I], hx [N, H] or [H] = None)`; returns h' of the shape of hx. `zoneout` and
    `layer_norm` are those of `GRU`, with parameters `weight_ln_ih` and `weight_ln_hh`.

    Args:
        input_size: I, the size of the input's last dimension.
        hidden_size: H.
        bias: have `bias_ih` and `bias_hh`.
        device, dtype: of the weights.
        zoneout, layer_norm: as in `GRU`.

    >>> import cuframe as cf
    >>> cf.nn.GRUCell(10, 20)(cf.zeros(3, 10)).shape
    cuframe.Size([3, 20])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        zoneout: float = 0.0,
        layer_norm: bool = False,
    ) -> None:
        super().__init__(
            "gru", input_size, hidden_size, bias, device, dtype, zoneout=zoneout, layer_norm=layer_norm
        )

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step; see the class."""
        return self._step(input, hx)[0]


class LSTMCell(RNNCellBase):
    """One step of an LSTM, with the formula of `LSTM`.

    Called with `(input [N, I] or [I], hx = (h, c) of [N, H] or [H], or None)`; returns (h', c'). `zoneout` and
    `layer_norm` are those of `LSTM`, with parameters `weight_ln_ih`, `weight_ln_hh`, `weight_ln_c` and `bias_ln_c`.

    Args:
        input_size: I, the size of the input's last dimension.
        hidden_size: H.
        bias: have `bias_ih` and `bias_hh`.
        device, dtype: of the weights.
        zoneout, layer_norm: as in `LSTM`.

    >>> import cuframe as cf
    >>> h, c = cf.nn.LSTMCell(10, 20)(cf.zeros(3, 10))
    >>> h.shape, c.shape
    (cuframe.Size([3, 20]), cuframe.Size([3, 20]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        zoneout: float | tuple[float, float] = 0.0,
        layer_norm: bool = False,
    ) -> None:
        super().__init__(
            "lstm", input_size, hidden_size, bias, device, dtype, zoneout=zoneout, layer_norm=layer_norm
        )

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """One step; see the class."""
        if hx is not None and not (isinstance(hx, (tuple, list)) and len(hx) == 2):
            raise TypeError(f"LSTMCell: hx must be a pair (h, c), got {type(hx).__name__}")
        h, c = self._step(input, *(hx or (None, None)))
        assert c is not None
        return h, c
