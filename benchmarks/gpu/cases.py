"""What is timed and repeated: a table of families of kernels, each through the API that cuframe and PyTorch share.

A family is one entry of `FAMILIES`.  Its `build` is given a `Side` - cuframe's or PyTorch's, which share their API -
and sizes, and gives back a `Work`: what is called, and the inputs it is differentiated by.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

__all__ = ["FAMILIES", "Family", "Side", "Work", "family"]

FLOATS = ("float32", "bfloat16", "float16", "float64")
Sizes = tuple[int, ...]


class Side:
    """One of the two libraries on one device, with numbers that are the same for both."""

    def __init__(self, lib: Any, device: str, dtype: str) -> None:
        self.lib, self.device, self.dtype = lib, device, dtype
        self.nn, self.F = lib.nn, lib.nn.functional

    def floats(self, *shape: int, grad: bool = True, scale: float = 1.0, seed: int = 0) -> Any:
        """Uniform numbers as a leaf of the dtype under test."""
        values = np.random.default_rng([seed, *shape]).uniform(-scale, scale, shape).astype(np.float32)
        return self.put(values).to(getattr(self.lib, self.dtype)).requires_grad_(grad)

    def ints(self, high: int, *shape: int, low: int = 0, seed: int = 0) -> Any:
        return self.put(np.random.default_rng([seed, *shape]).integers(low, high, shape))

    def put(self, values: np.ndarray) -> Any:
        """A host array's copy on the device."""
        return self.lib.from_numpy(values).to(self.device)

    def filled(self, module: Any, scale: float = 0.1) -> Any:
        """`module` on the device, in the dtype, with parameters that are the same on both sides."""
        module = module.to(self.device).to(getattr(self.lib, self.dtype))
        with self.lib.no_grad():
            for name, p in module.named_parameters():
                p.copy_(self.floats(*p.shape, grad=False, scale=scale, seed=zlib.crc32(name.encode())))
        return module


@dataclass
class Work:
    """`call` gives the result; gradients are taken by `inputs`.  `stateful` work is a step that changes what it
    works on: it has no backward of its own and is built anew for each repeat."""

    call: Callable[[], Any]
    inputs: Sequence[Any] = ()
    stateful: bool = False


@dataclass(frozen=True)
class Family:
    """Cases of one kind.

    Attributes:
        build: (side, *sizes, variant=...) -> Work.
        sizes: what is timed, the most telling first; small: what is repeated, and run under a sanitizer.
        traffic: (itemsize, *sizes) -> the fewest bytes that forward, and forward with backward, must move.
        flops: the same for arithmetic; None where it does not matter.
        variants: PyTorch's ways to do it; the quickest is the baseline.
        timer: "gpu" (events), or "wall" where launching is what it measures.
        needs: modules of `cuframe.gpu` that must be there.
    """

    name: str
    build: Callable[..., Work]
    sizes: Sequence[Sizes]
    small: Sizes
    traffic: Callable[..., tuple[int, int]]
    dtypes: Sequence[str] = FLOATS[:2]
    small_dtypes: Sequence[str] = FLOATS
    flops: Callable[..., tuple[int, int]] | None = None
    variants: Sequence[str] = ("torch",)
    timer: str = "gpu"
    cold: bool = True
    tolerance: Mapping[str, float] = field(default_factory=lambda: {
        "float32": 1e-4, "float64": 1e-4, "bfloat16": 0.05, "float16": 0.01})


def _moves(forward: float, backward: float) -> Callable[..., tuple[int, int]]:
    """Traffic as multiples of the elements of the sizes' product."""
    return lambda item, *sizes: (int(forward * prod(sizes) * item), int((forward + backward) * prod(sizes) * item))


# -- between the layers -------------------------------------------------------------------------------------------
def _softmax(side: Side, rows: int, size: int, variant: str = "") -> Work:
    x = side.floats(rows, size)
    return Work(lambda: side.F.softmax(x, -1), [x])


