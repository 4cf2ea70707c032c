"""Functions of each element with expensive maths, on large arrays: compiled code, where llvmlite is installed.

Note [Compiled elements]
    NumPy makes a pass over memory for each operation of a formula, on one core, and takes `erf`, `log1p` and `expm1`
    of float32 one number at a time. The compiled passes read the input and write the result, in all cores. Every
    element is computed alike wherever it stands, so neither the number of threads nor the layout changes a bit.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import jit, pool

__all__ = ["backward", "forward", "glu_backward", "glu_forward", "takes"]

Array = npt.NDArray[Any]

_LEAST = 1 << 12  # elements for which it is worth to compile
_PLAIN = frozenset((  # no maths to speak of
    "relu", "leaky_relu", "hardtanh", "hardsigmoid", "softshrink", "hardshrink",
))  # fmt: skip
_MOVED = 1 << 16  # elements for which it is worth to move them with all cores


def takes(function: str, x: Any) -> bool:
    """Whether the functions below serve this function of an array like `x`."""
    least = _MOVED if function in _PLAIN else _LEAST
    return x.size >= least and x.dtype.kind in "fV" and x.dtype.itemsize in (2, 4, 8) and jit.available()


@lru_cache(None)
def _kernel(function: str, backward: bool, double: bool, settings: int) -> jit.Kernel:
    from . import elementwise_ir as code

    name = f"{function}_{'backward' if backward else 'forward'}_{'f64' if double else 'f32'}"
    lanes = jit.lanes() >> double
    if function == "glu":
        return jit.load(code.build_glu(name, backward, lanes, double), name)
    return jit.load(code.build(name, code.FUNCTIONS[function][backward], settings, backward, lanes, double), name)


def _wide(x: Array) -> Array:
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def _elements(function: str, arrays: tuple[Array, ...], settings: tuple[float, ...]) -> Array:
    """y from x, or from g and x, all in one order of memory."""
    x = arrays[-1]
    order: Literal["F", "C"] = "F" if all(a.flags.f_contiguous for a in arrays) else "C"
    dense = [_wide(np.asarray(a, order=order)) for a in arrays]
    y = np.empty_like(dense[-1])
    given = np.array(settings, y.dtype)
    kernel = _kernel(function, len(arrays) == 2, y.dtype == np.float64, len(settings))
    g = dense[0] if len(arrays) == 2 else None
    pool.spread(kernel, [g, dense[-1], y, given], [], y.size, 1)
    return y.astype(x.dtype, copy=False)


def forward(function: str, x: Array, *settings: float) -> Array:
    """As `cuframe.gpu.activation.forward`; besides sigmoid, tanh, erf and erfc."""
    return _elements(function, (x,), settings)


def backward(function: str, g: Array, x: Array, *settings: float) -> Array:
    """As `cuframe.gpu.activation.backward`; of sigmoid and tanh x is the result."""
    return _elements(function, (g, x), settings)


def _glu(x: Array, g: Array | None, y: Array, axis: int) -> None:
    outer, span = prod(x.shape[:axis]), prod(x.shape[axis:]) // 2
    kernel = _kernel("glu", g is not None, y.dtype == np.float64, 0)
    pool.spread(kernel, [g, x, y], [span], outer, max(1, span))


def glu_forward(x: Array, axis: int) -> Array:
    """The first half of x along an axis times the sigmoid of the second."""
    wide = np.ascontiguousarray(_wide(x))
    y = np.empty((*x.shape[:axis], x.shape[axis] // 2, *x.shape[axis + 1 :]), wide.dtype)
    _glu(wide, None, y, axis)
    return y.astype(x.dtype, copy=False)


def glu_backward(g: Array, x: Array, axis: int) -> Array:
    """The gradient of x from that of the result."""
    wide, g = (np.ascontiguousarray(_wide(a)) for a in (x, g))
    gx = np.empty_like(wide)
    _glu(wide, g, gx, axis)
    return gx.astype(x.dtype, copy=False)
