"""Dtypes are NumPy's; promotion is PyTorch's."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

__all__ = [
    "as_dtype", "bfloat16", "bool_", "complex64", "complex128", "finfo", "float16", "float32", "float64",
    "get_default_dtype", "iinfo", "int8", "int16", "int32", "int64", "is_floating", "promote_types", "result_type",
    "set_default_dtype", "uint8", "uint16", "uint32", "uint64",
]  # fmt: skip

bool_ = np.bool_
uint8, uint16, uint32, uint64 = np.uint8, np.uint16, np.uint32, np.uint64
int8, int16, int32, int64 = np.int8, np.int16, np.int32, np.int64
float16, float32, float64 = np.float16, np.float32, np.float64
bfloat16 = ml_dtypes.bfloat16
complex64, complex128 = np.complex64, np.complex128

_BFLOAT16 = np.dtype(bfloat16)
_default = [np.dtype(np.float32)]
_ALIASES = {
    "bool": np.bool_, "half": np.float16, "float": np.float32, "double": np.float64, "bfloat16": bfloat16,
    "short": np.int16, "int": np.int32, "long": np.int64, "cfloat": np.complex64, "cdouble": np.complex128,
}  # fmt: skip


def get_default_dtype() -> np.dtype:
    """The dtype of new floating-point tensors; float32 unless changed.

    >>> import cuframe as cf
    >>> cf.get_default_dtype(), cf.zeros(2).dtype
    (dtype('float32'), dtype('float32'))
    """
    return _default[0]


def set_default_dtype(dtype: Any) -> None:
    """Set the dtype of new floating-point tensors.

    Raises:
        TypeError: the dtype is not floating point.

    >>> import cuframe as cf
    >>> cf.set_default_dtype(cf.float64)
    >>> cf.zeros(2).dtype
    dtype('float64')
    >>> cf.set_default_dtype(cf.float32)
    """
    kind = as_dtype(dtype)
    if not is_floating(kind):
        raise TypeError(f"set_default_dtype: needs a floating point dtype, got {kind.name}")
    _default[0] = kind


@lru_cache(maxsize=256)
def _as_dtype(dtype: Any) -> np.dtype:
    if isinstance(dtype, str):
        name = dtype.rpartition(".")[2]
        dtype = _ALIASES.get(name, name)
    elif dtype is float:
        return _default[0]
    elif dtype is int:
        return np.dtype(np.int64)
    try:
        return np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype: {dtype!r} is not a dtype; use e.g. cf.float32 or 'float32'") from None


def as_dtype(dtype: Any) -> np.dtype:
    """The NumPy dtype of a dtype, a scalar type or a name such as `"float32"`, `"bfloat16"` or `"long"`.

    Raises:
        TypeError: it names no dtype.

    >>> import cuframe as cf
    >>> cf.as_dtype("half"), cf.as_dtype(int)
    (dtype('float16'), dtype('int64'))
    """
    return _default[0] if dtype is float else _as_dtype(dtype)


def is_floating(dtype: Any) -> bool:
    """True for float16, bfloat16, float32 and float64.

    Args:
        dtype: a NumPy dtype, as `Tensor.dtype`.

    >>> import cuframe as cf
    >>> cf.is_floating(cf.ones(1).dtype), cf.is_floating(cf.arange(1).dtype)
    (True, False)
    """
    return dtype.kind == "f" or dtype == _BFLOAT16


def _category(dtype: np.dtype) -> int:
    """bool 0, integers 1, floating 2, complex 3."""
    kind = dtype.kind
    return 0 if kind == "b" else 1 if kind in "iu" else 3 if kind == "c" else 2


@lru_cache(maxsize=1024)
def _promote(a: np.dtype, b: np.dtype) -> np.dtype:
    ca, cb = _category(a), _category(b)
    if ca != cb:
        if max(ca, cb) < 2:
            return a if ca > cb else b
        high, low = (a, b) if ca > cb else (b, a)
        if max(ca, cb) == 3 and min(ca, cb) == 2 and low == np.float64:
            return np.dtype(np.complex128)
        return high  # a floating dtype absorbs integers of any width
    if ca == 2 and a != b and _BFLOAT16 in (a, b):
        other = b if a == _BFLOAT16 else a
        return np.dtype(np.float32) if other == np.float16 else other
    return np.promote_types(a, b) if not {a, b} == {np.dtype(np.uint64), np.dtype(np.int64)} else np.dtype(np.int64)


def promote_types(a: Any, b: Any) -> np.dtype:
    """The dtype that an operation on tensors of dtypes `a` and `b` works in.

    >>> import cuframe as cf
    >>> cf.promote_types(cf.int64, cf.float32)
    dtype('float32')
    """
    return _promote(as_dtype(a), as_dtype(b))


def _rank_and_dtype(value: Any) -> tuple[int, np.dtype]:
    """Python scalars yield to 0-d tensors and those to the rest, within one category."""
    array = getattr(value, "array", value)
    if hasattr(array, "dtype") and hasattr(array, "ndim"):
        return (2 if array.ndim else 1), array.dtype
    if isinstance(value, bool):
        return 0, np.dtype(np.bool_)
    if isinstance(value, int):
        return 0, np.dtype(np.int64)
    if isinstance(value, float):
        return 0, _default[0]
    if isinstance(value, complex):
        return 0, np.dtype(np.complex128 if _default[0] == np.float64 else np.complex64)
    raise TypeError(f"expected a tensor or a number, got {type(value).__name__}")


def result_type(*values: Any) -> np.dtype:
    """The dtype that an operation on these tensors and numbers works in.

    A number, or a 0-d tensor beside others, changes the dtype only where its category (bool < integer < floating <
    complex) is higher.

    >>> import cuframe as cf
    >>> cf.result_type(cf.ones(2, dtype=cf.float16), 2.5)
    dtype('float16')
    """
    best: list[np.dtype | None] = [None, None, None]
    for value in values:
        rank, dtype = _rank_and_dtype(value)
        known = best[rank]
        best[rank] = dtype if known is None else _promote(known, dtype)
    result: np.dtype | None = None
    for dtype in reversed(best):
        if dtype is not None and (result is None or _category(dtype) > _category(result)):
            result = dtype
    if result is None:
        raise TypeError("result_type: needs at least one tensor or number")
    return result


def finfo(dtype: Any) -> Any:
    """Limits of a floating-point dtype (`eps`, `max`, `tiny`, ...).

    >>> import cuframe as cf
    >>> float(cf.finfo(cf.float16).max), float(cf.finfo(cf.bfloat16).eps)
    (65504.0, 0.0078125)
    """
    kind = as_dtype(dtype)
    if not is_floating(kind):
        raise TypeError(f"finfo: dtype must be floating point, got {kind.name}")
    return ml_dtypes.finfo(kind) if kind == _BFLOAT16 else np.finfo(kind)


def iinfo(dtype: Any) -> np.iinfo:
    """Limits of an integer dtype.

    Raises:
        TypeError: it is no integer dtype.

    >>> import cuframe as cf
    >>> cf.iinfo(cf.int8).max
    127
    """
    kind = as_dtype(dtype)
    if kind.kind not in "iu":
        raise TypeError(f"iinfo: dtype must be an integer dtype, got {kind.name}")
    return np.iinfo(kind)