def _log_softmax(side: Side, rows: int, size: int, variant: str = "") -> Work:
    x = side.floats(rows, size)
    return Work(lambda: side.F.log_softmax(x, -1), [x])


def _cross_entropy(side: Side, rows: int, size: int, variant: str = "") -> Work:
    x, t = side.floats(rows, size, scale=3), side.ints(size, rows)
    return Work(lambda: side.F.cross_entropy(x, t), [x])


def _layer_norm(side: Side, rows: int, size: int, variant: str = "") -> Work:
    x, w, b = side.floats(rows, size), side.floats(size, seed=1), side.floats(size, seed=2)
    return Work(lambda: side.F.layer_norm(x, (size,), w, b), [x, w, b])


def _rms_norm(side: Side, rows: int, size: int, variant: str = "") -> Work:
    x, w = side.floats(rows, size), side.floats(size, seed=1)
    return Work(lambda: side.F.rms_norm(x, (size,), w, eps=1e-5), [x, w])


def _batch_norm(side: Side, batch: int, channels: int, pixels: int, variant: str = "") -> Work:
    x, w, b = side.floats(batch, channels, pixels), side.floats(channels, seed=1), side.floats(channels, seed=2)
    return Work(lambda: side.F.batch_norm(x, None, None, w, b, training=True), [x, w, b])


def _gelu(side: Side, rows: int, size: int, variant: str = "") -> Work:
    x = side.floats(rows, size, scale=3)
    return Work(lambda: side.F.gelu(x), [x])


def _silu(side: Side, rows: int, size: int, variant: str = "") -> Work:
    x = side.floats(rows, size, scale=3)
    return Work(lambda: side.F.silu(x), [x])


def _dropout(side: Side, rows: int, size: int, variant: str = "") -> Work:
    x = side.floats(rows, size)

    def call() -> Any:
        side.lib.manual_seed(0)
        return side.F.dropout(x, 0.1, True)

    return Work(call, [x])


def _embedding(side: Side, rows: int, vocabulary: int, size: int, variant: str = "") -> Work:
    w, i = side.floats(vocabulary, size), side.ints(vocabulary, rows)
    return Work(lambda: side.F.embedding(i, w), [w])


# -- sequences ----------------------------------------------------------------------------------------------------
def _recurrent(kind: str) -> Callable[..., Work]:
    def build(side: Side, steps: int, batch: int, hidden: int, variant: str = "") -> Work:
        layer = side.filled(getattr(side.nn, kind)(hidden, hidden))
        if hasattr(layer, "flatten_parameters"):
            layer.flatten_parameters()
        x = side.floats(steps, batch, hidden)
        return Work(lambda: layer(x)[0], [x, *layer.parameters()])

    return build


def _recurrent_traffic(gates: int) -> Callable[..., tuple[int, int]]:
    def traffic(item: int, steps: int, batch: int, hidden: int) -> tuple[int, int]:
        weights, rows = 2 * gates * hidden * hidden, steps * batch * hidden
        return item * (weights + 2 * rows), item * (4 * weights + (4 + 2 * gates) * rows)

    return traffic


def _recurrent_flops(gates: int) -> Callable[..., tuple[int, int]]:
    def flops(item: int, steps: int, batch: int, hidden: int) -> tuple[int, int]:
        once = 2 * steps * batch * 2 * gates * hidden * hidden
        return once, 3 * once

    return flops


def _ctc(side: Side, steps: int, batch: int, classes: int, labels: int, variant: str = "") -> Work:
    x = side.floats(steps, batch, classes, scale=3)
    ours = side.lib.__name__ == "cuframe"
    targets = side.ints(classes, batch, labels, low=1)
    lengths = np.full(batch, steps), np.full(batch, labels)
    if ours:
        given = [side.put(a) for a in lengths]
        return Work(lambda: side.F.ctc_loss(x, targets, *given, from_logits=True, reduction="sum"), [x])
    given = [side.lib.from_numpy(a) for a in lengths]
    guard: Callable[[], Any] = contextlib.nullcontext
    if variant == "cudnn":              # it takes concatenated int32 labels on the host
        targets, given = targets.reshape(-1).int().cpu(), [a.int() for a in given]
    else:
        guard = lambda: side.lib.backends.cudnn.flags(enabled=False)  # noqa: E731

    def call() -> Any:
        with guard():
            return side.F.ctc_loss(side.F.log_softmax(x, -1), targets, *given, reduction="sum")

    return Work(call, [x])


