"""Recurrent layers over whole sequences, their cells, and the normalised layers that PyTorch has not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from ..case import FLOATS, Family, Side, Work

__all__ = ["FAMILIES"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _layer(kind: str, shorter: bool = False, tf32: bool = False) -> Callable[..., Work]:
    def build(side: Side, steps: int, batch: int, features: int, hidden: int, layers: int, directions: int,
              variant: str = "") -> Work:
        layer = side.filled(getattr(side.nn, kind)(features, hidden, layers, bidirectional=directions == 2))
        if hasattr(layer, "flatten_parameters"):
            layer.flatten_parameters()
        x = side.floats(steps, batch, features)
        call = _of_lengths(side, layer, x) if shorter else lambda: layer(x)[0]
        within: Callable[[], Any] = contextlib.nullcontext
        if variant == "native":  # PyTorch's own kernels instead of cuDNN's
            within = lambda: side.lib.backends.cudnn.flags(enabled=False)  # noqa: E731
        elif tf32:
            within = side.tf32
        return Work(call, [x, *layer.parameters()], within=within)

    return build


def _of_lengths(side: Side, layer: Any, x: Any) -> Callable[[], Any]:
    """Sequences of all lengths up to the longest, padded before and after, as users have them."""
    steps, batch = x.shape[:2]
    lengths = side.lib.tensor([-(-steps * (i + 1) // batch) for i in range(batch)])
    if side.ours:
        there = lengths.to(side.device)
        return lambda: layer(x, lengths=there)[0]
    rnn = side.nn.utils.rnn

    def call() -> Any:
        y = layer(rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))[0]
        return rnn.pad_packed_sequence(y, total_length=steps)[0]

    return call


def _weights(gates: int, features: int, hidden: int, layers: int, directions: int) -> int:
    inputs = [features] + [hidden * directions] * (layers - 1)
    return sum(gates * hidden * (size + hidden) for size in inputs) * directions


def _layer_traffic(gates: int) -> Callable[..., tuple[int, int]]:
    def traffic(item: int, t: int, n: int, i: int, h: int, layers: int, directions: int) -> tuple[int, int]:
        """Weights once, what comes in and out of each layer; backward reads the gates again and writes gradients."""
        weights, made = _weights(gates, i, h, layers, directions), t * n * h * directions * layers
        rows = t * n * i + made + made * (layers - 1) // layers
        return item * (weights + rows), item * (4 * weights + 2 * rows + 2 * gates * made)

    return traffic


def _layer_flops(gates: int) -> Callable[..., tuple[int, int]]:
    def flops(item: int, t: int, n: int, i: int, h: int, layers: int, directions: int) -> tuple[int, int]:
        once = 2 * t * n * _weights(gates, i, h, layers, directions)
        return once, 3 * once

    return flops


def _cell(kind: str) -> Callable[..., Work]:
    def build(side: Side, batch: int, features: int, hidden: int, variant: str = "") -> Work:
        cell = side.filled(getattr(side.nn, kind)(features, hidden))
        x, h = side.floats(batch, features), side.floats(batch, hidden, seed=1)
        if kind == "LSTMCell":
            c = side.floats(batch, hidden, seed=2)
            return Work(lambda: cell(x, (h, c))[1], [x, h, c])
        return Work(lambda: cell(x, h), [x, h, *cell.parameters()])

    return build


def _cell_traffic(gates: int) -> Callable[..., tuple[int, int]]:
    def traffic(item: int, n: int, i: int, h: int) -> tuple[int, int]:
        weights, rows = gates * h * (i + h), n * (i + 4 * h)
        return item * (weights + rows), item * (3 * weights + 2 * rows + n * gates * h)

    return traffic


def _cell_flops(gates: int) -> Callable[..., tuple[int, int]]:
    def flops(item: int, n: int, i: int, h: int) -> tuple[int, int]:
        once = 2 * n * gates * h * (i + h)
        return once, 3 * once

    return flops


def _norm(side: Side, a: Any, gain: Any, bias: Any = None) -> Any:
    return side.F.layer_norm(a, (a.shape[-1],), gain, bias)


def _lstm_loop(side: Side, x: Any, w: dict[str, Any]) -> Any:
    """A layer-normalised LSTM as PyTorch's users write it; the input's product is taken out of the loop."""
    hidden = w["weight_hh_l0"].shape[1]
    h = c = x.new_zeros((x.shape[1], hidden))
    gates_x = _norm(side, x @ w["weight_ih_l0"].T, w["weight_ln_ih_l0"]) + w["bias_ih_l0"] + w["bias_hh_l0"]
    ys = []
    for gx in gates_x.unbind(0):
        i, f, g, o = (gx + _norm(side, h @ w["weight_hh_l0"].T, w["weight_ln_hh_l0"])).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * _norm(side, c, w["weight_ln_c_l0"], w["bias_ln_c_l0"]).tanh()
        ys.append(h)
    return side.lib.stack(ys)


def _gru_loop(side: Side, x: Any, w: dict[str, Any]) -> Any:
    """A layer-normalised GRU likewise."""
    size = w["weight_hh_l0"].shape[1]
    h = x.new_zeros((x.shape[1], size))

    def product(a: Any, way: str) -> Any:
        p, gain = a @ w[f"weight_{way}_l0"].T, w[f"weight_ln_{way}_l0"]
        parts = [_norm(side, p[..., : 2 * size], gain[: 2 * size]), _norm(side, p[..., 2 * size :], gain[2 * size :])]
        return side.lib.cat(parts, -1) + w[f"bias_{way}_l0"]

    ys = []
    for gx in product(x, "ih").unbind(0):
        (rx, zx, nx), (rh, zh, nh) = gx.chunk(3, 1), product(h, "hh").chunk(3, 1)
        n = (nx + (rx + rh).sigmoid() * nh).tanh()
        h = n + (zx + zh).sigmoid() * (h - n)
        ys.append(h)
    return side.lib.stack(ys)


_LOOPS = {"LSTM": _lstm_loop, "GRU": _gru_loop}


def _normalised(kind: str) -> Callable[..., Work]:
    def shapes(features: int, hidden: int) -> dict[str, tuple[int, ...]]:
        rows = _GATES[kind] * hidden
        found: dict[str, tuple[int, ...]] = {
            "weight_ih_l0": (rows, features), "weight_hh_l0": (rows, hidden), "bias_ih_l0": (rows,),
            "bias_hh_l0": (rows,), "weight_ln_ih_l0": (rows,), "weight_ln_hh_l0": (rows,)}
        return found | ({"weight_ln_c_l0": (hidden,), "bias_ln_c_l0": (hidden,)} if kind == "LSTM" else {})

    def build(side: Side, steps: int, batch: int, features: int, hidden: int, variant: str = "") -> Work:
        x = side.floats(steps, batch, features)
        if side.ours:
            layer = side.filled(getattr(side.nn, kind)(features, hidden, layer_norm=True))
            return Work(lambda: layer(x)[0], [x, *layer.parameters()])
        w = {name: side.named(name, *shape) for name, shape in shapes(features, hidden).items()}
        return Work(lambda: _LOOPS[kind](side, x, w), [x, *w.values()])

    return build


def _one_layer(of: Callable[..., tuple[int, int]]) -> Callable[..., tuple[int, int]]:
    return lambda item, t, n, i, h: of(item, t, n, i, h, 1, 1)


_DIMS = ("T", "N", "I", "H", "L", "D")
_CPU = ((100, 32, 128, 256, 1, 1), (50, 64, 256, 512, 1, 1), (100, 1, 128, 128, 1, 1), (60, 16, 256, 256, 2, 2),
        (64, 32, 64, 256, 1, 1))
# as many steps as one launch covers under any table of tuned launches
_SMALL = (33, 3, 20, 20, 1, 1)
_BOTH = ((128, 16, 512, 512, 1, 2),), ((60, 16, 256, 256, 1, 2),), (33, 3, 20, 20, 1, 2)
# B and H of `make gpu-check`'s grid; it has T 128 first, which tells most of T 1024, too
_BATCHES, _HIDDENS = (1, 2, 4, 8, 16, 32, 64, 128), (128, 192, 256, 320, 512, 768, 1000, 1024, 1536, 2048)
_GRID = tuple(tuple((t, n, h, h, 1, 1) for h in _HIDDENS for n in _BATCHES) for t in (128, 1024))


def _whole(name: str, kind: str, cuda: Sequence[tuple[int, ...]], cpu: Sequence[tuple[int, ...]] = _CPU,
           small: tuple[int, ...] = _SMALL, grid: Sequence[Sequence[tuple[int, ...]]] = ()) -> Family:
    gates = _GATES[kind]
    return Family(name, "rnn", _layer(kind), _DIMS, cuda, cpu, small, _layer_traffic(gates), _layer_flops(gates),
                  dtypes=FLOATS[:3], variants=("torch", "native"), cold=False, grid=grid, grid_dtypes=FLOATS[:3])


def _padded(name: str, kind: str) -> Family:
    """Of lengths whose mean is a little more than half of T; floors count the steps that there are."""
    traffic, flops = _layer_traffic(_GATES[kind]), _layer_flops(_GATES[kind])

    def part(of: Callable[..., tuple[int, int]]) -> Callable[..., tuple[int, int]]:
        return lambda item, t, n, *rest: of(item, -(-t * (n + 1) // (2 * n)), n, *rest)

    return Family(name, "rnn", _layer(kind, shorter=True), _DIMS, ((128, 16, 768, 768, 1, 1),),
                  ((100, 32, 128, 256, 1, 1),), _SMALL, part(traffic), part(flops), dtypes=FLOATS[:3], cold=False)


def _rounded(name: str, kind: str) -> Family:
    """float32 by tensor cores; the limit by products is not known, since float32's own is another."""
    return Family(name, "rnn", _layer(kind, tf32=True), _DIMS, ((128, 16, 768, 768, 1, 1),), (), _SMALL,
                  _layer_traffic(_GATES[kind]), dtypes=FLOATS[:1], small_dtypes=FLOATS[:1], cold=False,
                  tolerance={"float32": 0.01})


