"""Arithmetic of two operands: add, sub, mul, div, pow and their kin."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import float64, result_type
from ..tensor import Tensor
from . import bounds, docs, two_operands
from .bounds import *  # noqa: F403
from .define import binary, cast, fit, is_number, need_tensor, numpy_name, unary
from .steps import flat
from .two_operands import *  # noqa: F403

__all__ = [
    "add", "div", "divide", "float_power", "floor_divide", "fmod", "mul", "multiply", "neg", "negative", "positive",
    "pow", "remainder", "rsub", "sub", "subtract", "true_divide", *bounds.__all__, *two_operands.__all__,
]  # fmt: skip


def _flat_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    zeros = flat(g)
    return (fit(zeros, x) if needs[0] is not None else None, fit(zeros, y) if needs[1] is not None else None)


# -- sums, products, quotients ---------------------------------------------------------------------
# The two commonest gradients compare shapes themselves: a call of `fit` costs as much as the rest.
def _add_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    shape = g.shape
    return (
        g if shape == x else fit(g, x) if needs[0] is not None else None,
        g if shape == y else fit(g, y) if needs[1] is not None else None,
    )


def _sub_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return (fit(g, x) if needs[0] is not None else None, fit(-g, y) if needs[1] is not None else None)


def _mul_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    gx = gy = None
    if needs[0] is not None:
        gx = g * y
        if gx.shape != (x if x.__class__ is tuple else x.shape):
            gx = fit(gx, x)
    if needs[1] is not None:
        gy = g * x
        if gy.shape != (y if y.__class__ is tuple else y.shape):
            gy = fit(gy, y)
    return gx, gy


def _div_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    gx = g / y
    return (
        fit(gx, x) if needs[0] is not None else None,
        fit(-gx * (x / y), y) if needs[1] is not None else None,
    )


# The operators + - / are these; `add`, `sub` and `div` add a keyword that operators do not have.
plain_add = binary("add", np.add, _add_vjp, ())
plain_sub = binary("sub", np.subtract, _sub_vjp, ())
plain_div = binary("div", np.divide, _div_vjp, (0, 1, 1), floating=True)
mul = binary(
    "mul", np.multiply, _mul_vjp, (0, 1),
    docs.binary_doc("mul", "The product of two operands.", "input * other", "[1.0, 2.0]", "[3.0, 4.0]", "[3., 8.]"),
)  # fmt: skip


def _negative(x: Any) -> Any:
    if x.dtype.kind == "b":
        raise RuntimeError("neg: input must be a number, got bool; logical_not is the negation of truth values")
    return np.negative(x)


neg = numpy_name(np.negative)(unary(
    "neg", _negative, lambda g, needs: (-g,), (),
    docs.unary_doc("neg", "The negative of each element.", "-input", "[1.0, -2.0]", "[-1.,  2.]", floating=False),
    floating=False,
))  # fmt: skip


def _scaled(name: str, input: Any, other: Any, alpha: Any) -> Any:
    """`alpha * other`, computed in the dtype of the result."""
    if isinstance(alpha, bool) or not is_number(alpha):
        raise TypeError(f"{name}: alpha must be a number, got {type(alpha).__name__}")
    dtype = result_type(input, other)
    if isinstance(alpha, float) and dtype.kind in "iub":
        raise RuntimeError(f"{name}: alpha must be an integer for integer operands, got {alpha}")
    return mul(cast(other, dtype), alpha) if isinstance(other, Tensor) else other * alpha


def add(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """The sum of two operands.

        out = input + alpha * other

    Args:
        input, other: tensors, or a tensor and a number, of shapes that broadcast; dtypes are promoted.
        alpha: a factor of `other`; an integer where the operands are.

    Returns:
        A tensor of the broadcast shape.

    Raises:
        TypeError: an operand is neither a tensor nor a number.
        RuntimeError: the shapes do not broadcast, the devices differ, or alpha is a fraction for integer operands.

    >>> import cuframe as cf
    >>> cf.add(cf.tensor([1.0, 2.0]), cf.tensor([10.0, 20.0]), alpha=2)
    tensor([21., 42.])
    """
    if alpha != 1:
        other = _scaled("add", input, other, alpha)
    return plain_add(input, other)


def sub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """The difference of two operands.

        out = input - alpha * other

    Args:
        input, other: tensors, or a tensor and a number, of shapes that broadcast; dtypes are promoted.
        alpha: a factor of `other`; an integer where the operands are.

    Returns:
        A tensor of the broadcast shape.

    Raises:
        TypeError: an operand is neither a tensor nor a number, or both are bool.
        RuntimeError: the shapes do not broadcast, the devices differ, or alpha is a fraction for integer operands.

    >>> import cuframe as cf
    >>> cf.sub(cf.tensor([1.0, 2.0]), 0.5, alpha=2)
    tensor([0., 1.])
    """
    if alpha != 1:
        other = _scaled("sub", input, other, alpha)
    return plain_sub(input, other)


def rsub(input: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """The difference of two operands, taken the other way round: `other - alpha * input`.

    Args and errors are those of `sub`.

    >>> import cuframe as cf
    >>> cf.rsub(cf.tensor([1.0, 2.0]), 10.0)
    tensor([9., 8.])
    """
    return sub(other, input, alpha=alpha)


def _check_divisor(name: str, x: Any, y: Any) -> None:
    """Integers have no value for a division by zero."""
    if x.dtype.kind in "iub" and not y.all():
        raise RuntimeError(f"{name}: other must not contain zeros for integer operands")


def _trunc_divide(x: Any, y: Any) -> Any:
    if x.dtype.kind not in "iu":
        return np.trunc(np.divide(x, y))
    _check_divisor("div", x, y)
    q = np.floor_divide(x, y)
    return q + ((q < 0) & (q * y != x)).astype(q.dtype)


def _floor_divide(x: Any, y: Any) -> Any:
    _check_divisor("floor_divide", x, y)
    return np.floor_divide(x, y)


_div_trunc = binary("div", _trunc_divide, _flat_vjp, ())
floor_divide = numpy_name(np.floor_divide)(
    binary(
        "floor_divide", _floor_divide, _flat_vjp, (),
        docs.binary_doc(
            "floor_divide", "The quotient of two operands, rounded down.", "floor(input / other)", "[7.0, -7.0]",
            "2.0", "[ 3., -4.]", "Integers must not be divided by zero (RuntimeError). The gradient is zero.",
        ),
    )
)  # fmt: skip


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """The quotient of two operands.

        out = input / other

    Args:
        input, other: tensors, or a tensor and a number, of shapes that broadcast. Integers give a quotient in the
            default dtype, unless it is rounded.
        rounding_mode: None for the quotient itself, `"trunc"` to round it towards zero, `"floor"` to round it down.

    Returns:
        A tensor of the broadcast shape. A rounded quotient has a zero gradient.

    Raises:
        ValueError: an unknown `rounding_mode`.
        TypeError: an operand is neither a tensor nor a number.
        RuntimeError: the shapes do not broadcast, the devices differ, or integers are divided by zero and rounded.

    >>> import cuframe as cf
    >>> cf.div(cf.tensor([7, -7]), 2)
    tensor([ 3.5000, -3.5000])
    >>> cf.div(cf.tensor([7, -7]), 2, rounding_mode="trunc")
    tensor([ 3, -3])
    """
    if rounding_mode is None:
        return plain_div(input, other)
    if rounding_mode == "trunc":
        return _div_trunc(input, other)
    if rounding_mode == "floor":
        return floor_divide(input, other)
    raise ValueError(f"div: rounding_mode must be None, 'trunc' or 'floor', got {rounding_mode!r}")


def _remainder(x: Any, y: Any) -> Any:
    _check_divisor("remainder", x, y)
    return np.remainder(x, y)


def _remainder_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return (
        fit(g, x) if needs[0] is not None else None,
        fit(-g * np.floor_divide(x, y), y) if needs[1] is not None else None,
    )


def _fmod(x: Any, y: Any) -> Any:
    _check_divisor("fmod", x, y)
    return np.fmod(x, y)


def _fmod_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return (
        fit(g, x) if needs[0] is not None else None,
        fit(-g * np.trunc(x / y), y) if needs[1] is not None else None,
    )


remainder = numpy_name(np.remainder)(
    binary(
        "remainder", _remainder, _remainder_vjp, (0, 1),
        docs.binary_doc(
            "remainder", "What division leaves over, with the sign of the divisor, as Python's `%`.",
            "input - other * floor(input / other)", "[5.0, -5.0]", "3.0", "[2., 1.]",
            "Integers must not be divided by zero (RuntimeError).",
        ),
    )
)  # fmt: skip
fmod = numpy_name(np.fmod)(
    binary(
        "fmod", _fmod, _fmod_vjp, (0, 1),
        docs.binary_doc(
            "fmod", "What division leaves over, with the sign of the dividend, as C's `fmod`.",
            "input - other * trunc(input / other)", "[5.0, -5.0]", "3.0", "[ 2., -2.]",
            "Integers must not be divided by zero (RuntimeError).",
        ),
    )
)  # fmt: skip


# -- powers ----------------------------------------------------------------------------------------
def _power(x: Any, y: Any) -> Any:
    if x.dtype.kind in "iub":
        if x.dtype.kind == "b":
            raise TypeError("pow: not defined for bool operands")
        if (y < 0).any():
            raise RuntimeError(
                "pow: integers cannot be raised to negative integer powers; make one operand floating"
            )
    return x**y


def _pow_vjp(g: Any, needs: tuple, x: Any, y: Any, out: Any) -> tuple:
    gx = gy = None
    if needs[0] is not None:
        if isinstance(y, (int, float)):
            gx = flat(g) if y == 0 else g * (x * 2) if y == 2 else g * (y * x ** (y - 1))
        else:
            # At x = y = 0 the slope is 0, where 0 * 0**-1 is not.
            gx = fit(g * (y * x ** np.where((y == 0) & (x == 0), 1, y - 1)), x)
    if needs[1] is not None:
        constant = (x == 0) & (y >= 0)
        gy = fit(g * (out * np.log(np.where(constant, 1, x))), y)
    return gx, gy


pow = numpy_name(np.power)(
    binary(
        "pow", _power, _pow_vjp, (0, 0, 1, 1, "out"),
        docs.binary_doc(
            "pow", "The first operand to the power of the second.", "input ** other", "[1.0, 2.0, 3.0]", "2",
            "[1., 4., 9.]",
            "Integers cannot be raised to negative integer powers (RuntimeError). At 0 ** 0 both gradients are 0.",
        ),
    )
)  # fmt: skip


@numpy_name(np.float_power)
def float_power(input: Any, other: Any) -> Tensor:
    """The first operand to the power of the second, computed in float64.

    Args and errors are those of `pow`.

    >>> import cuframe as cf
    >>> cf.float_power(cf.tensor([2, 4]), -1)
    tensor([0.5000, 0.2500], dtype=cuframe.float64)
    """
    if not isinstance(input, Tensor) and not isinstance(other, Tensor):
        raise TypeError(
            f"float_power: expected a Tensor, got {type(input).__name__} and {type(other).__name__}"
        )
    wide = np.dtype(float64)
    return pow(
        cast(input, wide) if isinstance(input, Tensor) else input,
        cast(other, wide) if isinstance(other, Tensor) else float(other),
    )


def positive(input: Tensor) -> Tensor:
    """The tensor itself, as `+input` gives.

    Raises:
        TypeError: the input is not a tensor, or is bool.

    >>> import cuframe as cf
    >>> cf.positive(cf.tensor([1.0, -2.0]))
    tensor([ 1., -2.])
    """
    need_tensor("positive", "input", input)
    if input.array.dtype.kind == "b":
        raise TypeError("positive: not defined for bool")
    return input


subtract, multiply, divide, true_divide, negative = sub, mul, div, div, neg
__test__ = docs.factory_docs(
    [name for name in __all__ if name in vars() and name not in bounds.__all__], globals()
)
