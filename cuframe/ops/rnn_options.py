"""Recurrent layers with layer normalisation, recurrent dropout and zoneout: still one node of the graph a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import random
from ..backend import backend_of
from ..tensor import Tensor
from .define import Op, need_tensor, record_outputs
from .elementwise import relu, sigmoid, tanh
from .join import cat, chunk
from .linear import linear
from .normalization import layer_norm
from .rnn import layer_arrays, needs_backward, walk

__all__: list[str] = [
    "held_dropout", "keep_factors", "packed_places", "rnn_options_composite", "rnn_options_layer", "zoneout_mask",
]  # fmt: skip

# The gates that share the statistics of a layer normalisation, in PyTorch's order.
_SETS = {"lstm": ((0, 4),), "gru": ((0, 2), (2, 3)), "rnn_tanh": ((0, 1),), "rnn_relu": ((0, 1),)}


def _vjp(g: list, needs: tuple, *saved: Any) -> tuple:
    x, kept = saved[0], saved[-1]
    grads = [None if gi is None else np.asarray(gi) if isinstance(gi, np.generic) else gi for gi in (*g, None)[:3]]
    return tuple(backend_of(x).kernel("rnn_regularized").backward(kept, *grads, [n is not None for n in needs]))


def rnn_options_layer(
    cell: str,
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None],
    norms: tuple[Tensor, Tensor, Tensor | None, Tensor | None] | None,
    h0: Tensor | None = None,
    c0: Tensor | None = None,
    *,
    lengths: Any = None,
    batch_sizes: Any = None,
    reverse: bool = False,
    mask: Any = None,
    zone_h: Any = None,
    zone_c: Any = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`rnn_layer` with any of the options of `cuframe.cpu.rnn_regularized.forward`.

    Args:
        cell, x, weights, h0, c0, lengths, batch_sizes, reverse: as for `rnn_layer`.
        norms: gains (W_ih x [G*H], W_hh h [G*H], c [H] or None) of the layer normalisations and the bias of that of
            c, or None for no normalisation.
        mask: array [N, P], factors on h_{t-1} where it enters W_hh h.
        zone_h: bool array [T, N, P] (packed: [S, P]), True where h stays; or the weight of the old h.
        zone_c: likewise for c [T, N, H], LSTM only.
        eps: added to the variances.

    Returns:
        y [T, N, P] (or [S, P]), h_n [N, P], c_n [N, H] (None unless LSTM).

    Raises:
        ValueError: a shape, dtype or length does not fit.
    """
    need_tensor(cell, "input", x)
    kernel = backend_of(x.array).kernel("rnn_regularized")
    tensors: Any = (x, h0, c0, *weights, *(norms or (None,) * 4))
    arrays = layer_arrays(cell, tensors)
    lengths = lengths.array if isinstance(lengths, Tensor) else lengths
    constants: Any = (cell, lengths, batch_sizes, reverse, mask, zone_h, zone_c, eps)
    if kernel is None:
        result = rnn_options_composite(*tensors, *constants)
        return result[0], result[1], result[2] if cell == "lstm" else None
    y, h_n, c_n, kept = kernel.forward(
        cell, arrays[0], *arrays[3:8], arrays[1], arrays[2], *arrays[8:], lengths=lengths, batch_sizes=batch_sizes,
        reverse=reverse, mask=mask, zone_h=zone_h, zone_c=zone_c, eps=eps, need_backward=needs_backward(tensors),
    )  # fmt: skip
    # The kernel keeps its outputs for backward: y is among the saved, so that a change in place is noticed.
    outs = record_outputs((y, h_n) if c_n is None else (y, h_n, c_n), RNN, tensors, (*arrays, *constants, y, kept))
    return outs[0], outs[1], outs[2] if c_n is not None else None


