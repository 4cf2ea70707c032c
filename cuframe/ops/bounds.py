"""The larger and the smaller of operands, and clamping between bounds."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor import Tensor, record
from . import docs
from .define import Op, as_result, binary, fit, numpy_name
from .operands import broadcast_check, operands_of
from .steps import masked

__all__ = ["clamp", "clamp_max", "clamp_min", "clip", "fmax", "fmin", "maximum", "minimum"]


def _larger(g: Any, needs: tuple, x: Any, y: Any, first: Any, second: Any) -> tuple:
    half = masked(g / 2, x == y)
    return (
        fit(masked(g, first) + half, x) if needs[0] is not None else None,
        fit(masked(g, second) + half, y) if needs[1] is not None else None,
    )


def _maximum_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return _larger(g, needs, x, y, ~(x <= y), ~(x >= y))


def _minimum_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return _larger(g, needs, x, y, ~(x >= y), ~(x <= y))


def _pick_vjp(g: Any, first: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return (
        fit(masked(g, first), x) if needs[0] is not None else None,
        fit(masked(g, ~first), y) if needs[1] is not None else None,
    )


def _fmax_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return _pick_vjp(g, (x >= y) | (y != y), needs, x, y)


def _fmin_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return _pick_vjp(g, (x <= y) | (y != y), needs, x, y)


maximum = binary(
    "maximum", np.maximum, _maximum_vjp, (0, 0, 1, 1),
    docs.binary_doc(
        "maximum", "The larger of two operands; NaN where either is NaN.", "max(input, other)", "[1.0, 5.0]",
        "[3.0, 4.0]", "[3., 5.]", "Where both are equal each gets half of the gradient.",
    ),
)  # fmt: skip
minimum = binary(
    "minimum", np.minimum, _minimum_vjp, (0, 0, 1, 1),
    docs.binary_doc(
        "minimum", "The smaller of two operands; NaN where either is NaN.", "min(input, other)", "[1.0, 5.0]",
        "[3.0, 4.0]", "[1., 4.]", "Where both are equal each gets half of the gradient.",
    ),
)  # fmt: skip
fmax = binary(
    "fmax", np.fmax, _fmax_vjp, (0, 0, 1, 1),
    docs.binary_doc(
        "fmax", "The larger of two operands; the other one where one is NaN.", "max(input, other)",
        '[1.0, float("nan")]', "[3.0, 4.0]", "[3., 4.]", "Where both are equal the first gets the gradient.",
    ),
)  # fmt: skip
fmin = binary(
    "fmin", np.fmin, _fmin_vjp, (0, 0, 1, 1),
    docs.binary_doc(
        "fmin", "The smaller of two operands; the other one where one is NaN.", "min(input, other)",
        '[1.0, float("nan")]', "[3.0, 4.0]", "[1., 4.]", "Where both are equal the first gets the gradient.",
    ),
)  # fmt: skip


def _clamp_vjp(g: Any, needs: tuple, x: Any, low: Any, high: Any) -> tuple:
    inside: Any = True
    if low is not None:
        inside = x >= low
    if high is not None:
        inside = (x <= high) if inside is True else inside & (x <= high)
    gx = fit(masked(g, inside), x) if needs[0] is not None else None
    g_low = g_high = None
    if needs[1] is not None:
        below = x < low if high is None else (x < low) & (low < high)
        g_low = fit(masked(g, below), low)
    if needs[2] is not None:
        above = x > high if low is None else (x > high) | (low > high)
        g_high = fit(masked(g, above), high)
    return gx, g_low, g_high


_CLAMP = Op("clamp", _clamp_vjp, (0, 1, 2))


@numpy_name(np.clip)
def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Each element, moved to the nearer bound where it lies outside of `[min, max]`.

        out = min(max(input, low), high)

    Args:
        input: tensor of any shape.
        min, max: the bounds: numbers, tensors that broadcast, or None (one of them); dtypes are promoted.

    Returns:
        A tensor of the broadcast shape; `max` where the bounds cross. The gradient is 1 inside and at the bounds.

    Raises:
        ValueError: both bounds are None.
        TypeError: a bound is neither a tensor nor a number.
        RuntimeError: the shapes do not broadcast, or the devices differ.

    >>> import cuframe as cf
    >>> cf.clamp(cf.tensor([-2.0, 0.5, 3.0]), 0.0, 1.0)
    tensor([0.0000, 0.5000, 1.0000])
    """
    if min is None and max is None:
        raise ValueError("clamp: at least one of min and max must be given")
    operands = operands_of("clamp", {"input": input, "min": min, "max": max})
    broadcast_check("clamp", operands)
    arrays: list[Any] = [None if t is None else t.array for t in operands]
    x, low, high = arrays
    r = x if low is None else np.maximum(x, low)
    if high is not None:
        r = np.minimum(r, high)
    return record(as_result(r, x), _CLAMP, tuple(operands), (x, low, high))


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """Each element, or `min` where that is larger; see `clamp`.

    >>> import cuframe as cf
    >>> cf.clamp_min(cf.tensor([-2.0, 0.5]), 0.0)
    tensor([0.0000, 0.5000])
    """
    return clamp(input, min=min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """Each element, or `max` where that is smaller; see `clamp`.

    >>> import cuframe as cf
    >>> cf.clamp_max(cf.tensor([0.5, 3.0]), 1.0)
    tensor([0.5000, 1.0000])
    """
    return clamp(input, max=max)


clip = clamp
__test__ = docs.factory_docs(__all__, globals())
