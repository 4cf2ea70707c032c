"""Attention and CTC."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ..case import FLOATS, Family, Side, Work

__all__ = ["FAMILIES"]


def _attention(causal: bool) -> Callable[..., Work]:
    def build(side: Side, batch: int, heads: int, length: int, size: int, variant: str = "") -> Work:
        q, k, v = (side.floats(batch, heads, length, size, seed=i) for i in range(3))
        guard: Callable[[], Any] = contextlib.nullcontext
        if variant.endswith("_attention"):
            backend = getattr(side.lib.nn.attention.SDPBackend, variant.upper())
            guard = lambda: side.lib.nn.attention.sdpa_kernel(backend)  # noqa: E731

        def call() -> Any:
            with guard():
                return side.F.scaled_dot_product_attention(q, k, v, is_causal=causal)

        return Work(call, [q, k, v])

    return build


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


def _heads(name: str, causal: bool, cuda: tuple[tuple[int, ...], ...], cpu: tuple[tuple[int, ...], ...]) -> Family:
    return Family(name, "attention", _attention(causal), _HEADS, cuda, cpu, (1, 2, 65, 40), _attention_traffic,
                  _attention_flops(causal), dtypes=("bfloat16", "float16"),
                  variants=("flash_attention", "cudnn_attention", "efficient_attention"), cold=False, aim=1 / 1.3)


FAMILIES = (
    _heads("attention", True, ((8, 16, 2048, 128), (2, 16, 8192, 128), (16, 16, 1024, 64)),
           ((4, 8, 512, 64), (2, 8, 1024, 64))),
    _heads("attention_full", False, ((8, 16, 2048, 128),), ((4, 8, 256, 64),)),
    Family("ctc", "ctc", _ctc, ("T", "N", "C", "S"), ((512, 32, 128, 100), (1000, 16, 5000, 200), (2000, 4, 64, 800)),
           ((150, 16, 29, 30), (400, 32, 32, 80), (100, 8, 5000, 20)), (40, 3, 33, 9),
           lambda item, t, n, c, s: (item * t * n * c, 3 * item * t * n * c), dtypes=FLOATS[:1],
           small_dtypes=("float32", "float64"), variants=("native", "cudnn")),
)  # fmt: skip
