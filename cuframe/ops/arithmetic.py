"""Arithmetic of two operands: add, sub, mul, div, pow and their kin."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import result_type
from ..tensor import Tensor
from .define import binary, fit, unary

__all__ = ["add", "div", "maximum", "minimum", "mul", "neg", "pow", "sub"]


def _add_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    # A number operand arrives as itself; `fit` is never asked to reduce to it.
    return (fit(g, x) if needs[0] is not None else None, fit(g, y) if needs[1] is not None else None)


def _sub_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return (fit(g, x) if needs[0] is not None else None, fit(-g, y) if needs[1] is not None else None)


def _mul_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return (fit(g * y, x) if needs[0] is not None else None, fit(g * x, y) if needs[1] is not None else None)


def _div_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    gx = g / y
    return (fit(gx, x) if needs[0] is not None else None, fit(-gx * (x / y), y) if needs[1] is not None else None)


_add = binary("add", np.add, _add_vjp, ())
_sub = binary("sub", np.subtract, _sub_vjp, ())
mul = binary("mul", np.multiply, _mul_vjp, (0, 1))
_div = binary("div", np.divide, _div_vjp, (0, 1, 1), floating=True)
neg = unary("neg", np.negative, lambda g, needs: (-g,), (), floating=False)


def _check_alpha(name: str, input: Any, other: Any, alpha: Any) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
        raise TypeError(f"{name}: alpha must be a number, got {type(alpha).__name__}")
    if isinstance(alpha, float) and result_type(input, other).kind in "iub":
        raise RuntimeError(f"{name}: alpha must be an integer for integer operands, got {alpha}")


def add(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """The sum of two operands."""
    if alpha != 1:
        _check_alpha("add", input, other, alpha)
        other = other * alpha
    return _add(input, other)


def sub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """The difference of two operands."""
    if alpha != 1:
        _check_alpha("sub", input, other, alpha)
        other = other * alpha
    return _sub(input, other)


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """The quotient of two operands."""
    return _div(input, other)


def _pow_vjp(g: Any, needs: tuple, x: Any, y: Any, out: Any) -> tuple:
    gx = gy = None
    if needs[0] is not None:
        if isinstance(y, (int, float)):
            gx = g * 0 if y == 0 else g * (x * 2) if y == 2 else g * (y * x ** (y - 1))
        else:
            # At exponent 0 the slope is 0, at x = 0 too, where 0 * x**-1 is not.
            gx = fit(np.where(y == 0, 0, g * (y * x ** np.where(y == 0, 1, y - 1))), x)
    if needs[1] is not None:
        zero = x == 0
        gy = fit(np.where(zero & (y >= 0), 0, g * (out * np.log(np.where(zero, 1, x)))), y)
    return gx, gy


pow = binary("pow", lambda x, y: x**y, _pow_vjp, (0, 0, 1, 1, "out"))


def _maximum_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    shared = np.where(x == y, g / 2, g)
    return (
        fit(np.where(x < y, 0, shared), x) if needs[0] is not None else None,
        fit(np.where(x > y, 0, shared), y) if needs[1] is not None else None,
    )


def _minimum_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    shared = np.where(x == y, g / 2, g)
    return (
        fit(np.where(x > y, 0, shared), x) if needs[0] is not None else None,
        fit(np.where(x < y, 0, shared), y) if needs[1] is not None else None,
    )


maximum = binary("maximum", np.maximum, _maximum_vjp, (0, 0, 1, 1))
minimum = binary("minimum", np.minimum, _minimum_vjp, (0, 0, 1, 1))
