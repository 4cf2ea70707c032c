"""What the recurrent layers share: weights, checks, and the walk through layers and directions."""

from __future__ import annotations

import math
import warnings
from typing import Any

from ...ops.create import empty
from ...ops.join import cat, stack
from ...ops.rnn import rnn_both, rnn_layer, rnn_stack
from ...ops.rnn_options import held_dropout, rnn_options_layer
from ...tensor import Parameter, Tensor
from .. import functional as F
from .. import init
from ..module import Module
from ..utils.rnn import PackedSequence
from .rnn_options import NORM_KINDS, check_probability, check_switch, draw_noise, norm_shapes, zoneout_pair

__all__ = ["GATES", "RNNBase", "check_sizes", "reset"]

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def check_sizes(name: str, input_size: int, hidden_size: int) -> None:
    """Refuse sizes that are no positive integers."""
    for argument, value in (("input_size", input_size), ("hidden_size", hidden_size)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name}: {argument} must be an int, got {type(value).__name__}")
        if value <= 0:
            raise ValueError(f"{name}: {argument} must be positive, got {value}")


def reset(module: Module, hidden_size: int) -> None:
    """Draw weights from U(-1/sqrt(H), 1/sqrt(H)); gains of layer normalisations become 1, their own biases 0."""
    bound = 1.0 / math.sqrt(hidden_size)
    for name, weight in module.named_parameters():
        if name.startswith(NORM_KINDS):
            init.constant_(weight, 1.0 if name.startswith("weight") else 0.0)
        else:
            init.uniform_(weight, -bound, bound)


