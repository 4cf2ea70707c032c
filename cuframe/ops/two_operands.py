"""Functions of two and three operands beyond arithmetic: blends, angles, stable logarithms, integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor import Tensor, record
from . import docs
from .define import Op, as_result, binary, fit, is_number, need_tensor
from .operands import broadcast_check, operands_of
from .steps import flat, scaled

__all__ = [
    "addcdiv", "addcmul", "arctan2", "atan2", "copysign", "gcd", "heaviside", "hypot", "lcm", "ldexp", "lerp",
    "logaddexp", "logaddexp2", "xlogy",
]  # fmt: skip


# -- angles and lengths ----------------------------------------------------------------------------
def _atan2_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    square = x * x + y * y
    slope = np.where(square == 0, 0, g / square)  # no direction at the origin: PyTorch gives 0 there
    return (
        fit(slope * y, x) if needs[0] is not None else None,
        fit(-slope * x, y) if needs[1] is not None else None,
    )


def _hypot_vjp(g: Any, needs: tuple, x: Any, y: Any, out: Any) -> tuple:
    return (
        fit(g * (x / out), x) if needs[0] is not None else None,
        fit(g * (y / out), y) if needs[1] is not None else None,
    )


atan2 = binary(
    "atan2", np.arctan2, _atan2_vjp, (0, 0, 1, 1),
    docs.binary_doc(
        "atan2", "The angle of the point (other, input), in radians from -pi to pi.", "atan(input / other)",
        "[1.0, -1.0]", "[-1.0, 0.0]", "[ 2.3562, -1.5708]", "The gradient at the origin is 0.",
    ),
    floating=True,
)  # fmt: skip
hypot = binary(
    "hypot", np.hypot, _hypot_vjp, (0, 0, 1, 1, "out"),
    docs.binary_doc(
        "hypot", "The length of the hypotenuse, without overflow in between.", "sqrt(input**2 + other**2)",
        "[3.0, 5.0]", "[4.0, 12.0]", "[ 5., 13.]",
    ),
    floating=True,
)  # fmt: skip


# -- sums of exponentials --------------------------------------------------------------------------
def _share(x: Any, y: Any) -> Any:
    """y - x, and 0 where both are the same infinity, so that they share the gradient."""
    return np.where((x == y) & np.isinf(x), 0, y - x)


def _logaddexp_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return (
        fit(g / (1 + np.exp(_share(x, y))), x) if needs[0] is not None else None,
        fit(g / (1 + np.exp(_share(y, x))), y) if needs[1] is not None else None,
    )


def _logaddexp2_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    return (
        fit(g / (1 + np.exp2(_share(x, y))), x) if needs[0] is not None else None,
        fit(g / (1 + np.exp2(_share(y, x))), y) if needs[1] is not None else None,
    )


logaddexp = binary(
    "logaddexp", np.logaddexp, _logaddexp_vjp, (0, 0, 1, 1),
    docs.binary_doc(
        "logaddexp", "The logarithm of the sum of exponentials, without overflow.", "log(exp(input) + exp(other))",
        "[1000.0, 0.0]", "[1000.0, 0.0]", "[1.0007e+03, 6.9315e-01]",
    ),
    floating=True,
)  # fmt: skip
logaddexp2 = binary(
    "logaddexp2", np.logaddexp2, _logaddexp2_vjp, (0, 0, 1, 1),
    docs.binary_doc(
        "logaddexp2", "The base-2 logarithm of the sum of powers of 2, without overflow.",
        "log2(2**input + 2**other)", "[1000.0, 0.0]", "[1000.0, 1.0]", "[1001.0000,    1.5850]",
    ),
    floating=True,
)  # fmt: skip


def _xlogy(x: Any, y: Any) -> Any:
    y = y if hasattr(y, "dtype") else x.dtype.type(y)  # np.log of a Python number would be float64
    return np.where((x == 0) & (y == y), 0, x * np.log(y))


def _xlogy_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    gx = gy = None
    if needs[0] is not None:
        y = y if hasattr(y, "dtype") else x.dtype.type(y)
        constant = (x == 0) & (y <= 0)
        gx = fit(np.where(constant, 0, g * np.log(np.where(constant, 1, y))), x)
    if needs[1] is not None:
        gy = fit(g * x / y, y)
    return gx, gy


xlogy = binary(
    "xlogy", _xlogy, _xlogy_vjp, (0, 0, 1, 1),
    docs.binary_doc(
        "xlogy", "The first operand times the logarithm of the second; 0 where the first is 0.",
        "input * log(other)", "[0.0, 2.0]", "[0.0, 1.5]", "[0.0000, 0.8109]",
    ),
    floating=True,
)  # fmt: skip


# -- signs and steps -------------------------------------------------------------------------------
def _copysign_vjp(g: Any, needs: tuple, x: Any, y: Any) -> tuple:
    gx = gy = None
    if needs[0] is not None:
        gx = fit(np.where(x == 0, 0, np.where(np.signbit(x) == np.signbit(y), g, -g)), x)
    if needs[1] is not None:
        gy = fit(flat(g), y)
    return gx, gy


copysign = binary(
    "copysign", np.copysign, _copysign_vjp, (0, 0, 1, 1),
    docs.binary_doc(
        "copysign", "The magnitude of the first operand with the sign of the second.", "abs(input) * sign(other)",
        "[1.0, -2.0]", "[-1.0, 1.0]", "[-1.,  2.]",
    ),
    floating=True,
)  # fmt: skip
heaviside = binary(
    "heaviside", lambda x, y: np.heaviside(x, y).astype(x.dtype), None, (),
    docs.binary_doc(
        "heaviside", "The step function: 0 below zero, 1 above, and the second operand at zero.",
        "0 if input < 0 else other if input == 0 else 1", "[-1.5, 0.0, 2.0]", "[0.5]", "[0.0000, 0.5000, 1.0000]",
        "It has no gradient.",
    ),
)  # fmt: skip


def ldexp(input: Tensor, other: Any) -> Tensor:
    """The first operand times a power of 2.

        out = input * 2**other

    Args:
        input: tensor; integers are computed in the default dtype.
        other: the exponents: a number, or a tensor that broadcasts.

    Raises:
        TypeError: the input is not a tensor, or `other` is neither a tensor nor a number.
        RuntimeError: the shapes do not broadcast, or the devices differ.

    >>> import cuframe as cf
    >>> cf.ldexp(cf.tensor([1.0, 3.0]), cf.tensor([2, -1]))
    tensor([4.0000, 1.5000])
    """
    from .arithmetic import mul, pow

    need_tensor("ldexp", "input", input)
    if not isinstance(other, Tensor) and not is_number(other):
        raise TypeError(f"ldexp: other must be a Tensor or a number, got {type(other).__name__}")
    return mul(input, pow(2.0, other) if isinstance(other, Tensor) else 2.0**other)


# -- integers --------------------------------------------------------------------------------------
def _integers_only(name: str, ufunc: Any) -> Any:
    def forward(x: Any, y: Any) -> Any:
        if x.dtype.kind not in "iu":
            raise TypeError(f"{name}: the operands must be integers, got {x.dtype.name}")
        return ufunc(x, y)

    return forward


gcd = binary(
    "gcd", _integers_only("gcd", np.gcd), None, (),
    docs.binary_doc(
        "gcd", "The greatest common divisor of two integers.", "gcd(input, other)", "[12, 0]", "[18, 5]", "[6, 5]",
        "Operands that are not integers are a TypeError.",
    ),
)  # fmt: skip
lcm = binary(
    "lcm", _integers_only("lcm", np.lcm), None, (),
    docs.binary_doc(
        "lcm", "The least common multiple of two integers.", "lcm(input, other)", "[12, 0]", "[18, 5]", "[36,  0]",
        "Operands that are not integers are a TypeError.",
    ),
)  # fmt: skip


# -- blends ----------------------------------------------------------------------------------------
def _lerp_vjp(g: Any, needs: tuple, x: Any, end: Any, w: Any) -> tuple:
    return (
        fit(g * (1 - w), x) if needs[0] is not None else None,
        fit(g * w, end) if needs[1] is not None else None,
        fit(g * (end - x), w) if needs[2] is not None else None,
    )


_LERP = Op("lerp", _lerp_vjp, (0, 1, 2))


def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """The point a part of the way from one tensor to another.

        out = input + weight * (end - input)

    Args:
        input: where the way begins; a floating-point tensor.
        end: where it ends; a tensor of the same dtype.
        weight: the part: a number, or a tensor of the same dtype. Above 1/2 the point is computed from the end, so
            that weight 1 gives exactly `end`.

    Raises:
        TypeError: an argument is of the wrong type.
        RuntimeError: the dtypes differ, or the shapes do not broadcast.

    >>> import cuframe as cf
    >>> cf.lerp(cf.tensor([0.0, 1.0]), cf.tensor([10.0, 3.0]), 0.5)
    tensor([5., 2.])
    """
    need_tensor("lerp", "end", end)
    operands = operands_of("lerp", {"input": input, "end": end, "weight": weight})
    dtype = input.array.dtype
    if dtype.kind in "iub":
        raise TypeError(f"lerp: input must be floating point, got {dtype.name}")
    for argument, t in (("end", end), ("weight", weight)):
        if isinstance(t, Tensor) and t.array.dtype != dtype:
            raise RuntimeError(
                f"lerp: {argument} must be {dtype.name} as the input, got {t.array.dtype.name}"
            )
    broadcast_check("lerp", operands)
    x, to, w = (t.array for t in operands)
    way = to - x
    r = as_result(np.where(np.abs(w) < 0.5, x + w * way, to - way * (1 - w)), x)
    return record(r, _LERP, tuple(operands), (x, to, w))


def _addcmul_vjp(g: Any, needs: tuple, x: Any, a: Any, b: Any, value: float) -> tuple:
    gv = g if value == 1 else scaled(g, value)
    return (
        fit(g, x) if needs[0] is not None else None,
        fit(gv * b, a) if needs[1] is not None else None,
        fit(gv * a, b) if needs[2] is not None else None,
    )


def _addcdiv_vjp(g: Any, needs: tuple, x: Any, a: Any, b: Any, value: float) -> tuple:
    part = (g if value == 1 else scaled(g, value)) / b
    return (
        fit(g, x) if needs[0] is not None else None,
        fit(part, a) if needs[1] is not None else None,
        fit(-part * (a / b), b) if needs[2] is not None else None,
    )


_ADDCMUL = Op("addcmul", _addcmul_vjp, (None, 1, 2, None))
_ADDCDIV = Op("addcdiv", _addcdiv_vjp, (None, 1, 2, None))


def _three(name: str, input: Tensor, tensor1: Any, tensor2: Any, value: Any) -> list[Tensor]:
    need_tensor(name, "tensor1", tensor1)
    need_tensor(name, "tensor2", tensor2)
    if not is_number(value):
        raise TypeError(f"{name}: value must be a number, got {type(value).__name__}")
    operands = operands_of(name, {"input": input, "tensor1": tensor1, "tensor2": tensor2})
    kind = operands[0].array.dtype.kind
    if kind in "iub" and isinstance(value, float):
        raise RuntimeError(f"{name}: value must be an integer for integer operands, got {value}")
    broadcast_check(name, operands)
    return operands


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """A tensor plus the scaled product of two others.

        out = input + value * tensor1 * tensor2

    Args:
        input, tensor1, tensor2: tensors of shapes that broadcast; dtypes are promoted.
        value: the factor; an integer where the tensors are.

    Raises:
        TypeError: an argument is of the wrong type.
        RuntimeError: the shapes do not broadcast, or value is a fraction for integers.

    >>> import cuframe as cf
    >>> cf.addcmul(cf.tensor([1.0]), cf.tensor([2.0]), cf.tensor([3.0]), value=10)
    tensor([61.])
    """
    operands = _three("addcmul", input, tensor1, tensor2, value)
    x, a, b = (t.array for t in operands)
    product = a * b
    r = as_result(x + (product if value == 1 else (product * value).astype(x.dtype, copy=False)), x)
    return record(r, _ADDCMUL, tuple(operands), (x.shape, a, b, value))


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """A tensor plus the scaled quotient of two others.

        out = input + value * tensor1 / tensor2

    Args:
        input, tensor1, tensor2: floating-point tensors of shapes that broadcast; dtypes are promoted.
        value: the factor.

    Raises:
        TypeError: an argument is of the wrong type, or the tensors are integers.
        RuntimeError: the shapes do not broadcast.

    >>> import cuframe as cf
    >>> cf.addcdiv(cf.tensor([1.0]), cf.tensor([6.0]), cf.tensor([3.0]), value=0.5)
    tensor([2.])
    """
    operands = _three("addcdiv", input, tensor1, tensor2, value)
    x, a, b = (t.array for t in operands)
    if x.dtype.kind in "iub":
        raise TypeError(f"addcdiv: the tensors must be floating point, got {x.dtype.name}")
    quotient = a / b
    r = as_result(x + (quotient if value == 1 else (quotient * value).astype(x.dtype, copy=False)), x)
    return record(r, _ADDCDIV, tuple(operands), (x.shape, a, b, value))


arctan2 = atan2
__test__ = docs.factory_docs(__all__, globals())
