"""Attention and CTC."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ..case import FLOATS, Family, Side, Work

__all__ = ["FAMILIES"]


def _attention(causal: bool, tf32: bool = False) -> Callable[..., Work]:
    def build(side: Side, batch: int, heads: int, length: int, size: int, variant: str = "") -> Work:
        q, k, v = (side.floats(batch, heads, length, size, seed=i) for i in range(3))
        return _attend(side, variant, q, k, v, tf32=tf32, is_causal=causal)

    return build


def _attend(side: Side, variant: str, q: Any, k: Any, v: Any, tf32: bool = False, **options: Any) -> Work:
    """By the kind of attention that `variant` names."""
    within: Callable[[], Any] = side.tf32 if tf32 else contextlib.nullcontext
    if not variant.endswith("_attention"):
        return Work(lambda: side.F.scaled_dot_product_attention(q, k, v, **options), [q, k, v], within=within)
    backend = getattr(side.lib.nn.attention.SDPBackend, variant.upper())

    def call() -> Any:
        with side.lib.nn.attention.sdpa_kernel(backend):
            return side.F.scaled_dot_product_attention(q, k, v, **options)

    return Work(call, [q, k, v], within=within)


def _padded(side: Side, batch: int, heads: int, length: int, size: int, variant: str = "") -> Work:
    """Samples of all lengths up to the longest: ours is told them, PyTorch has a mask."""
    q, k, v = (side.floats(batch, heads, length, size, seed=i) for i in range(3))
    lengths = np.array([-(-length * (i + 1) // batch) for i in range(batch)])
    if side.ours:
        return _attend(side, variant, q, k, v, key_lengths=side.put(lengths))
    seen = side.put(np.arange(length) < lengths[:, None])[:, None, None]
    return _attend(side, variant, q, k, v, attn_mask=seen.expand(batch, 1, length, length))


def _decoding(side: Side, batch: int, heads: int, groups: int, length: int, size: int, variant: str = "") -> Work:
    """One query a head, and heads that share keys."""
    q = side.floats(batch, heads, 1, size, grad=False)
    k, v = (side.floats(batch, groups, length, size, grad=False, seed=i) for i in (1, 2))
    work = _attend(side, variant, q, k, v, enable_gqa=True)
    return Work(work.call)


def _attention_traffic(item: int, *sizes: int) -> tuple[int, int]:
    return 4 * prod(sizes) * item, 12 * prod(sizes) * item


def _attention_flops(causal: bool) -> Callable[..., tuple[int, int]]:
    def flops(item: int, batch: int, heads: int, length: int, size: int) -> tuple[int, int]:
        """Of causal scores half are masked; backward is five products for forward's two."""
        once = (2 if causal else 4) * batch * heads * length * length * size
        return once, once * 7 // 2

    return flops


def _ctc(side: Side, steps: int, batch: int, classes: int, labels: int, variant: str = "") -> Work:
    """From logits: ours fuses the log-softmax."""
    x = side.floats(steps, batch, classes, scale=3)
    targets = side.ints(classes, batch, labels, low=1)
    lengths = np.full(batch, steps), np.full(batch, labels)
    if side.ours:
        given = [side.put(a) for a in lengths]
        return Work(lambda: side.F.ctc_loss(x, targets, *given, from_logits=True, reduction="sum"), [x])
    given = [side.lib.from_numpy(a) for a in lengths]
    guard: Callable[[], Any] = contextlib.nullcontext
    if variant == "cudnn":  # it takes concatenated int32 labels on the host
        targets, given = targets.reshape(-1).int().cpu(), [a.int() for a in given]
    elif variant == "native":
        guard = lambda: side.lib.backends.cudnn.flags(enabled=False)  # noqa: E731

    def call() -> Any:
        with guard():
            return side.F.ctc_loss(side.F.log_softmax(x, -1), targets, *given, reduction="sum")

    return Work(call, [x])


_HEADS = ("N", "H", "S", "E")
_KINDS = ("flash_attention", "cudnn_attention", "efficient_attention")
# 16,384 tokens and 2,048 numbers each, as published times have them
_GRID = (tuple((16384 // s, 2048 // e, s, e) for s in (512, 1024, 2048, 4096, 8192, 16384) for e in (64, 128)),)


def _part(of: Callable[..., tuple[int, int]]) -> Callable[..., tuple[int, int]]:
    """Where the mean length is a little more than half."""
    return lambda item, n, h, s, e: tuple(f * (n + 1) // (2 * n) for f in of(item, n, h, s, e))  # type: ignore[return-value]


def _heads(name: str, causal: bool, cuda: tuple[tuple[int, ...], ...], cpu: tuple[tuple[int, ...], ...]) -> Family:
    return Family(name, "attention", _attention(causal), _HEADS, cuda, cpu, (1, 2, 65, 40), _attention_traffic,
                  _attention_flops(causal), dtypes=("bfloat16", "float16"), variants=_KINDS, cold=False, aim=1 / 1.3,
                  grid=_GRID, grid_dtypes=("bfloat16", "float16"), grid_variants=_KINDS[:2])


FAMILIES = (
    _heads("attention", True, ((8, 16, 2048, 128), (2, 16, 8192, 128), (16, 16, 1024, 64)),
           ((4, 8, 512, 64), (2, 8, 1024, 64))),
    _heads("attention_full", False, ((8, 16, 2048, 128),), ((4, 8, 256, 64),)),
    Family("attention_lengths", "attention", _padded, _HEADS, ((8, 16, 2048, 128),), ((8, 8, 256, 64),), (3, 2, 65, 40),
           _attention_traffic, _part(_attention_flops(False)), dtypes=("bfloat16",),
           variants=("efficient_attention", "cudnn_attention"), cold=False, aim=1 / 1.3),
    Family("attention_decoding", "attention", _decoding, ("N", "H", "G", "S", "E"), ((16, 32, 8, 8192, 128),),
           ((4, 8, 2, 1024, 64),), (2, 4, 2, 300, 40),
           lambda item, n, h, g, s, e: (2 * item * n * e * (g * s + h),) * 2,
           lambda item, n, h, g, s, e: (4 * n * h * s * e,) * 2, dtypes=("bfloat16",),
           variants=("torch", *_KINDS), cold=False, aim=1 / 1.3),
    # the limit by products is not known: float32's own is another
    Family("attention_tf32", "attention", _attention(True, tf32=True), _HEADS, ((8, 16, 2048, 64),), (), (1, 2, 65, 40),
           _attention_traffic, dtypes=FLOATS[:1], small_dtypes=FLOATS[:1], variants=("efficient_attention", "torch"),
           cold=False, tolerance={"float32": 0.01}),
    Family("ctc", "ctc", _ctc, ("T", "N", "C", "S"), ((512, 32, 128, 100), (1000, 16, 5000, 200), (2000, 4, 64, 800)),
           ((150, 16, 29, 30), (400, 32, 32, 80), (100, 8, 5000, 20)), (40, 3, 33, 9),
           lambda item, t, n, c, s: (item * t * n * c, 3 * item * t * n * c), dtypes=FLOATS[:1],
           small_dtypes=("float32", "float64"), variants=("native", "cudnn")),
)  # fmt: skip
