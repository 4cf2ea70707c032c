"""What elementwise operations share: zero gradients, 16-bit floats, SciPy's functions for the array at hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from ..backend import backend_of
from ..tensor import Tensor

__all__ = [
    "by_kernel", "flat", "in_float32", "kernel_of", "masked", "on_arrays", "scaled", "scipy_special", "vjp_by_kernel",
    "wide_vjp",
]  # fmt: skip


def flat(g: Any) -> Any:
    """The zero gradient of a step function, of the shape and dtype of `g`; zero where `g` is infinite, too."""
    return Tensor(np.zeros_like(g.array)) if isinstance(g, Tensor) else np.zeros_like(g)


_BITS = {2: np.int16, 4: np.int32, 8: np.int64}


def masked(g: Any, mask: Any) -> Any:
    """`g` where the mask is true and 0 elsewhere, also where `g` is inf or NaN, which a product would make NaN.

    Masking the bits takes a tenth of the time of `np.where`, whose branches random masks mislead.
    """
    if isinstance(g, Tensor) or isinstance(mask, Tensor):
        return np.where(mask, g, 0)  # type: ignore[call-overload]
    bits = _BITS[g.dtype.itemsize]
    return (g.view(bits) & -mask.astype(bits)).view(g.dtype)


def scaled(g: Any, c: float) -> Any:
    """`g` times a constant, in the dtype of `g`: a bfloat16 array times a Python float would be float32."""
    r = g * c
    return r if r.dtype == g.dtype else r.astype(g.dtype)


def in_float32(forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`forward` with 16-bit floats computed in float32 and rounded once, at the end."""

    @wraps(forward)
    def wrapped(x: Any) -> Any:
        if x.dtype.itemsize == 2:
            return forward(x.astype(np.float32)).astype(x.dtype)
        return forward(x)

    return wrapped


def wide_vjp(vjp: Callable[..., tuple]) -> Callable[..., tuple]:
    """`vjp` with 16-bit floats computed in float32 and rounded once, at the end."""

    def widen(item: Any) -> Any:
        dtype = getattr(item, "dtype", None)
        half = dtype is not None and dtype.itemsize == 2 and dtype.kind not in "iu"
        return item.astype(np.float32) if half else item

    @wraps(vjp)
    def wrapped(g: Any, needs: tuple, *saved: Any) -> tuple:
        if g.dtype.itemsize != 2:
            return vjp(g, needs, *saved)
        grads = vjp(widen(g), needs, *map(widen, saved))
        return tuple([None if r is None else r.astype(g.dtype) for r in grads])

    return wrapped


def kernel_of(function: str, x: Any) -> Any:
    """The device's functions of each element, if they have this one for an array like `x`; else None."""
    kernel = backend_of(x).kernel("activation")
    return kernel if kernel is not None and kernel.takes(function, x) else None


_LARGE = 1 << 12  # elements for which a kernel is looked for below: smaller ones wait for Python, not for maths


def by_kernel(function: str, forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`forward`, by a kernel of the device where there is one for a large array."""

    @wraps(forward)
    def chosen(x: Any) -> Any:
        kernel = kernel_of(function, x) if x.size >= _LARGE else None
        return forward(x) if kernel is None else kernel.forward(function, x)

    return chosen


def vjp_by_kernel(function: str, vjp: Callable[..., tuple]) -> Callable[..., tuple]:
    """`vjp` of one saved array, by a kernel of the device where there is one for a large array."""

    def chosen(g: Any, needs: tuple, saved: Any) -> tuple:
        large = not isinstance(g, Tensor) and g.size >= _LARGE
        kernel = kernel_of(function, saved) if large else None
        return vjp(g, needs, saved) if kernel is None else (kernel.backward(function, g, saved),)

    return chosen


def scipy_special(name: str, *first: Any) -> Callable[[Any], Any]:
    """The function of `scipy.special`, or of CuPy's counterpart, on an array, after the arguments `first`.

    SciPy is imported at the first call, so that `import cuframe` stays quick.
    """

    def forward(x: Any) -> Any:
        return getattr(backend_of(x).special(), name)(*first, x)

    return in_float32(forward)


def on_arrays(operation: Callable[..., Tensor], x: Any, *args: Any) -> Any:
    """`operation` of a Tensor, or of the raw array that a vjp is given in the ordinary backward pass."""
    return operation(x, *args) if isinstance(x, Tensor) else operation(Tensor(x), *args).array