def _attention(side: Side, batch: int, heads: int, length: int, size: int, variant: str = "") -> Work:
    q, k, v = (side.floats(batch, heads, length, size, seed=i) for i in range(3))
    guard: Callable[[], Any] = contextlib.nullcontext
    if variant:
        backend = getattr(side.lib.nn.attention.SDPBackend, variant.upper())
        guard = lambda: side.lib.nn.attention.sdpa_kernel(backend)  # noqa: E731

    def call() -> Any:
        with guard():
            return side.F.scaled_dot_product_attention(q, k, v, is_causal=True)

    return Work(call, [q, k, v])


def _attention_traffic(item: int, *sizes: int) -> tuple[int, int]:
    return 4 * prod(sizes) * item, 12 * prod(sizes) * item


def _attention_flops(item: int, batch: int, heads: int, length: int, size: int) -> tuple[int, int]:
    """Half of the square is masked; backward is five products for forward's two."""
    once = 2 * batch * heads * length * length * size
    return once, once * 7 // 2


# -- steps of training --------------------------------------------------------------------------------------------
def _adam(side: Side, tensors: int, size: int, variant: str = "") -> Work:
    params = [side.floats(size, seed=i) for i in range(tensors)]
    for i, p in enumerate(params):
        p.grad = side.floats(size, grad=False, seed=1000 + i)
    options = {} if side.lib.__name__ == "cuframe" else {variant: True}
    optimizer = side.lib.optim.Adam(params, lr=1e-3, **options)

    def call() -> Any:
        optimizer.step()
        return params[0].detach()

    return Work(call, stateful=True)


def _clip(side: Side, tensors: int, size: int, variant: str = "") -> Work:
    params = [side.floats(size, seed=i) for i in range(tensors)]
    for i, p in enumerate(params):
        p.grad = side.floats(size, grad=False, seed=1000 + i)
    return Work(lambda: side.nn.utils.clip_grad_norm_(params, 1.0), stateful=True)


