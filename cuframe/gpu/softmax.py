"""Softmax and log-softmax: `kernels/softmax.cu`."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from cuframe.cuda.launch import Kernel
from cuframe.gpu._arrays import FLOATS, dense

__all__ = ["backward", "forward", "takes"]

_THREADS = 256
# rows of up to this many values are a warp's, longer ones a block's
_WARP_ROW = 1024

_ROWS: dict[str, Any] = {"types": {"T": FLOATS}, "constants": {"LOG": (False, True), "GROUP": (32, _THREADS)}}
_COLUMNS: dict[str, Any] = {"types": {"T": FLOATS}, "constants": {"LOG": (False, True)}}

_ROWS_FORWARD = Kernel("softmax.cu", "softmax_rows_forward", (
    "const T* x[rows, size]", "T* y[rows, size]", "int64 rows", "int32 size"), **_ROWS)
_ROWS_BACKWARD = Kernel("softmax.cu", "softmax_rows_backward", (
    "const T* g[rows, size]", "const T* y[rows, size]", "T* gx[rows, size]", "int64 rows", "int32 size"), **_ROWS)
_COLUMNS_FORWARD = Kernel("softmax.cu", "softmax_columns_forward", (
    "const T* x[outer, size, inner]", "T* y[outer, size, inner]", "int64 outer", "int32 size", "int64 inner"),
    **_COLUMNS)
_COLUMNS_BACKWARD = Kernel("softmax.cu", "softmax_columns_backward", (
    "const T* g[outer, size, inner]", "const T* y[outer, size, inner]", "T* gx[outer, size, inner]", "int64 outer",
    "int32 size", "int64 inner"), **_COLUMNS)


def takes(x: Any) -> bool:
    """Whether there are kernels for an array like `x`."""
    return x.dtype.name in FLOATS


def forward(x: Any, axis: int, log: bool) -> Any:
    """The softmax of a floating-point array along `axis`, or its logarithm."""
    x = dense(x)
    y = np.empty_like(x)
    _run(_ROWS_FORWARD, _COLUMNS_FORWARD, (x, y), axis, log)
    return y


def backward(g: Any, y: Any, axis: int, log: bool) -> Any:
    """The gradient of x from that of the result `y`, both of one shape and dtype."""
    g, y = dense(g), dense(y)
    gx = np.empty_like(y)
    _run(_ROWS_BACKWARD, _COLUMNS_BACKWARD, (g, y, gx), axis, log)
    return gx


def _run(rows: Kernel, columns: Kernel, arrays: tuple, axis: int, log: bool) -> None:
    shape = arrays[0].shape
    outer, size, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1:])
    if not outer * size * inner:
        return
    if inner == 1:
        group = 32 if size <= _WARP_ROW else _THREADS
        rows(-(-outer * group // _THREADS), _THREADS, *arrays, outer, size, LOG=log, GROUP=group)
    else:
        columns(-(-outer * inner // _THREADS), _THREADS, *arrays, outer, size, inner, LOG=log)