def _one_step(name: str, kind: str) -> Family:
    gates = _GATES[kind.removesuffix("Cell")]
    return Family(name, "cells", _cell(kind), ("N", "I", "H"), ((64, 512, 512), (256, 1024, 1024)),
                  ((32, 128, 256), (1, 128, 128)), (3, 33, 40), _cell_traffic(gates), _cell_flops(gates))


def _with_norm(name: str, kind: str) -> Family:
    gates = _GATES[kind]
    return Family(name, "rnn", _normalised(kind), ("T", "N", "I", "H"), ((128, 16, 768, 768),),
                  ((50, 16, 64, 128), (100, 1, 128, 128)), (4, 3, 16, 24),
                  _one_layer(_layer_traffic(gates)), _one_layer(_layer_flops(gates)), dtypes=FLOATS[:1],
                  small_dtypes=("float32", "float64"), variants=("loop",), cpu_variants=("loop",), cold=False)


# LSTM at B16 T1024 H768 is what cuDNN's, FlashRNN's and haste's published times are for
FAMILIES = (
    _whole("lstm", "LSTM", ((128, 16, 768, 768, 1, 1), (1024, 16, 768, 768, 1, 1), (128, 1, 512, 512, 1, 1),
                            (128, 64, 1024, 1024, 1, 1), (128, 16, 1000, 1000, 1, 1), (128, 16, 512, 512, 2, 2)),
           grid=_GRID),
    _whole("gru", "GRU", ((128, 16, 768, 768, 1, 1), (128, 1, 512, 512, 1, 1), (128, 16, 512, 512, 2, 2)), grid=_GRID),
    _whole("rnn_tanh", "RNN", ((128, 16, 768, 768, 1, 1),)),
    _whole("lstm_bidirectional", "LSTM", *_BOTH),
    _whole("gru_bidirectional", "GRU", *_BOTH),
    _whole("lstm_stacked", "LSTM", ((512, 16, 512, 512, 4, 1),), ((60, 16, 256, 256, 3, 1),), (256, 1, 8, 8, 2, 1)),
    _padded("lstm_lengths", "LSTM"),
    _padded("gru_lengths", "GRU"),
    _rounded("lstm_tf32", "LSTM"),
    _one_step("lstm_cell", "LSTMCell"),
    _one_step("gru_cell", "GRUCell"),
    _one_step("rnn_cell", "RNNCell"),
    _with_norm("lstm_layer_norm", "LSTM"),
    _with_norm("gru_layer_norm", "GRU"),
)  # fmt: skip