def _char_lm(side: Side, steps: int, batch: int, hidden: int, variant: str = "") -> Work:
    """A step of `examples/char_lm.py`: embedding, LSTM, linear layer, Adam with clipping."""
    nn, vocabulary = side.nn, 96
    embed, lstm, out = (side.filled(m) for m in (
        nn.Embedding(vocabulary, 64), nn.LSTM(64, hidden), nn.Linear(hidden, vocabulary)))
    params = [p for m in (embed, lstm, out) for p in m.parameters()]
    options = {} if side.lib.__name__ == "cuframe" or variant == "torch" else {variant: True}
    optimizer = side.lib.optim.Adam(params, lr=4e-3, **options)
    ids, targets = side.ints(vocabulary, steps, batch), side.ints(vocabulary, steps * batch, seed=1)

    def call() -> Any:
        logits = out(lstm(embed(ids))[0])
        loss = side.F.cross_entropy(logits.flatten(0, 1), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        return loss.detach()

    return Work(call, stateful=True)


def _add(side: Side, size: int, variant: str = "") -> Work:
    """Two elements: what an operation costs on the host."""
    x, y = side.floats(size, grad=False), side.floats(size, grad=False, seed=1)
    return Work(lambda: x + y)


def _small_softmax(side: Side, rows: int, size: int, variant: str = "") -> Work:
    """A launch of a kernel of ours: checks, two dictionary look-ups, the driver."""
    x = side.floats(rows, size, grad=False)
    return Work(lambda: side.F.softmax(x, -1))


_ROWS = ((8192, 1024), (65536, 256), (2048, 32000))

# in the order of interest: the first ones get the time
FAMILIES: tuple[Family, ...] = (
    Family("softmax", _softmax, _ROWS, (33, 1025), _moves(2, 3)),
    Family("lstm", _recurrent("LSTM"), ((128, 16, 768), (128, 1, 512), (128, 64, 1024), (128, 16, 1000)), (5, 3, 40),
           _recurrent_traffic(4), FLOATS[:3], flops=_recurrent_flops(4), cold=False),
    Family("ctc", _ctc, ((512, 32, 128, 100), (1000, 16, 5000, 200), (2000, 4, 64, 800)), (40, 3, 33, 9),
           lambda item, t, n, c, s: (item * t * n * c, 3 * item * t * n * c), FLOATS[:1], ("float32", "float64"),
           variants=("native", "cudnn")),
    Family("layer_norm", _layer_norm, ((8192, 1024), (65536, 256), (2048, 8192)), (33, 1025), _moves(2, 3)),
    Family("attention", _attention, ((8, 16, 2048, 128), (2, 16, 8192, 128), (16, 16, 1024, 64)), (1, 2, 65, 40),
           _attention_traffic, ("bfloat16", "float16"), FLOATS, flops=_attention_flops,
           variants=("flash_attention", "cudnn_attention"), cold=False),
    Family("cross_entropy", _cross_entropy, ((8192, 1024), (4096, 32000)), (33, 1025), _moves(1, 2)),
    Family("char_lm", _char_lm, ((64, 32, 256), (128, 64, 768)), (4, 3, 16), _moves(0, 0), FLOATS[:1], FLOATS[:1],
           variants=("torch", "fused"), timer="wall", cold=False),
    Family("adam", _adam, ((64, 1 << 18), (256, 4096), (4, 1 << 24)), (5, 1025), _moves(7, 0), FLOATS[:1], FLOATS[:1],
           variants=("fused", "foreach")),
    Family("gru", _recurrent("GRU"), ((128, 16, 768), (128, 1, 512)), (5, 3, 40), _recurrent_traffic(3), FLOATS[:3],
           flops=_recurrent_flops(3), cold=False),
    Family("embedding", _embedding, ((65536, 32000, 256), (8192, 256, 64)), (500, 40, 33),
           lambda item, n, v, e: (2 * item * n * e, item * e * (3 * n + v))),
    Family("gelu", _gelu, ((8192, 4096),), (33, 1025), _moves(2, 3)),
    Family("dropout", _dropout, ((8192, 4096),), (33, 1025), _moves(2, 2)),
    Family("rms_norm", _rms_norm, ((8192, 1024), (2048, 8192)), (33, 1025), _moves(2, 3)),
    Family("batch_norm", _batch_norm, ((64, 256, 784),), (5, 7, 65), _moves(3, 5)),
    Family("log_softmax", _log_softmax, _ROWS[:1], (33, 1025), _moves(2, 3)),
    Family("silu", _silu, ((8192, 4096),), (33, 1025), _moves(2, 3)),
    Family("clip_grad_norm", _clip, ((64, 1 << 18), (256, 4096)), (5, 1025), _moves(3, 0), FLOATS[:1], FLOATS[:1]),
    Family("rnn_tanh", _recurrent("RNN"), ((128, 16, 768),), (5, 3, 40), _recurrent_traffic(1),
           flops=_recurrent_flops(1), cold=False),
    Family("operation", _add, ((2,),), (2,), _moves(0, 0), FLOATS[:1], FLOATS[:1], timer="wall", cold=False),
    Family("launch", _small_softmax, ((4, 32),), (4, 32), _moves(0, 0), FLOATS[:1], FLOATS[:1], timer="wall",
           cold=False),
)


def family(name: str) -> Family:
    """The family of that name."""
    return next(f for f in FAMILIES if f.name == name)
