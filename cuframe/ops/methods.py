"""Attach the operations to Tensor: methods, in-place methods and operators.

Every public operation whose first parameter is `input` is a method. In-place variants are those of `INPLACE`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..tensor import Tensor
from . import arithmetic, convert, create, mask, random
from .inplace import inplace, reshaping
from .shape import adjoint, reversed_dims

__all__ = ["attach"]

INPLACE = (
    "abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr arccos arccosh arcsin arcsinh arctan "
    "arctan2 arctanh asin asinh atan atan2 atanh baddbmm bitwise_and bitwise_left_shift bitwise_not bitwise_or "
    "bitwise_right_shift bitwise_xor ceil clamp clamp_max clamp_min clip copysign cos cosh cumprod cumsum deg2rad "
    "digamma div divide eq erf erfc erfinv exp exp2 expm1 fix float_power floor floor_divide fmod frac gcd ge "
    "greater greater_equal gt heaviside hypot i0 index_add index_copy index_fill index_put lcm ldexp le lerp less "
    "less_equal lgamma log log10 log1p log2 logical_and logical_not logical_or logical_xor logit lt masked_fill "
    "masked_scatter mul multiply nan_to_num ne neg negative not_equal pow put rad2deg reciprocal relu remainder "
    "round rsqrt scatter scatter_add scatter_reduce sgn sigmoid sign sin sinc sinh sqrt square squeeze sub subtract "
    "swapaxes t tan tanh transpose tril triu true_divide trunc unsqueeze"
).split()
_RESHAPING = {"t", "transpose", "squeeze", "unsqueeze", "swapaxes"}

OPERATORS = {
    "__add__": "add", "__sub__": "sub", "__mul__": "mul", "__truediv__": "div", "__pow__": "pow",
    "__floordiv__": "floor_divide", "__mod__": "remainder", "__matmul__": "matmul", "__neg__": "neg",
    "__abs__": "abs", "__eq__": "eq", "__ne__": "ne", "__lt__": "lt", "__le__": "le", "__gt__": "gt", "__ge__": "ge",
    "__and__": "bitwise_and", "__or__": "bitwise_or", "__xor__": "bitwise_xor", "__invert__": "bitwise_not",
    "__lshift__": "bitwise_left_shift", "__rshift__": "bitwise_right_shift",
    "__getitem__": "getitem", "__setitem__": "setitem", "__pos__": "positive",
}  # fmt: skip
# Modules with a table `METHODS` of what PyTorch has as methods only.
FAMILIES = (convert, create, mask, random)
PROPERTIES = convert.PROPERTIES | {"T": reversed_dims, "H": adjoint, "mT": adjoint, "mH": adjoint}
_REFLECTED = "add sub mul truediv pow floordiv mod matmul and or xor lshift rshift".split()
_WRITTEN = "add sub mul truediv pow floordiv mod and or xor".split()


def _reflected(operation: Callable) -> Callable:
    def method(self: Tensor, other: Any) -> Tensor:
        return operation(other, self)

    return method


def _comparable(operation: Callable) -> Callable:
    """`==` and `!=`: by identity, as Python does, with what is neither tensor nor number (`t == None` is False)."""

    def method(self: Tensor, other: Any) -> Any:
        if other is None or isinstance(other, (str, bytes)):
            return NotImplemented
        return operation(self, other)

    return method


def _method_of(operation: Callable) -> bool:
    try:
        first = next(iter(inspect.signature(operation).parameters), None)
    except (TypeError, ValueError):
        return False
    return first == "input"


def attach(ops: ModuleType) -> None:
    """Give Tensor its methods from the names that `ops` offers."""
    for name in ops.__all__:
        operation = getattr(ops, name)
        if callable(operation) and not hasattr(Tensor, name) and _method_of(operation):
            setattr(Tensor, name, operation)
    for name in INPLACE:
        operation = getattr(ops, name, None)
        if operation is not None:
            make = reshaping if name in _RESHAPING else inplace
            setattr(Tensor, f"{name}_", make(operation, f"{name}_"))
    for family in FAMILIES:
        for name, method in family.METHODS.items():
            setattr(Tensor, name, method)
    for name, get in PROPERTIES.items():
        setattr(Tensor, name, property(get))
    for special, name in OPERATORS.items():
        operation = getattr(arithmetic, f"plain_{name}", None) or getattr(ops, name, None)
        if operation is not None:
            setattr(Tensor, special, _comparable(operation) if special in ("__eq__", "__ne__") else operation)
    for stem in _REFLECTED:
        operation = getattr(ops, OPERATORS[f"__{stem}__"], None)
        if operation is not None:
            setattr(Tensor, f"__r{stem}__", _reflected(operation))
    for stem in _WRITTEN:
        name = OPERATORS[f"__{stem}__"]
        if getattr(ops, name, None) is not None:
            setattr(
                Tensor,
                f"__i{stem}__",
                getattr(Tensor, f"{name}_", None) or inplace(getattr(ops, name), f"{name}_"),
            )
    Tensor.__hash__ = object.__hash__  # type: ignore[method-assign, assignment]
