"""Steps of optimizers, and whole training steps: character model, CTC recogniser, Transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..case import FLOATS, Family, Side, Work, moves

__all__ = ["FAMILIES"]


def _parameters(side: Side, tensors: int, size: int) -> list[Any]:
    params = [side.floats(size, seed=i) for i in range(tensors)]
    for i, p in enumerate(params):
        p.grad = side.floats(size, grad=False, seed=1000 + i)
    return params


def _options(side: Side, variant: str) -> dict[str, bool]:
    """PyTorch's one-launch optimizers are asked for by name."""
    return {} if side.ours or variant in ("", "torch") else {variant: True}


def _optimizer(name: str, **options: Any) -> Callable[..., Work]:
    def build(side: Side, tensors: int, size: int, variant: str = "") -> Work:
        params = _parameters(side, tensors, size)
        step = getattr(side.lib.optim, name)(params, **{"lr": 1e-3, **options}, **_options(side, variant)).step

        def call() -> Any:
            step()
            return params[0].detach()

        return Work(call, stateful=True)

    return build


def _clip(side: Side, tensors: int, size: int, variant: str = "") -> Work:
    params = _parameters(side, tensors, size)
    return Work(lambda: side.nn.utils.clip_grad_norm_(params, 1e9), stateful=True)


def _training(side: Side, variant: str, modules: list[Any], loss_of: Callable[[], Any]) -> Work:
    """Loss, gradients, clipping and Adam's step."""
    params = [p for m in modules for p in m.parameters()]
    optimizer = side.lib.optim.Adam(params, lr=1e-3, **_options(side, variant))

    def call() -> Any:
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        side.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        return loss.detach()

    return Work(call, stateful=True)


def _char_lm(side: Side, steps: int, batch: int, hidden: int, variant: str = "") -> Work:
    """A step of examples/char_lm.py: embedding, LSTM, linear layer."""
    nn, vocabulary = side.nn, 96
    embed, lstm, out = (side.filled(m) for m in (
        nn.Embedding(vocabulary, 64), nn.LSTM(64, hidden), nn.Linear(hidden, vocabulary)))
    ids, targets = side.ints(vocabulary, steps, batch), side.ints(vocabulary, steps * batch, seed=1)
    return _training(side, variant, [embed, lstm, out],
                     lambda: side.F.cross_entropy(out(lstm(embed(ids))[0]).flatten(0, 1), targets))


def _recogniser(side: Side, steps: int, batch: int, features: int, hidden: int, labels: int, variant: str = "") -> Work:
    """A step of a recogniser as in examples/ctc_digits.py: linear layer, bidirectional LSTM, CTC over 32 classes."""
    nn, classes = side.nn, 32
    embed, lstm, out = (side.filled(m) for m in (
        nn.Linear(features, hidden), nn.LSTM(hidden, hidden, bidirectional=True), nn.Linear(2 * hidden, classes)))
    x = side.floats(steps, batch, features, grad=False)
    targets = side.ints(classes, batch, labels, low=1)
    lengths = side.ints(steps + 1, batch, low=steps), side.ints(labels + 1, batch, low=labels, seed=1)

    def loss() -> Any:
        logits = out(lstm(side.F.relu(embed(x)))[0])
        return side.F.ctc_loss(side.F.log_softmax(logits, -1), targets, *lengths)

    return _training(side, variant, [embed, lstm, out], loss)


def _transformer(side: Side, batch: int, length: int, size: int, layers: int, variant: str = "") -> Work:
    """A step of a causal language model of pre-norm layers."""
    nn, vocabulary, heads = side.nn, 256, max(1, size // 64)
    embed, place, out = (side.filled(m) for m in (
        nn.Embedding(vocabulary, size), nn.Embedding(length, size), nn.Linear(size, vocabulary)))
    stack = [side.filled(nn.TransformerEncoderLayer(size, heads, 4 * size, 0.0, batch_first=True, norm_first=True))
             for _ in range(layers)]
    ids, targets = side.ints(vocabulary, batch, length), side.ints(vocabulary, batch * length, seed=1)
    mask = nn.Transformer.generate_square_subsequent_mask(length).to(side.device).to(getattr(side.lib, side.dtype))

    def loss() -> Any:
        h = embed(ids) + place.weight
        for layer in stack:
            h = layer(h, src_mask=mask, is_causal=True)
        return side.F.cross_entropy(out(h).flatten(0, 1), targets)

    return _training(side, variant, [embed, place, out, *stack], loss)


_CUDA_SETS = ((64, 1 << 18), (256, 4096), (4, 1 << 24))
# as many elements as examples/char_lm.py has, and a hundred matrices of 8 x 8
_CPU_SETS = ((7, 51506), (100, 64))
_ONCE = ("float32",)


def _rule(name: str, kind: str, traffic: float, cuda: tuple[tuple[int, int], ...] = (),
          variants: tuple[str, ...] = ("fused", "foreach"), **options: Any) -> Family:
    return Family(name, "optimizer", _optimizer(kind, **options), ("K", "C"), cuda, _CPU_SETS, (5, 1025),
                  moves(traffic, 0), dtypes=_ONCE, small_dtypes=FLOATS[:1], variants=variants)


def _char_lm_flops(item: int, t: int, n: int, h: int) -> tuple[int, int]:
    once = 6 * t * n * (4 * h * (64 + h) + 96 * h)
    return once, once


def _recogniser_flops(item: int, t: int, n: int, i: int, h: int, s: int) -> tuple[int, int]:
    once = 6 * t * n * (i * h + 16 * h * h + 64 * h)
    return once, once


def _transformer_flops(item: int, n: int, s: int, e: int, layers: int) -> tuple[int, int]:
    once = 6 * n * s * (layers * (12 * e * e + s * e) + 256 * e)
    return once, once


def _step(name: str, build: Callable[..., Work], flops: Callable[..., tuple[int, int]], dims: str,
          cuda: tuple[tuple[int, ...], ...], cpu: tuple[tuple[int, ...], ...], small: tuple[int, ...]) -> Family:
    return Family(name, "training", build, tuple(dims), cuda, cpu, small, moves(0, 0), flops, dtypes=_ONCE,
                  small_dtypes=FLOATS[:1], variants=("torch", "fused"), timer="wall", cold=False)


FAMILIES = (
    _step("char_lm", _char_lm, _char_lm_flops, "TNH", ((64, 32, 256), (128, 64, 768)), ((64, 32, 256),), (4, 3, 16)),
    _step("ctc_recogniser", _recogniser, _recogniser_flops, "TNIHS", ((256, 32, 80, 512, 40),), ((64, 32, 32, 128, 8),),
          (12, 2, 5, 8, 3)),
    _step("transformer", _transformer, _transformer_flops, "NSEL", ((32, 256, 512, 6),), ((8, 64, 128, 2),),
          (2, 5, 16, 1)),
    _rule("adam", "Adam", 7, _CUDA_SETS),
    _rule("adamw", "AdamW", 7),
    _rule("sgd", "SGD", 3),
    _rule("sgd_momentum", "SGD", 5, _CUDA_SETS[:1], momentum=0.9),
    _rule("rmsprop", "RMSprop", 5, variants=("foreach",)),
    _rule("adagrad", "Adagrad", 5, variants=("foreach",)),
    Family("clip_grad_norm", "optimizer", _clip, ("K", "C"), _CUDA_SETS[:2], _CPU_SETS, (5, 1025), moves(1, 0),
           dtypes=_ONCE, small_dtypes=FLOATS[:1]),
)  # fmt: skip
