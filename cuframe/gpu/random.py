"""Random numbers drawn where they are needed, with the bits of the host's generator: `kernels/random.cu`."""

from __future__ import annotations

from typing import Any

import numpy as np

from cuframe.cuda.launch import Kernel
from cuframe.gpu._arrays import FLOATS

__all__ = ["normal", "uniform"]

_THREADS = 256

_FILL = Kernel("random.cu", "random_fill", (
    "T* out[n]", "int64 n", "uint64 seed", "uint64 offset", "double scale", "double shift", "double most"),
    types={"T": FLOATS}, constants={"NORMAL": (False, True)})


def _fill(out: Any, seed: int, offset: int, scale: float, shift: float, most: float, normal: bool) -> Any:
    if out.size:
        each = 4 if out.dtype == np.float64 else 8  # numbers of a Philox block
        rounded = [float(out.dtype.type(v)) for v in (scale, shift, most)]
        _FILL(-(-out.size // (each * _THREADS)), _THREADS, out, out.size, seed, offset, *rounded, NORMAL=normal)
    return out


def uniform(out: Any, seed: int, offset: int, low: float, high: float) -> Any:
    """Fill a contiguous array as `Generator.uniform` does from a place in its stream, and return it."""
    scalar = out.dtype.type
    if (low, high) == (0, 1):
        return _fill(out, seed, offset, 1.0, 0.0, np.inf, False)
    top = scalar(high)
    most = top if low == high else np.nextafter(top, scalar(low))
    return _fill(out, seed, offset, high - low, low, most, False)


def normal(out: Any, seed: int, offset: int, mean: float, std: float) -> Any:
    """Fill a contiguous array as `Generator.normal` does from a place in its stream, and return it."""
    return _fill(out, seed, offset, std, mean, np.inf, True)
