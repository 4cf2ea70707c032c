"""Dropout with a mask that is drawn when it is needed: `kernels/dropout.cu`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cuframe.cuda.launch import Kernel
from cuframe.gpu._arrays import FLOATS, dense

__all__ = ["dropout"]

_THREADS = 256
_EACH = 8  # elements of a thread

_DROPOUT = Kernel("dropout.cu", "dropout", (
    "const T* x[n]", "T* y[n]", "int64 n", "int64 each", "uint64 seed", "uint64 offset", "uint64 limit", "double scale",
    "bool shifted", "double kept", "double dropped"),
    types={"T": FLOATS}, constants={"FEATURES": (False, True)})


def dropout(x: Any, seed: int, offset: int, keep: float, each: int, scale: float,
            shift: tuple[float, float] | None) -> Any:
    """x times `scale` where an element is kept and 0 where not, plus the shift of (kept, dropped) elements.

    Element i is kept where `philox.bernoulli(seed, offset, ..., keep)[i // each]`.
    """
    x = dense(x)
    y = np.empty_like(x)
    if x.size:
        kept, dropped = shift or (0.0, 0.0)
        _DROPOUT(-(-x.size // (_EACH * _THREADS)), _THREADS, x, y, x.size, each, seed, offset,
                 math.floor(keep * 2.0**32), scale, shift is not None, kept, dropped, FEATURES=each != 1)
    return y
