"""Comparisons and logic: results are bool, or integer for bitwise operations; none of them has a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import backend_of
from ..dtypes import is_floating
from ..tensor import Tensor
from . import docs
from .define import as_operands, as_result, binary, need_tensor, numpy_name
from .docs import binary_doc

__all__ = [
    "allclose", "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "eq", "equal", "ge", "greater", "greater_equal", "gt", "isclose", "isin", "le", "less",
    "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "ne", "not_equal",
]  # fmt: skip


# -- comparisons -----------------------------------------------------------------------------------
def _comparison(name: str, ufunc: Any, what: str, sign: str, shown: str) -> Callable[[Any, Any], Tensor]:
    text = binary_doc(name, what, f"input {sign} other", "[1, 2, 3]", "2", shown, "The result is bool.")
    return binary(name, ufunc, None, (), text)


eq = _comparison("eq", np.equal, "Where two operands are equal.", "==", "[False,  True, False]")
ne = _comparison("ne", np.not_equal, "Where two operands differ.", "!=", "[ True, False,  True]")
lt = _comparison("lt", np.less, "Where the first operand is smaller.", "<", "[ True, False, False]")
le = _comparison(
    "le", np.less_equal, "Where the first operand is smaller or equal.", "<=", "[ True,  True, False]"
)
gt = _comparison("gt", np.greater, "Where the first operand is larger.", ">", "[False, False,  True]")
ge = _comparison(
    "ge", np.greater_equal, "Where the first operand is larger or equal.", ">=", "[False,  True,  True]"
)


def equal(input: Tensor, other: Tensor) -> bool:
    """True if two tensors have the same shape and the same elements; NaN differs from itself.

    Args:
        input, other: tensors on one device; dtypes are promoted.

    Raises:
        TypeError: an argument is not a tensor.
        RuntimeError: the devices differ.

    >>> import cuframe as cf
    >>> cf.equal(cf.tensor([1.0, 2.0]), cf.tensor([1, 2]))
    True
    """
    need_tensor("equal", "input", input)
    need_tensor("equal", "other", other)
    if input.array.shape != other.array.shape:
        return False
    a, b = as_operands("equal", input, other)
    return bool((a.array == b.array).all())


def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Tensor:
    """Where two tensors differ by less than a tolerance.

        out = |input - other| <= atol + rtol * |other|

    Args:
        input, other: tensors of one dtype, of shapes that broadcast. Infinities are close to themselves.
        rtol, atol: the relative and the absolute part of the tolerance, >= 0.
        equal_nan: take NaN as close to NaN.

    Returns:
        A bool tensor of the broadcast shape.

    Raises:
        TypeError: an argument is not a tensor.
        RuntimeError: the dtypes differ, the shapes do not broadcast, or a tolerance is negative.

    >>> import cuframe as cf
    >>> cf.isclose(cf.tensor([1.0, 2.0]), cf.tensor([1.000001, 2.1]))
    tensor([ True, False])
    """
    need_tensor("isclose", "input", input)
    need_tensor("isclose", "other", other)
    if input.array.dtype != other.array.dtype:
        raise RuntimeError(
            f"isclose: other must be {input.array.dtype.name} as the input, got {other.array.dtype.name}"
        )
    for argument, value in (("rtol", rtol), ("atol", atol)):
        if value < 0:
            raise RuntimeError(f"isclose: {argument} must not be negative, got {value}")
    same = eq(input, other)
    a, b = input.array, other.array
    if equal_nan and is_floating(a.dtype):
        same = Tensor(same.array | ((a != a) & (b != b)))
    wide = (
        np.float64 if a.dtype.itemsize > 2 else np.float32
    )  # room for differences of integers and 16-bit floats
    a, b = a.astype(wide), b.astype(wide)
    near = np.isfinite(b) & (np.abs(a - b) <= atol + rtol * np.abs(b))
    return Tensor(as_result(same.array | near, input.array))


def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> bool:
    """True if two tensors are close everywhere; arguments and errors are those of `isclose`.

    >>> import cuframe as cf
    >>> cf.allclose(cf.tensor([1.0, 2.0]), cf.tensor([1.0, 2.1]), atol=0.2)
    True
    """
    return bool(isclose(input, other, rtol, atol, equal_nan).array.all())


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Where the elements of one tensor occur in another.

    Args:
        elements: a tensor or a number.
        test_elements: a tensor or a number; one of the two must be a tensor.
        assume_unique: neither holds an element twice; allows a quicker way.
        invert: find the elements that do not occur.

    Returns:
        A bool tensor of the shape of `elements`.

    Raises:
        TypeError: an argument is neither a tensor nor a number.

    >>> import cuframe as cf
    >>> cf.isin(cf.tensor([1, 2, 3]), cf.tensor([3, 1]))
    tensor([ True, False,  True])
    """
    a, b = as_operands("isin", elements, test_elements)
    xp = backend_of(a.array).xp
    found = xp.isin(a.array, b.array, assume_unique=assume_unique, invert=invert)
    return Tensor(as_result(found, a.array))


