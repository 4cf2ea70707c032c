"""Recurrent layers and cells: RNN, LSTM, GRU."""

from __future__ import annotations

import math
import warnings
from typing import Any

from ...ops.create import empty
from ...ops.join import cat, stack
from ...ops.rnn import rnn_layer
from ...tensor import Parameter, Tensor
from .. import functional as F
from .. import init
from ..module import Module
from ..utils.rnn import PackedSequence

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _check_sizes(name: str, input_size: int, hidden_size: int) -> None:
    for argument, value in (("input_size", input_size), ("hidden_size", hidden_size)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name}: {argument} must be an int, got {type(value).__name__}")
        if value <= 0:
            raise ValueError(f"{name}: {argument} must be positive, got {value}")


class RNNBase(Module):
    """What RNN, LSTM and GRU share: the weights of all layers and directions, and the walk through them.

    Weights carry PyTorch's names: `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, with `_l1`, ... for
    further layers, `_reverse` for the second direction and `weight_hr_l0` for a projection.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        _check_sizes(name, input_size, hidden_size)
        if not isinstance(num_layers, int) or num_layers <= 0:
            raise ValueError(f"{name}: num_layers must be a positive int, got {num_layers!r}")
        if not isinstance(dropout, (int, float)) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise ValueError(f"{name}: dropout must be a probability in [0, 1], got {dropout!r}")
        for argument, value in (("bias", bias), ("batch_first", batch_first)):
            if not isinstance(value, bool):
                raise TypeError(f"{name}: {argument} must be a bool, got {type(value).__name__}")
        if proj_size and cell != "lstm":
            raise ValueError(f"{name}: proj_size is for LSTM only")
        if not 0 <= proj_size < hidden_size:
            raise ValueError(f"{name}: proj_size must be in [0, hidden_size), got {proj_size} of {hidden_size}")
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                f"{name}: dropout applies between layers, so with num_layers=1 dropout={dropout} has no effect",
                stacklevel=3,
            )
        self.cell = cell
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        out_size = proj_size or hidden_size
        gates = _GATES[cell] * hidden_size
        for layer in range(num_layers):
            in_size = input_size if layer == 0 else out_size * (2 if bidirectional else 1)
            for direction in range(2 if bidirectional else 1):
                shapes: dict[str, tuple[int, ...]] = {
                    "weight_ih": (gates, in_size),
                    "weight_hh": (gates, out_size),
                }
                if bias:
                    shapes["bias_ih"] = shapes["bias_hh"] = (gates,)
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                for kind, shape in shapes.items():
                    self.register_parameter(
                        _weight_name(kind, layer, direction), Parameter(empty(*shape, device=device, dtype=dtype))
                    )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights from U(-1/sqrt(H), 1/sqrt(H))."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing: the kernels take weights wherever they lie. Kept for scripts that call it."""

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The weights of each layer and direction."""
        return [
            [w for w in self._weights(layer, direction) if w is not None]
            for layer in range(self.num_layers)
            for direction in range(2 if self.bidirectional else 1)
        ]

    def _weights(self, layer: int, direction: int) -> tuple:
        # getattr, not _parameters: a parametrized weight is computed on access.
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return tuple(getattr(self, _weight_name(kind, layer, direction), None) for kind in kinds)

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        for name, default in (("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False),
                              ("dropout", 0.0), ("bidirectional", False)):  # fmt: skip
            value = getattr(self, name)
            if value != default:
                parts.append(f"{name}={value}")
        return ", ".join(parts)

    # -- running ------------------------------------------------------------------------------------------------
    def _run(self, input: Any, hx: Any, cx: Any, lengths: Any) -> tuple[Any, Tensor, Tensor | None]:
        """Check, bring to [T, N, I] (or packed rows), walk the layers, and bring back."""
        name = type(self).__name__
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError(f"{name}: a PackedSequence knows its lengths; leave out lengths")
            x, sizes, order, back = input
            self._check_features(x)
            sizes_host = sizes.numpy(force=True)
            batch = int(sizes_host[0]) if len(sizes_host) else 0
            hx, cx = self._check_states(hx, cx, batch, True)
            if order is not None:
                hx = None if hx is None else hx.index_select(1, order)
                cx = None if cx is None else cx.index_select(1, order)
            y, h, c = self._layers(x, hx, cx, None, sizes_host)
            if back is not None:
                h = h.index_select(1, back)
                c = None if c is None else c.index_select(1, back)
            return PackedSequence(y, sizes, order, back), h, c
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}: input must be a Tensor or a PackedSequence, got {type(input).__name__}")
        if input.ndim not in (2, 3):
            raise ValueError(f"{name}: input must be [T, N, I] or unbatched [T, I], got {tuple(input.shape)}")
        self._check_features(input)
        batched = input.ndim == 3
        if not batched:
            x = input.unsqueeze(1)
        else:
            x = input.transpose(0, 1) if self.batch_first else input
        hx, cx = self._check_states(hx, cx, x.shape[1], batched)
        if lengths is not None and not batched:
            raise ValueError(f"{name}: lengths needs batched input")
        y, h, c = self._layers(x, hx, cx, lengths, None)
        if not batched:
            return y.squeeze(1), h.squeeze(1), None if c is None else c.squeeze(1)
        return (y.transpose(0, 1) if self.batch_first else y), h, c

    def _check_features(self, x: Tensor) -> None:
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                f"{type(self).__name__}: the input's last dimension must be input_size {self.input_size}, "
                f"got {tuple(x.shape)}"
            )
        weight = next(self.parameters())
        if x.dtype != weight.dtype:
            raise ValueError(
                f"{type(self).__name__}: input must be {weight.dtype.name} as the weights are, got {x.dtype.name}"
            )

    def _check_states(self, hx: Any, cx: Any, batch: int, batched: bool) -> tuple[Any, Any]:
        """The initial states as [layers * directions, N, size], checked."""
        rows = self.num_layers * (2 if self.bidirectional else 1)
        states = []
        for label, state, size in (("hx", hx, self.proj_size or self.hidden_size), ("cx", cx, self.hidden_size)):
            if state is not None:
                expected = (rows, batch, size) if batched else (rows, size)
                if not isinstance(state, Tensor):
                    raise TypeError(
                        f"{type(self).__name__}: {label} must be a Tensor, got {type(state).__name__}"
                    )
                if tuple(state.shape) != expected:
                    raise RuntimeError(
                        f"{type(self).__name__}: {label} must have shape {expected}, got {tuple(state.shape)}"
                    )
                if not batched:
                    state = state.unsqueeze(1)
            states.append(state)
        return states[0], states[1]

    def _layers(self, x: Tensor, hx: Any, cx: Any, lengths: Any, sizes: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        hs: list[Tensor] = []
        cs: list[Tensor] = []
        directions = 2 if self.bidirectional else 1
        for layer in range(self.num_layers):
            ys = []
            for direction in range(directions):
                row = layer * directions + direction
                y, h, c = rnn_layer(
                    self.cell, x, self._weights(layer, direction),
                    None if hx is None else hx[row], None if cx is None else cx[row],
                    lengths=lengths, batch_sizes=sizes, reverse=direction == 1,
                )  # fmt: skip
                ys.append(y)
                hs.append(h)
                if c is not None:
                    cs.append(c)
            x = ys[0] if directions == 1 else cat(ys, -1)
            if self.dropout and layer + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, self.training)
        if len(hs) == 1:
            return x, hs[0].unsqueeze(0), cs[0].unsqueeze(0) if cs else None
        return x, stack(hs), stack(cs) if cs else None


def _weight_name(kind: str, layer: int, direction: int) -> str:
    return f"{kind}_l{layer}{'_reverse' if direction else ''}"


class RNN(RNNBase):
    """Elman RNN: h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), or relu in the place of tanh.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: layers on top of one another.
        nonlinearity: `"tanh"` or `"relu"`.
        bias: use b_ih and b_hh.
        batch_first: input and output are [N, T, ...] rather than [T, N, ...]; the states are not affected.
        dropout: probability of dropping outputs between layers, in training.
        bidirectional: run a second set of weights from the end to the start.
        device, dtype: of the weights.

    Called with `(input, hx=None, lengths=None)`: input [T, N, I], unbatched [T, I] or a PackedSequence; hx
    [layers * directions, N, H], zeros if None; lengths [N] integers (zero allowed) in the place of packing.

    Returns:
        output [T, N, directions * H] of the last layer, h_n [layers * directions, N, H].

    Raises:
        RuntimeError: a shape does not fit.

    >>> import cuframe as cf
    >>> y, h = cf.nn.RNN(10, 20, num_layers=2)(cf.zeros(5, 3, 10))
    >>> y.shape, h.shape
    (cuframe.Size([5, 3, 20]), cuframe.Size([2, 3, 20]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(
            f"rnn_{nonlinearity}", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            0, device, dtype,
        )  # fmt: skip
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Tensor | None = None, *, lengths: Any = None) -> tuple[Any, Tensor]:
        """Run all layers over all steps; see the class."""
        y, h, _ = self._run(input, hx, None, lengths)
        return y, h


class GRU(RNNBase):
    """Gated recurrent unit (Cho et al. 2014, with the reset gate after the product as in cuDNN).

    r = sigmoid(W_ir x + b_ir + W_hr h + b_hr), z = sigmoid(W_iz x + b_iz + W_hz h + b_hz),
    n = tanh(W_in x + b_in + r * (W_hn h + b_hn)), h' = (1 - z) * n + z * h.

    Arguments, inputs and results as for `RNN`, without `nonlinearity`. Gate order in the weights: r, z, n.

    >>> import cuframe as cf
    >>> y, h = cf.nn.GRU(10, 20, bidirectional=True)(cf.zeros(5, 3, 10))
    >>> y.shape, h.shape
    (cuframe.Size([5, 3, 40]), cuframe.Size([2, 3, 20]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "gru", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )

    def forward(self, input: Any, hx: Tensor | None = None, *, lengths: Any = None) -> tuple[Any, Tensor]:
        """Run all layers over all steps; see the class."""
        y, h, _ = self._run(input, hx, None, lengths)
        return y, h


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with forget gate; projection: Sak et al. 2014).

    i, f, o = sigmoid(W x + b + U h + d) for each gate, g = tanh(W_g x + b_g + U_g h + d_g),
    c' = f * c + i * g, h' = o * tanh(c'), with a projection h' = W_hr (o * tanh(c')).

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: layers on top of one another.
        bias: use b_ih and b_hh.
        batch_first: input and output are [N, T, ...] rather than [T, N, ...]; the states are not affected.
        dropout: probability of dropping outputs between layers, in training.
        bidirectional: run a second set of weights from the end to the start.
        proj_size: P > 0 projects h to P numbers; the output and h then have P in the place of H.
        device, dtype: of the weights. Gate order in the weights: i, f, g, o.

    Called with `(input, hx=None, lengths=None)`: input [T, N, I], unbatched [T, I] or a PackedSequence; hx a pair
    (h_0 [layers * directions, N, P or H], c_0 [layers * directions, N, H]), zeros if None; lengths [N] integers
    (zero allowed) in the place of packing.

    Returns:
        output [T, N, directions * (P or H)] of the last layer, and the pair (h_n, c_n) of the shapes of hx.

    Raises:
        RuntimeError: a shape does not fit.

    Backward keeps six numbers for each hidden unit, step and sequence (see `cuframe.cpu.rnn.Saved`).

    >>> import cuframe as cf
    >>> y, (h, c) = cf.nn.LSTM(10, 20, proj_size=4)(cf.zeros(5, 3, 10))
    >>> y.shape, h.shape, c.shape
    (cuframe.Size([5, 3, 4]), cuframe.Size([1, 3, 4]), cuframe.Size([1, 3, 20]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "lstm", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            device, dtype,
        )  # fmt: skip

    def forward(
        self, input: Any, hx: tuple[Tensor, Tensor] | None = None, *, lengths: Any = None
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        """Run all layers over all steps; see the class."""
        if hx is None:
            h0 = c0 = None
        elif isinstance(hx, (tuple, list)) and len(hx) == 2:
            h0, c0 = hx
        else:
            raise TypeError(f"LSTM: hx must be a pair (h_0, c_0), got {type(hx).__name__}")
        y, h, c = self._run(input, h0, c0, lengths)
        assert c is not None
        return y, (h, c)


class RNNCellBase(Module):
    """What the cells share: the weights of one step."""

    def __init__(
        self, cell: str, input_size: int, hidden_size: int, bias: bool, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        _check_sizes(type(self).__name__, input_size, hidden_size)
        self.cell = cell
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = _GATES[cell] * hidden_size
        self.weight_ih = Parameter(empty(gates, input_size, device=device, dtype=dtype))
        self.weight_hh = Parameter(empty(gates, hidden_size, device=device, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(gates, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights from U(-1/sqrt(H), 1/sqrt(H))."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")

    def _step(self, input: Any, hx: Any, cx: Any = None) -> tuple[Tensor, Tensor | None]:
        name = type(self).__name__
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}: input must be a Tensor, got {type(input).__name__}")
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"{name}: input must be (N, {self.input_size}) or ({self.input_size},), got {tuple(input.shape)}"
            )
        expected = (*input.shape[:-1], self.hidden_size)
        for label, state in (("hx", hx), ("cx", cx)):
            if state is not None and tuple(state.shape) != expected:
                kind = RuntimeError if state.ndim in (1, 2) else ValueError
                raise kind(f"{name}: {label} must have shape {expected}, got {tuple(state.shape)}")
        batched = input.ndim == 2
        x, h0, c0 = (
            t if t is None or batched else t.unsqueeze(0) for t in (input, hx, cx)
        )
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, None)
        _, h, c = rnn_layer(self.cell, x.unsqueeze(0), weights, h0, c0)  # a sequence of one step
        return (h, c) if batched else (h.squeeze(0), None if c is None else c.squeeze(0))


class RNNCell(RNNCellBase):
    """One step of an Elman RNN: h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu.

    Called with `(input [N, I] or [I], hx [N, H] or [H] = None)`; returns h' of the shape of hx.

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
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNNCell: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(f"rnn_{nonlinearity}", input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step; see the class."""
        return self._step(input, hx)[0]


class GRUCell(RNNCellBase):
    """One step of a GRU, with the formula of `GRU`.

    Called with `(input [N, I] or [I], hx [N, H] or [H] = None)`; returns h' of the shape of hx.

    >>> import cuframe as cf
    >>> cf.nn.GRUCell(10, 20)(cf.zeros(3, 10)).shape
    cuframe.Size([3, 20])
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__("gru", input_size, hidden_size, bias, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step; see the class."""
        return self._step(input, hx)[0]


class LSTMCell(RNNCellBase):
    """One step of an LSTM, with the formula of `LSTM`.

    Called with `(input [N, I] or [I], hx = (h, c) of [N, H] or [H], or None)`; returns (h', c').

    >>> import cuframe as cf
    >>> h, c = cf.nn.LSTMCell(10, 20)(cf.zeros(3, 10))
    >>> h.shape, c.shape
    (cuframe.Size([3, 20]), cuframe.Size([3, 20]))
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__("lstm", input_size, hidden_size, bias, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """One step; see the class."""
        if hx is not None and not (isinstance(hx, (tuple, list)) and len(hx) == 2):
            raise TypeError(f"LSTMCell: hx must be a pair (h, c), got {type(hx).__name__}")
        h, c = self._step(input, *(hx or (None, None)))
        assert c is not None
        return h, c