class RNNBase(Module):
    """What RNN, LSTM and GRU share: the weights of all layers and directions, and the walk through them.

    Weights carry PyTorch's names: `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, with `_l1`, ... for
    further layers, `_reverse` for the second direction and `weight_hr_l0` for a projection. `layer_norm=True` adds
    `weight_ln_ih_l0` and `weight_ln_hh_l0`, for LSTM `weight_ln_c_l0` and `bias_ln_c_l0`.

    Args:
        cell: `"lstm"`, `"gru"`, `"rnn_tanh"` or `"rnn_relu"`; the others are as in `LSTM`.

    >>> from cuframe import nn
    >>> lstm = nn.LSTM(2, 3)
    >>> isinstance(lstm, nn.RNNBase), [name for name, _ in lstm.named_parameters()]
    (True, ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0'])
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
        *,
        variational: bool = False,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        layer_norm: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_sizes(name, input_size, hidden_size)
        if not isinstance(num_layers, int) or num_layers <= 0:
            raise ValueError(f"{name}: num_layers must be a positive int, got {num_layers!r}")
        check_probability(name, "dropout", dropout)
        zoneout_pair(name, cell, zoneout)
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
        self.variational = check_switch(name, "variational", variational)
        self.input_dropout = check_probability(name, "input_dropout", input_dropout)
        self.recurrent_dropout = check_probability(name, "recurrent_dropout", recurrent_dropout)
        self.zoneout = zoneout
        self.layer_norm = check_switch(name, "layer_norm", layer_norm)
        self.recompute = check_switch(name, "recompute", recompute)
        out_size = proj_size or hidden_size
        gates = GATES[cell] * hidden_size
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
                if layer_norm:
                    shapes |= norm_shapes(cell, gates, hidden_size, bias)
                for kind, shape in shapes.items():
                    self.register_parameter(
                        _weight_name(kind, layer, direction), Parameter(empty(*shape, device=device, dtype=dtype))
                    )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights from U(-1/sqrt(H), 1/sqrt(H)); gains of layer normalisations become 1, their biases 0."""
        reset(self, self.hidden_size)

    def flatten_parameters(self) -> None:
        """Nothing: the kernels take weights wherever they lie. Kept for scripts that call it."""

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The weights of each layer and direction."""
        return [
            [w for w in (*self._weights(layer, direction), *self._norms(layer, direction)) if w is not None]
            for layer in range(self.num_layers)
            for direction in range(2 if self.bidirectional else 1)
        ]

    def _weights(self, layer: int, direction: int) -> tuple:
        # getattr, not _parameters: a parametrized weight is computed on access.
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return tuple(getattr(self, _weight_name(kind, layer, direction), None) for kind in kinds)

    def _norms(self, layer: int, direction: int) -> tuple:
        if not self.layer_norm:
            return ()
        return tuple(getattr(self, _weight_name(kind, layer, direction), None) for kind in NORM_KINDS)

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        for name, default in (("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False),
                              ("dropout", 0.0), ("bidirectional", False), ("variational", False),
                              ("input_dropout", 0.0), ("recurrent_dropout", 0.0), ("zoneout", 0.0),
                              ("layer_norm", False), ("recompute", False)):  # fmt: skip
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
            y, h, c = self._layers(x, hx, cx, None, sizes_host, None if order is None else order.numpy(force=True))
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
        weight = next(self.parameters(), x)  # all of them may have become buffers
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

    def _layers(
        self, x: Tensor, hx: Any, cx: Any, lengths: Any, sizes: Any, order: Any = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        hs: list[Tensor] = []
        cs: list[Tensor] = []
        directions = 2 if self.bidirectional else 1
        if self.input_dropout and self.training:
            x = held_dropout(x, self.input_dropout, sizes, order)
        between = self.dropout and self.training
        if self.num_layers > 1 and directions == 1 and not between and sizes is None and self._plain():
            weights = [self._weights(layer, 0)[:4] for layer in range(self.num_layers)]
            found = rnn_stack(self.cell, x, weights, hx, cx, lengths=lengths, recompute=self.recompute)
            if found is not None:
                return found
        for layer in range(self.num_layers):
            at = slice(layer * directions, (layer + 1) * directions)
            x, h, c = self._layer(
                layer, x, None if hx is None else hx[at], None if cx is None else cx[at], lengths, sizes, order
            )
            hs.append(h)
            if c is not None:
                cs.append(c)
            if self.dropout and layer + 1 < self.num_layers:
                if not self.variational:
                    x = F.dropout(x, self.dropout, self.training)
                elif self.training:
                    x = held_dropout(x, self.dropout, sizes, order)
        if len(hs) == 1:
            return x, hs[0], cs[0] if cs else None
        return x, cat(hs), cat(cs) if cs else None

    def _layer(
        self, layer: int, x: Tensor, hx: Any, cx: Any, lengths: Any, sizes: Any, order: Any
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One layer: its output, and its last states with a row for each direction."""
        if self.bidirectional and sizes is None and self._plain():
            first, second = (self._weights(layer, direction)[:4] for direction in range(2))
            both = rnn_both(self.cell, x, first, second, hx, cx, lengths=lengths, recompute=self.recompute)
            if both is not None:
                return both
        ys, hs, cs = [], [], []
        for d in range(2 if self.bidirectional else 1):
            h0, c0 = (None if s is None else s[d] for s in (hx, cx))
            y, h, c = self._direction(layer, d, x, h0, c0, lengths, sizes, order)
            ys.append(y)
            hs.append(h)
            cs += [] if c is None else [c]
        if len(ys) == 1:
            return ys[0], hs[0].unsqueeze(0), cs[0].unsqueeze(0) if cs else None
        return cat(ys, -1), stack(hs), stack(cs) if cs else None

    def _plain(self) -> bool:
        """Whether a layer is what PyTorch's is, without a projection."""
        return not (self.proj_size or self.layer_norm or self.recurrent_dropout or self.zoneout)

    def _direction(
        self, layer: int, direction: int, x: Tensor, h0: Any, c0: Any, lengths: Any, sizes: Any, order: Any
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One direction of one layer, with the options that are on."""
        weights, norms = self._weights(layer, direction), self._norms(layer, direction)
        where: dict[str, Any] = {"lengths": lengths, "batch_sizes": sizes, "reverse": direction == 1}
        noise = {}
        if self.recurrent_dropout or self.zoneout:
            noise = draw_noise(
                x, sizes, order, self.proj_size or self.hidden_size, self.hidden_size, self.recurrent_dropout,
                zoneout_pair(type(self).__name__, self.cell, self.zoneout), self.training,
            )  # fmt: skip
        if not norms and not noise:
            return rnn_layer(self.cell, x, weights, h0, c0, **where, recompute=self.recompute)
        return rnn_options_layer(self.cell, x, weights, norms or None, h0, c0, **where, **noise)


def _weight_name(kind: str, layer: int, direction: int) -> str:
    return f"{kind}_l{layer}{'_reverse' if direction else ''}"