# -- logic -----------------------------------------------------------------------------------------
def _logical(name: str, ufunc: Any, what: str, formula: str, shown: str) -> Callable[[Any, Any], Tensor]:
    text = binary_doc(
        name, what, formula, "[0, 0, 1, 2]", "[0, 1, 0, 1]", shown, "Zero counts as False, all else as True."
    )
    return binary(name, lambda x, y: ufunc(x != 0, y != 0), None, (), text)


logical_and = numpy_name(np.logical_and)(
    _logical("logical_and", np.logical_and, "Where both operands are true.", "input and other",
             "[False, False, False,  True]")
)  # fmt: skip
logical_or = numpy_name(np.logical_or)(
    _logical("logical_or", np.logical_or, "Where one operand is true, or both.", "input or other",
             "[False,  True,  True,  True]")
)  # fmt: skip
logical_xor = numpy_name(np.logical_xor)(
    _logical("logical_xor", np.logical_xor, "Where exactly one operand is true.", "bool(input) != bool(other)",
             "[False,  True,  True, False]")
)  # fmt: skip


@numpy_name(np.logical_not)
def logical_not(input: Tensor) -> Tensor:
    """Where a tensor is zero.

        out = not input

    Args:
        input: tensor of any shape and dtype.

    Returns:
        A bool tensor of the same shape.

    Raises:
        TypeError: the input is not a tensor.

    >>> import cuframe as cf
    >>> cf.logical_not(cf.tensor([0.0, 2.0]))
    tensor([ True, False])
    """
    need_tensor("logical_not", "input", input)
    return Tensor(as_result(input.array == 0, input.array))


# -- bits ------------------------------------------------------------------------------------------
def _no_floats(name: str, ufunc: Any, kinds: str) -> Callable:
    def forward(x: Any, y: Any) -> Any:
        if x.dtype.kind not in kinds:
            allowed = "bools or integers" if "b" in kinds else "integers"
            raise TypeError(f"{name}: the operands must be {allowed}, got {x.dtype.name}")
        return ufunc(x, y)

    return forward


def _bitwise(
    name: str, ufunc: Any, what: str, sign: str, shown: str, second: str = "[3, 5]", kinds: str = "iub"
) -> Callable[[Any, Any], Tensor]:
    note = (
        "Operands that are not " + ("bools or integers" if "b" in kinds else "integers") + " are a TypeError."
    )
    text = binary_doc(name, what, f"input {sign} other", "[6, 4]", second, shown, note)
    return numpy_name(ufunc)(binary(name, _no_floats(name, ufunc, kinds), None, (), text))


bitwise_and = _bitwise(
    "bitwise_and", np.bitwise_and, "The bits that are set in both operands.", "&", "[2, 4]"
)
bitwise_or = _bitwise("bitwise_or", np.bitwise_or, "The bits that are set in either operand.", "|", "[7, 5]")
bitwise_xor = _bitwise("bitwise_xor", np.bitwise_xor, "The bits that are set in one operand.", "^", "[5, 1]")
bitwise_left_shift = _bitwise(
    "bitwise_left_shift", np.left_shift, "The bits moved to the left.", "<<", "[12, 16]", "[1, 2]", "iu"
)
bitwise_right_shift = _bitwise(
    "bitwise_right_shift", np.right_shift, "The bits moved to the right.", ">>", "[3, 1]", "[1, 2]", "iu"
)


@numpy_name(np.invert)
def bitwise_not(input: Tensor) -> Tensor:
    """The complement of each bit; of a bool, its negation.

        out = ~input

    Args:
        input: bool or integer tensor.

    Returns:
        A tensor of the same shape and dtype.

    Raises:
        TypeError: the input is not a tensor, or neither bool nor integer.

    >>> import cuframe as cf
    >>> cf.bitwise_not(cf.tensor([0, 5]))
    tensor([-1, -6])
    """
    need_tensor("bitwise_not", "input", input)
    if input.array.dtype.kind not in "iub":
        raise TypeError(f"bitwise_not: input must be bool or integer, got {input.array.dtype.name}")
    return Tensor(as_result(np.invert(input.array), input.array))


greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne
__test__ = docs.factory_docs(__all__, globals())
