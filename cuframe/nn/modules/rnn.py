"""Recurrent layers RNN, LSTM and GRU; their cells are in `rnn_cell`."""

from __future__ import annotations

from typing import Any

from ...tensor import Tensor
from .rnn_base import RNNBase
from .rnn_cell import GRUCell, LSTMCell, RNNCell, RNNCellBase

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]


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
        variational: draw the masks of `dropout` once for a sequence and hold them over its steps.
        input_dropout: probability of dropping a feature of the input, with such a mask.
        recurrent_dropout: probability of dropping a unit of h_{t-1} where it enters W_hh, with such a mask.
        zoneout: probability with which a unit of h keeps its value for a step.
        layer_norm: normalise both products, below.
        recompute: on a GPU, keep the states alone for backward and make the gates again there, by two products over
            all steps: an LSTM then keeps 8 bytes a unit and step in the place of 24, a GRU 4 of 20 (in 16 bits 6 of
            14, 2 of 10), an RNN 4 either way. Without effect on the CPU, and with the options below.

    Called with `(input, hx=None, lengths=None)`: input [T, N, I], unbatched [T, I] or a PackedSequence; hx
    [layers * directions, N, H], zeros if None; lengths [N] integers (zero allowed) in the place of packing.

    Returns:
        output [T, N, directions * H] of the last layer, h_n [layers * directions, N, H].

    Raises:
        RuntimeError: a shape does not fit.

    Dropout held over time (Gal and Ghahramani 2016, with one mask for all gates): x_t * m_x and h_{t-1} * m_h take the
    places of x_t and h_{t-1} in the products; m = Bernoulli(1 - p) / (1 - p) of [N, features], drawn at each call for
    each layer, m_h for each direction. In eval mode m = 1.

    Zoneout (Krueger et al. 2017): h_t = d_t * h_{t-1} + (1 - d_t) * h~_t, where h~_t is what h_t is without it, and
    d_t = Bernoulli(zoneout) is drawn for each unit, step and sequence. In eval mode d_t is its expectation, zoneout.

    `layer_norm=True` (after Ba et al. 2016, input and recurrent products apart): h_t = tanh(LN(W_ih x) * g + b_ih +
    LN(W_hh h) * k + b_hh) with LN(a) = (a - mean(a)) / sqrt(var(a) + 1e-5) over the units, and the gains
    g = `weight_ln_ih_l0` and k = `weight_ln_hh_l0` of [H], initially 1. The biases are those of the normalisations.

    All of them work with packing and `lengths`, and the masks do not depend on which of these is used. A layer is still
    one node of the graph.

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
        *,
        variational: bool = False,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        recompute: bool = False,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(
            f"rnn_{nonlinearity}", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            0, device, dtype,
            variational=variational, input_dropout=input_dropout, recurrent_dropout=recurrent_dropout, zoneout=zoneout,
            layer_norm=layer_norm, recompute=recompute,
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

    Recurrent dropout takes h * m_h in the products only; z * h has all of h. `layer_norm=True` (Ba et al. 2016,
    supplement) puts LN(W x) * g in the place of W x and LN(W h) * k in that of W h: with statistics over the 2H units
    of (r, z) and over the H of n, and the gains g = `weight_ln_ih_l0` and k = `weight_ln_hh_l0` of [3H], initially 1.

    >>> import cuframe as cf
    >>> y, h = cf.nn.GRU(10, 20, bidirectional=True)(cf.zeros(5, 3, 10))
    >>> y.shape, h.shape
    (cuframe.Size([5, 3, 40]), cuframe.Size([2, 3, 20]))
    >>> y, h = cf.nn.GRU(10, 20, layer_norm=True, zoneout=0.1)(cf.zeros(5, 3, 10), lengths=[5, 0, 2])
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
        *,
        variational: bool = False,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__(
            "gru", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype,
            variational=variational, input_dropout=input_dropout, recurrent_dropout=recurrent_dropout, zoneout=zoneout,
            layer_norm=layer_norm, recompute=recompute,
        )  # fmt: skip

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
        variational: draw the masks of `dropout` once for a sequence and hold them over its steps.
        input_dropout: probability of dropping a feature of the input, with such a mask.
        recurrent_dropout: probability of dropping a unit of h_{t-1} where it enters W_hh, with such a mask.
        zoneout: probability with which a unit of h keeps its value for a step, or a pair (h, c).
        layer_norm: normalise both products, and c, below.
        recompute: on a GPU, keep the states alone for backward and make the gates again there, by two products over
            all steps: 8 bytes a unit and step in the place of 24, in 16 bits 6 of 14. Without effect on the CPU, and
            with the options below.

    Called with `(input, hx=None, lengths=None)`: input [T, N, I], unbatched [T, I] or a PackedSequence; hx a pair
    (h_0 [layers * directions, N, P or H], c_0 [layers * directions, N, H]), zeros if None; lengths [N] integers
    (zero allowed) in the place of packing.

    Returns:
        output [T, N, directions * (P or H)] of the last layer, and the pair (h_n, c_n) of the shapes of hx.

    Raises:
        RuntimeError: a shape does not fit.

    Dropout held over time is that of `RNN`; c is not dropped. Zoneout (Krueger et al. 2017), with d = Bernoulli(p) for
    each unit, step and sequence in training and d = p in eval mode, and one number standing for both p:

        c_t = d_c * c_{t-1} + (1 - d_c) * c~,    c~ = f * c_{t-1} + i * g
        h_t = d_h * h_{t-1} + (1 - d_h) * (o * tanh(c~)),    or of its projection

    `layer_norm=True` (Ba et al. 2016, supplement), with LN(a) = (a - mean(a)) / sqrt(var(a) + 1e-5):

        (i, f, g, o) from LN(W x) * weight_ln_ih + b + LN(U h) * weight_ln_hh + d, statistics over all 4H units
        h' = o * tanh(LN(c') * weight_ln_c + bias_ln_c), while c' is handed on as it is

    The gains `weight_ln_ih_l0` and `weight_ln_hh_l0` [4H] and `weight_ln_c_l0` [H] are initially 1, `bias_ln_c_l0` [H]
    is 0 (absent with bias=False). All options work with packing and `lengths`, and a layer is still one node of the
    graph.

    Backward keeps six numbers for each hidden unit, step and sequence (see `cuframe.cpu.rnn.Saved`); with recurrent
    dropout or zoneout seven and a byte a mask, with layer normalisation sixteen (`cuframe.cpu.rnn_regularized.Saved`).

    >>> import cuframe as cf
    >>> y, (h, c) = cf.nn.LSTM(10, 20, proj_size=4)(cf.zeros(5, 3, 10))
    >>> y.shape, h.shape, c.shape
    (cuframe.Size([5, 3, 4]), cuframe.Size([1, 3, 4]), cuframe.Size([1, 3, 20]))
    >>> y, (h, c) = cf.nn.LSTM(10, 20, layer_norm=True, recurrent_dropout=0.3, zoneout=(0.05, 0.5))(cf.zeros(5, 3, 10))
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
        *,
        variational: bool = False,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        layer_norm: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__(
            "lstm", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            device, dtype,
            variational=variational, input_dropout=input_dropout, recurrent_dropout=recurrent_dropout, zoneout=zoneout,
            layer_norm=layer_norm, recompute=recompute,
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