def rnn_options_composite(
    x: Tensor, h0: Any, c0: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any, w_hr: Any,
    ln_ih: Any, ln_hh: Any, ln_c: Any, ln_c_bias: Any, cell: str, lengths: Any, batch_sizes: Any, reverse: bool,
    mask: Any, zone_h: Any, zone_c: Any, eps: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    """`rnn_options_layer` in basic operations: its double backward, and its form on devices without a kernel."""
    hidden = w_ih.shape[0] // _SETS[cell][-1][1]

    def product(a: Tensor, w: Tensor, gain: Any, bias: Any) -> Any:
        if gain is None:
            return linear(a, w, bias)
        p = linear(a, w)
        cuts = [slice(start * hidden, stop * hidden) for start, stop in _SETS[cell]]
        p = cat([layer_norm(p[..., cut], (cut.stop - cut.start,), gain[cut], None, eps) for cut in cuts], -1)
        return p if bias is None else p + bias

    def keep(zone: Any, rows: Any, old: Any, new: Any) -> Any:
        share = zone if not hasattr(zone, "shape") else Tensor(zone[rows].astype(x.array.dtype))
        return share * old + (1 - share) * new

    def step(rows: Any, gx: Any, h: Any, c: Any) -> tuple[Any, Any]:
        gh = product(h if mask is None else h * Tensor(mask[: h.shape[0]]), w_hh, ln_hh, b_hh)
        c_new = None
        if cell == "lstm":
            i, f, g, o = chunk(gx + gh, 4, 1)
            c_new = sigmoid(f) * c + sigmoid(i) * tanh(g)
            inner = c_new if ln_c is None else layer_norm(c_new, (hidden,), ln_c, ln_c_bias, eps)
            new = sigmoid(o) * tanh(inner)
            new = new if w_hr is None else linear(new, w_hr)
            c_new = c_new if zone_c is None else keep(zone_c, rows, c, c_new)
        elif cell == "gru":
            rx, zx, nx = chunk(gx, 3, 1)
            rh, zh, nh = chunk(gh, 3, 1)
            n = tanh(nx + sigmoid(rx + rh) * nh)
            new = n + sigmoid(zx + zh) * (h - n)
        else:
            new = (tanh if cell == "rnn_tanh" else relu)(gx + gh)
        return (new if zone_h is None else keep(zone_h, rows, h, new)), c_new

    gates_x = product(x, w_ih, ln_ih, b_ih)
    c_size = hidden if cell == "lstm" else 0
    return walk(x, h0, c0, gates_x, step, w_hh.shape[1], c_size, lengths, batch_sizes, reverse)


_SAVES = (*range(12), *["constant"] * 8, None, None)
RNN = Op("rnn", _vjp, _SAVES, rnn_options_composite)


# -- what is drawn ----------------------------------------------------------------------------------------------------
# All masks are drawn for sequences in the caller's order and with every step, so that packing changes nothing.
def keep_factors(p: float, batch: int, size: int, like: Any, order: Any = None, column: Any = None) -> Any:
    """Dropout's factors [N, size] for the whole of a sequence: 0 with probability p, else 1 / (1 - p).

    `order` puts the sequences of a packed batch in place, `column` then takes one row for each packed row.
    """
    kept = random.default_generator.bernoulli(1 - p, (batch, size))
    factors = (kept * (0.0 if p == 1 else 1 / (1 - p))).astype(like.dtype)
    for index in (order, column):
        factors = factors if index is None else factors[index]
    return backend_of(like).asarray(factors, like)


def zoneout_mask(
    p: float, steps: int, batch: int, size: int, like: Any, batch_sizes: Any = None, order: Any = None
) -> Any:
    """A bool mask [T, N, size], or that of the packed rows [S, size]; True with probability p."""
    mask = random.default_generator.bernoulli(p, (steps, batch, size))
    if batch_sizes is not None:
        step, column = packed_places(batch_sizes)
        mask = mask[step, column if order is None else order[column]]
    return backend_of(like).asarray(mask, like)


def packed_places(batch_sizes: Any) -> tuple[Any, Any]:
    """The step and the place in the batch of each packed row."""
    sizes = np.asarray(batch_sizes)
    step, column = np.nonzero(np.arange(sizes[0] if len(sizes) else 0) < sizes[:, None])
    return step, column


def held_dropout(x: Tensor, p: float, batch_sizes: Any = None, order: Any = None) -> Tensor:
    """Dropout of x [T, N, F], or of packed rows [S, F], with one mask for all steps of a sequence."""
    if batch_sizes is None:
        return x * Tensor(keep_factors(p, x.shape[1], x.shape[2], x.array))
    batch = int(batch_sizes[0]) if len(batch_sizes) else 0
    return x * Tensor(keep_factors(p, batch, x.shape[1], x.array, order, packed_places(batch_sizes)[1]))
