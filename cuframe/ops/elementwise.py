"""Elementwise maths of one tensor: powers and exponentials, trigonometry, rounding, signs and checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from ..dtypes import finfo, is_floating
from ..tensor import Tensor, record
from . import docs, special
from .define import Op, as_result, need_tensor, numpy_name, unary
from .docs import unary_doc
from .special import *  # noqa: F403
from .steps import by_kernel, flat, in_float32, masked, scaled, vjp_by_kernel

__all__ = [
    "abs", "absolute", "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "asin", "asinh",
    "atan", "atanh", "ceil", "cos", "cosh", "deg2rad", "exp", "exp2", "expm1", "fix", "floor", "frac", "isfinite",
    "isinf", "isnan", "isneginf", "isposinf", "isreal", "log", "log10", "log1p", "log2", "nan_to_num", "rad2deg",
    "reciprocal", "relu", "round", "rsqrt", "sgn", "sigmoid", "sign", "signbit", "sin", "sinh", "sqrt", "square",
    "tan", "tanh", "trunc", *special.__all__,
]  # fmt: skip

_LN2, _LN10 = math.log(2), math.log(10)


# -- powers, exponentials, logarithms --------------------------------------------------------------
exp = unary(
    "exp", np.exp, lambda g, needs, out: (g * out,), ("out",),
    unary_doc("exp", "The exponential of each element.", "e**input", "[0.0, 1.0]", "[1.0000, 2.7183]"),
)  # fmt: skip
exp2 = unary(
    "exp2", np.exp2, lambda g, needs, out: (scaled(g * out, _LN2),), ("out",),
    unary_doc("exp2", "2 to the power of each element.", "2**input", "[0.0, 3.0]", "[1., 8.]"),
)  # fmt: skip
expm1 = unary(
    "expm1", np.expm1, lambda g, needs, out: (g * (out + 1),), ("out",),
    unary_doc("expm1", "The exponential minus 1, exact near 0.", "e**input - 1", "[0.0, 1.0]", "[0.0000, 1.7183]"),
)  # fmt: skip
log = unary(
    "log", np.log, lambda g, needs, x: (g / x,), (0,),
    unary_doc(
        "log", "The natural logarithm of each element.", "log(input)", "[1.0, 2.0]", "[0.0000, 0.6931]",
        "The logarithm of 0 is -inf, that of a negative number NaN.",
    ),
)  # fmt: skip
log2 = unary(
    "log2", np.log2, lambda g, needs, x: (scaled(g / x, 1 / _LN2),), (0,),
    unary_doc("log2", "The base-2 logarithm of each element.", "log2(input)", "[1.0, 8.0]", "[0., 3.]"),
)  # fmt: skip
log10 = unary(
    "log10", np.log10, lambda g, needs, x: (scaled(g / x, 1 / _LN10),), (0,),
    unary_doc("log10", "The base-10 logarithm of each element.", "log10(input)", "[1.0, 10.0]", "[0., 1.]"),
)  # fmt: skip
log1p = unary(
    "log1p", np.log1p, lambda g, needs, x: (g / (x + 1),), (0,),
    unary_doc("log1p", "The logarithm of 1 plus each element, exact near 0.", "log(1 + input)", "[0.0, 1.0]",
              "[0.0000, 0.6931]"),
)  # fmt: skip
sqrt = unary(
    "sqrt", np.sqrt, lambda g, needs, out: (g / (out * 2),), ("out",),
    unary_doc("sqrt", "The square root of each element.", "sqrt(input)", "[4.0, 2.0]", "[2.0000, 1.4142]",
              "The gradient at 0 is infinite."),
)  # fmt: skip
rsqrt = unary(
    "rsqrt", lambda x: np.reciprocal(np.sqrt(x)), lambda g, needs, out: (-(g / 2) * (out * out * out),), ("out",),
    unary_doc("rsqrt", "The reciprocal of the square root.", "1 / sqrt(input)", "[4.0, 2.0]", "[0.5000, 0.7071]"),
)  # fmt: skip
square = numpy_name(np.square)(
    unary(
        "square", lambda x: np.square(x, dtype=np.int64 if x.dtype.kind == "b" else None),
        lambda g, needs, x: (g * (x * 2),), (0,),
        unary_doc("square", "The square of each element.", "input * input", "[-3.0, 2.0]", "[9., 4.]", floating=False),
        floating=False,
    )
)  # fmt: skip
reciprocal = unary(
    "reciprocal", np.reciprocal, lambda g, needs, out: (-g * (out * out),), ("out",),
    unary_doc("reciprocal", "One over each element.", "1 / input", "[4.0, -0.5]", "[ 0.2500, -2.0000]"),
)  # fmt: skip


# -- trigonometry ----------------------------------------------------------------------------------
def _trigonometric(
    name: str, ufunc: Any, vjp: Callable, what: str, values: str, shown: str, saved: Any = 0
) -> Any:
    return unary(name, ufunc, vjp, (saved,), unary_doc(name, what, f"{name}(input)", values, shown))


sin = _trigonometric(
    "sin", np.sin, lambda g, needs, x: (g * np.cos(x),),
    "The sine of each element, an angle in radians.", "[0.0, 1.0]", "[0.0000, 0.8415]",
)  # fmt: skip
cos = _trigonometric(
    "cos", np.cos, lambda g, needs, x: (-g * np.sin(x),),
    "The cosine of each element, an angle in radians.", "[0.0, 1.0]", "[1.0000, 0.5403]",
)  # fmt: skip
tan = _trigonometric(
    "tan", np.tan, lambda g, needs, out: (g * (out * out + 1),),
    "The tangent of each element, an angle in radians.", "[0.0, 1.0]", "[0.0000, 1.5574]", "out",
)  # fmt: skip
asin = _trigonometric(
    "asin", np.arcsin, lambda g, needs, x: (g / np.sqrt(1 - x * x),),
    "The angle in [-pi/2, pi/2] whose sine is the element; NaN outside of [-1, 1].", "[0.0, 1.0]", "[0.0000, 1.5708]",
)  # fmt: skip
acos = _trigonometric(
    "acos", np.arccos, lambda g, needs, x: (-g / np.sqrt(1 - x * x),),
    "The angle in [0, pi] whose cosine is the element; NaN outside of [-1, 1].", "[0.0, 1.0]", "[1.5708, 0.0000]",
)  # fmt: skip
atan = _trigonometric(
    "atan", np.arctan, lambda g, needs, x: (g / (x * x + 1),),
    "The angle in (-pi/2, pi/2) whose tangent is the element.", "[0.0, 1.0]", "[0.0000, 0.7854]",
)  # fmt: skip
sinh = _trigonometric(
    "sinh", np.sinh, lambda g, needs, x: (g * np.cosh(x),),
    "The hyperbolic sine of each element.", "[0.0, 1.0]", "[0.0000, 1.1752]",
)  # fmt: skip
cosh = _trigonometric(
    "cosh", np.cosh, lambda g, needs, x: (g * np.sinh(x),),
    "The hyperbolic cosine of each element.", "[0.0, 1.0]", "[1.0000, 1.5431]",
)  # fmt: skip
tanh = numpy_name(np.tanh)(
    _trigonometric(
        "tanh", by_kernel("tanh", np.tanh), vjp_by_kernel("tanh", lambda g, needs, out: (g * (1 - out * out),)),
        "The hyperbolic tangent of each element.", "[0.0, 1.0]", "[0.0000, 0.7616]", "out",
    )
)  # fmt: skip
asinh = _trigonometric(
    "asinh", np.arcsinh, lambda g, needs, x: (g / np.sqrt(x * x + 1),),
    "The number whose hyperbolic sine is the element.", "[0.0, 1.0]", "[0.0000, 0.8814]",
)  # fmt: skip
acosh = _trigonometric(
    "acosh", np.arccosh, lambda g, needs, x: (g / np.sqrt(x * x - 1),),
    "The number >= 0 whose hyperbolic cosine is the element; NaN below 1.", "[1.0, 2.0]", "[0.0000, 1.3170]",
)  # fmt: skip
atanh = _trigonometric(
    "atanh", np.arctanh, lambda g, needs, x: (g / (1 - x * x),),
    "The number whose hyperbolic tangent is the element; NaN outside of [-1, 1].", "[0.0, 0.5]", "[0.0000, 0.5493]",
)  # fmt: skip
deg2rad = _trigonometric(
    "deg2rad", np.deg2rad, lambda g, needs: (scaled(g, math.pi / 180),),
    "Degrees in radians: each element times pi / 180.", "[0.0, 180.0]", "[0.0000, 3.1416]", None,
)  # fmt: skip
rad2deg = _trigonometric(
    "rad2deg", np.rad2deg, lambda g, needs: (scaled(g, 180 / math.pi),),
    "Radians in degrees: each element times 180 / pi.", "[0.0, 3.1415927]", "[  0., 180.]", None,
)  # fmt: skip


# -- two activations that are functions of their own -----------------------------------------------
def _sigmoid(x: Any) -> Any:
    # Overflow of the exponential gives inf, whose reciprocal is the 0 that is wanted.
    if not x.ndim:
        return np.reciprocal(np.exp(-x) + 1)
    r = np.negative(x)
    np.exp(r, out=r)
    r += 1
    return np.reciprocal(r, out=r)


sigmoid = unary(
    "sigmoid", by_kernel("sigmoid", in_float32(_sigmoid)),
    vjp_by_kernel("sigmoid", lambda g, needs, out: (g * (out * (1 - out)),)), ("out",),
    unary_doc("sigmoid", "The logistic function of each element.", "1 / (1 + exp(-input))", "[0.0, 2.0]",
              "[0.5000, 0.8808]"),
)  # fmt: skip
def _relu(x: Any) -> Any:
    if x.dtype.kind == "b":
        raise TypeError("relu: not defined for bool")
    return np.maximum(x, 0)


relu = unary(
    "relu", by_kernel("relu", _relu), vjp_by_kernel("relu", lambda g, needs, out: (masked(g, out > 0),)), ("out",),
    unary_doc("relu", "Each element, or 0 where it is negative.", "max(input, 0)", "[-1.0, 2.0]", "[0., 2.]",
              "The gradient at 0 is 0.", floating=False),
    floating=False,
)  # fmt: skip


# -- signs and rounding ----------------------------------------------------------------------------
def _flat_vjp(g: Any, needs: tuple) -> tuple:
    return (flat(g),)


def _unless_integer(ufunc: Any) -> Callable:
    """Integers are their own rounding; NumPy before 2.1 would make them float64."""

    @wraps(ufunc)
    def forward(x: Any) -> Any:
        return x.copy() if x.dtype.kind in "iub" else ufunc(x)

    return forward


def _step(name: str, forward: Any, what: str, formula: str, values: str, shown: str) -> Any:
    return unary(
        name, forward, _flat_vjp, (),
        unary_doc(name, what, formula, values, shown, "The gradient is 0.", floating=False), floating=False,
    )  # fmt: skip


def _sign(x: Any) -> Any:
    if x.dtype.kind == "b":
        return x.copy()
    r = np.sign(x)
    return np.where(r == r, r, 0) if is_floating(x.dtype) else r  # PyTorch's sign of NaN is 0


abs = unary(
    "abs", np.absolute, lambda g, needs, x: (g * np.sign(x),), (0,),
    unary_doc("abs", "The absolute value of each element.", "|input|", "[-1.5, 2.0]", "[1.5000, 2.0000]",
              "The gradient at 0 is 0.", floating=False),
    floating=False,
)  # fmt: skip
sign = numpy_name(np.sign)(
    _step("sign", _sign, "The sign of each element: -1, 0 or 1.", "(input > 0) - (input < 0)", "[-3.0, 0.0, 2.0]",
          "[-1.,  0.,  1.]")
)  # fmt: skip
floor = numpy_name(np.floor)(
    _step("floor", _unless_integer(np.floor), "Each element rounded down.", "floor(input)", "[-1.5, 1.5]",
          "[-2.,  1.]")
)  # fmt: skip
ceil = numpy_name(np.ceil)(
    _step("ceil", _unless_integer(np.ceil), "Each element rounded up.", "ceil(input)", "[-1.5, 1.5]", "[-1.,  2.]")
)  # fmt: skip
trunc = numpy_name(np.trunc, np.fix)(
    _step("trunc", _unless_integer(np.trunc), "Each element rounded towards zero.", "trunc(input)", "[-1.5, 1.5]",
          "[-1.,  1.]")
)  # fmt: skip
frac = unary(
    "frac", lambda x: x - np.trunc(x), lambda g, needs: (g,), (),
    unary_doc("frac", "What rounding towards zero takes off.", "input - trunc(input)", "[-1.5, 1.25]",
              "[-0.5000,  0.2500]"),
)  # fmt: skip
_ROUND = Op("round", _flat_vjp, ())


@numpy_name(np.round, np.around, np.rint)
def round(input: Tensor, decimals: int = 0) -> Tensor:
    """Each element rounded to the nearest number with so many decimals, halves to the even one.

    Args:
        input: tensor of any shape and dtype; integers with `decimals` >= 0 stay as they are.
        decimals: digits after the point; negative ones round to tens, hundreds and so on.

    Returns:
        A tensor of the same shape. The gradient is 0.

    Raises:
        TypeError: the input is not a tensor, or `decimals` not an int.

    >>> import cuframe as cf
    >>> cf.round(cf.tensor([0.5, 1.5, 2.345]), decimals=1)
    tensor([0.5000, 1.5000, 2.3000])
    """
    need_tensor("round", "input", input)
    if not isinstance(decimals, int):
        raise TypeError(f"round: decimals must be an int, got {type(decimals).__name__}")
    x = input.array
    if x.dtype.kind in "iub" and decimals >= 0:
        return Tensor(x.copy())
    r = np.rint(x) if decimals == 0 else in_float32(lambda a: np.round(a, decimals))(x)
    return record(as_result(r, x), _ROUND, (input,), ())


# -- checks ----------------------------------------------------------------------------------------
def _check(
    name: str, forward: Callable, what: str, formula: str, values: str, shown: str
) -> Callable[[Tensor], Tensor]:
    def operation(input: Tensor) -> Tensor:
        need_tensor(name, "input", input)
        return Tensor(as_result(forward(input.array), input.array))

    operation.__name__ = operation.__qualname__ = name
    operation.__doc__ = unary_doc(name, what, formula, values, shown, "The result is bool.", floating=False)
    return operation


isnan = numpy_name(np.isnan)(
    _check("isnan", np.isnan, "Where the elements are NaN.", "input != input", '[1.0, float("nan")]',
           "[False,  True]")
)  # fmt: skip
isinf = numpy_name(np.isinf)(
    _check("isinf", np.isinf, "Where the elements are infinite.", "|input| == inf", '[1.0, float("inf")]',
           "[False,  True]")
)  # fmt: skip
isfinite = numpy_name(np.isfinite)(
    _check("isfinite", np.isfinite, "Where the elements are neither infinite nor NaN.", "|input| < inf",
           '[1.0, float("inf")]', "[ True, False]")
)  # fmt: skip
isposinf = numpy_name(np.isposinf)(
    _check("isposinf", lambda x: np.isinf(x) & (x > 0), "Where the elements are +inf.", "input == inf",
           '[-float("inf"), float("inf")]', "[False,  True]")
)  # fmt: skip
isneginf = numpy_name(np.isneginf)(
    _check("isneginf", lambda x: np.isinf(x) & (x < 0), "Where the elements are -inf.", "input == -inf",
           '[-float("inf"), float("inf")]', "[ True, False]")
)  # fmt: skip
signbit = numpy_name(np.signbit)(
    _check("signbit", lambda x: np.signbit(x) if is_floating(x.dtype) else x < 0,
           "Where the elements carry a minus sign; -0.0 does.", "copysign(1, input) < 0", "[-1.0, 1.0]",
           "[ True, False]")
)  # fmt: skip
isreal = numpy_name(np.isreal)(
    _check("isreal", lambda x: x.imag == 0 if x.dtype.kind == "c" else np.ones_like(x, dtype=bool),
           "Where the elements have no imaginary part.", "imag(input) == 0", "[-1.0, 1.0]", "[True, True]")
)  # fmt: skip


def _nan_to_num_vjp(g: Any, needs: tuple, finite: Any) -> tuple:
    return (masked(g, finite),)


_NAN_TO_NUM = Op("nan_to_num", _nan_to_num_vjp, (None,))


def nan_to_num(
    input: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Each element, with NaN and the infinities replaced.

    Args:
        input: tensor of any shape and dtype.
        nan: instead of NaN, by default 0.
        posinf, neginf: instead of +inf and -inf, by default the largest and the smallest number of the dtype.

    Returns:
        A tensor of the same shape. The gradient is 0 where an element was replaced.

    Raises:
        TypeError: the input is not a tensor.

    >>> import cuframe as cf
    >>> cf.nan_to_num(cf.tensor([1.0, float("nan"), float("inf")]), posinf=9.0)
    tensor([1., 0., 9.])
    """
    need_tensor("nan_to_num", "input", input)
    x = input.array
    if not is_floating(x.dtype):
        return Tensor(x.copy())
    finite = as_result(np.isfinite(x), x)
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    limit = float(finfo(x.dtype).max)
    r = np.nan_to_num(
        wide,
        nan=0.0 if nan is None else nan,
        posinf=limit if posinf is None else posinf,
        neginf=-limit if neginf is None else neginf,
    )
    return record(as_result(r, x).astype(x.dtype, copy=False), _NAN_TO_NUM, (input,), (finite,))


@numpy_name(np.nan_to_num)
def _np_nan_to_num(
    x: Tensor, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None
) -> Tensor:
    return nan_to_num(x, nan, posinf, neginf)


absolute, sgn, fix = abs, sign, trunc
arcsin, arccos, arctan, arcsinh, arccosh, arctanh = asin, acos, atan, asinh, acosh, atanh
__test__ = docs.factory_docs([n for n in __all__ if n not in special.__all__], globals())
