"""Layers of products: linear, convolutions, a layer of a Transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..case import FLOATS, Family, Side, Work

__all__ = ["FAMILIES"]


def _linear(side: Side, rows: int, inputs: int, outputs: int, variant: str = "") -> Work:
    layer, x = side.filled(side.nn.Linear(inputs, outputs)), side.floats(rows, inputs)
    return Work(lambda: layer(x), [x, *layer.parameters()])


def _linear_traffic(item: int, n: int, i: int, o: int) -> tuple[int, int]:
    once = n * i + i * o + n * o
    return item * once, 3 * item * once


def _linear_flops(item: int, n: int, i: int, o: int) -> tuple[int, int]:
    return 2 * n * i * o, 6 * n * i * o


def _convolution(kind: str) -> Callable[..., Work]:
    """Sizes: N, C, O, K, stride, padding, groups and the extents of the image."""

    def build(side: Side, batch: int, channels: int, outputs: int, kernel: int, stride: int, padding: int, groups: int,
              *image: int, variant: str = "") -> Work:
        module = getattr(side.nn, kind)(channels, outputs, kernel, stride=stride, padding=padding, groups=groups)
        layer, x = side.filled(module), side.floats(batch, channels, *image)
        if variant != "cudnn_benchmark":
            return Work(lambda: layer(x), [x, *layer.parameters()])

        def call() -> Any:  # cuDNN tries all its algorithms and keeps the quickest
            with side.lib.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
                return layer(x)

        return Work(call, [x, *layer.parameters()])

    return build


def _pixels(image: tuple[int, ...], kernel: int, stride: int, padding: int, transposed: bool) -> tuple[int, int]:
    """Of the input and of the output."""
    before = after = 1
    for size in image:
        before *= size
        wide, narrow = (size - 1) * stride - 2 * padding + kernel, (size + 2 * padding - kernel) // stride + 1
        after *= wide if transposed else narrow
    return before, after


def _convolution_traffic(transposed: bool) -> Callable[..., tuple[int, int]]:
    def traffic(item: int, n: int, c: int, o: int, k: int, s: int, p: int, g: int, *image: int) -> tuple[int, int]:
        before, after = _pixels(image, k, s, p, transposed)
        once = n * c * before + n * o * after + c * o * k ** len(image) // g
        return item * once, 3 * item * once

    return traffic


def _convolution_flops(transposed: bool) -> Callable[..., tuple[int, int]]:
    def flops(item: int, n: int, c: int, o: int, k: int, s: int, p: int, g: int, *image: int) -> tuple[int, int]:
        before, after = _pixels(image, k, s, p, transposed)
        once = 2 * n * (before if transposed else after) * c * o * k ** len(image) // g
        return once, 3 * once

    return flops


def _encoder_layer(side: Side, batch: int, length: int, size: int, heads: int, inner: int, variant: str = "") -> Work:
    layer = side.filled(side.nn.TransformerEncoderLayer(size, heads, inner, 0.0, batch_first=True))
    x = side.floats(batch, length, size)
    return Work(lambda: layer(x), [x, *layer.parameters()])


def _encoder_traffic(item: int, n: int, s: int, e: int, h: int, f: int) -> tuple[int, int]:
    weights, rows = 4 * e * e + 2 * e * f, n * s
    return item * (weights + rows * 2 * e), item * (3 * weights + rows * (12 * e + 2 * f))


def _encoder_flops(item: int, n: int, s: int, e: int, h: int, f: int) -> tuple[int, int]:
    once = 2 * n * s * (4 * e * e + 2 * e * f) + 4 * n * s * s * e
    return once, 3 * once


_CONV = ("N", "C", "O", "K", "s", "p", "g")


def _conv(name: str, kind: str, dims: str, cuda: tuple[tuple[int, ...], ...], cpu: tuple[tuple[int, ...], ...],
          small: tuple[int, ...]) -> Family:
    transposed = "Transpose" in kind
    return Family(name, "layers", _convolution(kind), (*_CONV, *dims), cuda, cpu, small,
                  _convolution_traffic(transposed), _convolution_flops(transposed), dtypes=FLOATS[:1],
                  small_dtypes=("float32", "float64"), variants=("torch", "cudnn_benchmark"), aim=0.5)


FAMILIES = (
    Family("linear", "layers", _linear, ("N", "I", "O"), ((4096, 1024, 4096), (64, 1024, 1024)),
           ((32, 512, 512), (4096, 256, 1024)), (5, 33, 17), _linear_traffic, _linear_flops, aim=1 / 1.2),
    Family("encoder_layer", "layers", _encoder_layer, ("N", "S", "E", "H", "F"), ((16, 512, 1024, 16, 4096),),
           ((16, 64, 256, 8, 1024),), (2, 9, 16, 2, 24), _encoder_traffic, _encoder_flops, aim=1 / 1.2),
    _conv("conv2d", "Conv2d", "HW", ((32, 64, 64, 3, 1, 1, 1, 56, 56),),
          ((16, 64, 64, 3, 1, 1, 1, 28, 28), (8, 3, 32, 3, 1, 1, 1, 64, 64), (16, 64, 128, 3, 2, 1, 1, 28, 28),
           (32, 256, 256, 3, 1, 1, 1, 7, 7), (16, 64, 128, 1, 1, 0, 1, 28, 28), (16, 64, 64, 3, 1, 1, 64, 28, 28),
           (8, 1, 32, 3, 2, 1, 1, 80, 200)), (2, 3, 4, 3, 1, 1, 1, 7, 6)),
    _conv("conv1d", "Conv1d", "W", ((16, 256, 256, 5, 1, 2, 1, 2048),),
          ((16, 64, 64, 5, 1, 2, 1, 512), (8, 256, 256, 31, 1, 15, 256, 256)), (2, 3, 4, 5, 1, 2, 1, 17)),
    _conv("conv3d", "Conv3d", "DHW", (), ((2, 16, 16, 3, 1, 1, 1, 16, 16, 16),), (1, 2, 3, 3, 1, 1, 1, 5, 4, 6)),
    _conv("conv_transpose2d", "ConvTranspose2d", "HW", (), ((8, 64, 32, 4, 2, 1, 1, 14, 14),),
          (1, 3, 2, 4, 2, 1, 1, 5, 6)),
)  # fmt: skip
