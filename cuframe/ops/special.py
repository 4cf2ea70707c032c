"""Special functions: error functions, gamma functions, logit, sinc."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dtypes import get_default_dtype
from ..tensor import Tensor, record
from . import docs
from .define import Op, as_result, cast, need_tensor, numpy_name, unary
from .docs import unary_doc
from .steps import by_kernel, in_float32, on_arrays, scaled, scipy_special, vjp_by_kernel

__all__ = ["digamma", "erf", "erfc", "erfinv", "i0", "lgamma", "logit", "polygamma", "sinc"]

_TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)

erf = unary(
    "erf", by_kernel("erf", scipy_special("erf")),
    vjp_by_kernel("erf", lambda g, needs, x: (scaled(g * np.exp(-x * x), _TWO_OVER_ROOT_PI),)), (0,),
    unary_doc("erf", "The error function.", "2 / sqrt(pi) * integral of exp(-t**2) from 0 to input", "[0.0, 1.0]",
              "[0.0000, 0.8427]"),
)  # fmt: skip
erfc = unary(
    "erfc", by_kernel("erfc", scipy_special("erfc")),
    vjp_by_kernel("erfc", lambda g, needs, x: (scaled(g * np.exp(-x * x), -_TWO_OVER_ROOT_PI),)), (0,),
    unary_doc("erfc", "The complement of the error function, exact for large arguments.", "1 - erf(input)",
              "[0.0, 1.0]", "[1.0000, 0.1573]"),
)  # fmt: skip
erfinv = unary(
    "erfinv", scipy_special("erfinv"),
    lambda g, needs, out: (scaled(g * np.exp(out * out), 1 / _TWO_OVER_ROOT_PI),), ("out",),
    unary_doc("erfinv", "The inverse of the error function; NaN outside of [-1, 1].", "the y with erf(y) = input",
              "[0.0, 0.5]", "[0.0000, 0.4769]"),
)  # fmt: skip
lgamma = unary(
    "lgamma", scipy_special("gammaln"), lambda g, needs, x: (g * _digamma(x),), (0,),
    unary_doc("lgamma", "The logarithm of the absolute value of the gamma function.", "log(|gamma(input)|)",
              "[1.0, 5.0]", "[0.0000, 3.1781]"),
)  # fmt: skip


digamma = unary(
    "digamma", scipy_special("digamma"), lambda g, needs, x: (g * _trigamma(x),), (0,),
    unary_doc("digamma", "The derivative of the logarithm of the gamma function.", "d log(gamma(input)) / d input",
              "[1.0, 2.0]", "[-0.5772,  0.4228]"),
)  # fmt: skip


def _polygamma_vjp(g: Any, needs: tuple, x: Any, n: int) -> tuple:
    return (g * on_arrays(lambda t: polygamma(n + 1, t), x),)


_POLYGAMMA = Op("polygamma", _polygamma_vjp, (0, None))


def polygamma(n: int, input: Tensor) -> Tensor:
    """A derivative of the digamma function.

        out = d^n digamma(input) / d input^n = (-1)**(n + 1) * n! * sum_k 1 / (input + k)**(n + 1)    for n >= 1

    Args:
        n: how many times to differentiate, >= 0.
        input: tensor of any shape; bools and integers are computed in the default dtype.

    Raises:
        TypeError: the input is not a tensor, or n not an int.
        ValueError: n is negative.

    >>> import cuframe as cf
    >>> cf.polygamma(1, cf.tensor([1.0, 0.5]))
    tensor([1.6449, 4.9348])
    """
    need_tensor("polygamma", "input", input)
    if not isinstance(n, int):
        raise TypeError(f"polygamma: n must be an int, got {type(n).__name__}")
    if n < 0:
        raise ValueError(f"polygamma: n must not be negative, got {n}")
    if n == 0:
        return digamma(input)
    if input.array.dtype.kind in "iub":
        input = cast(input, get_default_dtype())
    x = input.array
    factor = (-1.0) ** (n + 1) * math.factorial(n)
    r = in_float32(lambda a: scipy_special("zeta", a.dtype.type(n + 1))(a) * factor)(x)
    return record(as_result(r, x), _POLYGAMMA, (input,), (x, n))


def _digamma(x: Any) -> Any:
    return on_arrays(digamma, x)


def _trigamma(x: Any) -> Any:
    return on_arrays(lambda t: polygamma(1, t), x)


# -- logit, sinc, Bessel ---------------------------------------------------------------------------
def _logit_vjp(g: Any, needs: tuple, x: Any, eps: float | None) -> tuple:
    if eps is None:
        return (g / (x * (1 - x)),)
    inside = (x >= eps) & (x <= 1 - eps)
    return (np.where(inside, g / np.where(inside, x * (1 - x), 1), 0),)


_LOGIT = Op("logit", _logit_vjp, (0, None))


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """The inverse of the sigmoid.

        out = log(input / (1 - input))

    Args:
        input: probabilities, of any shape; bools and integers are computed in the default dtype.
        eps: clamp the input to [eps, 1 - eps] first; without it 0 and 1 give infinities, and what lies outside NaN.

    Returns:
        A tensor of the same shape. The gradient is 0 where the input was clamped.

    Raises:
        TypeError: the input is not a tensor.

    >>> import cuframe as cf
    >>> cf.logit(cf.tensor([0.5, 0.9]))
    tensor([0.0000, 2.1972])
    """
    need_tensor("logit", "input", input)
    if input.array.dtype.kind in "iub":
        input = cast(input, get_default_dtype())
    x = input.array

    def forward(a: Any) -> Any:
        p = a if eps is None else np.minimum(np.maximum(a, eps), 1 - eps)
        return np.log(p / (1 - p))

    return record(as_result(in_float32(forward)(x), x), _LOGIT, (input,), (x, eps))


def _sinc_vjp(g: Any, needs: tuple, x: Any) -> tuple:
    origin = x == 0
    t = scaled(np.where(origin, 1, x), math.pi)
    return (np.where(origin, 0, scaled(g * ((t * np.cos(t) - np.sin(t)) / (t * t)), math.pi)),)


sinc = numpy_name(np.sinc)(
    unary(
        "sinc", in_float32(np.sinc), _sinc_vjp, (0,),
        unary_doc("sinc", "The normalized sinc; 1 at 0.", "sin(pi * input) / (pi * input)", "[0.0, 0.5]",
                  "[1.0000, 0.6366]"),
    )
)  # fmt: skip
i0 = numpy_name(np.i0)(
    unary(
        "i0", scipy_special("i0"), lambda g, needs, x: (g * _slope_of_i0(x),), (0,),
        unary_doc("i0", "The modified Bessel function of the first kind of order 0.",
                  "sum_k (input**2 / 4)**k / (k!)**2", "[0.0, 1.0]", "[1.0000, 1.2661]"),
    )
)  # fmt: skip


def _i1_vjp(g: Any, needs: tuple, x: Any, out: Any) -> tuple:
    origin = x == 0
    return (np.where(origin, g / 2, g * (on_arrays(i0, x) - out / np.where(origin, 1, x))),)


def _slope_of_i0(x: Any) -> Any:
    return on_arrays(_i1, x)


_i1 = unary("i1", scipy_special("i1"), _i1_vjp, (0, "out"))

__test__ = docs.factory_docs(__all__, globals())
