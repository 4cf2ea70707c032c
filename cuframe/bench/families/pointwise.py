"""What stands between the layers: softmax, normalisation, losses, activations, dropout, embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..case import Family, Side, Work, moves

__all__ = ["FAMILIES"]


def _on_rows(function: str, scale: float = 1.0, **options: Any) -> Callable[..., Work]:
    def build(side: Side, rows: int, size: int, variant: str = "") -> Work:
        x = side.floats(rows, size, scale=scale)
        call = getattr(side.F, function)
        return Work(lambda: call(x, **options), [x])

    return build


def _cross_entropy(side: Side, rows: int, size: int, variant: str = "") -> Work:
    x, t = side.floats(rows, size, scale=3), side.ints(size, rows)
    return Work(lambda: side.F.cross_entropy(x, t), [x])


def _layer_norm(side: Side, rows: int, size: int, variant: str = "") -> Work:
    x, w, b = side.floats(rows, size), side.floats(size, seed=1), side.floats(size, seed=2)
    return Work(lambda: side.F.layer_norm(x, (size,), w, b), [x, w, b])


def _rms_norm(side: Side, rows: int, size: int, variant: str = "") -> Work:
    x, w = side.floats(rows, size), side.floats(size, seed=1)
    return Work(lambda: side.F.rms_norm(x, (size,), w, eps=1e-5), [x, w])


def _by_channel(side: Side, batch: int, channels: int, pixels: int) -> tuple[Any, Any, Any]:
    return side.floats(batch, channels, pixels), side.floats(channels, seed=1), side.floats(channels, seed=2)


def _batch_norm(side: Side, batch: int, channels: int, pixels: int, variant: str = "") -> Work:
    x, w, b = _by_channel(side, batch, channels, pixels)
    return Work(lambda: side.F.batch_norm(x, None, None, w, b, training=True), [x, w, b])


def _group_norm(side: Side, batch: int, channels: int, pixels: int, groups: int, variant: str = "") -> Work:
    x, w, b = _by_channel(side, batch, channels, pixels)
    return Work(lambda: side.F.group_norm(x, groups, w, b), [x, w, b])


def _instance_norm(side: Side, batch: int, channels: int, pixels: int, variant: str = "") -> Work:
    x, w, b = _by_channel(side, batch, channels, pixels)
    return Work(lambda: side.F.instance_norm(x, None, None, w, b), [x, w, b])


def _dropout(side: Side, rows: int, size: int, variant: str = "") -> Work:
    x = side.floats(rows, size)

    def call() -> Any:
        side.lib.manual_seed(0)
        return side.F.dropout(x, 0.1, True)

    return Work(call, [x])


def _embedding(side: Side, rows: int, vocabulary: int, size: int, variant: str = "") -> Work:
    w, i = side.floats(vocabulary, size), side.ints(vocabulary, rows)
    return Work(lambda: side.F.embedding(i, w), [w])


_ROWS = ("N", "C")
_IMAGE = ("N", "C", "P")
_LONG = ((8192, 1024), (65536, 256), (2048, 32000))

FAMILIES = (
    Family("softmax", "pointwise", _on_rows("softmax", dim=-1), _ROWS, _LONG, ((4096, 256), (2048, 1024)), (33, 1025),
           moves(2, 3)),
    Family("layer_norm", "pointwise", _layer_norm, _ROWS, ((8192, 1024), (65536, 256), (2048, 8192)),
           ((1024, 256), (4096, 512), (4096, 1024)), (33, 1025), moves(2, 3), aim=1 / 1.2),
    Family("cross_entropy", "pointwise", _cross_entropy, _ROWS, ((8192, 1024), (4096, 32000)),
           ((2048, 96), (512, 8000)), (33, 1025), moves(1, 2)),
    Family("embedding", "pointwise", _embedding, ("N", "V", "E"), ((65536, 32000, 256), (8192, 256, 64)),
           ((2048, 96, 64), (8192, 8000, 128)), (500, 40, 33),
           lambda item, n, v, e: (2 * item * n * e, item * e * (3 * n + v))),
    Family("gelu", "pointwise", _on_rows("gelu", 3), _ROWS, ((8192, 4096),), ((1024, 1024),), (33, 1025), moves(2, 3)),
    Family("dropout", "pointwise", _dropout, _ROWS, ((8192, 4096),), ((1024, 1024),), (33, 1025), moves(2, 2),
           same=False),
    Family("rms_norm", "pointwise", _rms_norm, _ROWS, ((8192, 1024), (2048, 8192)), ((4096, 512),), (33, 1025),
           moves(2, 3)),
    Family("batch_norm", "pointwise", _batch_norm, _IMAGE, ((64, 256, 784),), ((32, 64, 784),), (5, 7, 65), moves(3, 5),
           aim=0.5),
    Family("group_norm", "pointwise", _group_norm, (*_IMAGE, "G"), ((64, 256, 784, 32),), ((32, 64, 784, 8),),
           (3, 6, 65, 2), lambda item, n, c, p, g: (3 * item * n * c * p, 8 * item * n * c * p), aim=0.5),
    Family("instance_norm", "pointwise", _instance_norm, _IMAGE, ((64, 256, 784),), ((32, 64, 784),), (3, 6, 65),
           moves(3, 5), aim=0.5),
    Family("log_softmax", "pointwise", _on_rows("log_softmax", dim=-1), _ROWS, _LONG[:1], ((2048, 1024),), (33, 1025),
           moves(2, 3)),
    Family("silu", "pointwise", _on_rows("silu", 3), _ROWS, ((8192, 4096),), ((1024, 1024),), (33, 1025), moves(2, 3)),
)  # fmt: skip
