"""Arithmetic of two operands: add, sub, mul, div, pow and their kin."""

from __future__ import annotations

from typing import Any

import numpy as np

from .define import binary, fit, unary

__all__ = ["add", "div", "mul", "neg", "sub"]


def _add_vjp(g: Any, needs: tuple, x: tuple, y: tuple) -> tuple:
    return (fit(g, x) if needs[0] is not None else None, fit(g, y) if needs[1] is not None else None)


def _sub_vjp(g: Any, needs: tuple, x: tuple, y: tuple) -> tuple:
    return (fit(g, x) if needs[0] is not None else None, fit(-g, y) if needs[1] is not None else None)


def _mul_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return (fit(g * y, x) if needs[0] is not None else None, fit(g * x, y) if needs[1] is not None else None)


def _div_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    gx = g / y
    return (fit(gx, x) if needs[0] is not None else None, fit(-gx * (x / y), y) if needs[1] is not None else None)


def _neg_vjp(g: Any, needs: tuple) -> tuple:
    return (-g,)


_add = binary("add", np.add, _add_vjp, ())
_sub = binary("sub", np.subtract, _sub_vjp, ())
mul = binary("mul", np.multiply, _mul_vjp, (0, 1))
div = binary("div", np.divide, _div_vjp, (0, 1, 1), floating=True)
neg = unary("neg", np.negative, _neg_vjp, (), floating=False)
add, sub = _add, _sub
