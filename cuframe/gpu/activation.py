"""Activation functions in one pass each: `kernels/elementwise.cu`."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from cuframe.cuda.launch import Kernel
from cuframe.gpu._arrays import FLOATS, dense

__all__ = ["backward", "forward", "glu_backward", "glu_forward", "takes"]

_THREADS = 256
_FUNCTIONS = ("gelu", "gelu_tanh", "silu", "mish", "softplus", "elu", "hardswish", "logsigmoid")
_CODES = {name: i for i, name in enumerate(_FUNCTIONS)}

_INSTANCES: dict[str, Any] = {"types": {"T": FLOATS}, "constants": {"FUNCTION": tuple(_CODES.values())}}
_FORWARD = Kernel("elementwise.cu", "activation_forward", (
    "const T* x[n]", "T* y[n]", "int64 n", "double a", "double b", "double c"), **_INSTANCES)
_BACKWARD = Kernel("elementwise.cu", "activation_backward", (
    "const T* g[n]", "const T* x[n]", "T* gx[n]", "int64 n", "double a", "double b", "double c"), **_INSTANCES)
_GLU_FORWARD = Kernel("elementwise.cu", "glu_forward", (
    "const T* x[2*outer, span]", "T* y[outer, span]", "int64 outer", "int64 span"), types={"T": FLOATS})
_GLU_BACKWARD = Kernel("elementwise.cu", "glu_backward", (
    "const T* g[outer, span]", "const T* x[2*outer, span]", "T* gx[2*outer, span]", "int64 outer", "int64 span"),
    types={"T": FLOATS})


def takes(function: str, x: Any) -> bool:
    """Whether there is a kernel of this function for an array like `x`."""
    return function in _CODES or function == "glu"


def _run(kernel: Kernel, function: str, arrays: tuple, settings: tuple) -> None:
    x = arrays[0]
    if x.size:
        a, b, c = (*settings, 0.0, 0.0, 0.0)[:3]
        # a thread 16 bytes
        blocks = -(-x.size * x.dtype.itemsize // (16 * _THREADS))
        kernel(blocks, _THREADS, *arrays, x.size, a, b, c, FUNCTION=_CODES[function])


def forward(function: str, x: Any, *settings: float) -> Any:
    """A function of each element, with up to three settings: softplus beta and threshold, elu alpha, scale and rate."""
    x = dense(x)
    y = np.empty_like(x)
    _run(_FORWARD, function, (x, y), settings)
    return y


def backward(function: str, g: Any, x: Any, *settings: float) -> Any:
    """The gradient of x from that of the result, both of one shape and dtype."""
    g, x = dense(g), dense(x)
    gx = np.empty_like(x)
    _run(_BACKWARD, function, (g, x, gx), settings)
    return gx


def _glu_sizes(shape: tuple, axis: int) -> tuple[int, int]:
    return prod(shape[:axis]), prod(shape[axis:]) // 2


def glu_forward(x: Any, axis: int) -> Any:
    """The first half of x along an axis times the sigmoid of the second."""
    x = dense(x)
    outer, span = _glu_sizes(x.shape, axis)
    y = np.empty_like(x, shape=(*x.shape[:axis], x.shape[axis] // 2, *x.shape[axis + 1:]))
    if y.size:
        _GLU_FORWARD(-(-y.size // _THREADS), _THREADS, x, y, outer, span)
    return y


def glu_backward(g: Any, x: Any, axis: int) -> Any:
    """The gradient of x from that of the result."""
    g, x = dense(g), dense(x)
    outer, span = _glu_sizes(x.shape, axis)
    gx = np.empty_like(x)
    if g.size:
        _GLU_BACKWARD(-(-g.size // _THREADS), _THREADS, g, x, gx, outer, span)
    return gx
